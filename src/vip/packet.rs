//! Packet sockets: whole frames on one interface, and only those about our addresses in.

use super::frames::{ADVERTISEMENT, ARP, ICMPV6, IPV6, SOLICITATION};
use super::{Vip, VipError};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::bind;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::io::{self, ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The longest frame that can matter: an advertisement with some options.
const FRAME: usize = 256;

/// What is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Who says that an address is its.
    Claims,
    /// Also who asks whether it may have it.
    ClaimsAndQuestions,
}

/// A packet socket on one interface for one family.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: AsyncFd<Socket>,
    buffer: [u8; FRAME],
}

impl PacketSocket {
    /// Opens one for the addresses of this family in the VIP; `None` if it has none. Needs CAP_NET_RAW.
    pub fn open(nic: &str, vip: &Vip, v4: bool, heard: Heard) -> Result<Option<Self>, VipError> {
        let addresses: Vec<IpAddr> = vip
            .addresses()
            .iter()
            .map(super::Address::ip)
            .filter(|ip| ip.is_ipv4() == v4)
            .collect();
        if addresses.is_empty() {
            return Ok(None);
        }
        let doing = "open a packet socket";
        let failed = |source: io::Error| {
            if source.raw_os_error() == Some(nix::libc::EPERM) {
                return VipError::Capability {
                    doing,
                    name: "CAP_NET_RAW",
                };
            }
            VipError::Kernel {
                doing,
                nic: nic.to_owned(),
                source,
            }
        };
        let socket = open(nic, &addresses, v4, heard).map_err(failed)?;
        let socket = socket.ok_or_else(|| VipError::NoSuchNic(nic.to_owned()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; this descriptor is owned and never swapped, which is what that is about"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE).map_err(failed)?;
        Ok(Some(Self {
            socket,
            buffer: [0; FRAME],
        }))
    }

    /// Sends a frame, or fails at once.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let sent = self.socket.get_ref().send(frame)?;
        if sent == frame.len() {
            Ok(())
        } else {
            Err(ErrorKind::WriteZero.into())
        }
    }

    /// The next frame. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> io::Result<&[u8]> {
        let buffer = &mut self.buffer;
        let read = self
            .socket
            .async_io(Interest::READABLE, |mut socket| socket.read(buffer))
            .await?;
        Ok(&self.buffer[..read])
    }
}

fn open(nic: &str, addresses: &[IpAddr], v4: bool, heard: Heard) -> io::Result<Option<Socket>> {
    let kind = if v4 { ARP } else { IPV6 };
    let socket = Socket::new(
        Domain::PACKET,
        Type::RAW.nonblocking(),
        Some(Protocol::from(i32::from(kind.to_be()))),
    )?;
    socket.attach_filter(&filter(addresses, heard))?;
    // The list of interfaces has the link-layer address that is to be bound; without a protocol in it the socket's own stays.
    let all = getifaddrs().map_err(io::Error::from)?;
    let mut links = all.filter(|it| it.interface_name == nic).filter_map(|it| it.address);
    let Some(link) = links.find_map(|address| address.as_link_addr().copied()) else {
        return Ok(None);
    };
    bind(socket.as_raw_fd(), &link).map_err(io::Error::from)?;
    // What came between opening and binding may be from another interface.
    let mut frame = [0; FRAME];
    while (&socket).read(&mut frame).is_ok() {}
    Ok(Some(socket))
}

const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// A packet filter, so that the agent is not woken by the other traffic of the NIC: only frames of which the last 32 bits of the
/// address are one of ours. It counts bytes from the head of the Ethernet frame.
fn filter(addresses: &[IpAddr], heard: Heard) -> Vec<SockFilter> {
    let op = |code, k| SockFilter::new(code, 0, 0, k);
    let leave = op(RETURN, 0);
    // Goes on behind the `leave` if the value is `k`.
    let must_be = |k| [SockFilter::new(JUMP_IF_EQUAL, 1, 0, k), SockFilter::new(RETURN, 0, 0, 0)];
    let take_if = |k| {
        [
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, k),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ]
    };
    let mut program = Vec::new();
    let one_of = |program: &mut Vec<SockFilter>, at| {
        program.push(op(LOAD_WORD, at));
        for ip in addresses {
            program.extend(take_if(match ip {
                IpAddr::V4(ip) => ip.to_bits(),
                IpAddr::V6(ip) => u32::try_from(ip.to_bits() & 0xffff_ffff).expect("32 bits"),
            }));
        }
    };
    if addresses.iter().any(IpAddr::is_ipv4) {
        // The sender's address; or, if it has none, the one it asks for.
        one_of(&mut program, 28);
        if heard == Heard::ClaimsAndQuestions {
            program.extend(must_be(0));
            one_of(&mut program, 38);
        }
    } else {
        program.push(op(LOAD_BYTE, 20));
        program.extend(must_be(u32::from(ICMPV6)));
        program.push(op(LOAD_BYTE, 54));
        if heard == Heard::ClaimsAndQuestions {
            // A solicitation counts if it comes from nobody: the first word of its source is zero.
            program.push(SockFilter::new(JUMP_IF_EQUAL, 5, 0, u32::from(ADVERTISEMENT)));
            program.extend(must_be(u32::from(SOLICITATION)));
            program.push(op(LOAD_WORD, 22));
            program.extend(must_be(0));
        } else {
            program.extend(must_be(u32::from(ADVERTISEMENT)));
        }
        one_of(&mut program, 74);
    }
    program.push(leave);
    program
}
