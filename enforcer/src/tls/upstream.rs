//! What is demanded of a target: the same as a careful client would demand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{TlsError, provider};

/// How many workloads have their sessions kept for resumption.
const MAX_WORKLOADS: u64 = 256;
/// How many targets a workload resumes sessions with.
const MAX_SESSIONS: usize = 64;
/// How long sessions are resumed before all are forgotten. A resumed session
/// shows no certificate, so this is how long one is believed after it was
/// verified: a busy workload too notices that it has expired.
const KEPT: Duration = Duration::from_secs(3600);

/// Client configurations: one a workload and protocol offer. A session that one
/// workload made is never resumed by another.
pub struct Upstream {
    base: ClientConfig,
    cache: Cache<(u64, Vec<Vec<u8>>), Arc<ClientConfig>>,
}

impl Upstream {
    /// The host's roots, and those of `ca_file` if there is one.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        Self::with_roots(roots(ca_file)?)
    }

    /// Exactly these roots.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, TlsError> {
        let base = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_webpki_verifier(verifier(roots)?)
            .with_no_client_auth();
        let cache = Cache::builder().max_capacity(MAX_WORKLOADS).time_to_live(KEPT).build();
        Ok(Self { base, cache })
    }

    /// For a connection of this workload that offers these protocols.
    pub async fn config(&self, tag: u64, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let alpn: Vec<Vec<u8>> = alpn.iter().map(|name| name.to_vec()).collect();
        let make = async {
            let mut config = self.base.clone();
            config.alpn_protocols.clone_from(&alpn);
            config.resumption = Resumption::in_memory_sessions(MAX_SESSIONS);
            config.enable_early_data = false;
            Arc::new(config)
        };
        self.cache.get_with((tag, alpn.clone()), make).await
    }
}

/// The host's roots, and those of `ca_file` if there is one.
pub fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        let error = |cause: String| TlsError::File { path: path.to_path_buf(), cause };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))? {
            let certificate = certificate.map_err(|e| error(e.to_string()))?;
            roots.add(certificate).map_err(|e| error(e.to_string()))?;
        }
    }
    Ok(roots)
}

/// What judges a target's chain: webpki with these roots, and nothing switched off.
pub fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| TlsError::Rustls(rustls::Error::General(error.to_string())))
}

/// Why a target was not accepted, as it stands in the recording.
pub fn reason(error: &rustls::Error) -> &'static str {
    use rustls::Error::{AlertReceived, InvalidCertificate, PeerIncompatible};
    match error {
        InvalidCertificate(certificate) => certificate_reason(certificate),
        AlertReceived(_) => "upstream-tls-alert",
        PeerIncompatible(_) => "upstream-tls-incompatible",
        rustls::Error::NoApplicationProtocol => "upstream-no-common-protocol",
        _ => "upstream-tls-failed",
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "upstream-certificate-expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "upstream-certificate-not-yet-valid",
        E::NotValidForName | E::NotValidForNameContext { .. } => "upstream-certificate-wrong-host",
        E::UnknownIssuer => "upstream-certificate-unknown-issuer",
        E::Revoked => "upstream-certificate-revoked",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "upstream-certificate-wrong-purpose",
        E::BadSignature => "upstream-certificate-bad-signature",
        _ => "upstream-certificate-invalid",
    }
}
