//! One object of the log: what it is, in clear, and its bytes, packed and, with a key, sealed.
//!
//! ```text
//! "TGALOG01" | length of the header, u32 | header, JSON | check of the header, 32 bytes | bytes of the log: zstd, sealed
//! ```
//!
//! Each object tells all that must be known of it, so that the window is known from the store alone. The header is in clear (times and
//! numbers of transactions, no data); its check is a signature if there is a key.

use crate::backup::keys::{Key, Keys};
use crate::backup::manifest::Digest;
use crate::backup::pipeline::cipher::{Opener, Sealer, faster};
use crate::backup::{BackupError, BackupId, Encryption};
use crate::storage::ObjectName;
use bytes::Bytes;
use datastore_api::{LogBreak, LogCursor, Stretch};
use serde::{Deserialize, Serialize};
use std::io;

const MAGIC: &[u8; 8] = b"TGALOG01";
const CHECK: usize = 32;
/// Longest header, bytes.
pub(super) const LONGEST: usize = 1 << 20;
/// Most bytes of log in one object.
const MOST: u64 = 2 << 30;
/// Form of the header.
const VERSION: u32 = 1;

/// Why a timeline was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// Why.
    pub why: LogBreak,
    /// The same for people.
    pub text: String,
}

/// What an object of the log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    version: u32,
    /// Whose log.
    pub guest: String,
    /// Objects of one timeline follow one another without a hole.
    pub timeline: u64,
    /// Why that timeline was begun.
    pub began: Began,
    /// What is in it.
    pub stretch: Stretch,
    /// When it was read from the server, in milliseconds since 1970: all that was committed a moment before is in it.
    pub read_at: u64,
    /// Where the log goes on.
    pub next: LogCursor,
    /// Of the bytes of the log.
    pub digest: Digest,
    /// How they are sealed, and what the seal is bound to.
    pub sealed: Option<(BackupId, Encryption)>,
    /// Length of what comes behind the header.
    pub stored_bytes: u64,
    /// Digest of it.
    pub stored_digest: Digest,
}

/// What is to become an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft<'a> {
    pub guest: &'a str,
    pub timeline: u64,
    pub began: &'a Began,
    pub stretch: &'a Stretch,
    pub read_at: u64,
    pub next: &'a LogCursor,
}

/// Folder of all that belongs to a guest.
pub(super) fn folder(guest: &str) -> String {
    format!("log/{guest}/")
}

/// What the name of an object tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub name: ObjectName,
    pub timeline: u64,
    pub file: String,
    pub from: u64,
    pub to: u64,
}

impl Named {
    pub fn of(guest: &str, timeline: u64, stretch: &Stretch) -> Result<Self, BackupError> {
        let Stretch { file, from, to, .. } = stretch;
        let name = format!("{}{timeline:08}/{file}.{from:012}-{to:012}.seg", folder(guest));
        Ok(Self {
            name: ObjectName::new(name)?,
            timeline,
            file: file.clone(),
            from: *from,
            to: *to,
        })
    }

    /// `None` for a name that is none of ours.
    pub fn parse(guest: &str, name: &ObjectName) -> Option<Self> {
        let (timeline, rest) = name.as_str().strip_prefix(&folder(guest))?.split_once('/')?;
        let (file, range) = rest.strip_suffix(".seg")?.rsplit_once('.')?;
        let (from, to) = range.split_once('-')?;
        Some(Self {
            name: name.clone(),
            timeline: timeline.parse().ok()?,
            file: file.to_owned(),
            from: from.parse().ok()?,
            to: to.parse().ok()?,
        })
    }

    /// The order of the log: files of one timeline by their numbers.
    pub fn order(&self) -> (u64, usize, &str, u64, std::cmp::Reverse<u64>) {
        (
            self.timeline,
            self.file.len(),
            &self.file,
            self.from,
            std::cmp::Reverse(self.to),
        )
    }
}

