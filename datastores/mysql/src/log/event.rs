//! The bytes of a binary log. Pure.
//!
//! A file is a magic number and events; an event is a header of 19 bytes (time, type, server, length, end, flags), a body and, if the file's
//! first event says so, a CRC-32. All numbers are little-endian. Facts are the server's own (its `log_event.h`).

use datastore_api::Mark;

/// What a file begins with.
pub(super) const MAGIC: &[u8; 4] = b"\xfebin";
/// Bytes of an event's header.
pub(super) const HEADER: usize = 19;
/// Bytes of a checksum.
const CHECKSUM: usize = 4;
/// No event is longer: the server's own limit of a packet, and its frame.
const LONGEST: u32 = (1 << 30) + (1 << 20);
/// The first event of a file that is still written says so in its flags, after its checksum was made.
const IN_USE: u8 = 1;
const FLAGS: usize = 17;

/// Types of events that mean something here.
pub(super) mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD: u8 = 17;
    pub const TABLE_MAP: u8 = 19;
    pub const INCIDENT: u8 = 26;
    pub const XA_PREPARE: u8 = 38;
    pub const ANNOTATE: u8 = 160;
    pub const GTID: u8 = 162;
    pub const GTID_LIST: u8 = 163;
    pub const ENCRYPTION: u8 = 164;
}

/// The beginning of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// When it was made, by the writer's clock, in seconds since 1970.
    pub time: u32,
    /// Its type.
    pub kind: u8,
    /// Its writer.
    pub server: u32,
    /// Bytes of the whole event.
    pub length: usize,
}

/// Bytes that cannot be an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Bad(pub String);

impl Header {
    /// Reads one; `None` if the bytes do not suffice.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Bad> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = four(header, 9).unwrap_or_default();
        if !(HEADER as u32..=LONGEST).contains(&length) {
            return Err(Bad(format!("an event of {length} bytes")));
        }
        Ok(Some(Self {
            time: four(header, 0).unwrap_or_default(),
            kind: header[4],
            server: four(header, 5).unwrap_or_default(),
            length: length as usize,
        }))
    }
}

/// The first event of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// Its bytes, as they are when the file is closed.
    pub bytes: Vec<u8>,
    /// Events of this file end with a checksum.
    pub has_checksums: bool,
    /// When the file was begun, in seconds since 1970.
    pub time: u32,
}

impl Format {
    /// From the bytes of the event.
    pub fn read(bytes: &[u8]) -> Result<Self, Bad> {
        let header = Header::read(bytes)?.filter(|header| header.length == bytes.len() && header.kind == kind::FORMAT);
        let (Some(header), true) = (header, bytes.len() > HEADER + 57 + CHECKSUM) else {
            return Err(Bad("no description of its format".into()));
        };
        let mut bytes = bytes.to_vec();
        bytes[FLAGS] &= !IN_USE;
        let has_checksums = match bytes[bytes.len() - CHECKSUM - 1] {
            0 => false,
            1 => true,
            other => return Err(Bad(format!("checksums of an unknown kind ({other})"))),
        };
        if has_checksums && !is_whole(&bytes) {
            return Err(Bad("a wrong checksum of its first event".into()));
        }
        Ok(Self {
            bytes,
            has_checksums,
            time: header.time,
        })
    }

    /// From the text a segment keeps.
    pub fn parse(text: &str) -> Result<Self, Bad> {
        let bytes = hex::decode(text).map_err(|_| Bad("a head that is no hexadecimal text".into()))?;
        Self::read(&bytes)
    }

    /// The text a segment keeps.
    pub fn text(&self) -> String {
        hex::encode(&self.bytes)
    }

    /// Whether an event of this file is as it was written.
    pub fn fits(&self, event: &[u8]) -> bool {
        !self.has_checksums || is_whole(event)
    }

    /// An event without its checksum.
    pub fn body<'e>(&self, event: &'e [u8]) -> &'e [u8] {
        let end = event.len() - if self.has_checksums { CHECKSUM } else { 0 };
        event.get(HEADER..end).unwrap_or_default()
    }

    /// An event that tells a reader the name of the source's log. Servers write one after the first event of a relay log.
    pub fn rotate_to(&self, file: &str) -> Vec<u8> {
        const ARTIFICIAL: u16 = 0x20;
        let checksum = if self.has_checksums { CHECKSUM } else { 0 };
        let length = HEADER + 8 + file.len() + checksum;
        let mut event = Vec::with_capacity(length);
        event.extend(0u32.to_le_bytes());
        event.push(kind::ROTATE);
        event.extend(1u32.to_le_bytes());
        event.extend((length as u32).to_le_bytes());
        event.extend(0u32.to_le_bytes());
        event.extend(ARTIFICIAL.to_le_bytes());
        event.extend(4u64.to_le_bytes());
        event.extend(file.as_bytes());
        if self.has_checksums {
            let sum = crc32fast::hash(&event);
            event.extend(sum.to_le_bytes());
        }
        event
    }
}

fn is_whole(event: &[u8]) -> bool {
    let Some((bytes, sum)) = event.split_last_chunk::<CHECKSUM>() else {
        return false;
    };
    crc32fast::hash(bytes) == u32::from_le_bytes(*sum)
}

/// What begins a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gtid {
    /// The transaction.
    pub mark: Mark,
    /// It is one statement, and nothing says that it ends.
    pub is_standalone: bool,
}

impl Gtid {
    /// From the event's bytes.
    pub fn read(event: &[u8]) -> Result<Self, Bad> {
        let read = || {
            let mark = Mark {
                domain: four(event, HEADER + 8)?,
                writer: four(event, 5)?,
                number: eight(event, HEADER)?,
            };
            let is_standalone = event.get(HEADER + 12)? & 1 != 0;
            Some(Self { mark, is_standalone })
        };
        read().ok_or_else(|| Bad("a transaction's id that is too short".into()))
    }
}

/// The transactions a file's list names.
pub(super) fn list(event: &[u8]) -> Result<Vec<Mark>, Bad> {
    let read = || {
        // The upper four bits are flags.
        let count = (four(event, HEADER)? & 0x0fff_ffff) as usize;
        let entry = |index: usize| {
            let at = HEADER + 4 + 16 * index;
            Some(Mark {
                domain: four(event, at)?,
                writer: four(event, at + 4)?,
                number: eight(event, at + 8)?,
            })
        };
        (0..count.min(event.len())).map(entry).collect::<Option<Vec<Mark>>>()
    };
    read().ok_or_else(|| Bad("a list of transactions that is too short".into()))
}

/// The text of a statement; empty if there is none.
pub(super) fn statement(body: &[u8]) -> &[u8] {
    let read = || {
        let database = usize::from(*body.get(8)?);
        let variables: &[u8; 2] = body.get(11..)?.first_chunk()?;
        let variables = usize::from(u16::from_le_bytes(*variables));
        body.get(13 + variables + database + 1..)
    };
    read().unwrap_or_default()
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}
