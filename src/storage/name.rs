//! Names of objects, checked once: they become file names, URLs and routing keys.

use super::StorageError;
use std::fmt;

/// Longest segment, bytes: a file name with room for what a store puts before and behind it.
const SEGMENT: usize = 200;
/// Longest name, bytes: S3 and Swift take 1024 with the prefix of the place.
const NAME: usize = 800;

/// Name of an object: segments of `A-Z a-z 0-9 . _ -`, at most 200 bytes each, joined by `/`. No segment begins with a dot: so
/// there is no `..`, and such names are free for a store's own files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong.
    pub fn new(name: impl Into<String>) -> Result<Self, StorageError> {
        let name = name.into();
        match problem(&name) {
            None => Ok(Self(name)),
            Some(what) => Err(StorageError::invalid("use the name", format!("{name:?}"), what)),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ObjectName {
    type Err = StorageError;

    fn from_str(name: &str) -> Result<Self, StorageError> {
        Self::new(name)
    }
}

fn problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("it is empty");
    }
    if name.len() > NAME {
        return Some("it is longer than 800 bytes");
    }
    name.split('/').find_map(|segment| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        match segment {
            "" => Some("it begins or ends with a slash, or has two in a row"),
            _ if segment.starts_with('.') => Some("a part of it begins with a dot"),
            _ if segment.len() > SEGMENT => Some("a part of it is longer than 200 bytes"),
            _ if !segment.bytes().all(fits) => Some("only letters, digits, '.', '_', '-' and '/' are allowed"),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_taken() {
        let long = "x".repeat(200);
        for good in ["a", "7b1e.xbstream", "pre_fix/a-b/c.json", &long] {
            assert_eq!(ObjectName::new(good).unwrap().to_string(), *good);
        }
        let (too_long, deep) = ("x".repeat(201), "a/".repeat(400) + "a");
        for bad in [
            "", ".", "..", "../a", "a/..", "a/../b", "/a", "a/", "a//b", ".a", "a/.b", "a b", "a\nb", "a\0", "a\\b", "ä", "a%2e",
            "a:b", "~", "*", &too_long, &deep,
        ] {
            let error = ObjectName::new(bad).unwrap_err();
            assert_eq!(error.kind, super::super::StorageErrorKind::Invalid, "{bad:?}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
