//! An upstream that takes everything, and remembers it byte for byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;

use crate::origin::answer::full;
use crate::origin::{certificate, listen};

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub line: String,
    pub body: Vec<u8>,
}

/// A running server; it ends with the process.
pub struct Sink {
    pub address: SocketAddr,
    pub ca_pem: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    answers: Answers,
}

/// The type and the bytes of the answer for a path.
type Answers = Arc<Mutex<BTreeMap<String, (&'static str, Bytes)>>>;

impl Sink {
    /// Serves `name` on a loopback address that is not the proxy's.
    pub fn start(name: &str) -> Result<Self> {
        let (tls, ca_pem) = certificate(&[name])?;
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let answers = Answers::default();
        let (all, known) = (Arc::clone(&taken), Arc::clone(&answers));
        let address = listen("127.0.0.2:0", tls, move |request, _| {
            let (all, known) = (Arc::clone(&all), Arc::clone(&known));
            async move {
                let known =
                    known.lock().unwrap_or_else(PoisonError::into_inner).get(request.uri().path()).cloned();
                let line = format!("{} {}", request.method(), request.uri().path());
                let body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec());
                let whole = body.map(|body| Taken { line, body });
                let status = if whole.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(whole.ok());
                let (kind, bytes) = known.unwrap_or(("text/plain", Bytes::from_static(b"taken\n")));
                let mut response = full(kind, bytes);
                *response.status_mut() = status;
                response
            }
        })?;
        Ok(Self { address, ca_pem, taken, answers })
    }

    /// What is answered for a path from now on.
    pub fn says(&self, path: &str, kind: &'static str, bytes: impl Into<Bytes>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(path.to_owned(), (kind, bytes.into()));
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
