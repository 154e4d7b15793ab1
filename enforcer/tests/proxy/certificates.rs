//! Leaves that are made for a job, and those that are not.

use std::sync::atomic::Ordering;

use crate::kit::{self, Kit, Options};

#[tokio::test]
async fn no_leaf_is_made_for_an_upstream_that_must_be_refused() {
    for options in
        [Options { expired: true, ..Options::default() }, Options { untrusted: true, ..Options::default() }]
    {
        let kit = Kit::start(options).await;
        let error = kit.tls("allowed.test", &[b"http/1.1"]).await.unwrap_err();
        assert!(error.to_string().contains("CertificateUnknown"), "{error}");
        assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
        kit.recorded_text("upstream-certificate-").await;
    }
    // The name is none of the certificate's.
    let kit = Kit::start(Options::default()).await;
    assert!(kit.tls("other.test", &[b"http/1.1"]).await.is_err());
    assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_upstream_decides_the_version() {
    let kit = Kit::start(Options { h1_only: true, ..Options::default() }).await;
    let stream = kit.tls("allowed.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_client_that_pins_its_roots_is_named() {
    let kit = Kit::start(Options::default()).await;
    let stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    let stranger = kit::Authority::new().client(&[b"http/1.1"]);
    let name = "allowed.test".to_owned().try_into().unwrap();
    let refused = tokio_rustls::TlsConnector::from(stranger).connect(name, stream).await;
    assert!(refused.is_err());
    kit.recorded_text("client-pins-roots").await;
}

#[tokio::test]
async fn a_passthrough_is_relayed_unread_and_recorded() {
    let kit = Kit::start(Options::default()).await;
    // The certificate is the upstream's own, which this client does not trust.
    let error = kit.tls("unread.test", &[b"http/1.1"]).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
    kit.recorded_text("\"event\":\"passthrough\"").await;
}
