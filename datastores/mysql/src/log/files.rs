//! The server's log files on its disk: their list, their beginnings, their bytes.

use super::event::{Bad, Format, Header, MAGIC, kind};
use super::walk::{Marks, listed};
use crate::errors;
use aws_lc_rs::digest;
use datastore_api::{DriverError, ErrorKind, Host};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest beginning of a file: its format and the list of transactions before it.
const LONGEST_HEAD: usize = 256 << 10;
/// Where the first event is.
pub(super) const FIRST: u64 = MAGIC.len() as u64;
/// How many bytes before a cursor its seal is made of.
pub(super) const SEALED: u64 = 1024;

/// The files.
#[derive(Clone)]
pub(super) struct Files {
    pub host: Arc<dyn Host>,
    /// The folder they lie in.
    pub folder: PathBuf,
    /// Their list.
    pub index: PathBuf,
}

/// What a file begins with.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub format: Format,
    /// The transactions before it.
    pub list: Marks,
    /// Of the first events, by which the file is known again.
    pub digest: String,
}

impl Files {
    /// Names in the index, oldest first; empty if there is none.
    pub async fn names(&self) -> Result<Vec<String>, DriverError> {
        let read = self.host.read(&self.index).await;
        let bytes = read.map_err(|error| errors::file("read", &self.index, error))?;
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let name = |line: &str| {
            Path::new(line.trim())
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        };
        Ok(text.lines().filter_map(name).collect())
    }

    /// Bytes of a file, fewer at its end; `None` if it is gone.
    pub async fn range(&self, file: &str, from: u64, limit: usize) -> Result<Option<Vec<u8>>, DriverError> {
        let path = self.folder.join(file);
        let read = self.host.read_range(&path, from, limit).await;
        let mut bytes = read.map_err(|error| errors::file("read", &path, error))?;
        let flags = FIRST + 17;
        if let Some(bytes) = &mut bytes
            && let Some(at) = flags.checked_sub(from).and_then(|at| usize::try_from(at).ok())
            && let Some(byte) = bytes.get_mut(at)
        {
            // The one bit that changes later: whether the file is in use.
            *byte &= !1;
        }
        Ok(bytes)
    }

    /// How a file begins; `None` if it is gone or not all of it is written yet.
    pub async fn head(&self, file: &str) -> Result<Option<Head>, DriverError> {
        let Some(bytes) = self.range(file, 0, LONGEST_HEAD).await? else {
            return Ok(None);
        };
        read_head(&bytes).map_err(|bad| self.unreadable(file, &bad))
    }

    /// By which bytes before `offset` are known again; `None` if they are not there.
    pub async fn seal(&self, file: &str, head: &Head, offset: u64) -> Result<Option<String>, DriverError> {
        let from = offset.saturating_sub(SEALED).max(FIRST);
        let length = usize::try_from(offset.saturating_sub(from)).unwrap_or(usize::MAX);
        let bytes = self.range(file, from, length).await?.unwrap_or_default();
        Ok((bytes.len() == length).then(|| seal(head, &bytes)))
    }

    fn unreadable(&self, file: &str, bad: &Bad) -> DriverError {
        let path = self.folder.join(file);
        let is_encrypted = bad.0 == ENCRYPTED;
        let kind = if is_encrypted {
            ErrorKind::NotSupported
        } else {
            ErrorKind::Failed
        };
        DriverError::new(kind, format!("binary log {} has {bad}", path.display()))
    }
}

const ENCRYPTED: &str = "encrypted events, which only the server can read";

fn read_head(bytes: &[u8]) -> Result<Option<Head>, Bad> {
    if bytes.len() < MAGIC.len() {
        return Ok(None);
    }
    let mut rest = bytes
        .strip_prefix(MAGIC)
        .ok_or_else(|| Bad("another beginning than a binary log".into()))?;
    let Some(first) = next_event(&mut rest)? else {
        return Ok(None);
    };
    let format = Format::read(first)?;
    let Some(second) = next_event(&mut rest)? else {
        return Ok(None);
    };
    if second.get(4) == Some(&kind::ENCRYPTION) {
        return Err(Bad(ENCRYPTED.into()));
    }
    if second.get(4) != Some(&kind::GTID_LIST) || !format.fits(second) {
        return Err(Bad("no list of the transactions before it".into()));
    }
    let both = &bytes[MAGIC.len()..MAGIC.len() + first.len() + second.len()];
    Ok(Some(Head {
        list: listed(second)?,
        digest: short_digest(both),
        format,
    }))
}

fn next_event<'b>(rest: &mut &'b [u8]) -> Result<Option<&'b [u8]>, Bad> {
    let Some(header) = Header::read(rest)? else { return Ok(None) };
    let Some((event, after)) = rest.split_at_checked(header.length) else {
        return Ok(None);
    };
    *rest = after;
    Ok(Some(event))
}

fn short_digest(bytes: &[u8]) -> String {
    hex::encode(&digest::digest(&digest::SHA256, bytes).as_ref()[..12])
}

pub(super) fn seal(head: &Head, tail: &[u8]) -> String {
    format!("{}-{}", head.digest, short_digest(tail))
}
