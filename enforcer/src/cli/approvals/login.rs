//! `enforcer approvals login` and `logout`, and what `approve` and `deny` take of it.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use miette::{IntoDiagnostic, WrapErr, bail, ensure, miette};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::admin::device::{Begun, Device};
use crate::admin::web::Person;
use crate::app::config::Config;
use crate::outgoing::Client;
use crate::secret::SecretText;
use crate::session::read::visible;
use crate::workload::identity::token::MAX_TOKEN;
use crate::workload::identity::{IssuerConfig, Verifier};

use super::super::out;

/// Below the folder of a user's state: one file for each person who comes to be that user, as by
/// `sudo`.
const FOLDER: &str = "enforcer";
/// What a process has that began with nobody's login (audit, `AUDIT_UID_UNSET`).
const NOBODY: u32 = u32::MAX;
/// Bytes of the file.
const MAX_KEPT: u64 = MAX_TOKEN as u64 + 4096;
/// Bytes of a client's secret.
const MAX_SECRET: usize = 4096;

#[derive(clap::Args, Debug)]
pub struct Login {
    /// An issuer of [approvals] by its name; needed where there is more than one
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,

    /// What is asked of the issuer: some give groups by a scope of their own
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
}

/// A login as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    issuer: String,
    name: String,
    /// The user that the person is on this host, before they became another one.
    by: u32,
    /// In seconds since 1970.
    ends: u64,
    #[serde(with = "crate::secret::exposed")]
    token: SecretText,
}

impl Login {
    pub fn run(self, config: &Config) -> miette::Result<()> {
        crate::secret::process::close_to_others()
            .into_diagnostic()
            .wrap_err("closing the process to others")?;
        let by = person_here();
        let place = place(by)?;
        let device = self.device(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
        let begun = runtime.block_on(Box::pin(device.begin())).into_diagnostic()?;
        ask(&begun)?;
        let person = runtime.block_on(Box::pin(device.wait(&begun))).into_diagnostic()?;
        keep(&place, by, &device.issuer.name, &person)?;
        let groups =
            if person.groups.is_empty() { "none".to_owned() } else { visible(&person.groups.join(", ")) };
        let until = moment(person.ends);
        out::print(&format!("logged in as {} until {until}; groups: {groups}\n", person.name))
    }

    fn device(&self, config: &Config) -> miette::Result<Device> {
        let approvals = config.approvals.as_ref();
        let approvals =
            approvals.ok_or_else(|| miette!("nobody decides here: the configuration has no [approvals]"))?;
        let issuer = chosen(&approvals.issuer, self.issuer.as_deref())?;
        // The page asks the same issuer as the same client.
        let web = config.web.as_ref().filter(|web| web.issuer == issuer.name);
        let scope = self.scope.clone().or_else(|| web.map(|web| web.scope.clone()));
        let secret = web.and_then(|web| web.client_secret_file.as_deref());
        let client = || -> miette::Result<Client> {
            let client = Client::new(config.upstream.ca_file.as_deref(), config.dns.names.clone());
            Ok(client.into_diagnostic()?.with_plain_on_loopback(approvals.http_on_loopback))
        };
        let mut issuers = approvals.issuers();
        issuers.issuer.retain(|it| it.name == issuer.name);
        let verifier = Verifier::new(&issuers, Box::new(client()?));
        Ok(Device {
            issuer: issuer.clone(),
            scope: scope.unwrap_or_else(|| "openid profile".to_owned()),
            client_secret: secret.map(client_secret).transpose()?,
            plain_on_loopback: approvals.http_on_loopback,
            client: client()?,
            verifier: verifier.map_err(|why| miette!("{why}"))?,
        })
    }
}

fn chosen<'a>(issuers: &'a [IssuerConfig], name: Option<&str>) -> miette::Result<&'a IssuerConfig> {
    let names = || issuers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, issuers) {
        (Some(name), _) => issuers.iter().find(|it| it.name == name).ok_or_else(|| {
            miette!("`{}` is no issuer of [approvals]; there are: {}", visible(name), names())
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(miette!("[approvals] has more than one issuer: name one by --issuer ({})", names())),
    }
}

fn client_secret(path: &Path) -> miette::Result<SecretText> {
    let file = File::open(path).into_diagnostic();
    let text = file.and_then(|file| text_of(file, MAX_SECRET as u64));
    let text = text.wrap_err_with(|| format!("reading {}", path.display()))?;
    Ok(SecretText::new(text.expose().trim().to_owned()))
}

/// On standard error: what is printed is the result.
fn ask(begun: &Begun) -> miette::Result<()> {
    let minutes = begun.within.as_secs().div_ceil(60);
    let mut text = format!("Open {} and enter the code {}\n", begun.address, begun.code);
    if let Some(whole) = &begun.whole_address {
        text += &format!("or open {whole} and see that the code is {}\n", begun.code);
    }
    text += &format!("Waiting, for {minutes} minutes at most ...\n");
    std::io::stderr().write_all(text.as_bytes()).into_diagnostic()
}

fn keep(place: &Path, by: u32, issuer: &str, person: &Person) -> miette::Result<()> {
    let kept = Kept {
        issuer: issuer.to_owned(),
        name: person.name.clone(),
        by,
        ends: person.ends,
        token: person.token.clone(),
    };
    let text = SecretText::new(serde_json::to_string(&kept).into_diagnostic()?);
    let written = || -> std::io::Result<()> {
        if let Some(folder) = place.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Whole under its name, or not there at all.
        let beside = place.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.expose().as_bytes())?;
        fs::rename(&beside, place)
    };
    written().into_diagnostic().wrap_err_with(|| format!("writing {}", place.display()))
}

