//! Limbo's cases, and both ends of TLS as a case wants them.

use std::sync::Arc;
use std::time::Duration;

use enforcer::tls::upstream;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::lenient::Lenient;

#[derive(Deserialize)]
pub struct Limbo {
    pub testcases: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub id: String,
    pub validation_kind: String,
    pub trusted_certs: Vec<String>,
    pub untrusted_intermediates: Vec<String>,
    pub peer_certificate: String,
    pub peer_certificate_key: Option<String>,
    pub validation_time: Option<String>,
    pub expected_result: String,
    pub expected_peer_name: Option<PeerName>,
    pub features: Vec<String>,
    pub extended_key_usage: Vec<String>,
    pub max_chain_depth: Option<u32>,
}

#[derive(Deserialize)]
pub struct PeerName {
    pub value: String,
}

/// What is known to differ: by whom, and in which direction.
#[derive(Deserialize)]
pub struct Deviation {
    pub id: String,
    pub expected: String,
}

/// Cases whose subject is not the verification of a chain as a client does it.
pub fn applies(case: &Case) -> bool {
    // We check no revocation list (soft-fail is what clients do), and a client
    // has no setting for the depth of a chain or for another key usage.
    case.validation_kind == "SERVER"
        && case.max_chain_depth.is_none()
        && !case.features.iter().any(|feature| feature == "has-crl")
        && case.extended_key_usage.iter().all(|usage| usage == "serverAuth")
        && case.expected_peer_name.is_some()
}

fn time(case: &Case) -> UnixTime {
    match &case.validation_time {
        None => UnixTime::now(),
        Some(text) => UnixTime::since_unix_epoch(Duration::from_secs(seconds(text))),
    }
}

/// Seconds since 1970 of `2024-01-01T00:00:00+00:00`; limbo writes no other zone.
fn seconds(text: &str) -> u64 {
    let field = |at: usize, len: usize| text[at..at + len].parse::<i64>().expect("a number");
    assert!(text.ends_with("+00:00") || text.ends_with('Z'), "{text}");
    let (year, month, day) = (field(0, 4), field(5, 2), field(8, 2));
    // Days since 1970 of a civil date (Howard Hinnant's algorithm).
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + field(11, 2) * 3600 + field(14, 2) * 60 + field(17, 2)).expect("after 1970")
}

#[derive(Debug)]
struct At(UnixTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// The leaf's own key; limbo has it for some cases, and a few of those are of kinds
/// that no server signs with any more.
fn own_key(case: &Case) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let key = PrivateKeyDer::from_pem_slice(case.peer_certificate_key.as_ref()?.as_bytes()).ok()?;
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()
}

/// The server of a case; None if its certificates are not even PEM.
pub fn server(case: &Case, key: &PrivateKeyDer<'static>) -> Option<Arc<rustls::ServerConfig>> {
    let other = || rustls::crypto::aws_lc_rs::sign::any_supported_type(key).unwrap();
    let key = own_key(case).unwrap_or_else(other);
    let mut chain = vec![der(&case.peer_certificate)?];
    for pem in &case.untrusted_intermediates {
        chain.push(der(pem)?);
    }
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    Some(Arc::new(config.with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))))))
}

/// What the proxy dials with, with the roots and at the time of a case; None if it
/// has no root at all, with which the service does not start.
pub fn client(case: &Case) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in &case.trusted_certs {
        // A root that cannot be read is no root; the chain is judged by the others.
        let _skipped = roots.add(der(root)?).is_err();
    }
    let verifier = upstream::verifier(roots).ok()?;
    let provider = enforcer::tls::provider();
    let builder = ClientConfig::builder_with_details(provider, Arc::new(At(time(case))));
    let builder =
        builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).unwrap();
    let config = if own_key(case).is_some() {
        builder.with_webpki_verifier(verifier)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient {
            verifier,
            name: None,
            keyless: true,
        }))
    };
    Some(Arc::new(config.with_no_client_auth()))
}
