//! The host's own CA: made once, never shared with another host.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
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
/// A CA that ends within this time is replaced when it is loaded: what was made
/// with it may be in use for days.
const RENEWED: Duration = Duration::days(30);
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
            let key_pem = zeroize::Zeroizing::new(read_private(&key)?);
            let ca = Self { certificate_pem: read(&certificate)?, key_pem };
            if ca.ends()? > OffsetDateTime::now_utc() + RENEWED {
                ca.issuer()?;
                return Ok(ca);
            }
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

    /// When the certificate ends.
    fn ends(&self) -> Result<OffsetDateTime, TlsError> {
        let der = self.certificate_der()?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| TlsError::Ca(error.to_string()))?;
        Ok(parsed.validity().not_after.to_datetime())
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let key = KeyPair::from_pem(&self.key_pem).map_err(|error| TlsError::Ca(error.to_string()))?;
        let der = self.certificate_der()?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| TlsError::Ca(error.to_string()))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(TlsError::Ca("the key is not the certificate's".to_owned()));
        }
        Issuer::from_ca_cert_pem(&self.certificate_pem, key).map_err(|error| TlsError::Ca(error.to_string()))
    }
}

fn file(path: &Path, error: &std::io::Error) -> TlsError {
    TlsError::File { path: path.to_path_buf(), cause: error.to_string() }
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|error| file(path, &error))
}

/// Reads a key, which must be a file of ours that nobody else can read.
fn read_private(path: &Path) -> Result<String, TlsError> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| file(path, &error))?;
    let meta = opened.metadata().map_err(|error| file(path, &error))?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        let cause = "others can read or change it; it must be a file of ours with mode 0600";
        return Err(TlsError::File { path: path.to_path_buf(), cause: cause.to_owned() });
    }
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(|error| file(path, &error))?;
    Ok(text)
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
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    };
    write().map_err(|error| file(path, &error))
}
