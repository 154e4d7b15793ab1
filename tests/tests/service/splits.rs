//! Secrets in answers that are cut at every byte, in every framing: neither a stock
//! client in a job nor any file of the service gets one.

use std::fmt::Write;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use enforcer_tests::search::{Needle, contains, files};
use enforcer_tests::service::Service;
use enforcer_tests::split::{Content, Servers};

use crate::{NAME, POLICY, token, verify};

const MASKED: &str = "one is [MASKED:GITHUB_TOKEN], another is [MASKED:ENV_DEPLOY_KEY].\n";

/// In pieces, so that no scanner takes it for a secret of ours.
fn value() -> String {
    ["zQ7w", "X1vB", "n8mK", "3jH5", "gF2d"].join("-")
}

fn text() -> String {
    format!("one is {}, another is {}.\n", token(), value())
}

/// One version of HTTP, and what is asked for by it.
struct Version {
    flags: &'static [&'static str],
    address: SocketAddr,
    framings: &'static [&'static str],
}

/// Every answer into a file of its own, by one client with few connections.
fn fetch_all(service: &Service, version: &Version, content: &Content, folder: &Path) -> usize {
    let mut config = String::new();
    let mut count = 0;
    for framing in version.framings {
        for coding in &content.codings {
            let offsets = (0..=coding.bytes.len()).map(|at| at.to_string());
            for at in offsets.chain(["each".to_owned()]) {
                let (port, name) = (version.address.port(), coding.name);
                writeln!(config, "url = \"https://{NAME}:{port}/{framing}/{name}/{at}\"").unwrap();
                writeln!(config, "output = \"{}/{framing}-{name}-{at}\"", folder.display()).unwrap();
                count += 1;
            }
        }
    }
    let list = folder.with_extension("urls");
    std::fs::write(&list, config).unwrap();
    let mut command = service.command(&["run", "--", "curl", "-sS", "-i", "--compressed", "--raw"]).unwrap();
    command.args(version.flags).arg("-K").arg(list).env("DEPLOY_KEY", value()).stdin(Stdio::null());
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.is_empty(), "{}: {said}", out.status);
    count
}

/// Head and body as they came; the body in the coding that the head names.
fn is_masked(path: &Path, bytes: &[u8]) {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    assert!(head.contains(" 200") && head.contains("x-key: [MASKED:ENV_DEPLOY_KEY]\r\n"), "{path:?}: {head}");
    let body = if head.contains("transfer-encoding: chunked") {
        dechunk(&bytes[end..])
    } else {
        bytes[end..].to_vec()
    };
    let coded = head.contains("content-encoding: gzip\r\n");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(coded, !name.contains("plain"), "{name}: {head}");
    let mut text = String::new();
    if coded {
        flate2::read::MultiGzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    } else {
        text = String::from_utf8(body).unwrap();
    }
    assert_eq!(text, MASKED, "{name}");
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.iter().position(|it| *it == b'\r').unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if length == 0 {
            return body;
        }
        body.extend(&bytes[line + 2..line + 2 + length]);
        bytes = &bytes[line + 2 + length + 2..];
    }
}

/// Files that processes of the service have open for writing, and that have a name.
fn written_to(service: &Service) -> Vec<PathBuf> {
    let status = service.status().unwrap();
    let mut pids = vec![i64::from(service.daemon_pid().unwrap())];
    pids.extend(["proxy_pid", "signer_pid"].map(|name| status[name].as_i64().unwrap()));
    let mut found = Vec::new();
    for entry in pids.iter().flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap()) {
        let fd = entry.unwrap().path();
        // It may be closed again.
        let Ok(target) = std::fs::read_link(&fd) else { continue };
        let info = fd.to_str().unwrap().replace("/fd/", "/fdinfo/");
        let Ok(info) = std::fs::read_to_string(info) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let writes = u32::from_str_radix(flags, 8).unwrap() & 3 != 0;
        if writes && target.is_file() {
            found.push(target);
        }
    }
    found
}

#[test]
fn a_secret_cut_at_any_byte_reaches_neither_the_job_nor_a_file() {
    let content = || Content::new(&text(), &value()).unwrap();
    let servers = Servers::start(NAME, content()).unwrap();
    let names = [(NAME, IpAddr::from([127, 0, 0, 2]))];
    // With a log that says as much as there is to say.
    let loud = ["env", "RUST_LOG=trace"];
    let mut service = Service::start_by(&loud, &names, &servers.ca_pem, POLICY).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let versions = [
        Version { flags: &["--http1.1"], address: servers.h1, framings: &["length", "chunked"] },
        Version {
            flags: &["--http2", "--parallel", "--no-progress-meter"],
            address: servers.h2,
            framings: &["length", "frames"],
        },
    ];
    let needles = [Needle::new(&token()), Needle::new(&value())];
    for (number, version) in versions.iter().enumerate() {
        // Who asks without the enforcer gets them.
        let resolve = format!("{NAME}:{}:{}", version.address.port(), version.address.ip());
        let url = format!("https://{NAME}:{}/length/gzip/9", version.address.port());
        let out =
            Command::new("curl").args(["-sk", "--resolve", &resolve, "--compressed", &url]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), text());

        let place = folder.path().join(number.to_string());
        std::fs::create_dir(&place).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
        let count = fetch_all(&service, version, &content(), &place);
        let answers = files(&place).unwrap();
        assert_eq!(answers.len(), count);
        for (path, bytes) in answers {
            is_masked(&path, &bytes);
            assert!(needles.iter().all(|needle| needle.found_in(&bytes).is_none()), "{path:?}");
        }
    }
    verify(&service);
    for path in written_to(&service) {
        assert!(path.starts_with(service.dir.path()), "{path:?} is written to, and not looked into");
    }
    let recorded: Vec<u8> = files(&service.sessions()).unwrap().into_iter().flat_map(|(_, it)| it).collect();
    // The text goes out, and is recorded, in pieces.
    for placeholder in MASKED.split([' ', ',', '.']).filter(|word| word.starts_with('[')) {
        assert!(contains(&recorded, placeholder.as_bytes()), "{placeholder} is not in the recording");
    }
    for released in [false, true] {
        if released {
            service.release().unwrap();
        }
        for needle in &needles {
            let found = needle.files(service.dir.path()).unwrap();
            assert!(found.is_empty(), "{found:?}");
        }
    }
    assert!(std::fs::metadata(service.log()).unwrap().len() > 0);
}
