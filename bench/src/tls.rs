//! Certificates of a run, and both ends of TLS as the suite wants them: TLS 1.3,
//! X25519, no resumption.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The name of the upstream.
pub const NAME: &str = "bench.test";

/// The files of a run: `ca.pem`, `leaf.pem` and `leaf-key.pem`; `ca-both.pem` with the
/// CA's key, and `other-both.pem`, a leaf of another name with its key.
pub fn write_files(dir: &Path) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "bench CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![NAME.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, NAME);
    let leaf = params.signed_by(&key, &ca)?;
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).context(name.to_owned());
    write("ca.pem", ca.pem())?;
    write("ca-both.pem", ca.key().serialize_pem() + &ca.pem())?;
    write("leaf.pem", leaf.pem())?;
    write("leaf-key.pem", key.serialize_pem())?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["other.test".to_owned()])?.signed_by(&key, &ca)?;
    write("other-both.pem", key.serialize_pem() + &leaf.pem())
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

fn protocols(h2: bool) -> Vec<Vec<u8>> {
    if h2 { vec![b"h2".to_vec()] } else { vec![b"http/1.1".to_vec()] }
}

/// The load generator's side, with the roots in this file.
pub fn client(roots: &Path, h2: bool) -> Result<Arc<ClientConfig>> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots).with_context(|| roots.display().to_string())? {
        store.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols(h2);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// The upstream's side.
pub fn server(dir: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(dir.join("leaf.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("leaf-key.pem"))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
