//! The form of the tool's stream, read as it passes by: chunks, each with the name of its file.
//!
//! ```text
//! chunk   magic 8 · flags 1 · type 1 · length of name 4 · name · (type P: length 8 · offset 8 · checksum 4 · bytes) | (type E: end of file)
//! ```
//! Numbers are little-endian. The tool that unpacks skips names it does not like and ends well all the same, and it takes a stream that
//! was cut between two chunks for a whole one: so the names and the end are looked at here. The checksums it looks at itself.

use super::checkpoints::Notes;
use datastore_api::{DriverError, ErrorKind};
use std::collections::BTreeSet;

/// What each chunk begins with.
pub(crate) const MAGIC: &[u8] = b"XBSTCK01";
/// Magic, flags, type and length of the name.
const FIXED: usize = 14;
/// Length, offset and checksum before the bytes.
const PAYLOAD: usize = 20;
/// Longest name of a file in bytes, as the tool has it.
const LONGEST_NAME: usize = 512;

/// Looks at a stream as it passes by.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    /// The head of the chunk that comes, as far as it is there.
    head: Vec<u8>,
    /// Bytes of this chunk still to come.
    left: u64,
    /// The file whose bytes are kept, if they are.
    kept: Option<String>,
    /// Files that have begun and not ended.
    open: BTreeSet<String>,
    found: Found,
}

/// What was in a stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// What the tool wrote about it.
    pub notes: Notes,
    /// Files in it.
    pub files: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// Files that say where other files are: the server would follow them out of its directory.
    pub links: Vec<String>,
}

fn damaged(what: impl std::fmt::Display) -> DriverError {
    DriverError::new(ErrorKind::Failed, format!("the stream of the backup tool is damaged: {what}"))
}

impl Scanner {
    /// Looks at the next bytes. `Failed` where they are not what comes in such a stream, `Invalid` for a name that leads elsewhere.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), DriverError> {
        self.found.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                if let Some(name) = &self.kept {
                    self.found.notes.add(name, &bytes[..n]);
                }
                self.left -= n as u64;
                bytes = &bytes[n..];
                continue;
            }
            let n = (self.needed() - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.head.len() == FIXED {
                self.check_fixed()?;
            }
            if self.head.len() == self.needed() {
                self.begin_chunk()?;
            }
        }
        Ok(())
    }

    /// The end of the stream. `Failed` if it was cut, or what the tool writes last is missing.
    pub fn finish(self) -> Result<Found, DriverError> {
        if self.left > 0 || !self.head.is_empty() {
            return Err(damaged("it ends in the middle of a chunk"));
        }
        if let Some(name) = self.open.first() {
            return Err(damaged(format_args!(
                "it ends before the end of its file {}",
                name.escape_debug()
            )));
        }
        if !self.found.notes.is_whole() {
            return Err(damaged("what the tool writes last is missing"));
        }
        Ok(self.found)
    }

    fn name_length(&self) -> usize {
        let bytes: [u8; 4] = self.head[10..FIXED].try_into().unwrap_or_default();
        usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    }

    /// Length of the head, as far as it is known.
    fn needed(&self) -> usize {
        if self.head.len() < FIXED {
            return FIXED;
        }
        let payload = if self.head[9] == b'P' { PAYLOAD } else { 0 };
        FIXED + self.name_length() + payload
    }

    fn check_fixed(&self) -> Result<(), DriverError> {
        if &self.head[..8] != MAGIC {
            return Err(damaged("a chunk does not begin as it must"));
        }
        if !matches!(self.head[9], b'P' | b'E') {
            return Err(damaged(format_args!("there is no kind {} of chunks", self.head[9])));
        }
        match self.name_length() {
            1..=LONGEST_NAME => Ok(()),
            length => Err(damaged(format_args!("a name of {length} bytes"))),
        }
    }

    fn begin_chunk(&mut self) -> Result<(), DriverError> {
        let end = FIXED + self.name_length();
        let name = std::str::from_utf8(&self.head[FIXED..end]).map_err(|_| damaged("a name is not UTF-8"))?;
        let name = name.strip_prefix("./").unwrap_or(name).to_owned();
        check_name(&name)?;
        if self.head[9] == b'E' {
            // An empty file only ends.
            self.open.remove(&name);
            self.found.files += 1;
            self.head.clear();
            return Ok(());
        }
        let length: [u8; 8] = self.head[end..end + 8].try_into().unwrap_or_default();
        self.left = u64::from_le_bytes(length);
        self.kept = Notes::wants(&name).then(|| name.clone());
        if self.open.insert(name.clone()) && name.ends_with(".isl") {
            self.found.links.push(name);
        }
        self.head.clear();
        Ok(())
    }
}

/// `Invalid` for a name that is not simply a file below the folder.
fn check_name(name: &str) -> Result<(), DriverError> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(|c: char| c.is_control());
    if name.split('/').all(is_plain) {
        return Ok(());
    }
    let text = format!(
        "the backup holds a file named {}, which would be written outside of its folder",
        name.escape_debug()
    );
    Err(DriverError::new(ErrorKind::Invalid, text))
}

#[cfg(test)]
mod tests;
