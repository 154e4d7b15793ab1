//! A client that trusts the enforcer's CA and knows nothing of the proxy.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Kit;

pub type Sent = UnsyncBoxBody<Bytes, std::io::Error>;

pub enum Client {
    H1(http1::SendRequest<Sent>),
    H2(http2::SendRequest<Sent>),
}

pub fn empty() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

impl Kit {
    pub async fn tls(&self, name: &str, alpn: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.proxy).await?;
        let connector = tokio_rustls::TlsConnector::from(self.authority.client(alpn));
        connector.connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }

    pub async fn h1(&self, name: &str) -> Client {
        let io = TokioIo::new(self.tls(name, &[b"http/1.1"]).await.unwrap());
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Client::H1(sender)
    }

    pub async fn h2(&self, name: &str) -> Client {
        let stream = self.tls(name, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Client::H2(sender)
    }

    pub async fn client(&self, name: &str, h2: bool) -> Client {
        if h2 { self.h2(name).await } else { self.h1(name).await }
    }

    pub fn request(&self, host: &str, path: &str) -> http::request::Builder {
        let port = self.upstream.port();
        Request::builder().uri(format!("https://{host}:{port}{path}"))
    }
}

impl Client {
    pub async fn send(&mut self, request: Request<Sent>) -> hyper::Result<Response<Incoming>> {
        match self {
            Client::H1(sender) => {
                sender.ready().await?;
                let mut request = request;
                let authority = request.uri().authority().unwrap().to_string();
                request.headers_mut().entry("host").or_insert(authority.parse().unwrap());
                let path = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
                *request.uri_mut() = path;
                sender.send_request(request).await
            }
            Client::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

pub async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
