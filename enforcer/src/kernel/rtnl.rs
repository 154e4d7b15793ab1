//! What is asked of the kernel about interfaces, by rtnetlink(7): which of them are the
//! ends of cables into another network namespace. Also what its messages are made of.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_GETNSID: u16 = 90;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// The multicast group of changes of links.
const RTMGRP_LINK: u32 = 1;

/// Bytes of a message's header, of `ifinfomsg`, and of `rtgenmsg` with its padding.
const HEADER: usize = 16;
const IFINFO: usize = 16;
const RTGEN: usize = 4;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;
/// How long the kernel may take to answer.
const PATIENCE_S: i64 = 2;

/// Interfaces of this thread's namespace whose other ends are in other namespaces.
pub struct Cables {
    kernel: OwnedFd,
    /// The interface, and the number by which this namespace knows the other one.
    ends: Vec<(u32, i32)>,
}

impl Cables {
    pub fn list() -> io::Result<Self> {
        let kernel = open(0)?;
        let mut ends = Vec::new();
        let all = Request::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, vec![0; IFINFO]);
        request(&kernel, all)?;
        answers(&kernel, |kind, body| {
            if kind == RTM_NEWLINK
                && is_cable(body)
                && let Some(index) = number(body, 4)
                && let Some(id) = attribute(body, IFINFO, IFLA_LINK_NETNSID)
            {
                ends.push((index, id));
            }
        })?;
        Ok(Self { kernel, ends })
    }

    /// Those that lead into this one.
    pub fn leading_into(&self, netns: &File) -> io::Result<Vec<u32>> {
        let mut ask = Request::new(RTM_GETNSID, NLM_F_REQUEST, vec![0; RTGEN]);
        ask.number(NETNSA_FD, netns.as_raw_fd().cast_unsigned());
        request(&self.kernel, ask)?;
        let mut id = None;
        answers(&self.kernel, |_, body| id = attribute(body, RTGEN, NETNSA_NSID))?;
        // -1: it has no number, so that nothing leads there.
        let Some(id) = id.filter(|id| *id >= 0) else { return Ok(Vec::new()) };
        Ok(self.ends.iter().filter(|(_, end)| *end == id).map(|(index, _)| *index).collect())
    }
}

/// Links of this thread's namespace that lead out of it: devices of the machine, and those
/// whose other end is in another namespace.
pub(super) fn ways_out() -> io::Result<usize> {
    let kernel = open(0)?;
    let mut many = 0;
    request(&kernel, Request::new(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, vec![0; IFINFO]))?;
    answers(&kernel, |kind, body| {
        if kind == RTM_NEWLINK && leads_out(body) {
            many += 1;
        }
    })?;
    Ok(many)
}

/// A device has no kind of link.
fn leads_out(link: &[u8]) -> bool {
    let is_device = part(link, IFINFO, IFLA_LINKINFO).is_none() && short(link, 2) != Some(ARPHRD_LOOPBACK);
    is_device || attribute(link, IFINFO, IFLA_LINK_NETNSID).is_some()
}

/// Tells when interfaces of this thread's namespace change.
pub struct LinkChanges(OwnedFd);

impl LinkChanges {
    pub fn open() -> io::Result<Self> {
        open(RTMGRP_LINK).map(Self)
    }

    /// Whether something has changed since the last time; what was lost counts.
    pub fn any(&self) -> bool {
        let mut any = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut [0; 1024], MsgFlags::MSG_DONTWAIT) {
                Err(nix::errno::Errno::EAGAIN) => return any,
                Ok(0) | Err(nix::errno::Errno::EBADF) => return any,
                Ok(_) | Err(_) => any = true,
            }
        }
    }
}

impl AsFd for LinkChanges {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether all that enters a link at one end comes out at the other: its own traffic goes
/// nowhere else. A tunnel or a macvlan has its lower end elsewhere, too, but is no such.
fn is_cable(link: &[u8]) -> bool {
    let kind = part(link, IFINFO, IFLA_LINKINFO).and_then(|info| part(info, 0, IFLA_INFO_KIND));
    kind.is_some_and(|kind| [&b"veth"[..], b"netkit"].contains(&kind.strip_suffix(b"\0").unwrap_or(kind)))
}

pub(super) fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    setsockopt(&kernel, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
    bind(kernel.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(kernel)
}

/// A message to the kernel.
pub(super) struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// `body`: the fixed part of this kind of message.
    pub fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Self { kind, flags, body }
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// With the byte that ends it.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat());
    }