/// Makes the object. Computes; call it where that is allowed to take a while.
pub(super) fn encode(draft: Draft<'_>, plain: &[u8], level: i32, key: Option<&Key>) -> Result<(Header, Bytes), BackupError> {
    let pack = |doing| move |source| BackupError::Pack { doing, source };
    let packed = zstd::bulk::compress(plain, level).map_err(pack("compress a piece of the log"))?;
    let (sealed, stored) = match key {
        None => (None, packed),
        Some(key) => {
            let id = BackupId::random()?;
            let (said, derived) = key.begin(&id, faster())?;
            let mut sealer = Sealer::new(&id, said.scheme, &derived).map_err(pack("seal a piece of the log"))?;
            let mut out = Vec::with_capacity(packed.len() + packed.len() / 2048 + 64);
            let mut take = |bytes: &[u8]| {
                out.extend_from_slice(bytes);
                Ok(())
            };
            sealer.push(&packed, &mut take).map_err(pack("seal a piece of the log"))?;
            sealer.finish(&mut take).map_err(pack("seal a piece of the log"))?;
            (Some((id, said)), out)
        }
    };
    let header = Header {
        version: VERSION,
        guest: draft.guest.to_owned(),
        timeline: draft.timeline,
        began: draft.began.clone(),
        stretch: draft.stretch.clone(),
        read_at: draft.read_at,
        next: draft.next.clone(),
        digest: blake3::hash(plain).into(),
        sealed,
        stored_bytes: stored.len() as u64,
        stored_digest: blake3::hash(&stored).into(),
    };
    let json = serde_json::to_vec(&header).map_err(|error| BackupError::Pack {
        doing: "describe a piece of the log",
        source: error.into(),
    })?;
    let check = check_of(&json, &header, key)?;
    let mut object = Vec::with_capacity(MAGIC.len() + 4 + json.len() + CHECK + stored.len());
    object.extend_from_slice(MAGIC);
    object.extend((json.len() as u32).to_le_bytes());
    object.extend(&json);
    object.extend(check);
    object.extend(stored);
    Ok((header, object.into()))
}

fn check_of(json: &[u8], header: &Header, key: Option<&Key>) -> Result<[u8; CHECK], BackupError> {
    let digest: String = match (&header.sealed, key) {
        (Some((id, _)), Some(key)) => key.mac(id, json)?.into(),
        _ => Digest::from(blake3::hash(json)).into(),
    };
    let mut check = [0; CHECK];
    let decoded = hex::decode_to_slice(digest, &mut check);
    decoded.map_err(|_| BackupError::Invalid("a digest is none".into()))?;
    Ok(check)
}

/// How many bytes of an object hold its header; `None` if these bytes do not tell yet.
pub(super) fn header_end(bytes: &[u8]) -> Option<usize> {
    let length: &[u8; 4] = bytes.get(MAGIC.len()..)?.first_chunk()?;
    Some(MAGIC.len() + 4 + u32::from_le_bytes(*length) as usize + CHECK)
}

/// The header at the beginning of an object. `Damaged` if it is none, `NoKey` or `WrongKey` if its signature cannot be checked.
pub(super) fn header(name: &Named, bytes: &[u8], keys: &Keys) -> Result<Header, BackupError> {
    let damaged = |how: &str| BackupError::Damaged {
        blob: name.name.to_string(),
        how: how.to_owned(),
    };
    let end = header_end(bytes).filter(|end| bytes.starts_with(MAGIC) && *end <= LONGEST);
    let whole = end.and_then(|end| bytes.get(MAGIC.len() + 4..end));
    let Some((json, check)) = whole.and_then(|whole| whole.split_at_checked(whole.len().checked_sub(CHECK)?)) else {
        return Err(damaged("it does not begin like a piece of a log"));
    };
    let header: Header = serde_json::from_slice(json).map_err(|_| damaged("its header cannot be read"))?;
    if header.version != VERSION {
        return Err(damaged("it was written in a form that is newer than this agent"));
    }
    let key = match &header.sealed {
        Some((id, said)) => {
            let key = keys.find(&said.key_id)?;
            key.check(id, said)?;
            Some(key)
        }
        None => None,
    };
    if check_of(json, &header, key)? != check {
        return Err(damaged("its header was changed"));
    }
    let Stretch { file, from, to, .. } = &header.stretch;
    if (header.timeline, file, from, to) != (name.timeline, &name.file, &name.from, &name.to) || to < from || to - from > MOST {
        return Err(damaged("its header is another one's"));
    }
    Ok(header)
}

