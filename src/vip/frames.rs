//! Frames of ARP (RFC 826, 5227) and neighbour discovery (RFC 4861) as bytes.

use super::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Type of an Ethernet frame with ARP in it.
pub(super) const ARP: u16 = 0x0806;
/// Type of an Ethernet frame with IPv6 in it.
pub(super) const IPV6: u16 = 0x86dd;

const ETHERNET_HEAD: usize = 14;
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const ARP_LENGTH: usize = 28;
const BROADCAST: Mac = Mac([0xff; 6]);
const NOBODY: Mac = Mac([0; 6]);
const IPV6_HEAD: usize = 40;
/// Next header of IPv6.
pub(super) const ICMPV6: u8 = 58;
/// Types of ICMPv6.
pub(super) const SOLICITATION: u8 = 135;
pub(super) const ADVERTISEMENT: u8 = 136;
const OVERRIDE: u8 = 0x20;
const TARGET_MAC_OPTION: u8 = 2;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What neighbours are told: this address is ours now.
///
/// IPv4: gratuitous ARP as a request, and as a reply whose target hardware address is the sender's. Linux updates its cache
/// by both; it ignores a reply to ff:ff:ff:ff:ff:ff. IPv6: an unsolicited advertisement with the override flag, to all nodes.
pub(super) fn announcement(mac: Mac, ip: IpAddr) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(mac, REQUEST, ip, NOBODY, ip), arp(mac, REPLY, ip, mac, ip)],
        IpAddr::V6(ip) => {
            let mut body = [0; 32];
            body[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0]);
            body[8..24].copy_from_slice(&ip.octets());
            body[24..26].copy_from_slice(&[TARGET_MAC_OPTION, 1]);
            body[26..].copy_from_slice(&mac.0);
            vec![discovery(mac, ip, ALL_NODES, &mut body)]
        }
    }
}

/// The question that only an owner answers, asked from no address at all: an ARP probe (RFC 5227), or the solicitation of
/// duplicate address detection (RFC 4862).
pub(super) fn probe(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(mac, REQUEST, Ipv4Addr::UNSPECIFIED, NOBODY, ip),
        IpAddr::V6(ip) => {
            let mut body = [0; 24];
            body[0] = SOLICITATION;
            body[8..].copy_from_slice(&ip.octets());
            let last = ip.octets();
            let group = Ipv6Addr::new(
                0xff02,
                0,
                0,
                0,
                0,
                1,
                0xff00 | u16::from(last[13]),
                u16::from_be_bytes([last[14], last[15]]),
            );
            discovery(mac, Ipv6Addr::UNSPECIFIED, group, &mut body)
        }
    }
}

fn arp(mac: Mac, operation: u16, from: Ipv4Addr, to_mac: Mac, to: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ARP, ARP_LENGTH);
    frame.extend_from_slice(&ARP_HEAD);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to_mac.0);
    frame.extend_from_slice(&to.octets());
    frame
}

/// An ICMPv6 message to a multicast group; its checksum is filled in.
fn discovery(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, body: &mut [u8]) -> Vec<u8> {
    let sum = checksum(from, to, body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let group = to.octets();
    let mut frame = ethernet(
        Mac([0x33, 0x33, group[12], group[13], group[14], group[15]]),
        mac,
        IPV6,
        IPV6_HEAD + body.len(),
    );
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&u16::try_from(body.len()).expect("32 bytes at most").to_be_bytes());
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(body);
    frame
}

fn ethernet(to: Mac, from: Mac, kind: u16, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_HEAD + length);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&kind.to_be_bytes());
    frame
}

/// RFC 1071 over the pseudo header and the message. Over a message with its checksum in place: 0 if it is right.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut sum = words(&from.octets()) + words(&to.octets()) + length + u32::from(ICMPV6) + words(body);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

/// What a frame says about who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub ip: IpAddr,
    pub mac: Mac,
    /// The sender only asks whether it may have it.
    pub asks: bool,
}

/// Reads an ARP or neighbour discovery frame. `None`: it claims nothing, or is not well formed.
pub(super) fn claim(frame: &[u8]) -> Option<Claim> {
    let (head, body) = frame.split_at_checked(ETHERNET_HEAD)?;
    match u16::from_be_bytes([head[12], head[13]]) {
        ARP => arp_claim(body),
        IPV6 => discovery_claim(Mac::of(&head[6..])?, body),
        _ => None,
    }
}

