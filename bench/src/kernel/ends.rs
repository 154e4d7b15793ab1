//! The two ends of the connections whose cost in the kernel is measured.

use std::io::{BufRead, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use enforcer::kernel::{Kernel, KernelConfig, LsmConfig, LsmMode, Tc};
use enforcer::net::sys;

/// The workload's tag.
const TAG: u64 = 1;
/// Addresses that are the host's own and not of loopback, as those of others are.
pub const OTHERS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 4000),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)), 4000),
];
/// A byte that is answered by itself.
const ANSWER: u8 = 1;

/// Loads the kernel half, and accepts what it redirects.
#[derive(clap::Args)]
pub struct ServeArgs {
    #[arg(long)]
    object: PathBuf,
    #[arg(long)]
    pins: PathBuf,
    /// With `own`, `jobs` and `jobs/tagged` below it
    #[arg(long)]
    cgroup: PathBuf,
}

/// Until its input ends.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let (own, jobs) = (args.cgroup.join("own"), args.cgroup.join("jobs"));
    std::fs::write(own.join("cgroup.procs"), "0").context("moving to the own cgroup")?;
    let mut kernel = Kernel::load_or_adopt(KernelConfig {
        object: args.object.clone(),
        pins: args.pins.clone(),
        attach: args.cgroup.clone(),
        own,
        jobs: jobs.clone(),
        tcp_port: 15001,
        dns_port: 15053,
        lsm: LsmConfig { mode: LsmMode::Off, ..LsmConfig::default() },
        tc: Tc::Off,
    })?;
    kernel.tag(&jobs.join("tagged"), TAG, 0)?;
    let [tcp4, tcp6, ..] = kernel.open_listeners(None)?.into_fds()?;
    for listener in [tcp4, tcp6].map(TcpListener::from) {
        listener.set_nonblocking(false)?;
        std::thread::spawn(move || accept(&listener, true));
    }
    println!("loaded");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    kernel.release()?;
    Ok(())
}

/// Somebody else of this host, whom nobody is redirected to. Until its input ends.
pub fn others() -> Result<()> {
    for listener in [TcpListener::bind(OTHERS[0])?, TcpListener::bind(OTHERS[1])?] {
        std::thread::spawn(move || accept(&listener, false));
    }
    println!("listening");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// One after the other: there is one client at a time.
fn accept(listener: &TcpListener, redirected: bool) {
    for stream in listener.incoming().flatten() {
        // As the proxy does it.
        if redirected && !matches!(sys::flow_of(stream.as_fd()), Ok(Some(flow)) if flow.tag == TAG) {
            eprintln!("bench: a connection without its record");
            continue;
        }
        let mut bytes = [0; 1024];
        while (&stream).read(&mut bytes).is_ok_and(|read| read > 0) {
            // Whoever pours a stream of other bytes wants no answer.
            if bytes[0] == ANSWER && (&stream).write_all(&[ANSWER]).is_err() {
                break;
            }
        }
    }
}

/// What is asked for in a line (`connect`, `talk` or `pour`, an address, and how often) is
/// done; the answer is the nanoseconds that it took.
pub fn load() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [what, to, count] = words[..] else { bail!("three words, not {line:?}") };
        let (to, count) = (to.parse::<SocketAddr>()?, count.parse::<u32>()?);
        let ns = match what {
            "connect" => {
                let begun = Instant::now();
                for _ in 0..count {
                    drop(TcpStream::connect(to)?);
                }
                begun.elapsed()
            }
            "talk" => talk(to, count, true)?,
            "pour" => talk(to, count, false)?,
            _ => bail!("{what}: connect, talk or pour"),
        };
        println!("{}", ns.as_nanos());
    }
    Ok(())
}

/// One byte there, and back if it is answered, that often.
fn talk(to: SocketAddr, count: u32, answered: bool) -> Result<std::time::Duration> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut byte = [if answered { ANSWER } else { 0 }];
    let begun = Instant::now();
    for _ in 0..count {
        stream.write_all(&byte)?;
        if answered {
            stream.read_exact(&mut byte)?;
        }
    }
    Ok(begun.elapsed())
}
