//! Certificate validation: what x509-limbo wants refused as a server's chain is
//! refused by the verifier that the upstream side uses.
//!
//! With `ENFORCER_VECTORS` set, `limbo.json.xz` in that folder is read (by the
//! `xz` command); without it, the project's own few chains are all there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enforcer::tls::upstream;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Deserialize;

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    validation_kind: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
    expected_peer_name: Option<PeerName>,
    features: Vec<String>,
    extended_key_usage: Vec<String>,
    max_chain_depth: Option<u32>,
}

#[derive(Deserialize)]
struct PeerName {
    value: String,
}

/// What is known to differ: by whom, and in which direction.
#[derive(Deserialize)]
struct Deviation {
    id: String,
    expected: String,
}

/// Cases whose subject is not the verification of a chain as a client does it.
fn applies(case: &Case) -> bool {
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

fn der(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())
}

fn verify(case: &Case) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for root in &case.trusted_certs {
        // A root that cannot be read is no root; the chain is judged by the others.
        let _skipped = roots.add(der(root)?).is_err();
    }
    let verifier = upstream::verifier(roots).map_err(|error| error.to_string())?;
    let chain = case.untrusted_intermediates.iter().map(|pem| der(pem)).collect::<Result<Vec<_>, _>>()?;
    let name = &case.expected_peer_name.as_ref().expect("a name").value;
    let name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
    verifier
        .verify_server_cert(&der(&case.peer_certificate)?, &chain, &name, &[], time(case))
        .map(|_| ())
        .map_err(|error| upstream::reason(&error).to_owned())
}

fn read_limbo(dir: &Path) -> (Limbo, BTreeMap<String, String>) {
    let path = dir.join("limbo.json.xz");
    let out = Command::new("xz").arg("-dc").arg(&path).output().expect("the xz command");
    assert!(out.status.success(), "xz: {}", String::from_utf8_lossy(&out.stderr));
    let limbo = serde_json::from_slice(&out.stdout).expect("limbo's format");
    let pinned = std::fs::read_to_string(dir.join("limbo-rustls-deviations.json")).expect("the pinned list");
    let pinned: Vec<Deviation> = serde_json::from_str(&pinned).expect("the pinned list's format");
    (limbo, pinned.into_iter().map(|one| (one.id, one.expected)).collect())
}

#[test]
fn what_limbo_wants_refused_is_refused() {
    let Some(dir) = std::env::var_os("ENFORCER_VECTORS").map(PathBuf::from) else {
        return own_chains_are_judged();
    };
    let (limbo, pinned) = read_limbo(&dir);
    let (mut judged, mut differ) = (0, Vec::new());
    let mut known = 0;
    for case in limbo.testcases.iter().filter(|case| applies(case)) {
        judged += 1;
        let got = verify(case);
        let want = case.expected_result == "SUCCESS";
        if got.is_ok() == want {
            continue;
        }
        if pinned.get(&case.id) == Some(&case.expected_result) {
            known += 1;
        } else {
            differ.push(format!("{}: wanted {}, got {got:?}", case.id, case.expected_result));
        }
    }
    println!("{judged} chains judged, {known} differ as pinned, {} otherwise", differ.len());
    assert!(judged > 9000, "{judged} chains");
    assert!(differ.is_empty(), "{differ:#?}");
}

struct Chain {
    root: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
}

/// A root and a leaf below it, as `change` makes the leaf.
fn chain(change: impl FnOnce(&mut CertificateParams)) -> Chain {
    let key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    // Two roots of one name would be told apart by their signatures alone.
    root.distinguished_name.push(DnType::CommonName, format!("root {:?}", key.public_key_raw()));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = root.self_signed(&key).expect("a root");
    let issuer = Issuer::new(root, key);
    let mut leaf = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut leaf);
    let leaf = leaf.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a leaf");
    Chain { root: certificate.der().clone(), leaf: leaf.der().clone() }
}

fn judge(roots: &[&Chain], chain: &Chain, name: &'static str) -> Result<(), &'static str> {
    let mut store = RootCertStore::empty();
    for other in roots {
        store.add(other.root.clone()).expect("a root");
    }
    let verifier: Arc<dyn ServerCertVerifier> = upstream::verifier(store).expect("roots");
    let name = ServerName::try_from(name).expect("a name");
    verifier
        .verify_server_cert(&chain.leaf, &[], &name, &[], UnixTime::now())
        .map(|_| ())
        .map_err(|error| upstream::reason(&error))
}

#[test]
fn own_chains_are_judged() {
    let good = chain(|_| {});
    assert_eq!(judge(&[&good], &good, "a.test"), Ok(()));
    assert_eq!(judge(&[&good], &good, "b.test"), Err("upstream-certificate-wrong-host"));
    let stranger = chain(|_| {});
    assert_eq!(judge(&[&stranger], &good, "a.test"), Err("upstream-certificate-unknown-issuer"));
    let day = Duration::from_secs(86_400);
    let expired = chain(|leaf| leaf.not_after = (SystemTime::now() - day).into());
    assert_eq!(judge(&[&expired], &expired, "a.test"), Err("upstream-certificate-expired"));
    let early = chain(|leaf| leaf.not_before = (SystemTime::now() + day).into());
    assert_eq!(judge(&[&early], &early, "a.test"), Err("upstream-certificate-not-yet-valid"));
    let client = chain(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(judge(&[&client], &client, "a.test"), Err("upstream-certificate-wrong-purpose"));
    let common_name_only = chain(|leaf| leaf.subject_alt_names = Vec::new());
    assert_eq!(
        judge(&[&common_name_only], &common_name_only, "a.test"),
        Err("upstream-certificate-wrong-host")
    );
}
