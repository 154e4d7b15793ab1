//! From a name to addresses that may be dialled.
//!
//! **Invariant**: an address is checked after it was resolved, and the one that
//! was checked is the one that is dialled; nobody resolves a second time.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::policy::AddressRules;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error("the name does not exist")]
    NotFound,
    #[error("the name servers did not answer in time")]
    Timeout,
    #[error("the name could not be resolved: {0}")]
    Failed(String),
}

impl ResolveError {
    pub fn reason(&self) -> &'static str {
        match self {
            ResolveError::NotFound => "dns-not-found",
            ResolveError::Timeout => "dns-timeout",
            ResolveError::Failed(_) => "dns-failed",
        }
    }
}

pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ResolveError>> + Send + 'a>>;

/// The enforcer's own resolver, as the proxy sees it.
pub trait Resolve: Send + Sync {
    /// All addresses of a canonical name, for the workload with this tag.
    fn resolve<'a>(&'a self, tag: u64, name: &'a str) -> Resolving<'a>;
}

/// Names that the library looks up for one workload at the same time.
const MAX_OPEN: usize = 96;

/// Asks the host's own resolver library.
///
/// It keeps a thread busy until its own timeouts are over, whoever has gone by then,
/// and there are not many: one workload may not take them all.
#[derive(Debug, Default)]
pub struct SystemResolve {
    open: Mutex<HashMap<u64, Arc<Semaphore>>>,
}

impl SystemResolve {
    /// The right to look one name up; `None`: the workload has too many under way.
    fn turn(&self, tag: u64) -> Option<OwnedSemaphorePermit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other, turns| *other == tag || turns.available_permits() < MAX_OPEN);
        let turns = open.entry(tag).or_insert_with(|| Arc::new(Semaphore::new(MAX_OPEN)));
        Arc::clone(turns).try_acquire_owned().ok()
    }
}

impl Resolve for SystemResolve {
    fn resolve<'a>(&'a self, tag: u64, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let busy = || ResolveError::Failed(format!("{MAX_OPEN} names of this workload are open"));
            let turn = self.turn(tag).ok_or_else(busy)?;
            let name = name.to_owned();
            let asking = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, 0)).await;
                drop(turn);
                found
            });
            let found = asking.await.map_err(|error| ResolveError::Failed(error.to_string()))?;
            let found = found.map_err(|error| ResolveError::Failed(error.to_string()))?;
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.dedup();
            if addresses.is_empty() { Err(ResolveError::NotFound) } else { Ok(addresses) }
        })
    }
}

/// Why an address is not dialled unless policy names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    Unspecified,
    Loopback,
    LinkLocal,
    Private,
    Multicast,
    /// Addresses that carry another one inside.
    Embedded,
    /// Reserved, documentation, benchmarking, broadcast.
    Reserved,
    /// Where people decide about what jobs do.
    Page,
    /// Where the proxy takes connections: what it dials itself would be whose record is left there.
    Proxy,
}

impl Special {
    pub fn reason(self) -> &'static str {
        match self {
            Special::Unspecified => "address-unspecified",
            Special::Loopback => "address-loopback",
            Special::LinkLocal => "address-link-local",
            Special::Private => "address-private",
            Special::Multicast => "address-multicast",
            Special::Embedded => "address-embedded",
            Special::Reserved => "address-reserved",
            Special::Page => "address-of-the-page",
            Special::Proxy => "address-of-the-proxy",
        }
    }
}

/// Whether an address may be dialled: public ones may, others if policy names them.
pub fn check(address: IpAddr, rules: &AddressRules) -> Result<(), Special> {
    match special(address) {
        None => Ok(()),
        // There is no rule that makes these mean what they say.
        Some(found @ (Special::Unspecified | Special::Multicast | Special::Embedded)) => Err(found),
        Some(_) if rules.permits(address) => Ok(()),
        Some(found) => Err(found),
    }
}

/// Whether somebody who listens at `own` would get what is sent to this address.
///
/// **Invariant**: no policy leads a job to the page on which people decide about it, nor by way of
/// the proxy to the proxy.
pub fn leads_to(own: SocketAddr, address: IpAddr, port: u16) -> bool {
    let address = address.to_canonical();
    if port != own.port() {
        return false;
    }
    if !own.ip().is_unspecified() {
        // Where one of them is open, others of this host may lead there by a rule of its own.
        return address == own.ip().to_canonical() || address.is_loopback() && own.ip().is_loopback();
    }
    address.is_loopback() || is_own(std::net::UdpSocket::bind((address, 0)))
}

/// Only an address of this host can be taken. One of which that cannot be told (no descriptor
/// is left, say) counts as one.
fn is_own<T>(taken: std::io::Result<T>) -> bool {
    !taken.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// The IANA special-purpose registries, as far as they are not globally reachable.
fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(v4) => special4(v4),
        // A mapped address would be dialled over IPv4: it counts as what it maps,
        // and is refused as such even when that is public.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(_) => Some(Special::Embedded),
            None => special6(v6),
        },
    }
}

