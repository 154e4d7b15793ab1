use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::look::{self, Entry, Found, Limits, Rights, Store};
use super::*;

const CA: &[u8] = b"-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

fn image() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("etc/ssl/certs")).unwrap();
    fs::write(dir.path().join(BUNDLE), "theirs").unwrap();
    dir
}

/// Of a file or folder that a test has made.
fn rights(path: &Path) -> Rights {
    let stat = rustix::fs::stat(path).unwrap();
    Rights { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & 0o777 }
}

fn mine() -> Rights {
    Rights { mode: 0o755, ..rights(Path::new("/proc/self/fd")) }
}

fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn look_at(root: &Path, limits: &Limits) -> Result<Found, RootsError> {
    look::look(&open(root), &open(Path::new("/proc/self/fd")), limits, CA)
}

fn stores(root: &Path) -> Vec<Store> {
    match look_at(root, &Limits::default()).unwrap() {
        Found::Stores(stores) => stores,
        Found::Nothing => panic!("no store"),
        Found::There => panic!("it is there"),
    }
}

fn folder(store: &Store) -> Vec<(&str, &Entry)> {
    let Entry::Certs(entries, _) = &store.content else { panic!("no folder of roots: {}", store.place) };
    let mut entries: Vec<_> = entries.iter().map(|(name, entry)| (name.to_str().unwrap(), entry)).collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

#[test]
fn a_folder_is_copied_with_its_bundle_known_and_its_links_as_they_are() {
    let image = image();
    let certs = image.path().join("etc/ssl/certs");
    fs::create_dir(certs.join("java")).unwrap();
    fs::write(certs.join("java/cacerts"), "store").unwrap();
    symlink("/usr/share/ca-certificates/one.crt", certs.join("one.pem")).unwrap();
    let stores = stores(image.path());
    assert_eq!(stores.len(), 1);
    assert_eq!(stores[0].place, "/etc/ssl/certs");
    let file = rights(&certs.join("java/cacerts"));
    let java = vec![("cacerts".into(), Entry::File(b"store".to_vec(), file))];
    let java = Entry::Folder(java, rights(&certs.join("java")));
    assert_eq!(
        folder(&stores[0]),
        [
            ("ca-certificates.crt", &Entry::Bundle(b"theirs".to_vec(), file)),
            ("java", &java),
            ("one.pem", &Entry::Link("/usr/share/ca-certificates/one.crt".into())),
        ]
    );
}

#[test]
fn a_bundle_that_links_lead_to_is_mounted_over_once_and_where_it_is() {
    let image = image();
    // As Red Hat's have it.
    fs::remove_dir_all(image.path().join("etc/ssl/certs")).unwrap();
    for folder in ["etc/pki/tls/certs", "etc/pki/ca-trust/extracted/pem"] {
        fs::create_dir_all(image.path().join(folder)).unwrap();
    }
    fs::write(image.path().join("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"), "theirs").unwrap();
    let absolute = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
    symlink(absolute, image.path().join("etc/pki/tls/certs/ca-bundle.crt")).unwrap();
    symlink("../pki/tls/certs", image.path().join("etc/ssl/certs")).unwrap();
    let stores = stores(image.path());
    assert_eq!(stores.len(), 1, "{:?}", stores.iter().map(|store| &store.place).collect::<Vec<_>>());
    let real = image.path().join(absolute.trim_start_matches('/'));
    assert_eq!(stores[0].content, Entry::Bundle(b"theirs".to_vec(), rights(&real)));
    let mounted_over = rustix::fs::fstat(&stores[0].target).unwrap().st_ino;
    assert_eq!(mounted_over, rustix::fs::stat(&real).unwrap().st_ino);
}

#[test]
fn an_image_without_a_bundle_has_no_store() {
    let image = image();
    fs::remove_file(image.path().join(BUNDLE)).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing));
    fs::remove_dir_all(image.path().join("etc")).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing));
}

#[test]
fn what_has_the_ca_is_left_alone() {
    let image = image();
    fs::write(image.path().join(BUNDLE), [b"theirs\n", CA].concat()).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::There));
    // In one of two: the other needs it.
    fs::write(image.path().join("etc/ssl/ca-bundle.pem"), "theirs").unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Stores(_)));
}

