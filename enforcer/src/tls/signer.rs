//! The signer: a process that holds the CA's key and signs leaves, name by name.
//!
//! ```text
//! proxy -> signer   u16 BE length | SubjectPublicKeyInfo of the leaf key   (once)
//! proxy -> signer   u16 BE length | name
//! signer -> proxy   u8 status (0 signed, 1 bad name, 2 rate limit, 3 failed) | u16 BE length | leaf DER
//! ```
//!
//! It parses nothing but these frames. Whoever takes over the proxy gets leaves
//! for single names, at a limited rate, while it lasts; never the key.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Mutex;

use super::TlsError;
use super::ca::{BACKDATED, Ca};

/// How many leaves are signed in a second, on average.
pub const LEAVES_PER_SECOND: u32 = 100;
/// How many leaves are signed at once after a pause.
const LEAVES_BURST: u32 = 1000;
/// How long a leaf is valid, from an hour before it was signed.
pub const LEAF_VALID: Duration = Duration::hours(24);
/// The longest frame, in bytes.
const MAX_FRAME: usize = 4096;
/// The longest name (RFC 1035, 2.3.4), in bytes.
const MAX_NAME: usize = 253;
/// How long the proxy waits for an answer.
///
/// Without one it is given up, and with it every open connection: a host that is
/// merely busy must not come to that.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(5);

const SIGNED: u8 = 0;
const BAD_NAME: u8 = 1;
const RATE_LIMITED: u8 = 2;
const FAILED: u8 = 3;

/// A name for which a leaf may be made: one host name in lower case, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LeafName {
    Dns(String),
    Address(IpAddr),
}

impl LeafName {
    fn parse(name: &str) -> Result<Self, TlsError> {
        let bad = || TlsError::Name(name.chars().take(MAX_NAME).collect());
        if let Ok(address) = name.parse() {
            return Ok(Self::Address(address));
        }
        let dotted = name.ends_with('.') || name.bytes().any(|byte| byte.is_ascii_uppercase());
        if name.len() > MAX_NAME || dotted || DnsName::try_from(name).is_err() {
            return Err(bad());
        }
        // A name whose last label is a number would be read as an address by some.
        if name.rsplit('.').next().is_none_or(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(bad());
        }
        Ok(Self::Dns(name.to_owned()))
    }
}

/// The signer's side of one connection.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    limiter: DefaultDirectRateLimiter,
}

impl Signer {
    pub fn new(ca: &Ca) -> Result<Self, TlsError> {
        let per_second = NonZeroU32::new(LEAVES_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(LEAVES_BURST).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst));
        Ok(Self { issuer: ca.issuer()?, limiter })
    }

    /// Answers requests until the proxy is gone.
    pub fn serve(&self, mut stream: UnixStream) -> Result<(), TlsError> {
        let gone = |error: std::io::Error| TlsError::Signer(error.to_string());
        let Some(key) = read_frame(&mut stream).map_err(gone)? else { return Ok(()) };
        let key = SubjectPublicKeyInfo::from_der(&key)?;
        while let Some(name) = read_frame(&mut stream).map_err(gone)? {
            let (status, leaf) = match self.sign(&name, &key) {
                Ok(leaf) => (SIGNED, leaf),
                Err(TlsError::Name(_)) => (BAD_NAME, Vec::new()),
                Err(TlsError::RateLimited) => (RATE_LIMITED, Vec::new()),
                Err(_) => (FAILED, Vec::new()),
            };
            let mut answer = vec![status];
            answer.extend_from_slice(&u16::try_from(leaf.len()).unwrap_or(0).to_be_bytes());
            answer.extend_from_slice(&leaf);
            stream.write_all(&answer).map_err(gone)?;
        }
        Ok(())
    }

    fn sign(&self, name: &[u8], key: &SubjectPublicKeyInfo) -> Result<Vec<u8>, TlsError> {
        let name = std::str::from_utf8(name).map_err(|_| TlsError::Name(String::new()))?;
        let name = LeafName::parse(name)?;
        self.limiter.check().map_err(|_| TlsError::RateLimited)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "enforcer");
        params.subject_alt_names = vec![match name {
            LeafName::Dns(name) => SanType::DnsName(name.try_into()?),
            LeafName::Address(address) => SanType::IpAddress(address),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // All leaves share one key, from which the default serial is derived: two
        // certificates with one serial are refused by NSS.
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| TlsError::Signer("no randomness".to_owned()))?;
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = OffsetDateTime::now_utc() - BACKDATED;
        params.not_after = params.not_before + LEAF_VALID;
        Ok(params.signed_by(key, &self.issuer)?.der().to_vec())
    }
}

