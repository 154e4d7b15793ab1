//! The service's configuration: `/etc/enforcer/config.toml`. Everything has a
//! default; what is not known is an error that points.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::{Deserialize, Serialize};

use crate::admin::web::WebConfig;
use crate::approval::config::ApprovalsConfig;
use crate::kernel::{LsmConfig, LsmMode, Tc};
use crate::proxy::Limits;
use crate::workload::identity::{Assurance, IdentityConfig};

use super::scopes::Scope;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ConfigError {
    #[error("cannot read {path}", path = .path.display())]
    #[diagnostic(help("name the file with --config, or leave it out to use the defaults"))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{message}")]
    Invalid {
        message: String,
        #[source_code]
        text: NamedSource<String>,
        #[label("here")]
        at: Option<SourceSpan>,
    },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub cgroup: Cgroup,
    pub listen: Listen,
    pub proxy: Proxy,
    pub policy: Policy,
    pub recording: Recording,
    pub ca: Ca,
    pub dns: Dns,
    pub upstream: Upstream,
    pub mask: Mask,
    pub run: Run,
    pub kernel: Kernel,
    pub containers: Containers,
    pub identity: IdentityConfig,
    /// Who decides about what a rule holds; without it that is denied.
    pub approvals: Option<ApprovalsConfig>,
    /// The web page; without it there is none.
    pub web: Option<WebConfig>,
    /// Cgroups of others that are enforced, each with its place in the file.
    pub scope: Vec<toml::Spanned<Scope>>,
    /// Limits of the proxy.
    pub limits: Limits,
    /// Where it was read.
    #[serde(skip)]
    pub path: PathBuf,
    /// Everything but the scopes, as it was written: what needs a restart when it changes.
    #[serde(skip)]
    pub lasting: toml::Table,
}

/// Cgroups, relative to the cgroup2 mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cgroup {
    /// Where the socket hooks are attached; `/` is the whole host.
    pub attach: PathBuf,
    /// The enforcer's own.
    pub own: PathBuf,
    /// The parent of all jobs.
    pub jobs: PathBuf,
    /// Where scopes are kept that were added by command.
    pub scopes_dir: PathBuf,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            attach: "/".into(),
            own: "/enforcer".into(),
            jobs: "/enforcer-jobs.slice".into(),
            scopes_dir: "/var/lib/enforcer/scopes.d".into(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    pub tcp_port: u16,
    pub dns_port: u16,
    /// Milliseconds for which listeners are held at a planned restart; who connects
    /// waits as long as that at most, and is refused then.
    pub hold_ms: u64,
}