fn special4(v4: Ipv4Addr) -> Option<Special> {
    let [a, b, _, _] = v4.octets();
    if v4.is_unspecified() {
        Some(Special::Unspecified)
    } else if v4.is_loopback() {
        Some(Special::Loopback)
    } else if v4.is_link_local() {
        // 169.254.169.254 and 169.254.170.2, the clouds' metadata, are among these.
        Some(Special::LinkLocal)
    } else if v4.is_private() || (a == 100 && (64..128).contains(&b)) {
        // 100.64.0.0/10 is where carriers and some clouds keep their metadata.
        Some(Special::Private)
    } else if v4.is_multicast() {
        Some(Special::Multicast)
    } else if reserved4(v4) {
        Some(Special::Reserved)
    } else {
        None
    }
}

fn special6(v6: Ipv6Addr) -> Option<Special> {
    let s = v6.segments();
    if v6.is_unspecified() {
        Some(Special::Unspecified)
    } else if v6.is_loopback() {
        Some(Special::Loopback)
    } else if v6.is_multicast() {
        Some(Special::Multicast)
    } else if v6.is_unicast_link_local() || (s[0] & 0xffc0) == 0xfec0 {
        Some(Special::LinkLocal)
    } else if v6.is_unique_local() {
        Some(Special::Private)
    } else if s[..6] == [0; 6] || (s[0] == 0x64 && s[1] == 0xff9b) || s[0] == 0x2002 {
        // v4-compatible, NAT64 and 6to4.
        Some(Special::Embedded)
    } else if reserved6(s) {
        Some(Special::Reserved)
    } else {
        None
    }
}

fn reserved4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    a == 0 || a >= 240 || v4.is_documentation() || protocol || benchmark
}

/// What is not global unicast, or set aside within it.
fn reserved6(s: [u16; 8]) -> bool {
    let protocol = s[0] == 0x2001 && s[1] < 0x200;
    let documentation = s[0] == 0x2001 && s[1] == 0xdb8;
    (s[0] & 0xe000) != 0x2000 || protocol || documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_workload_leaves_room_for_others() {
        let system = SystemResolve::default();
        let turns: Vec<_> = (0..MAX_OPEN).map(|_| system.turn(1).unwrap()).collect();
        assert!(system.turn(1).is_none());
        assert!(system.turn(2).is_some());
        drop(turns);
        assert!(system.turn(1).is_some());
        assert!(system.turn(3).is_some());
        // Those that have nothing under way are forgotten.
        assert_eq!(system.open.lock().unwrap().len(), 1);
    }

    fn found(text: &str) -> Option<Special> {
        special(text.parse().unwrap())
    }

    #[test]
    fn nobody_is_led_to_the_page() {
        let leads =
            |page: &str, address: &str, port| leads_to(page.parse().unwrap(), address.parse().unwrap(), port);
        for address in ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"] {
            assert!(leads("127.0.0.1:80", address, 80) && leads("0.0.0.0:80", address, 80), "{address}");
            assert!(!leads("127.0.0.1:80", address, 81), "{address}");
            assert!(!leads("10.0.0.1:80", address, 80), "{address}");
        }
        assert!(leads("10.0.0.1:80", "10.0.0.1", 80) && !leads("10.0.0.1:80", "10.0.0.2", 80));
        // A process without descriptors leads nobody there.
        assert!(is_own::<()>(Err(std::io::Error::from_raw_os_error(libc::EMFILE))));
        // Of no host that runs this.
        assert!(!leads("0.0.0.0:80", "192.0.2.1", 80) && !leads("[::]:80", "2001:db8::1", 80));
    }

    #[test]
    fn public_addresses_need_no_rule() {
        for text in ["1.1.1.1", "8.8.8.8", "99.255.255.255", "100.128.0.1", "2606:4700::1111"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn special_addresses_are_found() {
        for (text, want) in [
            ("0.0.0.0", Special::Unspecified),
            ("::", Special::Unspecified),
            ("127.0.0.1", Special::Loopback),
            ("127.255.0.9", Special::Loopback),
            ("::1", Special::Loopback),
            ("169.254.169.254", Special::LinkLocal),
            ("fe80::1", Special::LinkLocal),
            ("10.1.2.3", Special::Private),
            ("172.31.0.1", Special::Private),
            ("192.168.0.1", Special::Private),
            ("100.100.100.200", Special::Private),
            ("fd00:ec2::254", Special::Private),
            ("224.0.0.1", Special::Multicast),
            ("ff02::1", Special::Multicast),
            ("255.255.255.255", Special::Reserved),
            ("0.1.2.3", Special::Reserved),
            ("192.0.2.1", Special::Reserved),
            ("2001:db8::1", Special::Reserved),
            ("::ffff:127.0.0.1", Special::Embedded),
            ("::ffff:8.8.8.8", Special::Embedded),
            ("::127.0.0.1", Special::Embedded),
            ("64:ff9b::7f00:1", Special::Embedded),
            ("2002:7f00:1::", Special::Embedded),
        ] {
            assert_eq!(found(text), Some(want), "{text}");
        }
    }
}
