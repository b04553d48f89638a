use super::*;

fn chunk(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut chunk = [MAGIC, b"\0P", &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat();
    chunk.extend((bytes.len() as u64).to_le_bytes());
    chunk.extend([0; 12]);
    chunk.extend(bytes);
    chunk
}

fn end(name: &str) -> Vec<u8> {
    [MAGIC, b"\0E", &(name.len() as u32).to_le_bytes(), name.as_bytes()].concat()
}

fn whole() -> Vec<u8> {
    [
        chunk("ibdata1", &[7; 300]),
        chunk("shop/t.isl", b"/elsewhere/t.ibd"),
        chunk("ibdata1", &[8; 5]),
        end("shop/t.isl"),
        end("ibdata1"),
        end("shop/empty.MYD"),
        chunk(
            "xtrabackup_checkpoints",
            b"backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44878\n",
        ),
        end("xtrabackup_checkpoints"),
        chunk("xtrabackup_info", b"server_version = 10.11.19-MariaDB\n"),
        end("xtrabackup_info"),
    ]
    .concat()
}

fn scan(bytes: &[u8], step: usize) -> Result<Found, DriverError> {
    let mut scanner = Scanner::default();
    for piece in bytes.chunks(step) {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

#[test]
fn a_stream_is_understood_whatever_its_pieces_are() {
    let stream = whole();
    let first = scan(&stream, usize::MAX).unwrap();
    assert_eq!((first.files, first.bytes), (5, stream.len() as u64));
    assert_eq!(first.links, ["shop/t.isl"]);
    assert_eq!(first.notes.checkpoints().unwrap().to_lsn, 44878);
    for step in [1, 2, 13, 14, 15, 100] {
        assert_eq!(scan(&stream, step).unwrap(), first);
    }
}

#[test]
fn a_stream_that_was_cut_anywhere_is_refused() {
    let stream = whole();
    for length in 0..stream.len() {
        let error = scan(&stream[..length], 64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{length}: {error}");
    }
    assert!(scan(&[&stream[..], b"x"].concat(), 64).is_err());
    assert!(scan(&[b"ERROR: x", &stream[..]].concat(), 64).is_err());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "a//x",
        "a/",
        "..",
        ".",
        "a/./x",
        "a\nb",
        "a\0b",
    ] {
        let error = scan(&[chunk(name, b"x"), end(name), whole()].concat(), 7).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
    }
    for name in ["./ibdata2", "db@002d1/t#P#p0.ibd", "a/b/c"] {
        scan(&[chunk(name, b"x"), end(name), whole()].concat(), 7).unwrap();
    }
}
