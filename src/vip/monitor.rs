//! What happens to links and addresses, as the kernel tells it.

use super::VipError;
use super::nlmsg::Messages;
use super::rtnl::{Changed, changed};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The groups of links and of addresses of both families.
const GROUPS: i32 = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;

/// A netlink socket that hears of every change in its namespace.
#[derive(Debug)]
pub(super) struct Monitor {
    fd: AsyncFd<OwnedFd>,
    input: Box<[u8]>,
}

/// What was heard.
#[derive(Debug)]
pub(super) enum News {
    /// These changes, in their order.
    These(Vec<Changed>),
    /// There was more than the socket's room takes: look for yourself.
    TooMuch,
}

impl Monitor {
    pub fn open() -> Result<Self, VipError> {
        let failed = |source: io::Error| VipError::Kernel {
            doing: "watch links and addresses",
            nic: "all interfaces".to_owned(),
            source,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute);
        let fd = fd.map_err(|errno| failed(errno.into()))?;
        let groups = u32::try_from(GROUPS).expect("a mask of low bits");
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(|errno| failed(errno.into()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned and never swapped, which is what that is about"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).map_err(failed)?;
        Ok(Self {
            fd,
            input: vec![0; 32 << 10].into_boxed_slice(),
        })
    }

    /// The next news. Dropping the future loses nothing.
    pub async fn news(&mut self) -> io::Result<News> {
        let input = &mut self.input;
        let read = |fd: &OwnedFd| match recv(fd.as_raw_fd(), input, MsgFlags::empty()) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::ENOBUFS) => Ok(None),
            Err(errno) => Err(errno.into()),
        };
        Ok(match self.fd.async_io(Interest::READABLE, read).await? {
            Some(read) => News::These(
                Messages(&self.input[..read])
                    .filter_map(|message| changed(&message))
                    .collect(),
            ),
            None => News::TooMuch,
        })
    }
}
