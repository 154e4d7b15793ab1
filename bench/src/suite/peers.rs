//! The other proxies, each with what it needs to do the same: end TLS, verify
//! the upstream, one thread.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::process::{Group, free, pinned};
use crate::tls::NAME;

/// Whom peers run as that refuse to be root.
const USER: &str = "nobody";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Haproxy,
    Nginx,
    Squid,
    Mitmproxy,
    Envoy,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Squid => "squid",
            Self::Mitmproxy => "mitmproxy",
            Self::Envoy => "envoy",
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::Haproxy, Self::Nginx, Self::Squid, Self::Mitmproxy, Self::Envoy];
        all.into_iter().find(|kind| kind.name() == name).with_context(|| format!("no peer {name}"))
    }
}

/// A peer that did not come up, which is not tried again.
#[derive(Debug)]
pub struct DoesNotStart(pub String);

impl std::fmt::Display for DoesNotStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DoesNotStart {}

/// What a program says of its release: the first line with a digit.
pub fn version(kind: Kind, program: &Path) -> String {
    let word = match kind {
        Kind::Haproxy | Kind::Nginx | Kind::Squid => "-v",
        Kind::Mitmproxy | Kind::Envoy => "--version",
    };
    let Ok(out) = Command::new(program).arg(word).output() else { return "unknown".to_owned() };
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    number_in(&text).unwrap_or_else(|| "unknown".to_owned())
}

/// The first word that has numbers with a dot between them, without what stands around.
fn number_in(text: &str) -> Option<String> {
    let text = text.split_once("ersion").map_or(text, |(_, rest)| rest);
    text.split(|c: char| c.is_whitespace() || c == '/').find_map(|word| {
        let from = word.find(|c: char| c.is_ascii_digit())?;
        let number: String = word[from..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.');
        number.contains('.').then(|| number.to_owned())
    })
}

/// What squid calls its shared memory after.
const SQUID_NAME: &str = "enforcerbench";

/// Removes what a killed squid leaves behind, which the next one would trip over.
pub fn forget_squid() -> Result<()> {
    for entry in std::fs::read_dir("/dev/shm")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SQUID_NAME) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A peer that runs.
pub struct Peer {
    pub group: Group,
    pub listen: SocketAddr,
    /// For those that are asked by CONNECT.
    pub authority: Option<String>,
}

/// What a configuration is made from.
struct Place<'a> {
    dir: &'a Path,
    certs: &'a Path,
    listen: SocketAddr,
    upstream: SocketAddr,
    h2: bool,
}

/// Starts a peer that speaks HTTP/2 on both sides if it can and is asked to.
pub fn start(
    kind: Kind,
    program: &Path,
    dir: &Path,
    certs: &Path,
    upstream: SocketAddr,
    h2: bool,
) -> Result<Peer> {
    let listen = free("127.0.0.1")?;
    let place = Place { dir, certs, listen, upstream, h2 };
    let made = match kind {
        Kind::Haproxy => place.haproxy(program),
        Kind::Nginx => place.nginx(program),
        Kind::Squid => place.squid(program),
        Kind::Mitmproxy => place.mitmproxy(program),
        Kind::Envoy => place.envoy(program),
    };
    let command = made.map_err(|error| DoesNotStart(format!("cannot be set up: {error:#}")))?;
    let log = dir.join("peer.log");
    let mut group = Group::start(command, &log)?;
    if let Err(error) = group.wait_for(listen) {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let text: Vec<&str> = text.lines().rev().take(3).collect();
        return Err(DoesNotStart(format!("does not start: {error:#}: {}", text.join(" | "))).into());
    }
    let authority = match kind {
        // It knows the name by the hosts file that it is given.
        Kind::Squid => Some(format!("{NAME}:{}", upstream.port())),
        Kind::Mitmproxy => Some(upstream.to_string()),
        _ => None,
    };
    Ok(Peer { group, listen, authority })
}

