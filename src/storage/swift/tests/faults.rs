//! A Swift, or the way to it, that fails.

use super::*;

#[tokio::test]
async fn parts_get_through_whatever_happens_once() {
    let Some(peer) = Peer::find("once").await else { return };
    let store = peer.store().await;
    let object = format!("{ID}.xbstream.gz");
    let mut faults = Vec::new();
    for (piece, rule) in [
        (format!("{ID}_00000000$"), json!({"do": "status", "status": 503})),
        (format!("{ID}_00000001$"), json!({"do": "drop", "after": 4})),
        (format!("{ID}_00000002_00000000"), json!({"do": "lose"})),
        (format!("{ID}_00000002_00000001"), json!({"do": "flip", "after": 3})),
        (
            format!("{ID}_00000002_00000002"),
            json!({"do": "header", "name": "Etag", "value": "0123"}),
        ),
        (format!(r"{ID}_00000002\?"), json!({"do": "drop"})),
        (r".*gz\?multipart-manifest=put".to_owned(), json!({"do": "lose"})),
    ] {
        let mut rule = rule;
        rule["method"] = json!("PUT");
        faults.push(peer.fault(&piece, rule).await);
    }
    let sent = bytes(65);
    upload(&store, &object, &sent, &Meta::new()).await.unwrap();
    for fault in faults {
        assert_eq!(peer.hits(&fault).await, 1);
    }
    assert!(read(&store, &object).await.unwrap() == sent);
}

#[tokio::test]
async fn what_never_gets_better_fails_the_upload_and_nothing_is_left() {
    let Some(peer) = Peer::find("never").await else { return };
    let store = peer.store().await;
    let object = format!("{ID}.xbstream.gz");
    for (rule, wanted) in [
        (json!({"do": "status", "status": 507}), StorageErrorKind::NoSpace),
        (json!({"do": "status", "status": 413}), StorageErrorKind::NoSpace),
        (json!({"do": "status", "status": 401}), StorageErrorKind::Refused),
        (json!({"do": "status", "status": 302}), StorageErrorKind::Invalid),
        (json!({"do": "flip", "after": 3, "times": 0}), StorageErrorKind::Corrupt),
    ] {
        let mut rule = rule;
        rule["method"] = json!("PUT");
        let fault = peer.fault(&format!("{ID}_00000001"), rule).await;
        let error = upload(&store, &object, &bytes(35), &Meta::new()).await.unwrap_err();
        assert_eq!(error.kind, wanted, "{error}");
        peer.http.delete(format!("{}/faults/{fault}", peer.url)).send().await.unwrap();
        assert_eq!(peer.names().await, [""; 0]);
    }
    // Not there for longer than we try.
    let hasty = peer.with(&Settings {
        part_bytes: 10,
        limit: Duration::from_secs(2),
        ..Settings::default()
    });
    let fault = peer
        .fault(
            &format!("{ID}_00000001"),
            json!({"method": "PUT", "do": "status", "status": 500, "times": 0}),
        )
        .await;
    let error = upload(&hasty, &object, &bytes(35), &Meta::new()).await.unwrap_err();
    assert!(
        error.kind == StorageErrorKind::Unreachable && error.to_string().contains("500"),
        "{error}"
    );
    assert!(peer.hits(&fault).await >= 2);
    peer.end(&fault).await;
    assert_eq!(peer.names().await, [""; 0]);
    // Silent.
    let fault = peer
        .fault(
            &format!("{ID}_00000002"),
            json!({"method": "PUT", "do": "stall", "seconds": 3, "times": 0}),
        )
        .await;
    let error = upload(&hasty, &object, &bytes(35), &Meta::new()).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unreachable, "{error}");
    assert!(peer.hits(&fault).await >= 1);
}

#[tokio::test]
async fn reading_goes_on_after_a_break_and_never_mixes_two_versions() {
    let Some(peer) = Peer::find("reading").await else { return };
    let store = peer.with(&Settings {
        part_bytes: 100_000,
        ..Settings::default()
    });
    store.check().await.unwrap();
    let sent = bytes(350_000);
    let object = format!("{ID}.xbstream.gz");
    upload(&store, &object, &sent, &Meta::new()).await.unwrap();
    store
        .put(&name("plain"), Bytes::from(sent.clone()), &Meta::new())
        .await
        .unwrap();
    for object in [object.as_str(), "plain"] {
        let cut = peer
            .fault(object, json!({"method": "GET", "do": "cut", "after": 70_000, "times": 3}))
            .await;
        assert!(read(&store, object).await.unwrap() == sent);
        assert_eq!(peer.hits(&cut).await, 3);
        let mut rest = Vec::new();
        let cut = peer
            .fault(object, json!({"method": "GET", "do": "cut", "after": 70_000}))
            .await;
        store
            .get_from(&name(object), 123_456)
            .await
            .unwrap()
            .read_to_end(&mut rest)
            .await
            .unwrap();
        assert!(rest == sent[123_456..] && peer.hits(&cut).await == 1);
        let mut none = Vec::new();
        store
            .get_from(&name(object), 350_000)
            .await
            .unwrap()
            .read_to_end(&mut none)
            .await
            .unwrap();
        assert!(none.is_empty());
        let behind = store.get_from(&name(object), 350_001).await.err().unwrap();
        assert_eq!(behind.kind, StorageErrorKind::Invalid);
    }
    // Breaks at once, again and again: an error, not a short end and not for ever.
    let hasty = peer.with(&Settings {
        limit: Duration::from_secs(2),
        ..Settings::default()
    });
    peer.fault("plain", json!({"method": "GET", "do": "cut", "after": 70_000}))
        .await;
    peer.fault("plain", json!({"method": "GET", "do": "drop", "times": 0})).await;
    assert!(read(&hasty, "plain").await.is_err());
    let flip = peer.fault("other", json!({"method": "GET", "do": "flip", "after": 5})).await;
    store
        .put(&name("other"), Bytes::from(sent.clone()), &Meta::new())
        .await
        .unwrap();
    let error = read(&store, "other").await.unwrap_err();
    assert_eq!((error.kind(), peer.hits(&flip).await), (std::io::ErrorKind::InvalidData, 1));
    // Replaced between two pieces of it.
    let cut = peer
        .fault("other", json!({"method": "GET", "do": "cut", "after": 70_000}))
        .await;
    let (_, mut body) = store.get(&name("other")).await.unwrap();
    let mut start = vec![0; 1000];
    body.read_exact(&mut start).await.unwrap();
    let mut newer = sent.clone();
    newer[300_000] ^= 1;
    store.put(&name("other"), Bytes::from(newer), &Meta::new()).await.unwrap();
    let error = body.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), peer.hits(&cut).await),
        (std::io::ErrorKind::InvalidData, 1),
        "{error}"
    );
}
