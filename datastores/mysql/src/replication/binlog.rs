//! The binary log's files, as far as it must be known where which transaction begins. Pure.
//!
//! A file is a magic number and events; an event is a header of 19 bytes, which holds its length, and a body. All numbers are little-endian.

/// What a file begins with.
pub(super) const MAGIC: &[u8; 4] = b"\xfebin";
/// Bytes of an event's header.
const HEADER: usize = 19;
/// Bytes of header and body that tell everything asked for here, list of ids excepted.
const ENOUGH: usize = HEADER + 12;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    /// Bytes of the whole event.
    pub length: u64,
    /// What it is.
    pub kind: Kind,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A transaction begins.
    Begin(Id),
    /// The list of the last transactions of the files before.
    List,
    /// All that follows is encrypted.
    Encrypted,
    /// Something else.
    Other,
}

/// A transaction's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id {
    pub domain: u32,
    pub server: u32,
    pub sequence: u64,
}

/// The event that these bytes begin with; `None` if there are too few of them, or it is no event.
pub(super) fn event(bytes: &[u8]) -> Option<Event> {
    let length = u64::from(four(bytes, 9)?);
    if length < HEADER as u64 {
        return None;
    }
    let kind = match bytes.get(4)? {
        162 if bytes.len() < ENOUGH => return None,
        162 => Kind::Begin(Id {
            domain: four(bytes, HEADER + 8)?,
            server: four(bytes, 5)?,
            sequence: eight(bytes, HEADER)?,
        }),
        163 => Kind::List,
        164 => Kind::Encrypted,
        _ => Kind::Other,
    };
    Some(Event { length, kind })
}

/// The ids of a list event; `None` if it is not whole.
pub(super) fn list(bytes: &[u8]) -> Option<Vec<Id>> {
    // The upper four bits are flags.
    let count = usize::try_from(four(bytes, HEADER)? & 0x0fff_ffff).ok()?;
    let entry = |index: usize| {
        let at = HEADER + 4 + 16 * index;
        Some(Id {
            domain: four(bytes, at)?,
            server: four(bytes, at + 4)?,
            sequence: eight(bytes, at + 8)?,
        })
    };
    (0..count).map(entry).collect()
}

fn four(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn eight(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, server: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut event = vec![1, 2, 3, 4, kind];
        event.extend(server.to_le_bytes());
        event.extend(length.to_le_bytes());
        event.extend([0; 6]);
        event.extend(body);
        event
    }

    #[test]
    fn ids_are_read_and_half_events_are_not() {
        let mut body = 77u64.to_le_bytes().to_vec();
        body.extend(3u32.to_le_bytes());
        body.extend([1, 0, 0, 0, 0, 0, 0]);
        let begin = bytes(162, 9, &body);
        let id = Id {
            domain: 3,
            server: 9,
            sequence: 77,
        };
        assert_eq!(event(&begin).unwrap().kind, Kind::Begin(id));
        assert_eq!(event(&begin).unwrap().length, begin.len() as u64);
        for cut in 0..ENOUGH {
            assert_eq!(event(&begin[..cut]), None, "{cut}");
        }
        let mut body = 0x1000_0001u32.to_le_bytes().to_vec();
        body.extend(3u32.to_le_bytes());
        body.extend(9u32.to_le_bytes());
        body.extend(77u64.to_le_bytes());
        let ids = bytes(163, 9, &body);
        assert_eq!(event(&ids).unwrap().kind, Kind::List);
        assert_eq!(list(&ids), Some(vec![id]));
        assert_eq!(list(&ids[..ids.len() - 1]), None);
        assert_eq!(event(&[0; 40]), None, "no length");
        assert_eq!(event(&bytes(164, 1, &[0; 20])).unwrap().kind, Kind::Encrypted);
    }
}
