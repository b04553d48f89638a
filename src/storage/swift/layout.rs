//! How a large object is laid out: names of pieces, and what goes into which manifest. Pure.
//!
//! ```text
//! <uuid>.xbstream.zst        static large object: at most 1,000 segments, as upstream writes and deletes it
//!   <uuid>_00000000          segment = one part, or (far behind) a group's bytes, copied together by Swift itself
//!   <uuid>_00000250          group = a static large object of its own
//!     <uuid>_00000250_00000000     its parts
//! .segments/<name>/<random>_00000000     pieces of an object whose name is no backup's, or that replaces one
//! ```
//!
//! Parts stay small, because each is kept in memory until it is confirmed. Swift takes 1,000 segments in a manifest, and upstream's
//! way of deleting one refuses more than 10,000 pieces in all: so parts beyond the first ones go into groups, and groups far
//! behind become plain objects.

use md5::{Digest, Md5};
use serde::Serialize;

/// Folder of the pieces of objects whose name is no backup's.
pub(super) const HIDDEN: &str = ".segments/";

/// What a Swift takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Segments in a manifest.
    pub segments: u32,
    /// Bytes of a plain object.
    pub object: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segments: 1000,
            object: 5 << 30,
        }
    }
}

/// Where a part goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    /// Index of the segment in the object's manifest.
    pub segment: u32,
    /// Index in that segment's group; `None` if the part is the segment.
    pub member: Option<u32>,
}

/// Which part goes where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    flat: u32,
    /// Parts in a group.
    pub group: u32,
    /// Parts that may be pieces of their own.
    pub nested: u32,
    most: u32,
}

impl Plan {
    pub(super) fn new(limits: Limits, part_bytes: usize) -> Self {
        let fit = limits.object / (part_bytes as u64).max(1);
        let group = (limits.segments / 2).min(u32::try_from(fit).unwrap_or(u32::MAX)).max(1);
        let flat = (limits.segments / 4).max(1);
        Self {
            flat,
            group,
            // Ten manifests' worth is where deleting ends; manifests count as well.
            nested: limits.segments.saturating_mul(8),
            most: flat.saturating_add((limits.segments - flat).saturating_mul(group)),
        }
    }

    /// Parts that an object may have.
    pub(super) fn most(self) -> u32 {
        self.most
    }

    pub(super) fn seat(self, part: u32) -> Seat {
        match part.checked_sub(self.flat) {
            None => Seat {
                segment: part,
                member: None,
            },
            Some(behind) => Seat {
                segment: self.flat + behind / self.group,
                member: Some(behind % self.group),
            },
        }
    }

    /// How many of an object's `parts` parts are in a segment.
    pub(super) fn parts_in(self, segment: u32, parts: u32) -> u32 {
        match segment.checked_sub(self.flat) {
            None => 1,
            Some(group) => {
                let before = u64::from(self.flat) + u64::from(group) * u64::from(self.group);
                let there = u64::from(parts).saturating_sub(before).min(u64::from(self.group));
                u32::try_from(there).unwrap_or(self.group)
            }
        }
    }

    /// Whether the group that is this segment must become one plain object.
    pub(super) fn is_joined(self, segment: u32) -> bool {
        let last = u64::from(self.flat) + u64::from(segment.saturating_sub(self.flat) + 1) * u64::from(self.group);
        last > u64::from(self.nested)
    }
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Name in the container.
    pub name: String,
    /// Its ETag, without quotes.
    pub etag: String,
    /// Its length.
    pub bytes: u64,
}

/// Body of a manifest, in upstream's form.
pub(super) fn manifest(container: &str, entries: &[Entry]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Line<'a> {
        path: String,
        etag: &'a str,
        size_bytes: u64,
    }
    let lines: Vec<_> = entries
        .iter()
        .map(|entry| Line {
            path: format!("{container}/{}", entry.name),
            etag: &entry.etag,
            size_bytes: entry.bytes,
        })
        .collect();
    serde_json::to_vec(&lines).expect("texts and numbers always have a JSON form")
}

/// ETag of a large object: the MD5 over its segments' ETags. Upstream's checksum.
pub(super) fn etag_of(entries: &[Entry]) -> String {
    let mut md5 = Md5::new();
    entries.iter().for_each(|entry| md5.update(&entry.etag));
    hex::encode(md5.finalize())
}

/// MD5 of some bytes, as an ETag.
pub(super) fn md5_of(body: &[u8]) -> String {
    hex::encode(Md5::digest(body))
}

/// What the pieces' names of an upload begin with.
pub(super) fn base(name: &str, replaces: bool, random: u64) -> String {
    match upstream_stem(name) {
        Some(stem) if !replaces => stem.to_owned(),
        _ => format!("{HIDDEN}{name}/{random:016x}"),
    }
}

