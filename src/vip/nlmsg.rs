//! Netlink messages as bytes, and a socket to send them by: no more of netlink than this room needs.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt};
use nix::sys::socket::{socket, sockopt::ReceiveTimeout};
use nix::sys::time::TimeVal;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The message is a request.
pub(super) const REQUEST: u16 = 0x1;
/// An answer is wanted even if all is well.
pub(super) const ACK: u16 = 0x4;
/// Everything that matches is wanted.
pub(super) const DUMP: u16 = 0x300;
/// Refuse if it is there.
pub(super) const EXCLUSIVE: u16 = 0x200;
/// Make it if it is not there.
pub(super) const CREATE: u16 = 0x400;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const DUMP_INTERRUPTED: u16 = 0x10;
const HEAD: usize = 16;
/// The kernel answers within microseconds; a longer silence means that something is broken.
const SILENCE_S: i64 = 2;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The process lacks a capability.
    #[error("could not {doing}: the capability CAP_NET_ADMIN is missing")]
    NotPermitted {
        /// What was being done.
        doing: &'static str,
    },
    /// This kernel has no such thing, built in or as a module.
    #[error("could not {doing}: this kernel lacks {needs}")]
    Unsupported {
        /// What was being done.
        doing: &'static str,
        /// The kernel's option or module.
        needs: &'static str,
    },
    /// What the request names does not exist.
    #[error("could not {doing}: there is no such object in the kernel")]
    NotFound {
        /// What was being done.
        doing: &'static str,
    },
    /// Any other refusal.
    #[error("could not {doing}")]
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    /// Is it only that the object is not there?
    pub fn is_not_found(&self) -> bool {
        matches!(self, NetlinkError::NotFound { .. })
    }
}

/// A message, or several in a row, under construction. The room is kept when it is cleared.
#[derive(Debug, Default)]
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// Finished attributes, as they are.
    pub fn raw(&mut self, attributes: &[u8]) {
        self.0.extend_from_slice(attributes);
    }

    /// A message with its family header `head`; `body` appends the attributes.
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32, head: &[u8], body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(&flags.to_ne_bytes());
        self.0.extend_from_slice(&seq.to_ne_bytes());
        self.0.extend_from_slice(&[0; 4]);
        self.0.extend_from_slice(head);
        self.pad();
        body(self);
        let length = u32::try_from(self.0.len() - start).expect("our messages are far below 4 GiB");
        self.0[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds flags to the message that starts at `start`.
    pub fn add_flags(&mut self, start: usize, flags: u16) {
        let at = start + 6;
        let old = u16::from_ne_bytes([self.0[at], self.0[at + 1]]);
        self.0[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// An attribute.
    pub fn attr(&mut self, kind: u16, data: &[u8]) {
        self.wrapped(kind, |b| b.0.extend_from_slice(data));
    }

    /// An attribute with a text that ends in a zero byte.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.wrapped(kind, |b| {
            b.0.extend_from_slice(text.as_bytes());
            b.0.push(0);
        });
    }

    /// An attribute with a number in network order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        self.wrapped(kind | NESTED, body);
    }

    fn wrapped(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        body(self);
        let length = u16::try_from(self.0.len() - start).expect("our attributes are far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The attributes in `bytes`: kind and content. Stops at the first that is cut off.
pub(super) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, content))
    })
}

/// The content of the first attribute of this kind.
pub(super) fn attr(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|(k, _)| *k == kind).map(|(_, content)| content)
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
    seq: u32,
    input: Box<[u8]>,
    needs: &'static str,
}

