//! What a job trusts: the host's roots and this CA, beside each other, in files
//! that are mounted into the job alone. The host's own store stays as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::launch::roots::CA_FILE;

use super::java;

/// Where hosts keep the bundle, most common first.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];
/// The folder with a hash link for each root.
pub const CERTS: &str = "/etc/ssl/certs";
/// The name by which units bind the newest roots.
const NEWEST: &str = "current";
/// Changes with the form of what is made, so that a new release makes it anew.
const FORM: &[u8] = b"2";

/// The files that are made for jobs.
#[derive(Debug, Clone)]
pub struct Trust {
    pub bundle: PathBuf,
    /// A copy of `CERTS` with this CA in it; none if the host has no such folder.
    pub certs: Option<PathBuf>,
    /// The same roots in the form that Java reads.
    pub java: PathBuf,
}

impl Trust {
    /// Makes them below `dir`, in a folder of their own for each state of the
    /// host's roots. What is there stays: jobs that run on after a restart of the
    /// loader have it mounted.
    pub fn build(dir: &Path, ca_pem: &str) -> Result<Self> {
        let host = BUNDLES.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let all = format!("{host}\n{ca_pem}");
        let mut state = blake3::Hasher::new();
        state.update(FORM).update(all.as_bytes());
        let java = java::store(&all);
        state.update(&java);
        let has_certs = Path::new(CERTS).is_dir();
        if has_certs {
            describe(Path::new(CERTS), &mut state).context("reading the host's roots")?;
        }
        let made = dir.join(&state.finalize().to_hex()[..16]);
        if !made.exists() {
            // Under another name until it is whole.
            let begun = made.with_extension("new");
            if begun.exists() {
                fs::remove_dir_all(&begun)?;
            }
            fs::create_dir_all(&begun)?;
            write(&begun.join("bundle.pem"), all.as_bytes())?;
            write(&begun.join("cacerts"), &java)?;
            if has_certs {
                make_certs(&begun.join("certs"), &all, ca_pem, &java)?;
            }
            fs::rename(&begun, &made)?;
        }
        point(dir, &made).context("the name of the newest roots")?;
        let (bundle, java) = (made.join("bundle.pem"), made.join("cacerts"));
        Ok(Self { bundle, certs: has_certs.then(|| made.join("certs")), java })
    }

    /// What a unit has to bind where, to trust this CA: the newest roots by a name that
    /// stays, over the stores that `real` finds on the host.
    pub fn binds(run: &Path, real: impl Fn(&Path) -> Option<PathBuf>) -> Vec<(PathBuf, PathBuf)> {
        let newest = run.join("trust").join(NEWEST);
        let certs = real(Path::new(CERTS));
        let mut over: Vec<PathBuf> = BUNDLES.iter().filter_map(|path| real(Path::new(path))).collect();
        over.retain(|path| certs.as_ref().is_none_or(|certs| !path.starts_with(certs)));
        over.sort();
        over.dedup();
        let bundles = over.into_iter().map(|over| (newest.join("bundle.pem"), over));
        certs.map(|certs| (newest.join("certs"), certs)).into_iter().chain(bundles).collect()
    }

    /// What is mounted where, read-only. A job may name the Java that it runs.
    pub fn mounts(&self, java_home: Option<&Path>) -> Vec<(PathBuf, PathBuf)> {
        let mut mounts: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let covered = |real: &Path| self.certs.is_some() && real.starts_with(CERTS);
        let bundles = BUNDLES.iter().filter_map(|path| fs::canonicalize(path).ok());
        mounts.extend(bundles.filter(|real| !covered(real)).map(|real| (real, self.bundle.clone())));
        let stores = java::places(java_home).into_iter();
        mounts.extend(stores.filter(|real| !covered(real)).map(|real| (real, self.java.clone())));
        let certs = self.certs.iter().map(|certs| (certs.clone(), PathBuf::from(CERTS)));
        certs.chain(mounts.into_iter().map(|(over, from)| (from, over))).collect()
    }

    /// The name under which OpenSSL looks for this CA in a folder of roots, as far as
    /// this host could find it out.
    pub fn hash_link(&self) -> Option<String> {
        let entries = fs::read_dir(self.certs.as_ref()?).ok()?.flatten();
        let mut ours = entries
            .filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == Path::new(CA_FILE)));
        Some(ours.next()?.file_name().to_string_lossy().into_owned())
    }

    /// Variables for clients that do not look where the host keeps its roots.
    /// Each names the full bundle: most of them replace the store.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let bundle = self.bundle.display().to_string();
        let mut variables: Vec<(&'static str, String)> = [
            "SSL_CERT_FILE",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "AWS_CA_BUNDLE",
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
            "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "CARGO_HTTP_CAINFO",
            "BUNDLE_SSL_CA_CERT",
            "npm_config_cafile",
            "CODEX_CA_CERTIFICATE",
            "HTTPLIB2_CA_CERTS",
            "NIX_SSL_CERT_FILE",
            "PERL_LWP_SSL_CA_FILE",
        ]
        .map(|name| (name, bundle.clone()))
        .to_vec();
        if self.certs.is_some() {
            // Hash links; a folder of the caller's own would be looked at instead.
            variables.push(("SSL_CERT_DIR", CERTS.to_owned()));
        }
        variables.extend(
            [("DENO_TLS_CA_STORE", "system"), ("NODE_USE_SYSTEM_CA", "1"), ("UV_SYSTEM_CERTS", "1")]
                .map(|(name, value)| (name, value.to_owned())),
        );
        variables
    }
}

