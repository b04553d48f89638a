//! The name of a backup.

use super::BackupError;
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Where the dashes of a UUID are.
const DASHES: [usize; 4] = [8, 13, 18, 23];
/// Characters of a UUID.
const LENGTH: usize = 36;

/// Identity of a backup: a UUID in its usual text form, lower case. Nothing else is taken, because it becomes a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A fresh one (UUID version 4). Fails if the system has no random numbers.
    pub fn random() -> Result<Self, BackupError> {
        let mut bytes = [0u8; 16];
        rand::fill(&mut bytes).map_err(|_| BackupError::Random)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = hex::encode(bytes);
        for at in DASHES {
            text.insert(at, '-');
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the manifest's object.
    #[must_use]
    pub fn manifest_name(&self) -> String {
        format!("{}.json", self.0)
    }

    /// Name of the blob's object; `extension` without the leading dot.
    #[must_use]
    pub fn blob_name(&self, extension: &str) -> String {
        format!("{}.{extension}", self.0)
    }
}

impl FromStr for BackupId {
    type Err = BackupError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = text.len() == LENGTH
            && text.bytes().enumerate().all(|(at, byte)| {
                if DASHES.contains(&at) {
                    byte == b'-'
                } else {
                    byte.is_ascii_hexdigit()
                }
            });
        if good {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(BackupError::Invalid(format!(
                "a backup's id is a UUID, this is not: {text:?}"
            )))
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = BackupError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::BackupId;

    #[test]
    fn only_a_uuid_is_an_id() {
        let id = BackupId::random().unwrap();
        assert_eq!(id, id.as_str().to_uppercase().parse().unwrap());
        for bad in [
            "",
            "1",
            "../../etc/passwd",
            "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d2",
            "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d22x",
            "0c2a6c1e/9a7b-4f3d-8b11-6f8b5f0a1d22",
            "0c2a6c1e-9a7b-4f3d-8b11-6f8b5f0a1d2\u{e9}",
        ] {
            bad.parse::<BackupId>().unwrap_err();
        }
    }
}
