//! The line before the copy: enough to refuse it before anything is thrown away.

use datastore_api::{DriverError, ErrorKind};
use serde_json::{Value, json};

/// The first word of the line.
const MAGIC: &str = "TROVE-CLONE-1 ";
/// Longest line, in bytes.
pub(super) const LONGEST: usize = 4096;

/// What the sender says about the copy to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Version of its server.
    pub version: String,
    /// Bytes its data take on its disk, about.
    pub bytes: u64,
}

impl Header {
    /// The line, with its end.
    pub fn line(&self) -> String {
        format!("{MAGIC}{}\n", json!({"version": self.version, "bytes": self.bytes}))
    }

    /// The inverse. `Invalid` if it is no such line.
    pub fn parse(line: &[u8]) -> Result<Self, DriverError> {
        let bad = || DriverError::new(ErrorKind::Invalid, "what was received does not begin like a copy of a server");
        let text = std::str::from_utf8(line).map_err(|_| bad())?;
        let body = text.strip_prefix(MAGIC).ok_or_else(bad)?;
        let body: Value = serde_json::from_str(body).map_err(|_| bad())?;
        Ok(Self {
            version: body["version"].as_str().ok_or_else(bad)?.to_owned(),
            bytes: body["bytes"].as_u64().ok_or_else(bad)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let header = Header {
            version: "10.11.19-MariaDB-0+deb12u1-log".into(),
            bytes: 7 << 40,
        };
        assert_eq!(Header::parse(header.line().trim_end().as_bytes()).unwrap(), header);
        for bad in [
            "",
            "TROVE-CLONE-1 ",
            "TROVE-CLONE-1 {}",
            "TROVE-CLONE-2 {\"version\":\"1\",\"bytes\":1}",
            "XBSTCK01",
        ] {
            assert_eq!(Header::parse(bad.as_bytes()).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        assert!(Header::parse(&[0xff, 0xfe]).is_err());
    }
}
