//! nf_tables by netlink: batches of tables, chains, rules and sets, as far as the door needs them.
//!
//! Owns: the numbers of the kernel's interface. Uses: the message builder. Never does: know what a rule is for.

mod expr;

pub(super) use expr::{Rule, Verdict};

use super::nlmsg::{ACK, Bytes, CREATE, DUMP, Netlink, NetlinkError, REQUEST, attr, attrs};
use nix::sys::socket::SockProtocol;
use std::time::Duration;

/// What a kernel without all of this lacks, for people.
pub(super) const NEEDS: &str = "nf_tables (CONFIG_NF_TABLES_INET, CONFIG_NFT_REJECT_INET)";

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const FAMILY_INET: u8 = 1;

const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;

const SET_HAS_TIMEOUTS: u32 = 0x10;
const LIST_ITEM: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const ELEMENT_EXPIRATION: u16 = 5;

/// Where a chain looks at packets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hook {
    /// Packets for this machine.
    Input,
    /// Packets of this machine.
    Output,
    /// Whatever comes in, before it is known whether it is for this machine.
    Prerouting,
}

/// What a set holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    /// TCP ports.
    Port,
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
}

impl Key {
    /// Number of the type as the `nft` program knows it (for its listing), and length.
    fn kind_and_length(self) -> (u32, u32) {
        match self {
            Key::Port => (13, 2),
            Key::V4 => (7, 4),
            Key::V6 => (8, 16),
        }
    }
}

/// The way to one table of ours.
#[derive(Debug)]
pub(super) struct Nft {
    netlink: Netlink,
    table: &'static str,
    bytes: Bytes,
}

impl Nft {
    pub fn open(table: &'static str) -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::open(SockProtocol::NetlinkNetFilter, NEEDS)?,
            table,
            bytes: Bytes::default(),
        })
    }

    /// Sends what `body` puts into the batch: all of it takes effect at one moment, or nothing does.
    pub fn batch(&mut self, doing: &'static str, body: impl FnOnce(&mut Batch<'_>)) -> Result<(), NetlinkError> {
        let first = self.netlink.numbers(1);
        self.bytes.clear();
        let mark = [0, 0, 0, SUBSYSTEM as u8];
        self.bytes.message(BATCH_BEGIN, REQUEST, first, &mark, |_| {});
        let mut batch = Batch {
            bytes: &mut self.bytes,
            table: self.table,
            seq: first,
            newest: 0,
        };
        body(&mut batch);
        let (last, newest) = (batch.seq, batch.newest);
        // The last change is acknowledged, not the end of the batch: kernels before 6.10 do not do the latter.
        self.bytes.add_flags(newest, ACK);
        self.bytes.message(BATCH_END, REQUEST, last.wrapping_add(1), &mark, |_| {});
        self.netlink.numbers(last.wrapping_sub(first) + 1);
        self.netlink.commit(doing, self.bytes.as_slice(), first, last)
    }

    /// The elements of a set: what is left of the timeout of each, `None` for one that stays. An error `NotFound` if the set is not there.
    pub fn elements(&mut self, doing: &'static str, set: &str) -> Result<Vec<Option<Duration>>, NetlinkError> {
        let mut found = Vec::new();
        for _ in 0..5 {
            let seq = self.netlink.numbers(1);
            self.bytes.clear();
            let table = self.table;
            self.bytes.message(
                SUBSYSTEM << 8 | GET_ELEMENT,
                REQUEST | DUMP,
                seq,
                &[FAMILY_INET, 0, 0, 0],
                |b| {
                    b.text(1, table);
                    b.text(2, set);
                },
            );
            found.clear();
            let whole = self.netlink.dump(doing, self.bytes.as_slice(), seq, |_, message| {
                let list = message.get(4..).and_then(|m| attr(m, 3)).unwrap_or_default();
                found.extend(attrs(list).map(|(_, element)| time_left(element)));
            })?;
            if whole {
                break;
            }
        }
        Ok(found)
    }
}

