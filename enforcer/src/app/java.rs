//! Java's own store of roots, which it reads in place of the host's bundle.
//!
//! It is written here and not by Java's own tool: that would be a Java machine run
//! by root at each start, and only where there is one. Every Java since the first
//! reads the form "JKS": a header, entries of an alias, a time and a certificate,
//! and a digest keyed by a password that is the same everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
/// An entry that holds a certificate, not a key.
const TRUSTED: u32 = 2;
/// The password that the store has everywhere.
const PASSWORD: &str = "changeit";
/// What the digest begins with, beside the password.
const SALT: &[u8] = b"Mighty Aphrodite";
/// The length of the digest, SHA-1, in bytes.
const DIGEST: usize = 20;
/// Where distributions install Java: a folder for each.
const HOMES: &[&str] = &["/usr/lib/jvm", "/usr/java", "/opt/java", "/opt"];
/// The host's store, to which the programs of its packages link.
const SHARED: &[&str] =
    &["/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/default/cacerts"];

/// A store that holds these certificates and those of the host's own, if that has a
/// form that is known here.
pub(super) fn store(pem: &str) -> Vec<u8> {
    let mut certificates: BTreeSet<Vec<u8>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().map(|one| one.to_vec()).collect();
    for path in SHARED {
        let own = fs::read(path).ok().and_then(|bytes| read(&bytes));
        certificates.extend(own.into_iter().flatten());
    }
    write(&certificates)
}

/// Stores that Java may read on this host: of each one that is installed, and of
/// the one that the job names.
pub(super) fn places(home_of_job: Option<&Path>) -> BTreeSet<PathBuf> {
    let installed = HOMES.iter().flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten());
    let homes = installed.map(|entry| entry.path()).chain(home_of_job.map(Path::to_path_buf));
    let stores = homes
        .flat_map(|home| ["lib/security/cacerts", "jre/lib/security/cacerts"].map(|store| home.join(store)));
    let shared = SHARED.iter().map(PathBuf::from);
    stores
        .chain(shared)
        .filter_map(|path| fs::canonicalize(path).ok())
        // A link of that name may lead anywhere: nothing else is covered, or told to exist.
        .filter(|path| path.is_file() && path.file_name().is_some_and(|name| name == "cacerts"))
        .collect()
}

fn write(certificates: &BTreeSet<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(MAGIC.to_be_bytes());
    out.extend(VERSION.to_be_bytes());
    out.extend(length(certificates.len()));
    for (number, certificate) in certificates.iter().enumerate() {
        out.extend(TRUSTED.to_be_bytes());
        text(&mut out, &format!("root{number}"));
        // When it was put in; nobody asks.
        out.extend(0u64.to_be_bytes());
        text(&mut out, "X.509");
        out.extend(length(certificate.len()));
        out.extend(certificate);
    }
    let mut keyed = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    keyed.update(&PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
    keyed.update(SALT);
    keyed.update(&out);
    out.extend(keyed.finish().as_ref());
    out
}

/// Certificates and their number are far below what does not fit.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

/// The certificates of a store; none if it has another form, or keys.
fn read(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = bytes.get(..bytes.len().checked_sub(DIGEST)?)?;
    let header = (number(&mut rest)?, number(&mut rest)?);
    if header != (MAGIC, VERSION) {
        return None;
    }
    let mut found = Vec::new();
    for _ in 0..number(&mut rest)? {
        if number(&mut rest)? != TRUSTED {
            return None;
        }
        short(&mut rest)?;
        take(&mut rest, 8)?;
        short(&mut rest)?;
        let length = usize::try_from(number(&mut rest)?).ok()?;
        found.push(take(&mut rest, length)?.to_vec());
    }
    Some(found)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take(rest, 2)?.try_into().ok().map(u16::from_be_bytes)?;
    take(rest, usize::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_cut_store_is_none() {
        let certificates = BTreeSet::from([vec![1, 2, 3], vec![4; 300]]);
        let store = write(&certificates);
        assert_eq!(read(&store).unwrap(), certificates.iter().cloned().collect::<Vec<_>>());
        for cut in 0..store.len() {
            assert_eq!(read(&store[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn an_empty_store_is_what_keytool_writes() {
        let digest = [
            0xe2, 0x68, 0x6e, 0x45, 0xfb, 0x43, 0xdf, 0xa4, 0xd9, 0x92, 0xdd, 0x41, 0xce, 0xb6, 0xb2, 0x1c,
            0x63, 0x30, 0xd7, 0x92,
        ];
        let store = write(&BTreeSet::new());
        assert_eq!(
            (&store[..12], &store[12..]),
            (&[0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2, 0, 0, 0, 0][..], &digest[..])
        );
    }

    #[test]
    fn the_store_of_the_home_that_a_job_names_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let security = dir.path().join("lib/security");
        fs::create_dir_all(&security).unwrap();
        assert!(!places(Some(dir.path())).iter().any(|path| path.starts_with(dir.path())));
        fs::write(security.join("cacerts"), "x").unwrap();
        let real = fs::canonicalize(security.join("cacerts")).unwrap();
        assert!(places(Some(dir.path())).contains(&real));
        std::fs::rename(&real, dir.path().join("other")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &real).unwrap();
        assert!(!places(Some(dir.path())).iter().any(|path| path.starts_with(dir.path())));
    }
}