impl Netlink {
    /// Opens one. `needs` is what a kernel without this protocol lacks, for people.
    pub fn open(protocol: SockProtocol, needs: &'static str) -> Result<Self, NetlinkError> {
        let doing = "open a netlink socket";
        let failed = |errno| error(doing, needs, errno);
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(SILENCE_S, 0)).map_err(failed)?;
        let input = vec![0; 32 << 10].into_boxed_slice();
        Ok(Self {
            fd,
            seq: 1,
            input,
            needs,
        })
    }

    /// Reserves `count` sequence numbers and answers the first.
    pub fn numbers(&mut self, count: u32) -> u32 {
        let first = self.seq;
        self.seq = self.seq.wrapping_add(count);
        first
    }

    /// Sends `bytes` and reads until the message numbered `last` is acknowledged. The first refusal of a message since `first` is
    /// the error; an error of `first` itself ends a batch at once.
    pub fn commit(&mut self, doing: &'static str, bytes: &[u8], first: u32, last: u32) -> Result<(), NetlinkError> {
        self.send(doing, bytes)?;
        let mut refused = None;
        loop {
            let read = self.read(doing)?;
            for message in Messages(&self.input[..read]) {
                if message.seq.wrapping_sub(first) > last.wrapping_sub(first) || message.kind != KIND_ERROR {
                    continue;
                }
                match message.errno() {
                    Some(errno) if first != last && message.seq == first => return Err(error(doing, self.needs, errno)),
                    Some(errno) => refused = refused.or(Some(errno)),
                    None => {}
                }
                if message.seq == last {
                    return refused.map_or(Ok(()), |errno| Err(error(doing, self.needs, errno)));
                }
            }
        }
    }

    /// Sends one request for a dump, and gives kind and content of each answer to `each`.
    /// `false`: something changed meanwhile, what was given may be incomplete.
    pub fn dump(
        &mut self,
        doing: &'static str,
        bytes: &[u8],
        seq: u32,
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<bool, NetlinkError> {
        self.send(doing, bytes)?;
        let mut whole = true;
        loop {
            let read = self.read(doing)?;
            for message in Messages(&self.input[..read]).filter(|m| m.seq == seq) {
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    KIND_ERROR | KIND_DONE => return message.errno().map_or(Ok(whole), |e| Err(error(doing, self.needs, e))),
                    kind => each(kind, message.body),
                }
            }
        }
    }

    fn send(&self, doing: &'static str, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent = send(self.fd.as_raw_fd(), bytes, MsgFlags::empty());
        sent.map(drop).map_err(|errno| error(doing, self.needs, errno))
    }

    fn read(&mut self, doing: &'static str) -> Result<usize, NetlinkError> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.input, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => return other.map_err(|errno| error(doing, self.needs, errno)),
            }
        }
    }
}

fn error(doing: &'static str, needs: &'static str, errno: Errno) -> NetlinkError {
    match errno {
        Errno::EPERM => NetlinkError::NotPermitted { doing },
        Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP => NetlinkError::Unsupported { doing, needs },
        Errno::ENOENT | Errno::ESRCH => NetlinkError::NotFound { doing },
        other => NetlinkError::Kernel {
            doing,
            source: other.into(),
        },
    }
}

/// One message that came.
pub(super) struct Message<'a> {
    pub kind: u16,
    flags: u16,
    seq: u32,
    pub body: &'a [u8],
}

impl Message<'_> {
    /// The error that an error or done message carries.
    fn errno(&self) -> Option<Errno> {
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (code != 0).then(|| Errno::from_raw(-code))
    }
}

/// The messages in what was read.
pub(super) struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let head: &[u8; HEAD] = self.0.get(..HEAD)?.try_into().ok()?;
        let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let body = self.0.get(HEAD..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: half(4),
            flags: half(6),
            seq: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = Bytes::default();
        bytes.message(7, REQUEST, 9, &[1, 2, 3], |b| {
            b.text(1, "ab");
            b.nested(2, |b| b.be32(3, 5));
        });
        let message = Messages(bytes.as_slice()).next().unwrap();
        assert_eq!((message.kind, message.flags, message.seq), (7, REQUEST, 9));
        let body = &message.body[4..];
        assert_eq!(attr(body, 1), Some(&b"ab\0"[..]));
        assert_eq!(attr(attr(body, 2).unwrap(), 3), Some(&[0, 0, 0, 5][..]));
        assert_eq!(attr(body, 4), None);
    }

    #[test]
    fn cut_or_lying_lengths_end_the_reading() {
        assert_eq!(attrs(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attrs(&[200, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Messages(&[15; 40]).count(), 0);
        assert_eq!(Messages(&[0; 40]).count(), 0);
    }
}