fn time_left(element: &[u8]) -> Option<Duration> {
    attr(element, ELEMENT_TIMEOUT)?;
    let left = attr(element, ELEMENT_EXPIRATION).and_then(|left| left.try_into().ok());
    // A timeout without what is left of it has just run out.
    Some(Duration::from_millis(left.map_or(0, u64::from_be_bytes)))
}

/// Changes that take effect together.
pub(super) struct Batch<'a> {
    bytes: &'a mut Bytes,
    table: &'static str,
    seq: u32,
    /// Where the newest message starts.
    newest: usize,
}

impl Batch<'_> {
    /// An empty table in the place of what was there.
    pub fn fresh_table(&mut self, comment: &str) {
        // Made first, so that deleting it cannot fail.
        self.put(NEW_TABLE, CREATE, |_| {});
        self.put(DELETE_TABLE, 0, |_| {});
        let mut userdata = vec![0, comment.len() as u8 + 1];
        userdata.extend_from_slice(comment.as_bytes());
        userdata.push(0);
        self.put(NEW_TABLE, CREATE, |b| b.attr(6, &userdata));
    }

    /// No table, whether there was one or not.
    pub fn no_table(&mut self) {
        self.put(NEW_TABLE, CREATE, |_| {});
        self.put(DELETE_TABLE, 0, |_| {});
    }

    /// A set; `number` tells it from the other new sets of this batch.
    pub fn set(&mut self, name: &str, key: Key, timeouts: bool, number: u32) {
        let (kind, length) = key.kind_and_length();
        self.put(NEW_SET, CREATE, |b| {
            b.text(2, name);
            b.be32(3, if timeouts { SET_HAS_TIMEOUTS } else { 0 });
            b.be32(4, kind);
            b.be32(5, length);
            b.be32(10, number);
        });
    }

    /// A chain at a hook; what no rule decides is accepted.
    pub fn chain(&mut self, name: &str, hook: Hook) {
        let number = match hook {
            Hook::Input => 1,
            Hook::Output => 3,
            Hook::Prerouting => 0,
        };
        self.put(NEW_CHAIN, CREATE, |b| {
            b.text(3, name);
            b.nested(4, |b| {
                b.be32(1, number);
                b.be32(2, 0);
            });
            b.be32(5, Verdict::Accept.code());
            b.text(7, "filter");
        });
    }

    /// A rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, rule: Rule) {
        self.put(NEW_RULE, CREATE | 0x800, |b| {
            b.text(2, chain);
            b.nested(4, |b| rule.write(b));
        });
    }

    /// An element, which leaves by itself after `timeout` if there is one. The kernel takes a timeout of 0 for none.
    pub fn element(&mut self, set: &str, key: &[u8], timeout: Option<Duration>) {
        let timeout = timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1));
        self.put(NEW_ELEMENT, CREATE, |b| {
            b.text(2, set);
            b.nested(3, |b| {
                b.nested(LIST_ITEM, |b| {
                    b.nested(1, |b| b.attr(1, key));
                    if let Some(timeout) = timeout {
                        b.attr(ELEMENT_TIMEOUT, &timeout.to_be_bytes());
                    }
                });
            });
        });
    }

    /// Takes an element away; the batch fails if it is not there any more.
    pub fn remove(&mut self, set: &str, key: &[u8]) {
        self.put(DELETE_ELEMENT, 0, |b| {
            b.text(2, set);
            b.nested(3, |b| b.nested(LIST_ITEM, |b| b.nested(1, |b| b.attr(1, key))));
        });
    }

    /// Empties a set.
    pub fn flush(&mut self, set: &str) {
        self.put(DELETE_ELEMENT, 0, |b| b.text(2, set));
    }

    fn put(&mut self, verb: u16, flags: u16, body: impl FnOnce(&mut Bytes)) {
        self.seq = self.seq.wrapping_add(1);
        self.newest = self.bytes.as_slice().len();
        let table = self.table;
        self.bytes.message(
            SUBSYSTEM << 8 | verb,
            REQUEST | flags,
            self.seq,
            &[FAMILY_INET, 0, 0, 0],
            |b| {
                b.text(1, table);
                body(b);
            },
        );
    }
}
