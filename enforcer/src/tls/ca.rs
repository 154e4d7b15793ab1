//! The host's own CA: made once, never shared with another host.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::TlsError;

/// How long a CA is valid. It is trusted only inside the mounts that this host
/// makes for its own jobs, and replaced by removing its files.
const VALID: Duration = Duration::days(365);
/// Clocks of clients may be behind ours.
pub(super) const BACKDATED: Duration = Duration::hours(1);

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// The CA with its key: only the loader, which made it, and the signer have one.
pub struct Ca {
    certificate_pem: String,
    key_pem: zeroize::Zeroizing<String>,
}

impl Ca {
    /// Loads the CA of this folder, or makes one. The key is for root alone.
    pub fn load_or_create(dir: &Path) -> Result<Self, TlsError> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        if certificate.exists() && key.exists() {
            let ca =
                Self { certificate_pem: read(&certificate)?, key_pem: zeroize::Zeroizing::new(read(&key)?) };
            ca.issuer()?;
            return Ok(ca);
        }
        let ca = Self::create()?;
        fs::create_dir_all(dir).map_err(|error| file(dir, &error))?;
        // The key first: a certificate without a key would be taken for a whole CA.
        write(&key, ca.key_pem.as_bytes(), 0o600)?;
        write(&certificate, ca.certificate_pem.as_bytes(), 0o644)?;
        Ok(ca)
    }

    /// A CA out of what the loader passed.
    pub fn from_pem(certificate_pem: String, key_pem: String) -> Result<Self, TlsError> {
        let ca = Self { certificate_pem, key_pem: zeroize::Zeroizing::new(key_pem) };
        ca.issuer()?;
        Ok(ca)
    }

    /// A new CA that is kept nowhere.
    pub fn create() -> Result<Self, TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "enforcer");
        // Another host's CA has another name, so that a client that meets the wrong
        // one says "unknown issuer" and not "bad signature".
        let print = blake3::hash(&key.subject_public_key_info()).to_hex();
        name.push(DnType::CommonName, format!("enforcer CA {}", &print[..8]));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = OffsetDateTime::now_utc() - BACKDATED;
        params.not_after = OffsetDateTime::now_utc() + VALID;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate_pem: certificate.pem(), key_pem: zeroize::Zeroizing::new(key.serialize_pem()) })
    }

    /// The certificate, which jobs trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, to be passed to the signer and to nobody else.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate as it is sent along with a leaf.
    pub fn certificate_der(&self) -> Result<CertificateDer<'static>, TlsError> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| TlsError::Ca(error.to_string()))
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let key = KeyPair::from_pem(&self.key_pem).map_err(|error| TlsError::Ca(error.to_string()))?;
        Issuer::from_ca_cert_pem(&self.certificate_pem, key).map_err(|error| TlsError::Ca(error.to_string()))
    }
}

fn file(path: &Path, error: &std::io::Error) -> TlsError {
    TlsError::File { path: path.to_path_buf(), cause: error.to_string() }
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|error| file(path, &error))
}

/// Writes beside the file and renames, so that a crash leaves none or all of it.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let beside = path.with_extension("new");
    let write = || {
        if beside.exists() {
            fs::remove_file(&beside)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| file(path, &error))
}
