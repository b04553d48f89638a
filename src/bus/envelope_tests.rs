use super::*;
use proptest::prelude::*;
use std::io::Write;

const LIMIT: usize = 1000;

fn open_plain(body: &str) -> Result<String, Unreadable> {
    open(body.as_bytes().to_vec(), &Properties::default(), LIMIT)
}

#[test]
fn an_envelope_opens() {
    let wrapped = wrap("{\"method\": \"ü\"}").unwrap();
    let wanted = r#"{"oslo.version": "2.0", "oslo.message": "{\"method\": \"\u00fc\"}"}"#;
    assert_eq!(String::from_utf8(wrapped.clone()).unwrap(), wanted);
    let properties = Properties {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        compression: None,
    };
    assert_eq!(open(wrapped, &properties, LIMIT).unwrap(), "{\"method\": \"ü\"}");
}

#[test]
fn a_bare_message_is_taken_as_it_is() {
    for bare in [
        r#"{"method": "m"}"#,
        r#"{"oslo.message": "{}"}"#,
        r#"{"oslo.version": "2.0"}"#,
    ] {
        assert_eq!(open_plain(bare).unwrap(), bare);
    }
}

#[test]
fn other_versions_are_refused() {
    for (version, good) in [
        ("\"2.0\"", true),
        ("\"2\"", true),
        ("\"2.1\"", false),
        ("\"3.0\"", false),
        ("\"1.0\"", false),
        ("\"\"", false),
        ("\"x\"", false),
        ("2.0", false),
        ("{}", false),
    ] {
        let body = format!("{{\"oslo.version\": {version}, \"oslo.message\": \"{{}}\"}}");
        assert_eq!(open_plain(&body).is_ok(), good, "{version}");
    }
}

#[test]
fn bad_bodies_are_refused() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{} {}",
        r#"{"oslo.version": "2.0", "oslo.message": {}}"#,
    ] {
        assert!(matches!(open_plain(body), Err(Unreadable::Json { .. })), "{body}");
    }
    assert!(matches!(open_plain(&"[".repeat(500)), Err(Unreadable::Bomb(_))));
    assert!(matches!(open_plain(&" ".repeat(LIMIT + 1)), Err(Unreadable::TooLarge { .. })));
    assert!(matches!(
        open(vec![0xff, 0xfe], &Properties::default(), LIMIT),
        Err(Unreadable::ContentEncoding)
    ));
    let inner_bomb = wrap(&"[".repeat(300)).unwrap();
    assert!(matches!(
        open(inner_bomb, &Properties::default(), LIMIT),
        Err(Unreadable::Bomb(_))
    ));
    let pickle = Properties {
        content_type: Some("application/x-python-serialize"),
        ..Properties::default()
    };
    assert!(matches!(open(b"{}".to_vec(), &pickle, LIMIT), Err(Unreadable::ContentType)));
    let binary = Properties {
        content_encoding: Some("binary"),
        ..Properties::default()
    };
    assert!(matches!(
        open(b"{}".to_vec(), &binary, LIMIT),
        Err(Unreadable::ContentEncoding)
    ));
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

fn bz2(data: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

#[test]
fn compressed_bodies_open_and_are_capped() {
    for (method, packed, bomb) in [
        ("application/x-gzip", zlib(b"{\"a\": 1}"), zlib(&vec![b' '; 50 * LIMIT])),
        ("application/x-bz2", bz2(b"{\"a\": 1}"), bz2(&vec![b' '; 50 * LIMIT])),
    ] {
        let properties = Properties {
            compression: Some(method),
            ..Properties::default()
        };
        assert_eq!(open(packed.clone(), &properties, LIMIT).unwrap(), "{\"a\": 1}");
        assert!(matches!(open(bomb, &properties, LIMIT), Err(Unreadable::TooLarge { .. })));
        assert!(matches!(
            open(packed[..packed.len() / 2].to_vec(), &properties, LIMIT),
            Err(Unreadable::Damaged)
        ));
        assert!(matches!(
            open(b"noise".to_vec(), &properties, LIMIT),
            Err(Unreadable::Damaged)
        ));
    }
    let zstd = Properties {
        compression: Some("application/zstd"),
        ..Properties::default()
    };
    assert!(matches!(open(b"{}".to_vec(), &zstd, LIMIT), Err(Unreadable::Compression)));
}

proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
        let _ = open(noise, &Properties::default(), LIMIT);
        let _ = open_plain(&text);
    }

    #[test]
    fn what_is_wrapped_opens(key in "[a-z]{1,10}", text in any::<String>()) {
        let inner = json::to_text(&serde_json::json!({ key: text })).unwrap();
        prop_assert_eq!(open(wrap(&inner).unwrap(), &Properties::default(), 1 << 20).unwrap(), inner);
    }
}
