//! Links and addresses by rtnetlink, in the network namespace of the thread that opened the socket.

use super::address::Address;
use super::nlmsg::{ACK, Bytes, CREATE, DUMP, EXCLUSIVE, Message, Netlink, REQUEST, attr, attrs};
use super::{Mac, NetlinkError, VipError};
use datastore_api::Change;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use std::net::IpAddr;

const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_HEAD: usize = 16;
const IS_UP: u32 = 0x1;
const HAS_CARRIER: u32 = 0x1_0000;
const ETHERNET: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
const ADDRESS_HEAD: usize = 8;
const NO_DAD: u32 = 0x02;
const DAD_FAILED: u32 = 0x08;
const TENTATIVE: u32 = 0x40;

/// The origin we write beside each address (`IFA_PROTO`, Linux 5.18): `ip address` shows it as `proto 0x54`. Not used by others:
/// the kernel has 0 to 3, routing daemons take theirs from the table of route protocols below 0xc0.
const OUR_PROTO: u8 = 0x54;
/// The end of the label of our IPv4 addresses, for kernels without the above.
const OUR_LABEL: &str = ":trove";
/// Labels are as long as interface names.
const LABEL_MAX: usize = 15;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub index: u32,
    pub name: String,
    /// Only if it is Ethernet.
    pub mac: Option<Mac>,
    /// Set up, and with a carrier.
    pub up: bool,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub nic: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// It carries our mark.
    pub ours: bool,
    /// The kernel found that somebody else has it.
    pub dad_failed: bool,
    /// Usable: neither tentative nor failed.
    pub usable: bool,
    /// As the kernel described it, to put it there again.
    raw: Vec<u8>,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    Link(Link),
    LinkGone(u32),
    Address(Found),
    AddressGone(Found),
}

/// The socket for questions and changes. Answers come within the system call, so nothing here waits.
#[derive(Debug)]
pub(super) struct Rtnl {
    netlink: Netlink,
    bytes: Bytes,
}

impl Rtnl {
    pub fn open() -> Result<Self, VipError> {
        Ok(Self {
            netlink: Netlink::open(SockProtocol::NetlinkRoute, "IPv6")?,
            bytes: Bytes::default(),
        })
    }

    pub fn links(&mut self) -> Result<Vec<Link>, VipError> {
        self.dump("list the interfaces", GET_LINK, LINK_HEAD, |kind, body| {
            match (kind, link(body)) {
                (NEW_LINK, Some(link)) => Some(link),
                _ => None,
            }
        })
    }

    pub fn addresses(&mut self) -> Result<Vec<Found>, VipError> {
        self.dump("list the addresses", GET_ADDRESS, ADDRESS_HEAD, |kind, body| {
            match (kind, found(body)) {
                (NEW_ADDRESS, Some(found)) => Some(found),
                _ => None,
            }
        })
    }