/// None at the end of the stream.
fn read_frame(stream: &mut UnixStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if let Err(error) = stream.read_exact(&mut length) {
        let ended = error.kind() == std::io::ErrorKind::UnexpectedEof;
        return if ended { Ok(None) } else { Err(error) };
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_FRAME {
        return Err(std::io::Error::other("a frame is longer than the signer takes"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// The proxy's side: one request at a time, since leaves are cached.
pub struct SignerClient {
    stream: Arc<Mutex<Option<tokio::net::UnixStream>>>,
    spki: Vec<u8>,
    ca: &'static [u8],
}

impl SignerClient {
    /// `spki` is the leaf key of this process, `ca` the certificate to send along.
    ///
    /// The CA's certificate is kept until the process ends, so that the leaves,
    /// thousands of them, can point to it instead of holding a copy each.
    pub fn new(spki: Vec<u8>, ca: CertificateDer<'static>) -> Self {
        let ca = Box::leak(ca.to_vec().into_boxed_slice());
        Self { stream: Arc::new(Mutex::new(None)), spki, ca }
    }

    /// Takes a connection to a signer that was just started.
    pub async fn replace(&self, stream: UnixStream) -> Result<(), TlsError> {
        let connect = async {
            stream.set_nonblocking(true)?;
            let mut stream = tokio::net::UnixStream::from_std(stream)?;
            stream.write_all(&frame(&self.spki)?).await?;
            Ok(stream)
        };
        let stream = connect.await.map_err(|error: std::io::Error| TlsError::Signer(error.to_string()))?;
        *self.stream.lock().await = Some(stream);
        Ok(())
    }

    /// Waits until the signer serves, however long it takes to begin: the time for an
    /// answer is not meant for that.
    pub async fn begun(&self) -> Result<(), TlsError> {
        let gone = |error: std::io::Error| TlsError::Signer(error.to_string());
        let mut slot = self.stream.lock().await;
        let stream = slot.as_mut().ok_or_else(|| TlsError::Signer("it is not running".to_owned()))?;
        // No name at all: whatever it says to that, it does answer.
        ask(stream, "").await.map_err(gone)?;
        Ok(())
    }

    /// A leaf for this name, with the CA's certificate behind it.
    ///
    /// The question is asked by a task of its own: a caller that goes away in the
    /// middle (its client hung up) would leave an answer behind, which the next
    /// caller would take for its own.
    pub async fn sign(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        LeafName::parse(name)?;
        let asked = tokio::spawn(answer(Arc::clone(&self.stream), name.to_owned()));
        let leaf = asked.await.map_err(|error| TlsError::Signer(error.to_string()))??;
        Ok(vec![CertificateDer::from(leaf), CertificateDer::from(self.ca)])
    }
}

async fn answer(
    stream: Arc<Mutex<Option<tokio::net::UnixStream>>>,
    name: String,
) -> Result<Vec<u8>, TlsError> {
    let mut slot = stream.lock().await;
    let Some(stream) = slot.as_mut() else {
        return Err(TlsError::Signer("it is not running".to_owned()));
    };
    let answer = match tokio::time::timeout(ANSWER, ask(stream, &name)).await {
        Ok(Ok(answer)) => answer,
        // What comes later would be taken for the answer to another question.
        Ok(Err(error)) => {
            *slot = None;
            return Err(TlsError::Signer(error.to_string()));
        }
        Err(_) => {
            *slot = None;
            return Err(TlsError::Signer(format!("no answer within {} s", ANSWER.as_secs())));
        }
    };
    match answer {
        (SIGNED, leaf) => Ok(leaf),
        (BAD_NAME, _) => Err(TlsError::Name(name)),
        (RATE_LIMITED, _) => Err(TlsError::RateLimited),
        _ => Err(TlsError::Signer("it could not sign".to_owned())),
    }
}

fn frame(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    Ok([&length.to_be_bytes()[..], bytes].concat())
}

async fn ask(stream: &mut tokio::net::UnixStream, name: &str) -> std::io::Result<(u8, Vec<u8>)> {
    stream.write_all(&frame(name.as_bytes())?).await?;
    let status = stream.read_u8().await?;
    let length = stream.read_u16().await?;
    let mut leaf = vec![0; usize::from(length)];
    stream.read_exact(&mut leaf).await?;
    Ok((status, leaf))
}