    /// An attribute that holds others.
    pub fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::new(0, 0, Vec::new());
        fill(&mut inner);
        self.attribute(kind, &inner.body);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }
}

pub(super) fn request(kernel: &OwnedFd, wanted: Request) -> io::Result<()> {
    let length = u32::try_from(HEADER + wanted.body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(wanted.kind.to_ne_bytes());
    message.extend(wanted.flags.to_ne_bytes());
    // No sequence, and the kernel knows our port.
    message.extend([0; 8]);
    message.extend(wanted.body);
    send(kernel.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

/// Reads an answer, or all parts of one.
pub(super) fn answers(kernel: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        while let (Some(length), Some(kind), Some(flags)) = (number(rest, 0), short(rest, 4), short(rest, 6))
        {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(message) = rest.get(HEADER..length) else {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            };
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    // 0 says that it has been done.
                    let code = number(message, 0).unwrap_or_default().cast_signed();
                    return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => each(kind, message),
            }
            // NLM_F_MULTI: more follow.
            if flags & 2 == 0 {
                return Ok(());
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn attribute(body: &[u8], from: usize, wanted: u16) -> Option<i32> {
    part(body, from, wanted).and_then(|value| number(value, 0)).map(u32::cast_signed)
}

/// What an attribute holds, of those that begin at `from`.
pub(super) fn part(body: &[u8], from: usize, wanted: u16) -> Option<&[u8]> {
    let mut rest = body.get(from..)?;
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let length = usize::from(length).max(ATTRIBUTE);
        // The two highest bits are flags.
        if kind & 0x3fff == wanted {
            return rest.get(ATTRIBUTE..length);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_and_nothing_is_read_past_the_end() {
        let mut body = vec![0; RTGEN];
        body.extend([5, 0, 9, 0, 1, 0, 0, 0]);
        body.extend([8, 0, 1, 0]);
        body.extend(7_i32.to_ne_bytes());
        assert_eq!(attribute(&body, RTGEN, 1), Some(7));
        assert_eq!(attribute(&body, RTGEN, 2), None);
        for cut in 0..body.len() {
            assert_eq!(attribute(&body[..cut], RTGEN, 1), None, "{cut}");
        }
        // A length of 0 comes to its end all the same.
        assert_eq!(attribute(&[0; 64], 0, 3), None);
    }

    #[test]
    fn of_all_links_only_cables_are_cables() {
        let link = |kind: &str| {
            let mut link = Request::new(0, 0, vec![0; IFINFO]);
            link.number(IFLA_LINK_NETNSID, 0);
            link.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
            link.body
        };
        assert!(is_cable(&link("veth")) && is_cable(&link("netkit")));
        for other in ["macvlan", "ipvlan", "wireguard", "vxlan", "veth2", ""] {
            assert!(!is_cable(&link(other)), "{other}");
        }
        assert!(!is_cable(&[0; IFINFO]));
    }

    #[test]
    fn out_lead_devices_and_what_ends_elsewhere() {
        let link = |hardware: u16, kind: Option<&str>, elsewhere: bool| {
            let mut body = vec![0; IFINFO];
            body[2..4].copy_from_slice(&hardware.to_ne_bytes());
            let mut link = Request::new(0, 0, body);
            if let Some(kind) = kind {
                link.nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, kind));
            }
            if elsewhere {
                link.number(IFLA_LINK_NETNSID, 0);
            }
            leads_out(&link.body)
        };
        assert!(link(1, None, false) && link(1, Some("veth"), true) && link(1, Some("macvlan"), true));
        assert!(!link(ARPHRD_LOOPBACK, None, false));
        for inside in ["veth", "tun", "dummy", "bridge"] {
            assert!(!link(1, Some(inside), false), "{inside}");
        }
    }

    #[test]
    fn nothing_of_this_namespace_leads_into_itself() {
        let own = File::open("/proc/self/ns/net").unwrap();
        assert_eq!(Cables::list().unwrap().leading_into(&own).unwrap(), Vec::<u32>::new());
        assert!(!LinkChanges::open().unwrap().any());
    }
}