/// Forgets the login.
pub fn logout() -> miette::Result<()> {
    let place = place(person_here())?;
    match fs::remove_file(&place) {
        Ok(()) => out::print("logged out\n"),
        Err(error) if error.kind() == ErrorKind::NotFound => out::print("nobody was logged in\n"),
        Err(error) => Err(error).into_diagnostic().wrap_err_with(|| format!("removing {}", place.display())),
    }
}

/// The token of whoever is logged in, who is named to them.
pub fn token() -> miette::Result<SecretText> {
    let by = person_here();
    let kept = kept(&place(by)?, by, now())?;
    eprintln!("deciding as {} (issuer {})", visible(&kept.name), visible(&kept.issuer));
    Ok(kept.token)
}

fn kept(place: &Path, by: u32, now: u64) -> miette::Result<Kept> {
    let shown = place.display();
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(place) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "deciding needs a login: `enforcer approvals login`, or a token of an issuer of [approvals] by --token-file \
             or in ENFORCER_APPROVER_TOKEN"
        ),
        Err(error) => return Err(error).into_diagnostic().wrap_err_with(|| format!("reading {shown}")),
    };
    let meta = file.metadata().into_diagnostic()?;
    let owner = rustix::process::geteuid().as_raw();
    ensure!(
        meta.is_file() && meta.uid() == owner && meta.mode() & 0o077 == 0,
        "others can read {shown} or change it: `enforcer approvals login` makes a new one"
    );
    let text = text_of(file, MAX_KEPT)?;
    let kept: Kept = serde_json::from_str(text.expose())
        .map_err(|_| miette!("{shown} is not readable: `enforcer approvals login` makes a new one"))?;
    ensure!(
        kept.by == by,
        "{shown} is the login of another user of this host: log in by `enforcer approvals login`"
    );
    ensure!(
        now < kept.ends,
        "the login of {} has expired, at {}: log in again by `enforcer approvals login`",
        visible(&kept.name),
        moment(kept.ends)
    );
    Ok(kept)
}

fn text_of(file: File, longest: u64) -> miette::Result<SecretText> {
    let mut text = String::new();
    let read = file.take(longest + 1).read_to_string(&mut text);
    let text = SecretText::new(text);
    read.into_diagnostic()?;
    ensure!(text.expose().len() as u64 <= longest, "it is longer than {longest} bytes");
    Ok(text)
}

/// The user as whom somebody logged in to this host, whatever user they have become since: several
/// may be root, and none of them is to decide as another one.
fn person_here() -> u32 {
    let login = fs::read_to_string("/proc/self/loginuid").ok();
    let login = login.and_then(|text| text.trim().parse().ok()).filter(|uid| *uid != NOBODY);
    let sudo = || std::env::var("SUDO_UID").ok()?.parse().ok();
    login.or_else(sudo).unwrap_or_else(|| rustix::process::getuid().as_raw())
}

/// Where the login of this person is kept (XDG Base Directory Specification).
fn place(by: u32) -> miette::Result<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    let state = state.ok_or_else(|| miette!("there is no place for a login: set HOME or XDG_STATE_HOME"))?;
    Ok(state.join(FOLDER).join(format!("approver-{by}.json")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn moment(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn person(ends: u64) -> Person {
        Person {
            subject: "s".to_owned(),
            name: "ann".to_owned(),
            groups: Vec::new(),
            token: SecretText::new("a.b.c".to_owned()),
            ends,
        }
    }

    #[test]
    fn a_login_is_for_its_owner_alone_and_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state").join(FOLDER).join("approver-7.json");
        assert!(kept(&place, 7, 99).map(drop).unwrap_err().to_string().contains("enforcer approvals login"));
        keep(&place, 7, "idp", &person(1)).unwrap();
        keep(&place, 7, "idp", &person(100)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&place), mode(place.parent().unwrap())), (0o600, 0o700));
        assert_eq!(kept(&place, 7, 99).unwrap().token.expose(), "a.b.c");
        let over = kept(&place, 7, 100).map(drop).unwrap_err().to_string();
        assert!(over.contains("has expired, at 1970-01-01T00:01:40Z: log in again"), "{over}");
        for open in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&place, fs::Permissions::from_mode(open)).unwrap();
            assert!(
                kept(&place, 7, 99).map(drop).unwrap_err().to_string().contains("others can read"),
                "{open:o}"
            );
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&place, &link).unwrap();
        kept(&link, 7, 99).map(drop).unwrap_err();
        let other = kept(&place, 8, 99).map(drop).unwrap_err().to_string();
        assert!(other.contains("of another user"), "{other}");
        for text in ["", "{}", "x"] {
            fs::write(&place, text).unwrap();
            assert!(
                kept(&place, 7, 99).map(drop).unwrap_err().to_string().contains("not readable"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_issuer_is_named_where_there_are_more() {
        let issuer = |name: &str| -> IssuerConfig {
            serde_json::from_value(
                serde_json::json!({"name": name, "issuer": "https://i.test", "audience": "a"}),
            )
            .unwrap()
        };
        let two = [issuer("a"), issuer("b")];
        assert_eq!(chosen(&two[..1], None).unwrap().name, "a");
        assert_eq!(chosen(&two, Some("b")).unwrap().name, "b");
        assert!(chosen(&two, None).unwrap_err().to_string().contains("--issuer (a, b)"));
        assert!(chosen(&two, Some("c")).unwrap_err().to_string().contains("no issuer"));
    }
}
