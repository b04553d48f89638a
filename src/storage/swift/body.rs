//! Reading an object: goes on where the connection broke, and never mixes two versions of it.

use super::client::{Ask, Broken, StoreClient, etag, header};
use crate::storage::{Body, Meta, ObjectName, Stat, StorageError, StorageErrorKind};
use bytes::Bytes;
use futures_util::stream::try_unfold;
use md5::{Digest, Md5};
use reqwest::{Method, Response};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tracing::warn;

/// So often in a row, without one byte in between, an answer may break at once.
const BREAKS: u32 = 8;

/// What an answer to GET or HEAD tells of its object.
pub(super) fn stat_of(name: &ObjectName, answer: &Response) -> Stat {
    let meta = answer.headers().iter().filter_map(|(key, value)| {
        let key = key.as_str().strip_prefix("x-object-meta-")?.replace('-', "_");
        Some((key, String::from_utf8_lossy(value.as_bytes()).into_owned()))
    });
    Stat {
        name: name.clone(),
        bytes: header(answer, "content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        modified: header(answer, "last-modified").and_then(http_time),
        checksum: etag(answer),
        meta: meta.collect::<Meta>(),
    }
}

/// A time as headers have it.
pub(super) fn http_time(text: &str) -> Option<SystemTime> {
    chrono::DateTime::parse_from_rfc2822(text).ok().map(SystemTime::from)
}

/// Whether the ETag is the MD5 of the object's bytes.
fn is_plain(answer: &Response) -> bool {
    header(answer, "x-static-large-object").is_none() && header(answer, "x-object-manifest").is_none()
}

struct Reading {
    client: Arc<StoreClient>,
    name: String,
    etag: Option<String>,
    at: u64,
    end: u64,
    answer: Option<Response>,
    md5: Option<Md5>,
    breaks: u32,
}

/// The object from its start.
pub(super) async fn open(client: &Arc<StoreClient>, name: &ObjectName) -> Result<(Stat, Body), StorageError> {
    let answer = client.send("read", &Ask::new(Method::GET, name.as_str())).await?;
    let stat = stat_of(name, &answer);
    let reading = Reading {
        client: client.clone(),
        name: name.to_string(),
        etag: stat.checksum.clone(),
        at: 0,
        end: stat.bytes,
        md5: is_plain(&answer).then(Md5::new),
        answer: Some(answer),
        breaks: 0,
    };
    Ok((stat, reading.body()))
}

/// The object from a place in it.
pub(super) async fn open_from(client: &Arc<StoreClient>, name: &ObjectName, offset: u64) -> Result<Body, StorageError> {
    let answer = client.send("read", &Ask::new(Method::HEAD, name.as_str())).await?;
    let stat = stat_of(name, &answer);
    if offset > stat.bytes {
        let what = format!("byte {offset} is behind its end at {}", stat.bytes);
        return Err(StorageError::invalid("read", client.place(name.as_str()), what));
    }
    let mut reading = Reading {
        client: client.clone(),
        name: name.to_string(),
        etag: stat.checksum,
        at: offset,
        end: stat.bytes,
        md5: None,
        answer: None,
        breaks: 0,
    };
    if offset < stat.bytes {
        reading.answer = Some(reading.ask().await?);
    }
    Ok(reading.body())
}

impl Reading {
    fn body(self) -> Body {
        let pieces = try_unfold(self, |mut reading| async move {
            let piece = reading.next().await.map_err(StorageError::into_io)?;
            Ok::<_, io::Error>(piece.map(|piece| (piece, reading)))
        });
        Box::pin(StreamReader::new(Box::pin(pieces)))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        while self.at < self.end {
            let mut answer = match self.answer.take() {
                Some(answer) => answer,
                None => self.ask().await?,
            };
            let broken = match timeout(self.client.wait, answer.chunk()).await {
                Ok(Ok(Some(piece))) => {
                    self.answer = Some(answer);
                    return Ok(Some(self.take(piece)));
                }
                Ok(Ok(None)) => Broken::from(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(Err(error)) => Broken::from(error),
                Err(_) => Broken::from(io::Error::from(io::ErrorKind::TimedOut)),
            };
            self.breaks += 1;
            let error = self.client.broken("read", &self.client.place(&self.name), broken);
            if self.breaks > BREAKS {
                return Err(error);
            }
            warn!(object = self.name, offset = self.at, %error, "reading of an object goes on after a break");
        }
        match self.md5.take().map(|md5| hex::encode(md5.finalize())) {
            Some(found) if self.etag.as_ref().is_some_and(|etag| *etag != found) => {
                Err(self.corrupt("its bytes do not fit its ETag"))
            }
            _ => Ok(None),
        }
    }

    fn take(&mut self, mut piece: Bytes) -> Bytes {
        let left = self.end - self.at;
        if piece.len() as u64 > left {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(&piece);
        }
        if !piece.is_empty() {
            self.breaks = 0;
        }
        self.at += piece.len() as u64;
        piece
    }

    /// The rest of it, of the same version.
    async fn ask(&self) -> Result<Response, StorageError> {
        let mut ask = Ask::new(Method::GET, self.name.as_str()).header("range", &format!("bytes={}-", self.at));
        if let Some(etag) = &self.etag {
            ask = ask.header("if-match", &format!("\"{etag}\""));
        }
        let answer = self.client.send("read", &ask).await?;
        let range = header(&answer, "content-range").unwrap_or("").to_owned();
        let wanted = format!("bytes {}-{}/{}", self.at, self.end.saturating_sub(1), self.end);
        let whole = self.at == 0 && answer.status() == 200;
        if !(whole || answer.status() == 206 && range == wanted) || etag(&answer) != self.etag {
            return Err(self.corrupt("it was replaced while it was read"));
        }
        Ok(answer)
    }

    fn corrupt(&self, what: &'static str) -> StorageError {
        StorageError::new(StorageErrorKind::Corrupt, "read", self.client.place(&self.name), what)
    }
}
