//! Filters of tc on interfaces, by rtnetlink(7): where the kernel has no links on
//! interfaces (before 6.6).
//!
//! A filter hangs in a queueing discipline, `clsact`, of which an interface has one:
//! others may have made it, and may use ours. One is removed only if it was made here
//! (the marker says so) and holds nothing any more.
//!
//! All of this is about interfaces of the calling thread's network namespace.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::rtnl::{self, NLM_F_DUMP, NLM_F_REQUEST, Request, number, part};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
/// The program's answer is what happens to the packet.
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
/// Of both disciplines that there may be at this place, `ingress` and `clsact`.
const HANDLE_OF_CLSACT: u32 = 0xffff_0000;
const PARENT_OF_CLSACT: u32 = 0xffff_fff1;
const ETH_P_ALL: u16 = 3;
/// By which our filter is told from others of the same priority.
const HANDLE: u32 = 0x656e_6663;
/// Somebody's filter of another kind may have a priority for itself: then the next is taken.
const PRIORITIES: std::ops::RangeInclusive<u16> = 1..=16;
/// Bytes of `tcmsg`.
const TCMSG: usize = 20;

/// What passes by a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes in by the interface.
    Ingress,
    /// What leaves by it.
    Egress,
}

impl Side {
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// One that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    handle: u32,
    /// Its priority and its protocol, as the kernel has them.
    info: u32,
    kind: Vec<u8>,
    name: Vec<u8>,
    /// The id of its program.
    pub program: u32,
}

impl Filter {
    fn is(&self, name: &str) -> bool {
        self.kind == b"bpf" && self.handle == HANDLE && self.name == name.as_bytes()
    }
}

/// A conversation with the kernel.
pub struct Traffic(OwnedFd);

impl Traffic {
    pub fn open() -> io::Result<Self> {
        rtnl::open(0).map(Self)
    }

    /// Our filter of this name.
    pub fn find(&self, interface: u32, side: Side, name: &str) -> io::Result<Option<Filter>> {
        Ok(self.filters(interface, side)?.into_iter().find(|it| it.is(name)))
    }

    /// Puts a program there, in the place of an earlier one of this name; true if the
    /// discipline had to be made for it.
    pub fn put(&self, interface: u32, side: Side, name: &str, program: BorrowedFd<'_>) -> io::Result<bool> {
        let made = self.make_clsact(interface)?;
        let options = |request: &mut Request| {
            request.nested(TCA_OPTIONS, |options| {
                options.number(TCA_BPF_FD, program.as_raw_fd().cast_unsigned());
                options.text(TCA_BPF_NAME, name);
                options.number(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
            });
        };
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        if let Some(before) = self.find(interface, side, name)? {
            self.filter(RTM_NEWTFILTER, flags, interface, side, before.info, options)?;
            return Ok(made);
        }
        for priority in PRIORITIES {
            let info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
            match self.filter(RTM_NEWTFILTER, flags, interface, side, info, options) {
                Err(error) if is_taken(&error) => {}
                done => return done.map(|()| made),
            }
        }
        Err(io::Error::other(format!(
            "others have filters of all priorities up to {} on interface {interface}: give theirs higher numbers",
            PRIORITIES.end()
        )))
    }

    /// Removes our filter of this name, if there is one.
    pub fn take_away(&self, interface: u32, side: Side, name: &str) -> io::Result<()> {
        let Some(found) = self.find(interface, side, name)? else { return Ok(()) };
        self.filter(RTM_DELTFILTER, 0, interface, side, found.info, |_| {})
    }

    /// Whether nobody has a filter there, on either side.
    pub fn is_empty(&self, interface: u32) -> io::Result<bool> {
        Ok(self.filters(interface, Side::Egress)?.is_empty()
            && self.filters(interface, Side::Ingress)?.is_empty())
    }

    /// Removes the discipline, and whatever hangs in it.
    pub fn remove_clsact(&self, interface: u32) -> io::Result<()> {
        let request = request(RTM_DELQDISC, NLM_F_ACK, interface, HANDLE_OF_CLSACT, PARENT_OF_CLSACT, 0);
        self.done(request)
    }

    /// True if it was made now.
    fn make_clsact(&self, interface: u32) -> io::Result<bool> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let mut wanted = request(RTM_NEWQDISC, flags, interface, HANDLE_OF_CLSACT, PARENT_OF_CLSACT, 0);
        wanted.text(TCA_KIND, "clsact");
        match self.done(wanted) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
            done => return done.map(|()| true),
        }
        // Where there is only `ingress`, what should leave through a program would be
        // taken for what comes in.
        let mut is_clsact = false;
        rtnl::request(&self.0, request(RTM_GETQDISC, NLM_F_DUMP, interface, 0, 0, 0))?;
        rtnl::answers(&self.0, |_, body| {
            if number(body, 4) == Some(interface) && number(body, 8) == Some(HANDLE_OF_CLSACT) {
                is_clsact = part(body, TCMSG, TCA_KIND).map(text_of) == Some(b"clsact");
            }
        })?;
        if is_clsact {
            return Ok(false);
        }
        Err(io::Error::other(format!(
            "interface {interface} has a queueing discipline `ingress` of somebody else, beside which there is \
             no place: `tc qdisc del dev INTERFACE ingress`, and have it made as `clsact`"
        )))
    }

    fn filter(
        &self,
        kind: u16,
        flags: u16,
        interface: u32,
        side: Side,
        info: u32,
        options: impl FnOnce(&mut Request),
    ) -> io::Result<()> {
        let mut wanted = request(kind, flags | NLM_F_ACK, interface, HANDLE, side.parent(), info);
        wanted.text(TCA_KIND, "bpf");
        options(&mut wanted);
        self.done(wanted)
    }

    fn filters(&self, interface: u32, side: Side) -> io::Result<Vec<Filter>> {
        let mut found = Vec::new();
        rtnl::request(&self.0, request(RTM_GETTFILTER, NLM_F_DUMP, interface, 0, side.parent(), 0))?;
        rtnl::answers(&self.0, |_, body| {
            let (Some(index), Some(handle), Some(info)) =
                (number(body, 4), number(body, 8), number(body, 16))
            else {
                return;
            };
            // The head of a list of filters is told, too: it has no handle.
            if index != interface || handle == 0 {
                return;
            }
            let options = part(body, TCMSG, TCA_OPTIONS).unwrap_or_default();
            found.push(Filter {
                handle,
                info,
                kind: part(body, TCMSG, TCA_KIND).map(text_of).unwrap_or_default().to_vec(),
                name: part(options, 0, TCA_BPF_NAME).map(text_of).unwrap_or_default().to_vec(),
                program: part(options, 0, TCA_BPF_ID).and_then(|id| number(id, 0)).unwrap_or(0),
            });
        })?;
        Ok(found)
    }

    fn done(&self, wanted: Request) -> io::Result<()> {
        rtnl::request(&self.0, wanted)?;
        rtnl::answers(&self.0, |_, _| {})
    }
}

/// The kernel's ways to say that a priority has filters of another kind or protocol.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EEXIST | libc::ENOSPC))
}

fn request(kind: u16, flags: u16, interface: u32, handle: u32, parent: u32, info: u32) -> Request {
    let mut body = vec![0; 4];
    for word in [interface, handle, parent, info] {
        body.extend(word.to_ne_bytes());
    }
    Request::new(kind, flags | NLM_F_REQUEST, body)
}

/// Without the byte that ends it.
fn text_of(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