    /// A dump that a change ran into is begun again; the third is taken as it is.
    fn dump<T>(
        &mut self,
        doing: &'static str,
        kind: u16,
        head: usize,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, VipError> {
        for attempt in 0.. {
            let mut all = Vec::new();
            let seq = self.netlink.numbers(1);
            self.bytes.clear();
            self.bytes.message(kind, REQUEST | DUMP, seq, &[0; LINK_HEAD][..head], |_| {});
            let bytes = self.bytes.as_slice();
            let whole = self
                .netlink
                .dump(doing, bytes, seq, |kind, body| all.extend(read(kind, body)))?;
            if whole || attempt >= 2 {
                return Ok(all);
            }
        }
        unreachable!("the loop ends by itself")
    }

    /// Adds an address with our mark. `Unchanged`: it is there, by whom ever.
    pub fn add(&mut self, address: &Address, nic: &Link) -> Result<Change, VipError> {
        let flags: u32 = if address.ip().is_ipv6() { NO_DAD } else { 0 };
        let head = head(address.ip(), address.prefix(), nic.index);
        let label = format!("{}{OUR_LABEL}", nic.name);
        let outcome = self.change("add the service address", NEW_ADDRESS, CREATE | EXCLUSIVE, &head, |b| {
            with_ip(b, address.ip());
            b.attr(IFA_FLAGS, &flags.to_ne_bytes());
            b.attr(IFA_PROTO, &[OUR_PROTO]);
            if address.ip().is_ipv6() {
                // No preferred lifetime, valid for ever: clients' connections work, but no connection that this host opens
                // (to its peer, say) starts from an address that may leave at any moment.
                b.attr(IFA_CACHEINFO, &cache_info(0, u32::MAX));
            } else if label.len() <= LABEL_MAX {
                b.text(IFA_LABEL, &label);
            }
        });
        match outcome {
            Ok(()) => Ok(Change::Done),
            Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(Change::Unchanged),
            Err(error) if address.ip().is_ipv6() && (no_ipv6(&error)) => Err(VipError::Ipv6Disabled(nic.name.clone())),
            Err(NetlinkError::NotFound { .. }) => Err(VipError::NoSuchNic(nic.name.clone())),
            Err(error) if errno(&error) == Some(Errno::ENODEV) => Err(VipError::NoSuchNic(nic.name.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an address that was found. Addresses of others that the kernel takes with it (secondaries of the same network) are
    /// put back at once.
    pub fn remove(&mut self, gone: &Found) -> Result<Change, VipError> {
        let before = self.addresses()?;
        let head = head(gone.ip, gone.prefix, gone.nic);
        match self.change("remove the service address", DEL_ADDRESS, 0, &head, |b| with_ip(b, gone.ip)) {
            Err(error) if error.is_not_found() || matches!(errno(&error), Some(Errno::EADDRNOTAVAIL | Errno::ENODEV)) => {
                return Ok(Change::Unchanged);
            }
            other => other?,
        }
        if gone.ip.is_ipv4() {
            let after = self.addresses()?;
            let same = |a: &Found, b: &Found| (a.nic, a.ip, a.prefix) == (b.nic, b.ip, b.prefix);
            for lost in &before {
                if lost.ip.is_ipv4() && !same(lost, gone) && !lost.ours && !after.iter().any(|there| same(there, lost)) {
                    let (head, body) = lost.raw.split_at(ADDRESS_HEAD);
                    let body = body.to_vec();
                    self.change("put back a secondary address", NEW_ADDRESS, CREATE, head, |b| b.raw(&body))?;
                    tracing::warn!(address = %lost.ip, "the kernel removed an address together with ours; it was put back");
                }
            }
        }
        Ok(Change::Done)
    }

    fn change(
        &mut self,
        doing: &'static str,
        kind: u16,
        flags: u16,
        head: &[u8],
        body: impl FnOnce(&mut Bytes),
    ) -> Result<(), NetlinkError> {
        let seq = self.netlink.numbers(1);
        self.bytes.clear();
        self.bytes.message(kind, REQUEST | ACK | flags, seq, head, body);
        self.netlink.commit(doing, self.bytes.as_slice(), seq, seq)
    }
}

/// What a message of the monitor says, if it is about links or addresses.
pub(super) fn changed(message: &Message<'_>) -> Option<Changed> {
    match message.kind {
        NEW_LINK => link(message.body).map(Changed::Link),
        DEL_LINK => link(message.body).map(|link| Changed::LinkGone(link.index)),
        NEW_ADDRESS => found(message.body).map(Changed::Address),
        DEL_ADDRESS => found(message.body).map(Changed::AddressGone),
        _ => None,
    }
}

fn errno(error: &NetlinkError) -> Option<Errno> {
    match error {
        NetlinkError::Kernel { source, .. } => source.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

/// The kernel answers EACCES where the NIC's `disable_ipv6` is set, and "unsupported" where there is no IPv6 at all.
fn no_ipv6(error: &NetlinkError) -> bool {
    errno(error) == Some(Errno::EACCES) || matches!(error, NetlinkError::Unsupported { .. })
}

fn head(ip: IpAddr, prefix: u8, nic: u32) -> [u8; ADDRESS_HEAD] {
    let family = if ip.is_ipv4() {
        nix::libc::AF_INET
    } else {
        nix::libc::AF_INET6
    };
    let mut head = [0; ADDRESS_HEAD];
    head[0] = u8::try_from(family).expect("both families are small numbers");
    head[1] = prefix;
    head[4..].copy_from_slice(&nic.to_ne_bytes());
    head
}

fn with_ip(b: &mut Bytes, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => [IFA_LOCAL, IFA_ADDRESS].map(|kind| b.attr(kind, &ip.octets())),
        IpAddr::V6(ip) => [IFA_LOCAL, IFA_ADDRESS].map(|kind| b.attr(kind, &ip.octets())),
    };
}

fn cache_info(preferred: u32, valid: u32) -> [u8; 16] {
    let mut info = [0; 16];
    info[..4].copy_from_slice(&preferred.to_ne_bytes());
    info[4..8].copy_from_slice(&valid.to_ne_bytes());
    info
}

fn link(body: &[u8]) -> Option<Link> {
    let (head, attributes) = body.split_at_checked(LINK_HEAD)?;
    let flags = word(&head[8..])?;
    let ethernet = u16::from_ne_bytes([head[2], head[3]]) == ETHERNET;
    Some(Link {
        index: word(&head[4..])?,
        name: text(attr(attributes, LINK_NAME)?),
        mac: attr(attributes, LINK_ADDRESS).filter(|_| ethernet).and_then(Mac::of),
        up: flags & IS_UP != 0 && flags & HAS_CARRIER != 0,
    })
}

fn found(body: &[u8]) -> Option<Found> {
    let (head, attributes) = body.split_at_checked(ADDRESS_HEAD)?;
    // Point-to-point: the local side is IFA_LOCAL, the other IFA_ADDRESS. IPv6 has only the latter, as a rule.
    let ip = attr(attributes, IFA_LOCAL)
        .or_else(|| attr(attributes, IFA_ADDRESS))
        .and_then(ip)?;
    let mut flags = u32::from(head[2]);
    let (mut ours, mut label) = (false, None);
    for (kind, content) in attrs(attributes) {
        match kind {
            IFA_FLAGS => flags = word(content)?,
            IFA_PROTO => ours |= content.first() == Some(&OUR_PROTO),
            IFA_LABEL => label = Some(text(content)),
            _ => {}
        }
    }
    Some(Found {
        nic: word(&head[4..])?,
        ip,
        prefix: head[1],
        ours: ours || label.is_some_and(|label| label.ends_with(OUR_LABEL)),
        dad_failed: flags & DAD_FAILED != 0,
        usable: flags & (DAD_FAILED | TENTATIVE) == 0,
        raw: body.to_vec(),
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let mut b = Bytes::default();
        let address: IpAddr = "fd00::9".parse().unwrap();
        b.message(NEW_ADDRESS, 0, 1, &head(address, 64, 7), |b| {
            with_ip(b, address);
            b.attr(IFA_FLAGS, &(NO_DAD | DAD_FAILED).to_ne_bytes());
            b.attr(IFA_PROTO, &[OUR_PROTO]);
        });
        let read = found(&b.as_slice()[16..]).unwrap();
        assert_eq!((read.nic, read.ip, read.prefix), (7, address, 64));
        assert!(read.ours && read.dad_failed && !read.usable);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (link(&body), found(&body));
        }
    }
}