impl Place<'_> {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::write(&path, text).with_context(|| name.to_owned())?;
        Ok(path)
    }

    fn cert(&self, name: &str) -> String {
        self.certs.join(name).display().to_string()
    }

    fn haproxy(&self, program: &Path) -> Result<Command> {
        let (listen, upstream) = (self.listen, self.upstream);
        // The leaf that it is given is of another name: it mints the one that is asked for.
        let (both, leaf, ca) = (self.cert("ca-both.pem"), self.cert("other-both.pem"), self.cert("ca.pem"));
        let alpn = if self.h2 { "h2" } else { "http/1.1" };
        let config = self.write(
            "haproxy.cfg",
            &format!(
                "global\n  nbthread 1\n  maxconn 8000\n  tune.ssl.default-dh-param 2048\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 frontend f\n  bind {listen} ssl crt {leaf} generate-certificates ca-sign-file {both} alpn {alpn}\n\
                 \x20 default_backend b\n\
                 backend b\n  http-reuse always\n\
                 \x20 server s {upstream} ssl verify required ca-file {ca} sni str({NAME}) verifyhost {NAME} alpn {alpn}\n"
            ),
        )?;
        let mut command = pinned(1, program);
        command.arg("-db").arg("-f").arg(config);
        Ok(command)
    }

    fn nginx(&self, program: &Path) -> Result<Command> {
        let (listen, upstream, dir) = (self.listen, self.upstream, self.dir.display());
        let (leaf, key, ca) = (self.cert("leaf.pem"), self.cert("leaf-key.pem"), self.cert("ca.pem"));
        let h2 = if self.h2 { " http2" } else { "" };
        let config = self.write(
            "nginx.conf",
            &format!(
                "daemon off; master_process off; worker_processes 1; pid {dir}/nginx.pid; error_log stderr error;\n\
                 events {{ worker_connections 8000; }}\n\
                 http {{\n  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s;\n\
                 client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;\n\
                 uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5; proxy_max_temp_file_size 0;\n\
                 upstream u {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}\n\
                 server {{\n    listen {listen} ssl{h2}; server_name {NAME};\n\
                 ssl_certificate {leaf}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;\n\
                 location / {{\n      proxy_pass https://u; proxy_http_version 1.1; proxy_set_header Connection '';\n\
                 proxy_set_header Host {NAME}; proxy_ssl_server_name on; proxy_ssl_name {NAME};\n\
                 proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca};\n    }}\n  }}\n}}\n"
            ),
        )?;
        let mut command = pinned(1, program);
        command.arg("-p").arg(self.dir).arg("-c").arg(config);
        Ok(command)
    }

    fn squid(&self, program: &Path) -> Result<Command> {
        let (port, dir) = (self.listen.port(), self.dir.display());
        let (both, ca) = (self.cert("ca-both.pem"), self.cert("ca.pem"));
        let hosts = self.write("hosts", &format!("{} {NAME}\n", self.upstream.ip()))?;
        let helper = "/usr/lib/squid/security_file_certgen";
        let database = self.dir.join("certificates");
        if !database.exists() {
            let made =
                Command::new(helper).arg("-c").arg("-s").arg(&database).args(["-M", "4MB"]).output()?;
            if !made.status.success() {
                bail!("squid's certificates: {}", String::from_utf8_lossy(&made.stderr));
            }
        }
        forget_squid()?;
        let config = self.write(
            "squid.conf",
            &format!(
                "http_port 127.0.0.1:{port} ssl-bump tls-cert={both} generate-host-certificates=on \
                 dynamic_cert_mem_cache_size=4MB\n\
                 sslcrtd_program {helper} -s {} -M 4MB\nsslcrtd_children 1\n\
                 acl step1 at_step SslBump1\nssl_bump peek step1\nssl_bump bump all\n\
                 tls_outgoing_options cafile={ca}\nhosts_file {}\nhttp_access allow all\ncache deny all\n\
                 access_log none\ncache_log {dir}/cache.log\ncache_store_log none\npid_filename {dir}/squid.pid\n\
                 coredump_dir {dir}\nshutdown_lifetime 0 seconds\ncache_effective_user {USER}\npinger_enable off\n\
                 pipeline_prefetch 0\nserver_persistent_connections on\nmax_filedescriptors 16384\n",
                database.display(),
                hosts.display(),
            ),
        )?;
        // It refuses to be root.
        let given = Command::new("chown").args(["-R", USER]).arg(self.dir).status()?;
        ensure!(given.success(), "squid's folder cannot be given to {USER}");
        let mut command = pinned(1, program);
        command.args(["-N", "-n", SQUID_NAME, "-f"]).arg(config);
        Ok(command)
    }

    fn mitmproxy(&self, program: &Path) -> Result<Command> {
        std::fs::copy(self.certs.join("ca-both.pem"), self.dir.join("mitmproxy-ca.pem"))?;
        let script = "def responseheaders(flow):\n    flow.response.stream = True\n";
        let script = self.write("stream.py", script)?;
        let mut command = pinned(1, program);
        command.arg("--quiet").args(["--listen-host", "127.0.0.1", "--listen-port"]);
        command.arg(self.listen.port().to_string()).arg("-s").arg(script);
        for option in [
            format!("confdir={}", self.dir.display()),
            format!("ssl_verify_upstream_trusted_ca={}", self.cert("ca.pem")),
            "connection_strategy=lazy".to_owned(),
            "flow_detail=0".to_owned(),
        ] {
            command.arg("--set").arg(option);
        }
        Ok(command)
    }

    fn envoy(&self, program: &Path) -> Result<Command> {
        let cert = |name: &str| serde_json::json!({ "filename": self.cert(name) });
        let address = |at: SocketAddr| serde_json::json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
        let alpn = if self.h2 { "h2" } else { "http/1.1" };
        let version = if self.h2 { "http2_protocol_options" } else { "http_protocol_options" };
        let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
        let manager = serde_json::json!({
            "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "b",
            "route_config": {"virtual_hosts": [{"name": "b", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "u", "timeout": "0s"}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": kind("filters.http.router.v3.Router")}}],
        });
        let config = serde_json::json!({"static_resources": {
            "listeners": [{"name": "l", "address": address(self.listen), "filter_chains": [{
                "filters": [{"name": "hcm", "typed_config": manager}],
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": kind("transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": {"alpn_protocols": [alpn], "tls_certificates": [
                        {"certificate_chain": cert("leaf.pem"), "private_key": cert("leaf-key.pem")}]},
                }},
            }]}],
            "clusters": [{"name": "u", "connect_timeout": "5s",
                "load_assignment": {"cluster_name": "u", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(self.upstream)}}]}]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
                        "explicit_http_config": {version: {}}}},
                "transport_socket": {"name": "tls", "typed_config": {
                    "@type": kind("transport_sockets.tls.v3.UpstreamTlsContext"),
                    "sni": NAME,
                    // As a client it would stay with TLS 1.2.
                    "common_tls_context": {"alpn_protocols": [alpn], "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                    }, "validation_context": {
                        "trusted_ca": cert("ca.pem"),
                        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}]}},
                }},
                "circuit_breakers": {"thresholds": [
                    {"max_connections": 8000, "max_requests": 8000, "max_pending_requests": 8000}]},
            }],
        }});
        let config = self.write("envoy.json", &config.to_string())?;
        let mut command = pinned(1, program);
        command.arg("-c").arg(config);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_programs_say() {
        for (text, version) in [
            ("HAProxy version 2.6.12-1+deb12u4 2026/01/01", "2.6.12"),
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("Squid Cache: Version 5.7\n", "5.7"),
            ("Mitmproxy: 11.0.2\nPython: 3.11.2", "11.0.2"),
            ("/x/python3.11/envoy  version: 0a1b2c3d/1.40.0/Clean/RELEASE", "1.40.0"),
        ] {
            assert_eq!(number_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(number_in("no number"), None);
    }
}