#[test]
fn links_lead_nowhere_out_of_the_image() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "the host's").unwrap();
    let image = image();
    let bundle = image.path().join(BUNDLE);
    for target in [
        outside.path().join("secret"),
        "../../../../../../../../etc/passwd".into(),
        "/proc/self/environ".into(),
    ] {
        fs::remove_file(&bundle).unwrap();
        symlink(&target, &bundle).unwrap();
        assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing), "{target:?}");
    }
    // The same for the folder itself.
    fs::remove_dir_all(image.path().join("etc/ssl/certs")).unwrap();
    symlink(outside.path(), image.path().join("etc/ssl/certs")).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing));
    // And for one that leads to itself.
    fs::remove_file(image.path().join("etc/ssl/certs")).unwrap();
    symlink("certs", image.path().join("etc/ssl/certs")).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing));
}

#[test]
fn a_pipe_in_the_place_of_a_root_holds_nobody_up() {
    let image = image();
    let pipe = image.path().join("etc/ssl/certs/pipe.pem");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let found = stores(image.path());
    assert_eq!(folder(&found[0]).len(), 1);
    fs::remove_file(image.path().join(BUNDLE)).unwrap();
    fs::rename(&pipe, image.path().join(BUNDLE)).unwrap();
    assert!(matches!(look_at(image.path(), &Limits::default()).unwrap(), Found::Nothing));
}

#[test]
fn limits_hold_to_the_byte_and_to_the_entry() {
    let image = image();
    let limits = |file, entries, all| Limits { file, entries, all };
    let fits = |limits: Limits| match look_at(image.path(), &limits) {
        Ok(Found::Stores(_)) => true,
        Err(RootsError::TooMuch { .. }) => false,
        Ok(_) => panic!("no store"),
        Err(error) => panic!("{error}"),
    };
    // The bundle has six bytes.
    assert!(fits(limits(6, 1, 6)));
    assert!(!fits(limits(5, 1, 6)));
    assert!(!fits(limits(6, 1, 5)));
    assert!(!fits(limits(6, 0, 6)));
    fs::write(image.path().join("etc/ssl/certs/other"), "ten bytes.").unwrap();
    assert!(fits(limits(10, 2, 16)));
    assert!(!fits(limits(9, 2, 16)));
    assert!(!fits(limits(10, 2, 15)));
    assert!(!fits(limits(10, 1, 16)));
    // A hole is as long as it says.
    fs::File::create(image.path().join("etc/ssl/certs/hole")).unwrap().set_len(1 << 40).unwrap();
    assert!(!fits(Limits::default()));
}

#[test]
fn a_copy_has_the_ca_at_the_end_and_a_link_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let spec = RootsSpec {
        pid: 1,
        cgroup: String::new(),
        ca_pem: "ours\n".to_owned(),
        hash_link: Some("1a2b3c4d.0".to_owned()),
        scratch: PathBuf::new(),
    };
    let certs = dir.path().join("certs");
    // Names of ours that the image has already are replaced.
    let entries = vec![
        ("all.pem".into(), Entry::Bundle(b"theirs".to_vec(), mine())),
        (CA_FILE.into(), Entry::Link("/etc/shadow".into())),
        ("1a2b3c4d.0".into(), Entry::File(b"no".to_vec(), mine())),
    ];
    write(&certs, &Entry::Certs(entries, mine()), &spec).unwrap();
    let read = |name: &str| fs::read_to_string(certs.join(name)).unwrap();
    assert_eq!((read("all.pem"), read(CA_FILE)), ("theirs\nours\n".to_owned(), "ours\n".to_owned()));
    assert_eq!(fs::read_link(certs.join("1a2b3c4d.0")).unwrap(), Path::new(CA_FILE));
    assert_eq!(fs::read_dir(&certs).unwrap().count(), 3);
}

#[test]
fn only_the_cgroup_itself_and_what_is_below_it_is_in_it() {
    let text = "4:cpu:/jobs/one\n0::/jobs/one/libpod-1\n";
    for (cgroup, want) in [
        ("/jobs/one", true),
        ("/jobs/one/libpod-1", true),
        ("/jobs/one/libpod", false),
        ("/jobs/two", false),
        ("/jobs/on", false),
    ] {
        assert_eq!(in_cgroup(text, cgroup), want, "{cgroup}");
    }
}

