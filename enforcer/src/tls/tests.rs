//! Real handshakes with our own leaves, and first messages in every cut.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use rustls_pki_types::ServerName;

use super::ca::Ca;
use super::hello::{HelloError, MAX_HELLO, Peek};
use super::leaf::LeafCache;
use super::server::Downstream;
use super::signer::Signer;
use super::*;

/// A cache whose signer runs in a thread of this process.
async fn leaves(ca: &Ca) -> LeafCache {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let signer = Signer::new(ca).unwrap();
    std::thread::spawn(move || signer.serve(theirs).unwrap());
    let cache = LeafCache::new(ca.certificate_der().unwrap()).unwrap();
    cache.replace_signer(ours).await.unwrap();
    cache
}

fn client(ca: &Ca, name: &str, alpn: &[&[u8]]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate_der().unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|one| one.to_vec()).collect();
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// Runs a handshake in memory; the error is the client's or the server's.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        if let Err(error) = client.process_new_packets() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            return Err(server.process_new_packets().err().unwrap_or(error));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_leaf_is_trusted_for_its_name_and_mirrors_the_protocol() {
    let ca = Ca::create().unwrap();
    let leaves = leaves(&ca).await;
    let downstream = Downstream::new().unwrap();
    for name in ["a.example", "192.0.2.1", "2001:db8::1", "_odd.b.example"] {
        let leaf = leaves.get(name).await.unwrap();
        let mut client = client(&ca, name, &[b"h2", b"http/1.1"]);
        let mut server = ServerConnection::new(downstream.config(leaf, Some(b"http/1.1"))).unwrap();
        shake(&mut client, &mut server).unwrap();
        assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
        client.writer().write_all(b"hello").unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut got = [0; 5];
        server.reader().read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
    }
}

#[tokio::test]
async fn a_leaf_of_another_name_or_another_host_is_refused() {
    let (ca, other) = (Ca::create().unwrap(), Ca::create().unwrap());
    let leaf = leaves(&ca).await.get("a.example").await.unwrap();
    let downstream = Downstream::new().unwrap();
    for (roots, name, pins) in [(&ca, "b.example", true), (&other, "a.example", true)] {
        let mut client = client(roots, name, &[]);
        let mut server = ServerConnection::new(downstream.config(Arc::clone(&leaf), None)).unwrap();
        let error = shake(&mut client, &mut server).unwrap_err();
        assert_eq!(client_pins_roots(&error), pins, "{name}: {error}");
    }
}

#[tokio::test]
async fn names_that_are_no_host_are_not_signed() {
    let ca = Ca::create().unwrap();
    let leaves = leaves(&ca).await;
    let long = "a".repeat(64);
    for name in ["", "*.example", "A.example", "a.example.", "a b", "a\0b", "a/b", "1.2.3", &long, "a..b"] {
        assert!(matches!(leaves.get(name).await.unwrap_err().as_ref(), TlsError::Name(_)), "{name}");
    }
    assert!(leaves.get("still.works.example").await.is_ok());
}

#[tokio::test]
async fn one_name_is_signed_once_and_no_two_serials_are_the_same() {
    let ca = Ca::create().unwrap();
    let leaves = leaves(&ca).await;
    let (a, b) = tokio::join!(leaves.get("a.example"), leaves.get("a.example"));
    assert!(Arc::ptr_eq(&a.as_ref().unwrap().clone(), &b.unwrap()));
    let c = leaves.get("c.example").await.unwrap();
    let serial = |der: &[u8]| x509_parser::parse_x509_certificate(der).unwrap().1.raw_serial().to_vec();
    assert_ne!(serial(&a.unwrap().cert[0]), serial(&c.cert[0]));
}

#[tokio::test]
async fn a_dead_signer_is_an_error_and_a_new_one_works() {
    let ca = Ca::create().unwrap();
    let cache = LeafCache::new(ca.certificate_der().unwrap()).unwrap();
    assert!(matches!(cache.get("a.example").await.unwrap_err().as_ref(), TlsError::Signer(_)));
    let (ours, theirs) = UnixStream::pair().unwrap();
    cache.replace_signer(ours).await.unwrap();
    drop(theirs);
    assert!(matches!(cache.get("a.example").await.unwrap_err().as_ref(), TlsError::Signer(_)));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let signer = Signer::new(&ca).unwrap();
    std::thread::spawn(move || signer.serve(theirs).unwrap());
    cache.replace_signer(ours).await.unwrap();
    assert!(cache.get("a.example").await.is_ok());
}

#[tokio::test]
async fn a_signer_that_begins_late_is_waited_for_and_one_that_ends_is_not() {
    let ca = Ca::create().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cache = Arc::new(LeafCache::new(ca.certificate_der().unwrap()).unwrap());
    cache.replace_signer(ours).await.unwrap();
    let waiting = Arc::clone(&cache);
    let mut begun = tokio::spawn(async move { waiting.signer_begun().await });
    let soon = std::time::Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, &mut begun).await.is_err(), "nobody serves yet");
    let signer = Signer::new(&ca).unwrap();
    std::thread::spawn(move || signer.serve(theirs).unwrap());
    begun.await.unwrap().unwrap();
    assert!(cache.get("a.example").await.is_ok());
    let (ours, theirs) = UnixStream::pair().unwrap();
    cache.replace_signer(ours).await.unwrap();
    drop(theirs);
    assert!(matches!(cache.signer_begun().await, Err(TlsError::Signer(_))));
}