pub(super) fn segment(base: &str, seat: Seat) -> String {
    match seat.member {
        None => format!("{base}_{:08}", seat.segment),
        Some(member) => format!("{base}_{:08}_{member:08}", seat.segment),
    }
}

/// The name up to the first dot of its last part, if that is the id of a backup.
pub(super) fn upstream_stem(name: &str) -> Option<&str> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[last..].find('.').map_or(name.len(), |dot| last + dot);
    is_id(&name[last..end]).then_some(&name[..end])
}

fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// What the names of this piece's upload begin with; `None` for an object that is no piece.
pub(super) fn base_of_piece(name: &str) -> Option<&str> {
    let strip = |text: &str| {
        let (rest, number) = text.rsplit_once('_')?;
        (number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit())).then_some(rest.len())
    };
    let once = &name[..strip(name)?];
    let base = strip(once).map_or(once, |end| &once[..end]);
    let last = base.rsplit('/').next().unwrap_or(base);
    (name.starts_with(HIDDEN) || is_id(last)).then_some(base)
}

/// Of which object the hidden pieces with this base are.
pub(super) fn owner_of_hidden(base: &str) -> Option<&str> {
    base.strip_prefix(HIDDEN)?.rsplit_once('/').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "7b1e0c2a-9a7b-4f3d-8b11-6f8b5f0a1d22";

    #[test]
    fn a_large_object_has_room_for_two_terabytes_and_can_be_deleted_by_upstream() {
        let limits = Limits::default();
        let plan = Plan::new(limits, 8 << 20);
        assert!(u64::from(plan.most()) * (8 << 20) > 2_200_000_000_000);
        let mut pieces = 0u64;
        for segment in 0..limits.segments {
            pieces += match segment {
                _ if segment < plan.flat || plan.is_joined(segment) => 1,
                _ => u64::from(plan.group) + 1,
            };
        }
        assert!(pieces < u64::from(limits.segments) * 10, "{pieces}");
        assert!(u64::from(plan.group) * (8 << 20) <= limits.object);
        // Upstream's 50 GB need no copying.
        assert!(!plan.is_joined(plan.seat(50_000_000_000u64.div_ceil(8 << 20) as u32).segment));
    }

    #[test]
    fn each_part_has_a_seat_of_its_own() {
        let plan = Plan::new(
            Limits {
                segments: 8,
                object: 1000,
            },
            10,
        );
        let seats: Vec<_> = (0..plan.most()).map(|part| segment("B", plan.seat(part))).collect();
        assert_eq!(seats.len(), 2 + 6 * 4);
        assert_eq!(seats[..3], ["B_00000000", "B_00000001", "B_00000002_00000000"]);
        assert_eq!(seats.last().unwrap(), "B_00000007_00000003");
        let mut unique = seats.clone();
        unique.dedup();
        assert_eq!(unique.len(), seats.len());
    }

    #[test]
    fn pieces_are_told_from_objects() {
        for (name, wanted) in [
            (format!("{ID}_00000000"), Some(ID.to_owned())),
            (format!("{ID}_00000250_00000001"), Some(ID.to_owned())),
            (format!("a/{ID}_00000000"), Some(format!("a/{ID}"))),
            (
                ".segments/log/x.1/00ff_00000000".to_owned(),
                Some(".segments/log/x.1/00ff".to_owned()),
            ),
            (format!("{ID}.xbstream.gz"), None),
            ("binlog_00000001".to_owned(), None),
            (format!("{ID}_0000000"), None),
        ] {
            assert_eq!(base_of_piece(&name).map(str::to_owned), wanted, "{name}");
        }
        assert_eq!(owner_of_hidden(".segments/log/x.1/00ff"), Some("log/x.1"));
        assert_eq!(base(&format!("{ID}.xbstream.gz"), false, 1), ID);
        assert_eq!(base("log/x.1", false, 255), ".segments/log/x.1/00000000000000ff");
        assert!(base(&format!("{ID}.gz"), true, 1).starts_with(HIDDEN));
    }

    #[test]
    fn the_etag_is_upstreams_checksum() {
        let entry = |text: &str| Entry {
            name: "x".to_owned(),
            etag: md5_of(text.as_bytes()),
            bytes: 6,
        };
        // As a Swift answered for these two segments.
        assert_eq!(
            etag_of(&[entry("hello0"), entry("hello1")]),
            "d802197b063d4f21a300882ddd7b1b55"
        );
        let line = String::from_utf8(manifest("box", &[entry("hello0")])).unwrap();
        assert_eq!(
            line,
            r#"[{"path":"box/x","etag":"4f6d054536d6613a91472139cc60f072","size_bytes":6}]"#
        );
    }
}