fn arp_claim(body: &[u8]) -> Option<Claim> {
    let body = body.get(..ARP_LENGTH)?;
    let operation = u16::from_be_bytes([body[6], body[7]]);
    if body[..6] != ARP_HEAD || !matches!(operation, REQUEST | REPLY) {
        return None;
    }
    let ip = |at: usize| Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]);
    let (mac, sender) = (Mac::of(&body[8..])?, ip(14));
    let asks = sender.is_unspecified();
    if asks && operation == REPLY {
        return None;
    }
    let ip = IpAddr::V4(if asks { ip(24) } else { sender });
    Some(Claim { ip, mac, asks })
}

fn discovery_claim(sender: Mac, body: &[u8]) -> Option<Claim> {
    let (head, rest) = body.split_at_checked(IPV6_HEAD)?;
    let message = rest.get(..usize::from(u16::from_be_bytes([head[4], head[5]])))?;
    let ip = |bytes: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(..16)?).ok()?));
    let (from, to) = (ip(&head[8..])?, ip(&head[24..])?);
    // Hop limit 255: it was sent on this link and by nobody beyond a router.
    if head[0] >> 4 != 6 || head[6] != ICMPV6 || head[7] != 255 || message.len() < 24 || checksum(from, to, message) != 0 {
        return None;
    }
    let target = IpAddr::V6(ip(&message[8..])?);
    match message[0] {
        SOLICITATION if from.is_unspecified() => Some(Claim {
            ip: target,
            mac: sender,
            asks: true,
        }),
        ADVERTISEMENT => Some(Claim {
            ip: target,
            mac: target_mac(&message[24..]).unwrap_or(sender),
            asks: false,
        }),
        _ => None,
    }
}

fn target_mac(mut options: &[u8]) -> Option<Mac> {
    while let [kind, units, ..] = *options {
        let option = options.get(..usize::from(units) * 8).filter(|option| !option.is_empty())?;
        if kind == TARGET_MAC_OPTION {
            return Mac::of(&option[2..]);
        }
        options = &options[option.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn gratuitous_arp_has_both_forms_that_linux_believes() {
        let frames = announcement(MAC, ip("10.0.0.9"));
        assert_eq!(frames.len(), 2);
        assert_eq!(
            hex::encode(&frames[0]),
            "ffffffffffff02000000000908060001080006040001020000000009\
            0a000009000000000000\
            0a000009"
        );
        assert_eq!(
            hex::encode(&frames[1]),
            "ffffffffffff02000000000908060001080006040002020000000009\
            0a000009020000000009\
            0a000009"
        );
    }

    #[test]
    fn an_advertisement_overrides_and_is_for_all_nodes() {
        let [frame] = announcement(MAC, ip("fd00::9")).try_into().unwrap();
        assert_eq!(hex::encode(&frame[..14]), "33330000000102000000000986dd");
        assert_eq!(frame[14 + 40 + 4], 0x20);
        assert_eq!(frame.len(), 14 + 40 + 32);
    }

    #[test]
    fn what_we_say_is_understood_as_it_was_meant() {
        for text in ["10.0.0.9", "fd00::9", "2001:db8::ffff:1234:5678"] {
            for frame in announcement(MAC, ip(text)) {
                assert_eq!(
                    claim(&frame),
                    Some(Claim {
                        ip: ip(text),
                        mac: MAC,
                        asks: false
                    })
                );
            }
            assert_eq!(
                claim(&probe(MAC, ip(text))),
                Some(Claim {
                    ip: ip(text),
                    mac: MAC,
                    asks: true
                })
            );
        }
    }

    #[test]
    fn a_frame_from_beyond_a_router_or_with_a_wrong_sum_claims_nothing() {
        let [frame] = announcement(MAC, ip("fd00::9")).try_into().unwrap();
        for (at, value) in [(14 + 7, 254), (14 + 40 + 10, 1), (14 + 6, 17)] {
            let mut bad = frame.clone();
            bad[at] = value;
            assert_eq!(claim(&bad), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3u8) {
            if frame.len() >= 14 && kind > 0 {
                frame[12..14].copy_from_slice(&if kind == 1 { ARP } else { IPV6 }.to_be_bytes());
            }
            let _ = claim(&frame);
        }

        #[test]
        fn a_damaged_frame_never_ends_us(at in 0..86usize, value: u8, v6: bool) {
            let mut frame = announcement(MAC, ip(if v6 { "fd00::9" } else { "10.0.0.9" })).remove(0);
            if let Some(byte) = frame.get_mut(at) { *byte = value; }
            let _ = claim(&frame);
            let _ = claim(&frame[..at.min(frame.len())]);
        }
    }
}