#[test]
fn a_ca_is_made_once_and_its_key_is_for_root_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("ca");
    let first = Ca::load_or_create(&dir).unwrap();
    let again = Ca::load_or_create(&dir).unwrap();
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    let mode = std::fs::metadata(dir.join("ca.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(dir.join("ca.key"), "damaged").unwrap();
    assert!(matches!(Ca::load_or_create(&dir), Err(TlsError::Ca(_))));
}

#[test]
fn a_key_that_others_can_read_or_that_is_another_ones_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    Ca::load_or_create(dir).unwrap();
    let key = dir.join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(Ca::load_or_create(dir), Err(TlsError::File { .. })));
    std::fs::write(&key, Ca::create().unwrap().key_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Ca::load_or_create(dir), Err(TlsError::Ca(_))));
    std::fs::rename(&key, dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(dir.join("elsewhere"), &key).unwrap();
    assert!(matches!(Ca::load_or_create(dir), Err(TlsError::File { .. })));
}

#[tokio::test]
async fn a_leaf_lives_a_day_and_is_for_its_name_alone() {
    let ca = Ca::create().unwrap();
    let leaf = leaves(&ca).await.get("a.example").await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.cert[0]).unwrap();
    let validity = parsed.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 24 * 3600);
    assert!(!parsed.is_ca());
    let names = parsed.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(names.general_names, [x509_parser::extensions::GeneralName::DNSName("a.example")]);
}

/// A client that hangs up while its leaf is made leaves no answer behind that
/// another name would get.
#[tokio::test]
async fn a_caller_that_goes_away_does_not_mix_up_answers() {
    let ca = Ca::create().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let cache = LeafCache::new(ca.certificate_der().unwrap()).unwrap();
    cache.replace_signer(ours).await.unwrap();
    let soon = std::time::Duration::from_millis(50);
    let asked = tokio::time::timeout(soon, cache.get("gone.example")).await;
    assert!(asked.is_err(), "nobody answers yet");
    let signer = Signer::new(&ca).unwrap();
    std::thread::spawn(move || signer.serve(theirs).unwrap());
    let leaf = cache.get("kept.example").await.unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.cert[0]).unwrap();
    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names[..], [x509_parser::extensions::GeneralName::DNSName("kept.example")]);
}

#[test]
fn an_encrypted_hello_is_seen() {
    let plain = hello("a.example");
    let mut peek = Peek::default();
    assert!(!peek.push(&plain).unwrap().unwrap().ech);
    // The extension at the end of the list, and all lengths around it.
    let added = [0xfe, 0x0d, 0, 12, 0, 0, 1, 0, 1, 7, 0, 1, 9, 0, 1, 9];
    let mut with = plain.clone();
    with.extend_from_slice(&added);
    let grow = |bytes: &mut [u8]| {
        let old = u16::from_be_bytes([bytes[0], bytes[1]]);
        bytes[..2].copy_from_slice(&(old + 16).to_be_bytes());
    };
    grow(&mut with[3..]);
    grow(&mut with[7..]);
    let session = usize::from(plain[43]);
    let suites = usize::from(u16::from_be_bytes([plain[44 + session], plain[45 + session]]));
    grow(&mut with[48 + session + suites..]);
    let mut peek = Peek::default();
    let seen = peek.push(&with).unwrap().unwrap();
    assert!(seen.ech);
    assert_eq!(seen.sni.as_deref(), Some("a.example"));
}

fn hello(name: &str) -> Vec<u8> {
    let mut client = client(&Ca::create().unwrap(), name, &[b"h2", b"http/1.1"]);
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    wire
}

#[test]
fn a_first_message_is_read_in_every_cut() {
    let whole = hello("MiXed.example");
    for cut in 1..whole.len() {
        let mut peek = Peek::default();
        assert_eq!(peek.push(&whole[..cut]).unwrap(), None, "cut at {cut}");
        let hello = peek.push(&whole[cut..]).unwrap().unwrap();
        assert_eq!(hello.sni.as_deref(), Some("mixed.example"));
        assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(peek.into_raw(), whole);
    }
}

#[test]
fn a_first_message_in_records_of_one_byte_is_read() {
    let whole = hello("a.example");
    let (head, body) = whole.split_at(5);
    let mut peek = Peek::default();
    let mut found = None;
    for byte in body {
        assert_eq!(found, None);
        let record = [head[0], head[1], head[2], 0, 1, *byte];
        found = peek.push(&record).unwrap();
    }
    assert_eq!(found.unwrap().sni.as_deref(), Some("a.example"));
}

#[test]
fn what_is_no_tls_or_too_long_is_refused() {
    assert_eq!(Peek::default().push(b"GET / HTTP/1.1\r\n"), Err(HelloError::NotTls));
    let mut peek = Peek::default();
    let mut endless = vec![0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff];
    endless.resize(MAX_HELLO + 1, 0);
    assert_eq!(peek.push(&endless), Err(HelloError::TooLong));
    assert!(matches!(Peek::default().push(&[0x16, 9, 9, 9, 9, 9]), Err(HelloError::Malformed(_))));
    assert_eq!(hello("192.0.2.1").len(), {
        let whole = hello("192.0.2.1");
        let mut peek = Peek::default();
        assert_eq!(peek.push(&whole).unwrap().unwrap().sni, None);
        peek.into_raw().len()
    });
}

#[test]
fn an_upstream_without_roots_is_an_error() {
    assert!(matches!(upstream::Upstream::with_roots(RootCertStore::empty()), Err(TlsError::NoRoots)));
}
