//! JSON as Python writes it, and a look at JSON text before it is parsed.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// Deepest nesting accepted from the wire.
const MAX_DEPTH: usize = 64;
/// Most values accepted in one message: each costs some 32 bytes of memory however short it is on the wire.
const MAX_VALUES: usize = 500_000;

/// Why JSON text is not worth parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bomb {
    /// Nested too deep.
    #[error("JSON is nested deeper than {MAX_DEPTH}")]
    Depth,
    /// Too many values.
    #[error("JSON has more than {MAX_VALUES} values")]
    Values,
}

/// Refuses text that would cost far more memory than its size. Does not check that it is JSON.
pub fn guard(text: &[u8]) -> Result<(), Bomb> {
    let (mut depth, mut values) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                values += 1;
                if depth > MAX_DEPTH {
                    return Err(Bomb::Depth);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
        if values > MAX_VALUES {
            return Err(Bomb::Values);
        }
    }
    Ok(())
}

/// Python's `json.dumps`: ASCII only, `", "` and `": "`.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, letter) in fragment.char_indices() {
            if matches!(letter, ' '..='~') {
                continue;
            }
            out.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in letter.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain = at + letter.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}

/// The JSON text of a value as Python would write it. Fails only for a type that JSON cannot hold (a map with keys that are
/// not strings).
pub fn to_text<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut out, Python))?;
    // The formatter writes ASCII only.
    String::from_utf8(out).map_err(serde::ser::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn text_is_pythons() {
        let value = json!({"a": [1, null, true], "b": "hé中\u{7f}\n\"\\\u{1}", "c": "😀", "d": {}});
        let wanted = r#"{"a": [1, null, true], "b": "h\u00e9\u4e2d\u007f\n\"\\\u0001", "c": "\ud83d\ude00", "d": {}}"#;
        assert_eq!(to_text(&value).unwrap(), wanted);
    }

    #[test]
    fn bombs_are_refused() {
        assert_eq!(guard("[".repeat(MAX_DEPTH).as_bytes()), Ok(()));
        assert_eq!(guard("[".repeat(MAX_DEPTH + 1).as_bytes()), Err(Bomb::Depth));
        assert_eq!(guard("{\"a\":".repeat(1_000_000).as_bytes()), Err(Bomb::Depth));
        assert_eq!(guard("0,".repeat(MAX_VALUES + 1).as_bytes()), Err(Bomb::Values));
        assert_eq!(guard(format!("\"{}\"", "[,\\\"".repeat(MAX_VALUES)).as_bytes()), Ok(()));
    }

    proptest! {
        #[test]
        fn every_string_survives(text in any::<String>()) {
            let json = to_text(&text).unwrap();
            prop_assert!(json.is_ascii());
            prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), Value::String(text));
        }
    }
}
