//! Leaves that were signed, kept by name.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moka::future::Cache;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::signer::SignerClient;
use super::{TlsError, provider};

/// How many leaves are kept; one takes about half a KiB.
pub const MAX_LEAVES: u64 = 10_000;
/// A leaf is used for half of its life, so that no client sees one that is about to expire.
const KEPT: Duration = Duration::from_secs(12 * 3600);

#[derive(Clone)]
struct Leaf {
    key: Arc<CertifiedKey>,
    /// By the wall clock, which clients go by: it moves where the cache's own
    /// clock does not (a suspended host, a clock that is set).
    signed: SystemTime,
}

impl Leaf {
    fn is_current(&self) -> bool {
        SystemTime::now().duration_since(self.signed).is_ok_and(|age| age < KEPT)
    }
}

/// Gives every name its leaf; all share one P-256 key, which lives in this process.
pub struct LeafCache {
    signer: SignerClient,
    key: Arc<dyn rustls::sign::SigningKey>,
    cache: Cache<String, Leaf>,
}

impl LeafCache {
    pub fn new(ca: CertificateDer<'static>) -> Result<Self, TlsError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let spki = pair.subject_public_key_info();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = provider().key_provider.load_private_key(der)?;
        let cache = Cache::builder().max_capacity(MAX_LEAVES).time_to_live(KEPT).build();
        Ok(Self { signer: SignerClient::new(spki, ca), key, cache })
    }

    /// Takes the connection to a signer that was just started.
    pub async fn replace_signer(&self, stream: UnixStream) -> Result<(), TlsError> {
        self.signer.replace(stream).await
    }

    /// Waits until that signer serves; an error if it ends before.
    pub async fn signer_begun(&self) -> Result<(), TlsError> {
        self.signer.begun().await
    }

    /// The leaf of a canonical name or address; asked for once, however many wait.
    pub async fn get(&self, name: &str) -> Result<Arc<CertifiedKey>, Arc<TlsError>> {
        let mint = async {
            let chain = self.signer.sign(name).await?;
            let key = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.key)));
            Ok(Leaf { key, signed: SystemTime::now() })
        };
        if self.cache.get(name).await.is_some_and(|leaf| !leaf.is_current()) {
            self.cache.invalidate(name).await;
        }
        Ok(self.cache.try_get_with_by_ref(name, mint).await?.key)
    }

    /// How many leaves are kept.
    pub fn len(&self) -> u64 {
        self.cache.entry_count()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
