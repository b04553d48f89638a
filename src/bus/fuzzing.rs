//! What must hold for any bytes in the decoders of this room. The fuzz targets and the suite's property tests call these; each
//! panics if it does not hold.

use super::crypto::Cipher;
use super::envelope::{self, Properties};
use super::request::{self, Decoded};
use super::{json, url};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datastore_api::Secret;
use serde_json::Value;

const LIMIT: usize = 1 << 16;

fn cipher() -> Cipher {
    Cipher::new(&Secret::from("a key for the fuzzer".to_owned()))
}

/// A message: the first byte chooses its compression, the rest is its body.
pub fn envelope(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let compression = [None, Some("application/x-gzip"), Some("application/x-bz2"), Some("other")][usize::from(choice % 4)];
    let properties = Properties {
        content_type: Some("application/json"),
        content_encoding: Some("utf-8"),
        compression,
    };
    let Ok(inner) = envelope::open(body.to_vec(), &properties, LIMIT) else {
        return;
    };
    assert!(inner.len() <= LIMIT, "the limit holds for what is unpacked");
    let again = envelope::wrap(&inner).map(|body| envelope::open(body, &Properties::default(), LIMIT * 8));
    match again {
        Ok(Ok(again)) => assert_eq!(again, inner, "what is wrapped is unwrapped"),
        other => panic!("wrapped, it cannot be read: {other:?}"),
    }
    for cipher in [None, Some(cipher())] {
        let decoded = request::decode(&inner, cipher.as_ref(), None);
        if let Ok(Decoded::Request(request)) = decoded {
            assert!(
                !request.method.is_empty() && request.method.len() <= 255,
                "a request has a method"
            );
            assert!(
                cipher.is_none() || inner.contains("_context_context"),
                "plain text is refused where a key is set"
            );
        }
    }
}

/// A sealed value: as it is, as the bytes below Base64, and as the text below the encryption.
pub fn crypto(data: &[u8]) {
    let cipher = cipher();
    if let Ok(text) = std::str::from_utf8(data) {
        check_opened(&cipher, cipher.open(text).ok());
    }
    check_opened(&cipher, cipher.open(&STANDARD.encode(data)).ok());
    let text = String::from_utf8_lossy(data).into_owned();
    let plain = json::guard(text.as_bytes())
        .ok()
        .and_then(|()| serde_json::from_str::<Value>(&text).ok());
    let sealed = cipher.seal_text(text).expect("any text can be encrypted");
    assert_eq!(
        cipher.open(&sealed).ok(),
        plain,
        "decryption gives what was encrypted, if that is JSON"
    );
}

fn check_opened(cipher: &Cipher, opened: Option<Value>) {
    let Some(value) = opened else { return };
    let sealed = cipher.seal(&value).expect("what was decrypted can be encrypted");
    assert_eq!(cipher.open(&sealed), Ok(value));
}

/// A `transport_url`.
pub fn transport_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(parsed) = url::parse(text) else { return };
    assert!(!parsed.brokers.is_empty(), "there is a broker");
    for broker in &parsed.brokers {
        assert!(broker.port > 0 && !broker.host.is_empty(), "a broker can be connected to");
        assert!(
            !broker.host.contains(['@', '/', '?', '#']),
            "a host's name holds no other part"
        );
    }
    assert!(!parsed.vhost.is_empty() && parsed.vhost.len() <= 255, "the virtual host fits");
    let mut keys: Vec<_> = parsed.options.iter().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), parsed.options.len(), "repeated options are joined");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const JSON: &str = r#"[\[\]{}",:0-9a-z\\ ]{0,60}"#;

    proptest! {
        #[test]
        fn any_body_is_read_or_refused(mut data in proptest::collection::vec(any::<u8>(), 0..200), json in JSON) {
            envelope(&data);
            crypto(&data);
            data.clear();
            data.push(0);
            data.extend(format!(r#"{{"oslo.version": "2.0", "oslo.message": "{{{}}}"}}"#, json.replace('"', "\\\"")).bytes());
            envelope(&data);
            crypto(json.as_bytes());
        }

        #[test]
        fn any_transport_url_is_read_or_refused(text in "(rabbit://)?[a-c:@,/?=&%0-9\\[\\].]{0,40}|\\PC{0,40}") {
            transport_url(text.as_bytes());
        }
    }
}
