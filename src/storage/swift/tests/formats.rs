//! What others wrote, and who may do what.

use super::*;

#[tokio::test]
async fn dynamic_large_objects_of_older_agents_are_read_and_deleted() {
    let Some(peer) = Peer::find("dlo").await else { return };
    let store = peer.store().await;
    let object = format!("{ID}.xbstream.gz.enc");
    let sent = bytes(50);
    for (number, part) in sent.chunks(20).enumerate() {
        peer.ask(Method::PUT, &format!("{ID}_{number:08}"), &[], part.to_vec()).await;
    }
    let manifest = format!("{}/{ID}_", peer.container);
    peer.ask(
        Method::PUT,
        &object,
        &[
            ("X-Object-Manifest", &manifest),
            ("X-Object-Meta-Parent-Location", "http://x"),
        ],
        "",
    )
    .await;
    let stat = store.stat(&name(&object)).await.unwrap().unwrap();
    assert_eq!((stat.bytes, stat.meta["parent_location"].as_str()), (50, "http://x"));
    let hashes: String = sent.chunks(20).map(md5_of).collect();
    assert_eq!(stat.checksum, Some(md5_of(hashes.as_bytes())));
    assert!(read(&store, &object).await.unwrap() == sent);
    let mut rest = Vec::new();
    store
        .get_from(&name(&object), 33)
        .await
        .unwrap()
        .read_to_end(&mut rest)
        .await
        .unwrap();
    assert_eq!(rest, sent[33..]);
    assert_eq!(store.list("").await.unwrap(), [stat]);
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 0);
    store.delete(&name(&object)).await.unwrap();
    assert_eq!(peer.names().await, [""; 0]);
}

#[tokio::test]
async fn a_location_finds_its_object_and_a_token_goes_nowhere_else() {
    let Some(peer) = Peer::find("locations").await else { return };
    let store = peer.store().await;
    let object = name("a/b.json");
    store.put(&object, Bytes::from_static(b"{}"), &Meta::new()).await.unwrap();
    assert_eq!(store.name_at(&store.location(&object)), Some(object));
    let other = format!("https://elsewhere/v1/AUTH_9/{}/{ID}.gz", peer.container);
    assert_eq!(store.name_at(&other), Some(name(&format!("{ID}.gz"))));
    for bad in [
        "",
        "x",
        "file:///a/b",
        "https://elsewhere/v1/AUTH_9/other/x",
        &format!("{}/{}/", peer.account(), peer.container),
    ] {
        assert_eq!(store.name_at(bad), None, "{bad}");
    }
    // The URL tells the container; the account is the request's.
    let place = Place::of_location(&other).unwrap();
    let opened = Swift::new(&Settings::default(), &place, &peer.access()).unwrap();
    assert_eq!(opened.place(), format!("{}/{}", peer.account(), peer.container));
}

#[tokio::test]
async fn a_token_that_is_refused_is_an_error_without_the_token_in_it() {
    let Some(peer) = Peer::find("token").await else { return };
    peer.store().await;
    let mut access = peer.access();
    access.token = Some(Secret::from("AUTH_tkexpired0123".to_owned()));
    let store = Swift::new(&Settings::default(), &Place::parse("swift").unwrap(), &access).unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Refused);
    let text = format!("{error} {error:?} {:?}", store.client);
    assert!(text.contains("has expired") && !text.contains("tkexpired"), "{text}");
    assert!(
        store
            .begin(&name("x"), None)
            .await
            .is_err_and(|error| error.kind == StorageErrorKind::Refused)
    );
    // Somebody who is known but has no rights here.
    let login = peer
        .http
        .get(format!("{}/auth/v1.0", peer.url))
        .header("X-Auth-User", "other:tester")
        .header("X-Auth-Key", "testing");
    let token = login.send().await.unwrap().headers()["x-auth-token"]
        .to_str()
        .unwrap()
        .to_owned();
    access.token = Some(Secret::from(token));
    let store = Swift::new(&Settings::default(), &Place::parse("swift").unwrap(), &access).unwrap();
    let error = store.check().await.unwrap_err();
    assert!(
        error.kind == StorageErrorKind::Refused && error.to_string().contains("not allowed"),
        "{error}"
    );
    // No Swift there at all.
    access.swift_url = Some("http://127.0.0.1:1/v1/AUTH_trove".to_owned());
    let settings = Settings {
        limit: Duration::from_secs(1),
        ..Settings::default()
    };
    let store = Swift::new(&settings, &Place::parse("swift").unwrap(), &access).unwrap();
    assert_eq!(store.check().await.unwrap_err().kind, StorageErrorKind::Unreachable);
}

#[tokio::test]
async fn credentials_of_our_own_log_in_and_do_so_again_when_the_token_has_expired() {
    let Some(peer) = Peer::find("own").await else { return };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(
        file,
        "# for scheduled backups\nauth_url = {}/auth/v1.0\nuser = trove:tester\nkey = testing",
        peer.url
    )
    .unwrap();
    let settings = Settings {
        swift: SwiftSettings {
            container: peer.container.clone(),
            credentials: Some(file.path().to_owned()),
            ..SwiftSettings::default()
        },
        ..Settings::default()
    };
    let store = Swift::new(&settings, &Place::parse("swift").unwrap(), &Access::default()).unwrap();
    assert_eq!(store.place(), format!("swift://{}", peer.container));
    store.check().await.unwrap();
    assert_eq!(store.place(), format!("{}/{}", peer.account(), peer.container));
    let fault = peer.fault("x", json!({"method": "PUT", "do": "status", "status": 401})).await;
    store.put(&name("x"), Bytes::from_static(b"1"), &Meta::new()).await.unwrap();
    assert_eq!(peer.hits(&fault).await, 1);

    std::fs::write(file.path(), "auth_url = x\nuser = y").unwrap();
    let error = Swift::new(&settings, &Place::parse("swift").unwrap(), &Access::default())
        .err()
        .unwrap();
    assert_eq!(error.kind, StorageErrorKind::Invalid);
    std::fs::write(
        file.path(),
        format!("auth_url = {}/auth/v1.0\nuser = trove:tester\nkey = wrong", peer.url),
    )
    .unwrap();
    let store = Swift::new(&settings, &Place::parse("swift").unwrap(), &Access::default()).unwrap();
    assert_eq!(store.check().await.unwrap_err().kind, StorageErrorKind::Refused);
}
