//! A rule: expressions in a row, each of which lets the packet go on or not.

use crate::vip::nlmsg::Bytes;

const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_FAMILY: u32 = 15;
const META_L4: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_RECEIVER: u32 = 2;
const UNICAST: u32 = 1;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// It is lost.
    Drop,
    /// It goes on.
    Accept,
}

impl Verdict {
    pub fn code(self) -> u32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
        }
    }
}

/// A rule under construction.
#[derive(Debug, Default)]
pub(crate) struct Rule(Bytes);

impl Rule {
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn write(self, into: &mut Bytes) {
        into.raw(self.0.as_slice());
    }

    /// Goes on for other transports than TCP.
    pub fn not_tcp(self) -> Self {
        self.meta(META_L4).compare(UNEQUAL, &[6])
    }

    /// Goes on for TCP segments with another destination port.
    pub fn other_target_port(self, port: u16) -> Self {
        self.payload(BASE_TRANSPORT, 2, 2).compare(UNEQUAL, &port.to_be_bytes())
    }

    /// Goes on for TCP segments with another source port.
    pub fn other_source_port(self, port: u16) -> Self {
        self.payload(BASE_TRANSPORT, 0, 2).compare(UNEQUAL, &port.to_be_bytes())
    }

    /// Goes on if the packet came in by this interface.
    pub fn came_by(self, name: &str) -> Self {
        self.meta(META_IN_NAME).compare(EQUAL, &interface(name))
    }

    /// Goes on if the packet came in by another interface.
    pub fn came_by_other(self, name: &str) -> Self {
        self.meta(META_IN_NAME).compare(UNEQUAL, &interface(name))
    }

    /// Goes on if the packet leaves by another interface.
    pub fn leaves_by_other(self, name: &str) -> Self {
        self.meta(META_OUT_NAME).compare(UNEQUAL, &interface(name))
    }

    /// Goes on if the IPv4 sender is in the set.
    pub fn sender4_in(self, set: &str) -> Self {
        self.family(2).payload(BASE_NETWORK, 12, 4).lookup(set)
    }

    /// Goes on if the IPv6 sender is in the set.
    pub fn sender6_in(self, set: &str) -> Self {
        self.family(10).payload(BASE_NETWORK, 8, 16).lookup(set)
    }

    /// Goes on if the IPv4 receiver is in the set.
    pub fn receiver4_in(self, set: &str) -> Self {
        self.family(2).payload(BASE_NETWORK, 16, 4).lookup(set)
    }

    /// Goes on if the IPv6 receiver is in the set.
    pub fn receiver6_in(self, set: &str) -> Self {
        self.family(10).payload(BASE_NETWORK, 24, 16).lookup(set)
    }

    /// Goes on if the TCP destination port is in the set.
    pub fn target_port_in(self, set: &str) -> Self {
        self.payload(BASE_TRANSPORT, 2, 2).lookup(set)
    }

    /// Goes on if the TCP source port is in the set.
    pub fn source_port_in(self, set: &str) -> Self {
        self.payload(BASE_TRANSPORT, 0, 2).lookup(set)
    }

    /// Goes on if the receiver is a host that is not this one. Needs the kernel's `nft_fib_inet`.
    pub fn for_another_host(self) -> Self {
        let looked_up = self.add("fib", |b| {
            b.be32(1, REGISTER);
            b.be32(2, FIB_ADDRESS_TYPE);
            b.be32(3, FIB_OF_RECEIVER);
        });
        // The kernel writes the type as a number of its own byte order.
        looked_up.compare(EQUAL, &UNICAST.to_ne_bytes())
    }

    /// Goes on if the segment is a TCP reset.
    pub fn tcp_reset(self) -> Self {
        let mask = |b: &mut Bytes, kind, byte| b.nested(kind, |b| b.attr(1, &[byte]));
        let masked = self.payload(BASE_TRANSPORT, 13, 1).add("bitwise", |b| {
            b.be32(1, REGISTER);
            b.be32(2, REGISTER);
            b.be32(3, 1);
            mask(b, 4, 0x04);
            mask(b, 5, 0);
        });
        masked.compare(UNEQUAL, &[0])
    }

    /// Ends the rule: this becomes of the packet.
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.add("immediate", |b| {
            b.be32(1, VERDICT_REGISTER);
            b.nested(2, |b| b.nested(2, |b| b.be32(1, verdict.code())));
        })
    }

    /// Ends the rule: the packet is lost and its sender gets a TCP reset.
    pub fn reset(self) -> Self {
        self.add("reject", |b| {
            b.be32(1, 1);
            b.attr(2, &[0]);
        })
    }

    fn family(self, number: u8) -> Self {
        self.meta(META_FAMILY).compare(EQUAL, &[number])
    }

    fn meta(self, key: u32) -> Self {
        self.add("meta", |b| {
            b.be32(1, REGISTER);
            b.be32(2, key);
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        self.add("payload", |b| {
            b.be32(1, REGISTER);
            b.be32(2, base);
            b.be32(3, offset);
            b.be32(4, length);
        })
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.add("cmp", |b| {
            b.be32(1, REGISTER);
            b.be32(2, operator);
            b.nested(3, |b| b.attr(1, value));
        })
    }

    fn lookup(self, set: &str) -> Self {
        self.add("lookup", |b| {
            b.text(1, set);
            b.be32(2, REGISTER);
        })
    }

    fn add(mut self, name: &str, body: impl FnOnce(&mut Bytes)) -> Self {
        self.0.nested(1, |b| {
            b.text(1, name);
            b.nested(2, body);
        });
        self
    }
}

/// An interface's name as the kernel compares it: 16 bytes, filled up with zeros.
fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    for (to, from) in padded[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    padded
}
