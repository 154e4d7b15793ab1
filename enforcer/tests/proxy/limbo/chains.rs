//! The project's own chains, judged without a connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use enforcer::tls::upstream;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

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
