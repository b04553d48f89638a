//! Makes an address unreachable at once, for this machine: a host route that refuses.
//!
//! A host that has fallen silent holds up whoever connects to it, for seconds; behind such a route the attempt fails at once. So with
//! `STOP SLAVE` on a semi-synchronous replica, which opens a second connection to its source: 2.0 s if that is silent, 15 ms behind
//! the route. Ending the
//! receiver's own connection ([`super::sockets::destroy_towards`]) does not shorten it, for MariaDB connects anew; nor does
//! `rpl_semi_sync_slave_kill_conn_timeout`.

use super::nlmsg::{ACK, Bytes, CREATE, DUMP, EXCLUSIVE, Netlink, NetlinkError, REQUEST, attr};
use datastore_api::Change;
use nix::sys::socket::SockProtocol;
use std::net::IpAddr;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const UNREACHABLE: u8 = 7;
const TABLE_MAIN: u8 = 254;
/// Who made the route: a number that no routing program has, so that a restart finds what is ours.
const OURS: u8 = 116;
const DESTINATION: u16 = 1;
const V4: u8 = 2;
const V6: u8 = 10;

/// Makes an address unreachable.
///
/// # Errors
/// The kernel's refusal; a route of somebody else to this one host is left as it is, and is such a refusal.
pub fn unreachable(ip: IpAddr) -> Result<(), NetlinkError> {
    let mut netlink = open()?;
    remove(&mut netlink, ip.to_canonical())?;
    change(
        &mut netlink,
        "make an address unreachable",
        NEW_ROUTE,
        CREATE | EXCLUSIVE,
        ip.to_canonical(),
    )
}

/// Takes that back.
///
/// # Errors
/// The kernel's refusal.
pub fn reachable(ip: IpAddr) -> Result<Change, NetlinkError> {
    remove(&mut open()?, ip.to_canonical())
}

/// Takes back all that this or an earlier run of the agent made unreachable, and answers what that was.
///
/// # Errors
/// The kernel's refusal.
pub fn clean() -> Result<Vec<IpAddr>, NetlinkError> {
    let mut netlink = open()?;
    let mut found = Vec::new();
    for family in [V4, V6] {
        let seq = netlink.numbers(1);
        let mut bytes = Bytes::default();
        bytes.message(
            GET_ROUTE,
            REQUEST | DUMP,
            seq,
            &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            |_| {},
        );
        netlink.dump("list the routes", bytes.as_slice(), seq, |_, route| found.extend(ours(route)))?;
    }
    for ip in &found {
        remove(&mut netlink, *ip)?;
    }
    Ok(found)
}

fn open() -> Result<Netlink, NetlinkError> {
    Netlink::open(SockProtocol::NetlinkRoute, "CONFIG_INET")
}

fn remove(netlink: &mut Netlink, ip: IpAddr) -> Result<Change, NetlinkError> {
    match change(netlink, "make an address reachable again", DELETE_ROUTE, 0, ip) {
        Ok(()) => Ok(Change::Done),
        Err(error) if error.is_not_found() => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

fn change(netlink: &mut Netlink, doing: &'static str, verb: u16, flags: u16, ip: IpAddr) -> Result<(), NetlinkError> {
    let (family, length) = if ip.is_ipv4() { (V4, 32) } else { (V6, 128) };
    let head = [family, length, 0, 0, TABLE_MAIN, OURS, 0, UNREACHABLE, 0, 0, 0, 0];
    let seq = netlink.numbers(1);
    let mut bytes = Bytes::default();
    bytes.message(verb, REQUEST | ACK | flags, seq, &head, |b| match ip {
        IpAddr::V4(ip) => b.attr(DESTINATION, &ip.octets()),
        IpAddr::V6(ip) => b.attr(DESTINATION, &ip.octets()),
    });
    netlink.commit(doing, bytes.as_slice(), seq, seq)
}

/// The destination of a route that is ours.
fn ours(route: &[u8]) -> Option<IpAddr> {
    let head = route.get(..12)?;
    if (head[4], head[5], head[7]) != (TABLE_MAIN, OURS, UNREACHABLE) {
        return None;
    }
    let to = attr(&route[12..], DESTINATION)?;
    let v4 = || <[u8; 4]>::try_from(to).map(IpAddr::from);
    v4().or_else(|_| <[u8; 16]>::try_from(to).map(IpAddr::from)).ok()
}
