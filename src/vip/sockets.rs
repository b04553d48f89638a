//! Ends TCP connections of other processes, by sock_diag: the other side gets a reset at once, the process an error.

use super::nlmsg::{ACK, Bytes, DUMP, Netlink, NetlinkError, REQUEST};
use nix::sys::socket::SockProtocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const TCP: u8 = 6;
const V4: u8 = 2;
const V6: u8 = 10;
/// Established, being established, closed by one side with data still under way (FIN_WAIT1, CLOSE_WAIT). Not FIN_WAIT2: all was
/// delivered, and what is left of such a connection cannot be ended on kernels such as 6.1.
const STATES: u32 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 8;
/// Ports, addresses, interface and cookie: the part of an answer that names the socket, taken over as it is.
const ID: usize = 48;
/// How often the list is read again until nothing is left that answers the description.
const ROUNDS: usize = 5;

/// Ends every connection whose local end is this address and port, and answers how many there were. IPv4 connections of a socket
/// that listens on both families count as IPv4. Connections that ended by themselves meanwhile are no error.
pub fn destroy(local: IpAddr, port: u16) -> Result<usize, NetlinkError> {
    let local = local.to_canonical();
    destroy_where(port, 0, |connection| connection.local == local)
}

/// Ends every connection to this local port, except those of the addresses in `except` and those of this machine with itself (the
/// door holds neither back), and answers how many there were.
pub fn destroy_clients(port: u16, except: &[IpAddr]) -> Result<usize, NetlinkError> {
    destroy_where(port, 0, |connection| {
        let spared = |ip: &IpAddr| ip.to_canonical() == connection.remote;
        let own = connection.remote.is_loopback() || connection.remote == connection.local;
        !own && !except.iter().any(spared)
    })
}

/// Ends every connection of this machine to that address and port, e.g. the one by which a replica reads from its source.
pub fn destroy_towards(remote: IpAddr, port: u16) -> Result<usize, NetlinkError> {
    let remote = remote.to_canonical();
    destroy_where(0, port, |connection| connection.remote == remote)
}

struct Connection {
    local: IpAddr,
    remote: IpAddr,
}

/// A port of 0 is any port.
fn destroy_where(local_port: u16, remote_port: u16, wanted: impl Fn(&Connection) -> bool) -> Result<usize, NetlinkError> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkSockDiag, "CONFIG_INET_DIAG and CONFIG_INET_DIAG_DESTROY")?;
    let mut bytes = Bytes::default();
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let mut found: Vec<(u8, [u8; ID])> = Vec::new();
        for family in [V4, V6] {
            let mut id = [0; ID];
            id[..2].copy_from_slice(&local_port.to_be_bytes());
            id[2..4].copy_from_slice(&remote_port.to_be_bytes());
            id[40..].fill(0xff);
            let seq = netlink.numbers(1);
            bytes.clear();
            bytes.message(BY_FAMILY, REQUEST | DUMP, seq, &request(family, &id), |_| {});
            netlink.dump("list TCP connections", bytes.as_slice(), seq, |_, answer| {
                let Some((family, id)) = named(answer) else { return };
                if wanted(&connection(family, &id)) {
                    found.push((family, id));
                }
            })?;
        }
        if found.is_empty() {
            break;
        }
        for (family, id) in &found {
            let seq = netlink.numbers(1);
            bytes.clear();
            bytes.message(DESTROY, REQUEST | ACK, seq, &request(*family, id), |_| {});
            match netlink.commit("end a TCP connection", bytes.as_slice(), seq, seq) {
                Ok(()) => ended += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

fn request(family: u8, id: &[u8; ID]) -> [u8; 8 + ID] {
    let mut request = [0; 8 + ID];
    request[0] = family;
    request[1] = TCP;
    request[4..8].copy_from_slice(&STATES.to_ne_bytes());
    request[8..].copy_from_slice(id);
    request
}

/// Family and name of the socket of an answer.
fn named(answer: &[u8]) -> Option<(u8, [u8; ID])> {
    Some((*answer.first()?, answer.get(4..4 + ID)?.try_into().ok()?))
}

fn connection(family: u8, id: &[u8; ID]) -> Connection {
    let address = |at: usize| {
        if family == V4 {
            let octets: [u8; 4] = id[at..at + 4].try_into().expect("four bytes of a longer array");
            return IpAddr::V4(Ipv4Addr::from(octets));
        }
        let octets: [u8; 16] = id[at..at + 16].try_into().expect("sixteen bytes of a longer array");
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    Connection {
        local: address(4),
        remote: address(20),
    }
}