/// As a folder does that is changed while it is read, or a file system that lies.
#[test]
fn a_name_that_is_shown_twice_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let spec = RootsSpec {
        pid: 1,
        cgroup: String::new(),
        ca_pem: "ours\n".to_owned(),
        hash_link: None,
        scratch: PathBuf::new(),
    };
    let theirs = || b"theirs".to_vec();
    let seconds: [fn(Vec<u8>) -> Entry; 3] = [
        |bytes| Entry::File(bytes, mine()),
        |bytes| Entry::Bundle(bytes, mine()),
        |bytes| Entry::Folder(vec![("inside".into(), Entry::File(bytes, mine()))], mine()),
    ];
    for (number, second) in seconds.into_iter().enumerate() {
        for there in [false, true] {
            let outside = dir.path().join(format!("outside-{number}-{there}"));
            if there && number == 2 {
                fs::create_dir(&outside).unwrap();
            } else if there {
                fs::write(&outside, "as it was").unwrap();
            }
            let link = ("a".into(), Entry::Link(outside.clone().into()));
            let twice = Entry::Folder(vec![link, ("a".into(), second(theirs()))], mine());
            let error = write(&dir.path().join(format!("{number}-{there}")), &twice, &spec).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let left = fs::read_to_string(&outside).ok();
            assert!(left.is_none_or(|text| text == "as it was"), "it was written through");
            assert!(!outside.join("inside").exists(), "it was written through");
        }
    }
}

#[test]
fn a_copy_is_read_by_nobody_else_than_the_original() {
    let image = image();
    let certs = image.path().join("etc/ssl/certs");
    fs::create_dir(certs.join("inner")).unwrap();
    let places = ["", "ca-certificates.crt", "inner", "listed"].map(|name| certs.join(name));
    fs::write(&places[3], "with a list").unwrap();
    for (place, mode) in places.iter().zip([0o750, 0o604, 0o700, 0o664]) {
        fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::chown(&places[1], Some(1234), Some(2345)).unwrap();
    // Owner rw, user 7 nothing, group r, mask rw, others r (acl(5), as the kernel keeps it).
    let entry = |tag: u16, rights: u16, id: u32| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let list = [(1, 6, u32::MAX), (2, 0, 7), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let list =
        [2_u32.to_le_bytes().to_vec(), list.map(|(tag, may, id)| entry(tag, may, id)).concat()].concat();
    let name = "system.posix_acl_access";
    rustix::fs::setxattr(&places[3], name, &list, rustix::fs::XattrFlags::empty()).unwrap();
    let stores = stores(image.path());
    let spec = RootsSpec {
        pid: 1,
        cgroup: String::new(),
        ca_pem: "ours\n".to_owned(),
        hash_link: None,
        scratch: PathBuf::new(),
    };
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("0");
    write(&copy, &stores[0].content, &spec).unwrap();
    let has = |name: &str| rights(&copy.join(name));
    assert_eq!(has("").mode, 0o750);
    assert_eq!(has("ca-certificates.crt"), Rights { owner: 1234, group: 2345, mode: 0o604 });
    assert_eq!(has("inner").mode, 0o700);
    assert_eq!(has("listed").mode, 0o600, "the list says more than the mode");
    assert_eq!(has(CA_FILE), ANYBODY);
}

#[test]
fn what_the_kernel_tells_root_alone_is_not_copied() {
    let image = image();
    let link = image.path().join("etc/ssl/certs/kernel.pem");
    fs::write(&link, "").unwrap();
    // It says that it is empty, and has something for everybody who reads.
    nix::mount::mount(
        Some("/proc/1/status"),
        &link,
        None::<&str>,
        nix::mount::MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let found = look_at(image.path(), &Limits::default());
    nix::mount::umount(&link).unwrap();
    let Found::Stores(found) = found.unwrap() else { panic!("no store") };
    let kernel = folder(&found[0]).into_iter().find(|(name, _)| *name == "kernel.pem").unwrap().1;
    assert!(matches!(kernel, Entry::File(bytes, _) if bytes.is_empty()), "{kernel:?}");
}
