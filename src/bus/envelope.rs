//! The outer form of a message: content type, compression, size, `oslo.version`, and the JSON text inside.

use super::json::{self, Bomb};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::Read;

/// The content type that stands in for properties that cannot be parsed.
pub const MALFORMED: &str = "application/x-malformed";

/// Why a message cannot be read at all. Such a message is rejected: nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// AMQP properties that cannot be parsed.
    #[error("its AMQP properties are malformed")]
    Properties,
    /// Another content type than JSON.
    #[error("its content type is not application/json")]
    ContentType,
    /// Another encoding than UTF-8.
    #[error("its content encoding is not utf-8")]
    ContentEncoding,
    /// A compression we do not know.
    #[error("its compression is not known")]
    Compression,
    /// The compressed body is damaged.
    #[error("its compressed body is damaged")]
    Damaged,
    /// Too large, as it came or decompressed.
    #[error("its body is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or not of the form wanted.
    #[error("{part} is not what it must be")]
    Json {
        /// Which part.
        part: &'static str,
        /// Why. Says where and what kind, never what was there.
        #[source]
        source: serde_json::Error,
    },
    /// JSON that would cost too much memory.
    #[error(transparent)]
    Bomb(#[from] Bomb),
    /// An envelope of another version.
    #[error("its envelope version is not 2.0")]
    Version,
    /// It asks for an answer at an address that cannot exist.
    #[error("its reply address is not usable")]
    ReplyAddress,
}

/// What of a message's AMQP properties matters for reading it.
#[derive(Debug, Default)]
pub struct Properties<'a> {
    /// `content_type`.
    pub content_type: Option<&'a str>,
    /// `content_encoding`.
    pub content_encoding: Option<&'a str>,
    /// The header `compression`.
    pub compression: Option<&'a str>,
}

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(rename = "oslo.version", borrow, default)]
    version: Option<&'a RawValue>,
    #[serde(rename = "oslo.message", borrow, default)]
    message: Option<&'a RawValue>,
}

/// Takes the inner message out of a body. Without an envelope (before 2.0) the body is the message.
pub fn open(body: Vec<u8>, properties: &Properties<'_>, limit: usize) -> Result<String, Unreadable> {
    if body.len() > limit {
        return Err(Unreadable::TooLarge { limit });
    }
    if properties.content_type == Some(MALFORMED) {
        return Err(Unreadable::Properties);
    }
    if properties
        .content_type
        .is_some_and(|t| !t.eq_ignore_ascii_case("application/json"))
    {
        return Err(Unreadable::ContentType);
    }
    let utf8 = |name: &str| {
        ["utf-8", "utf8", "us-ascii", "ascii"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    if properties.content_encoding.is_some_and(|e| !utf8(e)) {
        return Err(Unreadable::ContentEncoding);
    }
    let body = decompress(body, properties.compression, limit)?;
    json::guard(&body)?;
    let text = String::from_utf8(body).map_err(|_| Unreadable::ContentEncoding)?;
    let part = "its body";
    if !text.trim_start().starts_with('{') {
        // A list would do for the struct as well.
        let source = serde::de::Error::custom("an object is wanted");
        return Err(Unreadable::Json { part, source });
    }
    let outer: Outer<'_> = serde_json::from_str(&text).map_err(|source| Unreadable::Json { part, source })?;
    let (Some(version), Some(message)) = (outer.version, outer.message) else {
        return Ok(text);
    };
    if !is_version_2_0(version) {
        return Err(Unreadable::Version);
    }
    let part = "its oslo.message";
    let inner: String = serde_json::from_str(message.get()).map_err(|source| Unreadable::Json { part, source })?;
    json::guard(inner.as_bytes())?;
    Ok(inner)
}

fn is_version_2_0(version: &RawValue) -> bool {
    let Ok(text) = serde_json::from_str::<String>(version.get()) else {
        return false;
    };
    let mut parts = text.split('.').map(str::parse::<u32>);
    matches!((parts.next(), parts.next().unwrap_or(Ok(0))), (Some(Ok(2)), Ok(0)))
}

fn decompress(body: Vec<u8>, method: Option<&str>, limit: usize) -> Result<Vec<u8>, Unreadable> {
    let Some(method) = method else { return Ok(body) };
    let mut out = Vec::new();
    // One byte beyond the limit tells a body that is exactly at the limit from a larger one.
    let cap = limit as u64 + 1;
    let read = match method {
        // Despite its name the sender uses zlib's format.
        "application/x-gzip" => flate2::read::ZlibDecoder::new(&body[..]).take(cap).read_to_end(&mut out),
        "application/x-bz2" => bzip2::read::BzDecoder::new(&body[..]).take(cap).read_to_end(&mut out),
        _ => return Err(Unreadable::Compression),
    };
    read.map_err(|_| Unreadable::Damaged)?;
    if out.len() > limit {
        return Err(Unreadable::TooLarge { limit });
    }
    Ok(out)
}

/// Puts an inner message into an envelope.
pub fn wrap(inner: &str) -> Result<Vec<u8>, serde_json::Error> {
    let quoted = json::to_text(inner)?;
    Ok(format!("{{\"oslo.version\": \"2.0\", \"oslo.message\": {quoted}}}").into_bytes())
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