/// Lets the name that stays lead to the newest roots, in one step.
fn point(dir: &Path, made: &Path) -> io::Result<()> {
    let (name, begun) = (dir.join(NEWEST), dir.join("current.new"));
    let target = Path::new(made.file_name().unwrap_or_default());
    if fs::read_link(&name).is_ok_and(|before| before == target) {
        return Ok(());
    }
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &begun)?;
    fs::rename(&begun, &name)
}

fn make_certs(certs: &Path, all: &str, ca_pem: &str, java: &[u8]) -> Result<()> {
    copy(Path::new(CERTS), certs).context("copying the host's roots")?;
    write(&certs.join("ca-certificates.crt"), all.as_bytes())?;
    write(&certs.join(CA_FILE), ca_pem.as_bytes())?;
    hash_link(certs, CA_FILE);
    let store = certs.join("java/cacerts");
    if store.exists() {
        write(&store, java)?;
    }
    Ok(())
}

/// What of a folder decides whether its copy is still good: names, what they lead
/// to, sizes and times.
fn describe(folder: &Path, state: &mut blake3::Hasher) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            describe(&path, state)?;
        } else if let (Ok(real), Ok(found)) = (fs::canonicalize(&path), fs::metadata(&path)) {
            let line =
                format!("{}\0{}\0{}\0{:?}\n", path.display(), real.display(), found.len(), found.modified()?);
            state.update(line.as_bytes());
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // It may be a link into the host's store: that is not to be written through.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Copies a folder: files by content, links as links that still reach the host's files.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if let Ok(real) = fs::canonicalize(entry.path()) {
            fs::copy(real, target)?;
        }
    }
    Ok(())
}

/// `1a2b3c4d.0`, by which OpenSSL finds a root in a folder.
fn hash_link(certs: &Path, name: &str) {
    let out = Command::new("openssl")
        .args(["x509", "-noout", "-subject_hash", "-in"])
        .arg(certs.join(name))
        .stderr(Stdio::null())
        .output();
    let hash = out.ok().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let Some(hash) = hash.filter(|hash| hash.len() == 8) else {
        tracing::warn!("no `openssl`: clients that look roots up by hash do not find the CA");
        return;
    };
    if let Err(error) = std::os::unix::fs::symlink(name, certs.join(format!("{hash}.0"))) {
        tracing::warn!(%error, "the hash link of the CA");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_a_running_job_has_mounted_stays_when_it_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Trust::build(dir.path(), "one\n").unwrap();
        let inode = fs::metadata(&first.bundle).unwrap().ino();
        let again = Trust::build(dir.path(), "one\n").unwrap();
        assert_eq!((&again.bundle, fs::metadata(&again.bundle).unwrap().ino()), (&first.bundle, inode));
        let other = Trust::build(dir.path(), "two\n").unwrap();
        assert_ne!(other.bundle, first.bundle);
        // Units bind the newest, by a name that stays.
        let newest = dir.path().join(NEWEST).join("bundle.pem");
        assert!(fs::read_to_string(&newest).unwrap().ends_with("two\n"));
        Trust::build(dir.path(), "one\n").unwrap();
        assert!(fs::read_to_string(&newest).unwrap().ends_with("one\n"));
        assert!(fs::read_to_string(&first.bundle).unwrap().ends_with("one\n"));
    }

    #[test]
    fn a_unit_binds_the_folder_and_the_bundles_that_are_not_in_it() {
        let binds = |there: &[(&str, &str)]| -> Vec<String> {
            let real = |path: &Path| {
                let found = there.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, real)| PathBuf::from(real))
            };
            let binds = Trust::binds(Path::new("/run/enforcer"), real).into_iter();
            binds.map(|(from, over)| format!("{}:{}", from.display(), over.display())).collect()
        };
        let debian = [(CERTS, CERTS), (BUNDLES[0], BUNDLES[0]), (BUNDLES[3], BUNDLES[0])];
        assert_eq!(binds(&debian), ["/run/enforcer/trust/current/certs:/etc/ssl/certs"]);
        let fedora = [(BUNDLES[1], BUNDLES[4]), (BUNDLES[4], BUNDLES[4])];
        assert_eq!(binds(&fedora), [format!("/run/enforcer/trust/current/bundle.pem:{}", BUNDLES[4])]);
        assert_eq!(binds(&[]), [""; 0]);
    }
}