/// The bytes of the log in an object. Computes.
pub(super) fn decode(name: &Named, object: &[u8], keys: &Keys) -> Result<(Header, Vec<u8>), BackupError> {
    let damaged = |how: String| BackupError::Damaged {
        blob: name.name.to_string(),
        how,
    };
    let header = header(name, object, keys)?;
    let stored = header_end(object).and_then(|end| object.get(end..)).unwrap_or_default();
    if stored.len() as u64 != header.stored_bytes || Digest::from(blake3::hash(stored)) != header.stored_digest {
        return Err(damaged("its bytes are not the ones that were stored".into()));
    }
    let opened;
    let packed = match &header.sealed {
        None => stored,
        Some((id, said)) => {
            let derived = keys.find(&said.key_id)?.open(id, said)?;
            let mut out = Vec::with_capacity(stored.len());
            let mut take = |bytes: &[u8]| {
                out.extend_from_slice(bytes);
                Ok(())
            };
            let mut open = || -> io::Result<()> {
                let mut opener = Opener::new(id, said.scheme, &derived)?;
                opener.push(stored, &mut take)?;
                opener.finish(&mut take)
            };
            open().map_err(|error| damaged(error.to_string()))?;
            opened = out;
            &opened
        }
    };
    let length = (header.stretch.to - header.stretch.from) as usize;
    let plain = zstd::bulk::decompress(packed, length).map_err(|error| damaged(error.to_string()))?;
    if plain.len() != length || Digest::from(blake3::hash(&plain)) != header.digest {
        return Err(damaged("it holds other bytes than were read from the server".into()));
    }
    Ok((header, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch() -> Stretch {
        Stretch {
            file: "binlog.000012".into(),
            from: 4,
            to: 1004,
            ..Stretch::default()
        }
    }

    fn made(key: Option<&Key>) -> (Named, Bytes, Vec<u8>) {
        let (stretch, plain) = (stretch(), vec![7u8; 1000]);
        let next = LogCursor {
            file: stretch.file.clone(),
            offset: 1004,
            before: Vec::new(),
            inside: false,
            open: None,
            seal: "x".into(),
        };
        let began = Began {
            why: LogBreak::First,
            text: "first".into(),
        };
        let draft = Draft {
            guest: "g",
            timeline: 3,
            began: &began,
            stretch: &stretch,
            read_at: 5,
            next: &next,
        };
        let (_, object) = encode(draft, &plain, 3, key).unwrap();
        (Named::of("g", 3, &stretch).unwrap(), object, plain)
    }

    fn keys() -> Keys {
        let key = "ab".repeat(32).into();
        Keys::default().with_request("k", &key).unwrap()
    }

    #[test]
    fn what_is_stored_is_read_and_what_was_changed_is_found() {
        let keys = keys();
        for key in [None, keys.newest()] {
            let (named, object, plain) = made(key);
            assert_eq!(Named::parse("g", &named.name).unwrap(), named);
            assert_eq!(decode(&named, &object, &keys).unwrap().1, plain);
            for at in 0..object.len() {
                let mut bad = object.to_vec();
                bad[at] ^= 1;
                assert!(decode(&named, &bad, &keys).is_err(), "byte {at}");
                assert!(decode(&named, &object[..at], &keys).is_err(), "cut at {at}");
            }
            assert_eq!(decode(&named, &object, &Keys::default()).is_ok(), key.is_none());
        }
    }

    #[test]
    fn names_sort_as_the_log_goes() {
        assert_eq!(
            Named::parse("g", &ObjectName::new("log/g/00000001/state.json").unwrap()),
            None
        );
        assert_eq!(Named::parse("h", &made(None).0.name), None);
        let at = |timeline, file: &str, from, to| {
            let stretch = Stretch {
                file: file.into(),
                from,
                to,
                ..Stretch::default()
            };
            Named::of("g", timeline, &stretch).unwrap()
        };
        let order = [
            at(1, "binlog.999999", 4, 9),
            at(1, "binlog.1000000", 4, 90),
            at(1, "binlog.1000000", 4, 9),
            at(1, "binlog.1000000", 9, 20),
            at(2, "binlog.000001", 4, 9),
        ];
        assert!(order.is_sorted_by(|a, b| a.order() < b.order()));
    }
}
