use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Key, clear text, cipher text with the IV 00 01 … 0f.
const VECTORS: [(&str, &str, &str); 12] = [
    (K1, "null", "AAECAwQFBgcICQoLDA0OD8Zoesexq9//wC+lwWYW4SA="),
    (K1, "true", "AAECAwQFBgcICQoLDA0OD53SmDcEDfe77/DF2rOVFKk="),
    (K1, "2048", "AAECAwQFBgcICQoLDA0OD7tc+TVLk9JB5OYrTUzVTFQ="),
    (
        K1,
        r#"{"service_status": "healthy"}"#,
        "AAECAwQFBgcICQoLDA0OD/rMwqbY91VxcisgRxEqu78p69717m3Ya5KzUAwnlBod",
    ),
    (
        K1,
        r#""/var/lib/mysql""#,
        "AAECAwQFBgcICQoLDA0OD6dy5PKaoSIzzb2B5YazrFYwSrBP9ynwgrW2ZddwecfL",
    ),
    (
        K1,
        r#""0123456789abcd""#,
        "AAECAwQFBgcICQoLDA0OD+zMoYOr1ZGX+cOlohC91N02/4ECVTDEz/QGPHsvs3BM",
    ),
    (K1, r#""h\u00e9\u4e2d""#, "AAECAwQFBgcICQoLDA0OD0Ecb0JzpN4Y0xF0u1Spz+M="),
    (
        K1,
        r#"{"user": "u1", "project_id": "p1"}"#,
        "AAECAwQFBgcICQoLDA0OD61lP17ikY1YuKUAMqyjBAh+uTEYMeBX5eHuh+Q/kU/Jp3kCQAjlEDV+b83AZaRhqA==",
    ),
    (
        K1,
        r#""9d1c7f2e-3f6a-4d3b-8a57-1f0f4b8f6c11""#,
        "AAECAwQFBgcICQoLDA0OD9lj+iK1Y/0s4lETtUjqr360dE8aM7Hf1O1uePhL9+yR7KnjWSljnM18p+YcDwiM6Q==",
    ),
    (
        K1,
        "1795330378.0282543",
        "AAECAwQFBgcICQoLDA0OD+FSvqNRVqiob5+90Dhf1uy3Q/bM6m2abkzFvTr6VwxX",
    ),
    (K1, r#"{"user": null}"#, "AAECAwQFBgcICQoLDA0ODwnF0LuSnNmHPW0u+kfhqNo="),
    (
        "secret",
        r#"[{"_name": "db1", "_character_set": "utf8", "_collate": "utf8_general_ci"}]"#,
        "AAECAwQFBgcICQoLDA0OD5wBGrF71GfEKpGg1SL98U+PXijxH1FF7ga+o4QCMvuYiuybsG/lRph+2/7ulKpHGR3uermPmxBvLIbCdnebUHMX9HPgtK2KMAVXaadNrT83",
    ),
];
const K1: &str = "jvUB2RlsEhmpUD3zgKQ6dFqNa8nXYw17";

fn cipher(key: &str) -> Cipher {
    Cipher::new(&Secret::from(key.to_owned()))
}

#[test]
fn known_answers_both_ways() {
    let iv: [u8; 16] = std::array::from_fn(|i| i as u8);
    for (key, clear, sealed) in VECTORS {
        assert_eq!(cipher(key).seal_with(iv, clear.to_owned()).unwrap(), sealed, "{clear}");
        assert_eq!(
            cipher(key).open(sealed).unwrap(),
            serde_json::from_str::<Value>(clear).unwrap(),
            "{clear}"
        );
    }
}

#[test]
fn the_text_sealed_is_pythons() {
    // Vectors 4 and 7 from values, not from text.
    let iv: [u8; 16] = std::array::from_fn(|i| i as u8);
    for (value, at) in [(json!({"service_status": "healthy"}), 3), (json!("hé中"), 6)] {
        let text = json::to_text(&value).unwrap();
        assert_eq!(cipher(K1).seal_with(iv, text).unwrap(), VECTORS[at].2);
    }
}

#[test]
fn bad_input_is_refused() {
    let good = VECTORS[3].2;
    let mut short = good.to_owned();
    short.pop();
    let unpadded_json = cipher(K1).seal_with([7; 16], "{\"a\": ".into()).unwrap();
    let cases = [
        String::new(),
        "plain text".into(),
        short,
        format!("{good}\n"),
        format!(" {good}"),
        good.replace('A', "!"),
        STANDARD.encode([0u8; 15]),
        STANDARD.encode([0u8; 16]),
        STANDARD.encode([0u8; 33]),
        STANDARD.encode([0u8; 48]),
        unpadded_json,
    ];
    for case in cases {
        assert_eq!(cipher(K1).open(&case), Err(CipherError), "{case:?}");
    }
    assert_eq!(cipher("another key").open(good), Err(CipherError));
}

proptest! {
    #[test]
    fn what_is_sealed_opens(text in any::<String>(), number in any::<i64>()) {
        let value = json!({"t": text, "n": number});
        let sealed = cipher(K1).seal(&value).unwrap();
        prop_assert_eq!(cipher(K1).open(&sealed).unwrap(), value);
    }

    #[test]
    fn noise_never_panics(noise in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = cipher(K1).open(&noise);
        let _ = cipher(K1).open(&STANDARD.encode(bytes));
    }
}