impl Default for Listen {
    fn default() -> Self {
        Self { tcp_port: 15001, dns_port: 15053, hold_ms: 2000 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// The user that the proxy and the signer run as.
    pub user: String,
    /// Threads; 0 is one for each CPU.
    pub workers: usize,
}

impl Default for Proxy {
    fn default() -> Self {
        Self { user: "enforcer".to_owned(), workers: 0 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub dir: PathBuf,
    /// The folder of layers of organizations and repositories; without it there are none.
    pub layers: Option<PathBuf>,
    /// How far it has to be known whose job it is, for it to have a layer: `oidc` or `api`.
    pub layers_assurance: Assurance,
}

impl Default for Policy {
    fn default() -> Self {
        Self { dir: "/etc/enforcer/policies.d".into(), layers: None, layers_assurance: Assurance::Oidc }
    }
}

impl Policy {
    fn check(&self) -> Result<(), String> {
        if self.layers_assurance < Assurance::Api {
            return Err(format!(
                "[policy] layers_assurance is `oidc` or `api`: what is `{}` is a job's own word",
                self.layers_assurance
            ));
        }
        let Some(layers) = &self.layers else { return Ok(()) };
        // Its files would count for everybody.
        match layers.is_absolute() && !layers.starts_with(&self.dir) && !self.dir.starts_with(layers) {
            true => Ok(()),
            false => Err("[policy] layers is a path from the root, and no part of `dir`".to_owned()),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recording {
    pub dir: PathBuf,
    /// Bytes of each masked body that are kept.
    pub body_limit: usize,
}

impl Default for Recording {
    fn default() -> Self {
        Self { dir: "/var/lib/enforcer/sessions".into(), body_limit: 64 * 1024 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ca {
    pub dir: PathBuf,
}

impl Default for Ca {
    fn default() -> Self {
        Self { dir: "/var/lib/enforcer/ca".into() }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Names with fixed addresses, beside the host's own resolver.
    pub names: BTreeMap<String, Vec<IpAddr>>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Roots beside the host's own.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mask {
    /// Names of environment variables of a job whose values are secrets; `*` is
    /// any run of characters.
    pub env: Vec<String>,
    /// A folder of files with values that are secrets everywhere.
    pub secrets_dir: PathBuf,
    /// The key of surrogates: the same on all hosts that are to make the same ones. It is made
    /// if it is missing.
    pub surrogate_key_file: PathBuf,
    /// A folder of files with detectors of the operator's own.
    pub detectors_dir: PathBuf,
}

impl Default for Mask {
    fn default() -> Self {
        let env = ["*TOKEN*", "*SECRET*", "*PASSWORD*", "*_KEY", "*APIKEY*", "*CREDENTIAL*"];
        Self {
            env: env.map(str::to_owned).to_vec(),
            secrets_dir: "/etc/enforcer/secrets.d".into(),
            surrogate_key_file: "/var/lib/enforcer/surrogates.key".into(),
            detectors_dir: "/etc/enforcer/detectors.d".into(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Where the service's sockets are.
    pub dir: PathBuf,
    /// Whose members may start jobs, beside root.
    pub group: String,
    /// Whether jobs do not see the Unix sockets of the host; a job whose sockets cannot be
    /// hidden does not start.
    pub hide_sockets: bool,
    /// Sockets, and folders of them, that all jobs see.
    pub expose: Vec<PathBuf>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            dir: "/run/enforcer".into(),
            group: "enforcer".to_owned(),
            hide_sockets: true,
            expose: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kernel {
    pub pins: PathBuf,
    /// The compiled kernel half; else beside the program, else in /usr/lib/enforcer.
    pub object: Option<PathBuf>,
    /// What follows when somebody changes what is attached.
    pub on_tamper: OnTamper,
    /// Programs on interfaces, against AF_PACKET sockets of tagged processes.
    pub tc: Tc,
    /// Programs at the kernel's security hooks: `auto` (where the kernel allows them),
    /// `off`, or `require`.
    pub lsm: LsmMode,
    /// Unix sockets of processes outside that jobs may reach, with `lsm`: paths, and `@name`
    /// for abstract ones.
    pub unix_allow: Vec<String>,
    /// systemd's executor, which prepares a service in its cgroup and is not bound by `lsm`.
    pub systemd_executor: PathBuf,
}

/// What is asked of a container daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Containers {
    /// A command that is given a container's id and writes its labels as a JSON object.
    pub inspect: Vec<String>,
}

impl Default for Containers {
    fn default() -> Self {
        let words =
            ["/usr/bin/podman", "inspect", "--type", "container", "--format", "{{json .Config.Labels}}"];
        Self { inspect: words.map(str::to_owned).to_vec() }
    }
}

/// What tagged cgroups get when somebody has changed what is attached, until an
/// operator says `enforcer reload`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTamper {
    /// No network.
    #[default]
    Deny,
    /// No network, and their processes are stopped where they are.
    Freeze,
}

impl Kernel {
    /// How the tier of the security hooks is used.
    pub fn lsm(&self) -> LsmConfig {
        LsmConfig {
            mode: self.lsm,
            unix_allow: self.unix_allow.clone(),
            executor: self.systemd_executor.clone(),
        }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        let LsmConfig { mode, unix_allow, executor } = LsmConfig::default();
        Self {
            pins: "/sys/fs/bpf/enforcer".into(),
            object: None,
            on_tamper: OnTamper::Deny,
            tc: Tc::Auto,
            lsm: mode,
            unix_allow,
            systemd_executor: executor,
        }
    }
}

const OBJECT: &str = "enforcer.bpf.o";

impl Config {
    /// Reads the file; only the default one may be missing.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT) => {
                Ok(Self { path: path.to_owned(), ..Self::default() })
            }
            Err(source) => Err(ConfigError::Read { path: path.to_path_buf(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let invalid = |message: String, at: Option<std::ops::Range<usize>>| ConfigError::Invalid {
            message,
            text: NamedSource::new(path.display().to_string(), text.to_owned()),
            at: at.map(Into::into),
        };
        let error = |error: toml::de::Error| invalid(error.message().to_owned(), error.span());
        let mut config: Self = toml::from_str(text).map_err(error)?;
        config.path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        config.lasting = toml::from_str(text).map_err(error)?;
        config.lasting.remove("scope");
        for path in &config.run.expose {
            check_exposed(path).map_err(|why| invalid(format!("[run] expose: {why}"), None))?;
        }
        if !config.containers.inspect.first().is_some_and(|program| program.starts_with('/')) {
            return Err(invalid("[containers] inspect begins with the path of a program".to_owned(), None));
        }
        config.identity.check().map_err(|why| invalid(why, None))?;
        config.policy.check().map_err(|why| invalid(why, None))?;
        if let Some(approvals) = &config.approvals {
            approvals.check(&config.identity).map_err(|why| invalid(why, None))?;
        }
        if let Some(web) = &config.web {
            web.check(config.approvals.as_ref()).map_err(|why| invalid(why, None))?;
        }
        let mut names = std::collections::HashSet::new();
        for scope in &config.scope {
            scope.as_ref().check().map_err(|why| invalid(why, Some(scope.span())))?;
            let name = scope.as_ref().name();
            if !names.insert(name) {
                return Err(invalid(format!("another scope is called `{name}` too"), Some(scope.span())));
            }
        }
        Ok(config)
    }

    /// The compiled kernel half.
    pub fn object(&self) -> PathBuf {
        if let Some(object) = &self.kernel.object {
            return object.clone();
        }
        let beside = std::env::current_exe().ok().map(|program| program.with_file_name(OBJECT));
        beside.filter(|path| path.exists()).unwrap_or_else(|| Path::new("/usr/lib/enforcer").join(OBJECT))
    }

    pub fn run_socket(&self) -> PathBuf {
        self.run.dir.join("run.sock")
    }

    pub fn job_socket(&self) -> PathBuf {
        self.run.dir.join("job.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run.dir.join("admin.sock")
    }
}

/// Whether this can be shown to jobs: by the name that it has in no other place.
pub fn check_exposed(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(format!("`{shown}` is no path from the root without `..`"));
    }
    if path.starts_with("/proc") || path.components().count() < 3 {
        return Err(format!("`{shown}` is no socket and no folder of sockets"));
    }
    Ok(())
}

/// The file that is read when none is named.
pub const DEFAULT: &str = "/etc/enforcer/config.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default_and_what_is_unknown_is_pointed_at() {
        let config = Config::parse(Path::new("c"), "[listen]\ntcp_port = 1\n").unwrap();
        assert_eq!((config.listen.tcp_port, config.listen.dns_port), (1, 15053));
        let Err(ConfigError::Invalid { message, at, .. }) =
            Config::parse(Path::new("c"), "[listen]\nprot = 1\n")
        else {
            panic!("an unknown key was taken")
        };
        assert!(message.contains("prot") && at.is_some(), "{message}");
    }

    #[test]
    fn a_scope_that_is_wrong_is_pointed_at() {
        let good = "[[scope]]\nname = 'ci'\nunit = 'runner@*.service'\n";
        assert_eq!(Config::parse(Path::new("c"), good).unwrap().scope[0].as_ref().name(), "ci");
        for (text, says, at) in [
            (
                format!("{good}[[scope]]\nname = 'ci'\nuid = 7\n"),
                "called `ci` too",
                "[[scope]]\nname = 'ci'\nuid",
            ),
            (format!("{good}[[scope]]\nname = 'b'\nuid = 0\n"), "administrators", "0"),
            (format!("{good}[[scope]]\nname = 'b'\n"), "has one of", "[[scope]]\nname = 'b'"),
        ] {
            let Err(ConfigError::Invalid { message, at: Some(span), .. }) =
                Config::parse(Path::new("c"), &text)
            else {
                panic!("{text} was taken")
            };
            assert!(message.contains(says), "{message}");
            assert!(text[span.offset()..].starts_with(at), "{message}: {}", &text[span.offset()..]);
        }
    }

    #[test]
    fn the_second_tier_is_used_where_it_can_be_had_unless_it_is_said() {
        let lsm = |text: &str| Config::parse(Path::new("c"), text).map(|config| config.kernel.lsm);
        assert_eq!(lsm("").unwrap(), LsmMode::Auto);
        assert_eq!(lsm("[kernel]\nlsm = \"require\"\n").unwrap(), LsmMode::Require);
        assert_eq!(lsm("[kernel]\nlsm = \"off\"\n").unwrap(), LsmMode::Off);
        assert!(lsm("[kernel]\nlsm = \"on\"\n").is_err());
    }

    /// The file that is installed shows each setting, and its default where there is one.
    #[test]
    fn the_template_has_every_key_and_its_default() {
        let template = include_str!("../../dist/config.toml");
        Config::parse(Path::new("config.toml"), template).unwrap();
        let is_setting = |line: &str| {
            let bare = line.trim_start_matches('#');
            let key = bare.split(['=', ' ']).next().unwrap_or_default().trim_matches('"');
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
            !bare.starts_with(' ') && bare.contains('=') && !key.is_empty() && key.bytes().all(plain)
        };
        let uncommented: String =
            template
                .lines()
                .map(|line| {
                    if is_setting(line) || line.starts_with("#[") {
                        line.trim_start_matches('#')
                    } else {
                        line
                    }
                })
                .map(|line| format!("{line}\n"))
                .collect();
        let said: toml::Table = uncommented.parse().unwrap_or_else(|error| panic!("{error}\n{uncommented}"));
        Config::parse(Path::new("config.toml"), &uncommented).unwrap();
        let known = serde_json::to_value(Config::default()).unwrap();
        for (section, keys) in known.as_object().unwrap() {
            assert!(said.contains_key(section), "[{section}] is missing");
            for (key, default) in keys.as_object().into_iter().flatten() {
                let value =
                    said[section].get(key).unwrap_or_else(|| panic!("{key} of [{section}] is missing"));
                // The unit that is installed says where its cgroup is.
                if !default.is_null() && (section.as_str(), key.as_str()) != ("cgroup", "own") {
                    if section == "dns" || key == "issuer" {
                        continue;
                    }
                    assert_eq!(serde_json::to_value(value).unwrap(), *default, "{key} of [{section}]");
                }
            }
        }
        let scope = serde_json::to_value(&said["scope"][0]).unwrap();
        let optional = ["unit", "cgroup", "uid", "container", "labels", "force"];
        for key in optional {
            assert!(template.contains(&format!("{key} = ")), "{key} of [[scope]] is missing: {scope}");
        }
    }

    #[test]
    fn who_is_asked_for_labels_is_a_program_by_its_path() {
        let parse = |text: &str| Config::parse(Path::new("c"), text).map(|config| config.containers.inspect);
        assert_eq!(parse("").unwrap()[0], "/usr/bin/podman");
        assert_eq!(parse("[containers]\ninspect = ['/bin/x', 'y']\n").unwrap(), ["/bin/x", "y"]);
        assert!(parse("[containers]\ninspect = ['podman']\n").is_err());
        assert!(parse("[containers]\ninspect = []\n").is_err());
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let missing = Path::new("/nonexistent/enforcer.toml");
        assert!(matches!(Config::load(missing), Err(ConfigError::Read { .. })));
    }
}
