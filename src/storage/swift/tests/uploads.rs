//! Layout: what lies in the container after an upload, and what upstream makes of it.

use super::*;

/// Ten-byte parts: two of them flat, then groups of four; from the sixteenth group on they would be joined (8 x 8 parts).
#[tokio::test]
async fn objects_of_every_shape_come_back_and_upstream_can_delete_them() {
    let Some(peer) = Peer::find("shapes").await else { return };
    let store = peer.store().await;
    let object = format!("{ID}.xbstream.gz");
    for (count, pieces) in [
        (0, 0),
        (1, 0),
        (9, 0),
        (10, 0),
        (11, 2),
        (20, 2),
        (25, 2 + 2),
        (60, 2 + 5),
        (95, 2 + 5 + 5),
    ] {
        let sent = bytes(count);
        let receipt = upload(&store, &object, &sent, &Meta::from([("lsn".to_owned(), "42".to_owned())]))
            .await
            .unwrap();
        assert_eq!(receipt.bytes, count as u64);
        assert_eq!(receipt.location, format!("{}/{}/{object}", peer.account(), peer.container));
        let head = peer.ask(Method::HEAD, &object, &[], "").await;
        assert_eq!(etag(&head).unwrap(), receipt.checksum, "{count}");
        assert_eq!(head.headers()["x-object-meta-lsn"], "42");
        assert_eq!(header(&head, "x-static-large-object").is_some(), pieces > 0, "{count}");
        let names = peer.names().await;
        assert_eq!(names.len(), 1 + pieces, "{count}: {names:?}");
        assert!(names.iter().all(|name| name.starts_with(ID)), "{names:?}");
        if pieces == 0 {
            assert_eq!(receipt.checksum, md5_of(&sent));
        }
        assert!(read(&store, &object).await.unwrap() == sent, "{count}");
        let listed = store.list("").await.unwrap();
        assert_eq!((listed.len(), listed[0].bytes), (1, count as u64));
        assert_eq!(listed[0].checksum.as_ref(), Some(&receipt.checksum));
        // As upstream's taskmanager deletes it.
        let how = if pieces > 0 { "?multipart-manifest=delete" } else { "" };
        assert!(
            peer.ask(Method::DELETE, &format!("{object}{how}"), &[], "")
                .await
                .status()
                .is_success()
        );
        assert_eq!(peer.names().await, [""; 0], "{count}");
    }
}

#[tokio::test]
async fn two_segments_have_upstreams_names_and_checksum() {
    let Some(peer) = Peer::find("names").await else { return };
    let store = peer.store().await;
    let object = format!("{ID}.xbstream.gz");
    let sent = bytes(15);
    let receipt = upload(&store, &object, &sent, &Meta::new()).await.unwrap();
    let wanted = [
        format!("{ID}.xbstream.gz"),
        format!("{ID}_00000000"),
        format!("{ID}_00000001"),
    ];
    assert_eq!(peer.names().await, wanted);
    let hashes = md5_of(&sent[..10]) + &md5_of(&sent[10..]);
    assert_eq!(receipt.checksum, md5_of(hashes.as_bytes()));
    assert_eq!(store.delete(&name(&object)).await.unwrap(), Change::Done);
    assert_eq!(store.delete(&name(&object)).await.unwrap(), Change::Unchanged);
    assert_eq!(peer.names().await, [""; 0]);
}

#[tokio::test]
async fn parts_far_behind_are_joined_so_that_an_object_may_become_very_large() {
    let Some(peer) = Peer::find("joined").await else { return };
    let store = peer.with(&Settings {
        part_bytes: 4,
        ..Settings::default()
    });
    // Five segments: one flat, then groups of two parts, of which the first two groups stay groups.
    store.check().await.unwrap();
    let limits = Limits {
        segments: 5,
        object: 5 << 30,
    };
    let mut plan = Plan::new(limits, 4);
    plan.nested = 5;
    let object = name(&format!("{ID}.xbstream.zst"));
    let upload = SwiftUpload::new(store.client.clone(), object.clone(), ID.to_owned(), plan, 4);
    let sent = bytes(4 * 8 + 1);
    for (index, part) in sent.chunks(4).enumerate() {
        upload.part(index as u32, Bytes::copy_from_slice(part)).await.unwrap();
    }
    let receipt = upload.finish(&Meta::new()).await.unwrap();
    // Flat, two nested groups with their parts, one joined, and the last one's nine bytes: two parts joined as well.
    let names = peer.names().await;
    let pieces: Vec<_> = names.iter().map(|piece| piece.trim_start_matches(ID)).collect();
    let nested = [
        "_00000001",
        "_00000001_00000000",
        "_00000001_00000001",
        "_00000002",
        "_00000002_00000000",
        "_00000002_00000001",
    ];
    let mut wanted = vec![".xbstream.zst", "_00000000"];
    wanted.extend(nested);
    wanted.extend(["_00000003", "_00000004"]);
    assert_eq!(pieces, wanted);
    assert!(read(&store, object.as_str()).await.unwrap() == sent);
    assert_eq!(store.stat(&object).await.unwrap().unwrap().checksum, Some(receipt.checksum));
    // One part more than there is room for.
    let error = upload.part(plan.most(), Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Invalid);
    store.delete(&object).await.unwrap();
    assert_eq!(peer.names().await, [""; 0]);
}

#[tokio::test]
async fn an_object_is_replaced_without_a_moment_in_between() {
    let Some(peer) = Peer::find("replaced").await else { return };
    let store = peer.store().await;
    for object in [format!("{ID}.xbstream.zst"), "log/000001.zst".to_owned()] {
        let (first, second) = (bytes(35), bytes(60).split_off(10));
        upload(&store, &object, &first, &Meta::new()).await.unwrap();
        let next = store.begin(&name(&object), None).await.unwrap();
        for (index, part) in second.chunks(10).enumerate() {
            next.part(index as u32, Bytes::copy_from_slice(part)).await.unwrap();
        }
        assert!(read(&store, &object).await.unwrap() == first);
        next.finish(&Meta::new()).await.unwrap();
        assert!(read(&store, &object).await.unwrap() == second);
        // The first one's pieces are gone: five parts in a flat pair and a group, the group and the object are left.
        assert_eq!(peer.names().await.len(), 5 + 1 + 1);
        assert_eq!(store.list("").await.unwrap().len(), 1);
        store
            .put(&name(&object), Bytes::from_static(b"small"), &Meta::new())
            .await
            .unwrap();
        assert_eq!(peer.names().await, std::slice::from_ref(&object));
        store.delete(&name(&object)).await.unwrap();
    }
    assert_eq!(peer.names().await, [""; 0]);
}

#[tokio::test]
async fn a_missing_or_short_part_is_refused_and_giving_up_leaves_nothing() {
    let Some(peer) = Peer::find("refused").await else { return };
    let store = peer.store().await;
    let object = name(&format!("{ID}.xbstream.gz"));
    for (case, parts) in [
        ("missing", vec![(0, 10), (2, 10), (3, 10)]),
        ("missing in a group", vec![(0, 10), (1, 10), (2, 10), (4, 10)]),
        ("short", vec![(0, 10), (1, 9), (2, 10)]),
        ("short first", vec![(0, 9), (1, 10)]),
    ] {
        let upload = store.begin(&object, None).await.unwrap();
        for (index, count) in parts {
            upload.part(index, Bytes::from(vec![b'x'; count])).await.unwrap();
        }
        assert_eq!(
            upload.finish(&Meta::new()).await.unwrap_err().kind,
            StorageErrorKind::Invalid,
            "{case}"
        );
        upload.abort().await;
        assert_eq!(peer.names().await, [""; 0], "{case}");
    }
    let upload = store.begin(&object, None).await.unwrap();
    assert_eq!(
        upload.part(0, Bytes::from(vec![0; 11])).await.unwrap_err().kind,
        StorageErrorKind::Invalid
    );
    // A piece that somebody removed, or changed: the Swift itself says no.
    for body in ["", "changed!!!"] {
        let upload = store.begin(&object, None).await.unwrap();
        for index in 0..3 {
            upload.part(index, Bytes::from(vec![b'x'; 10])).await.unwrap();
        }
        let method = if body.is_empty() { Method::DELETE } else { Method::PUT };
        peer.ask(method, &format!("{ID}_00000001"), &[], body).await;
        assert_eq!(upload.finish(&Meta::new()).await.unwrap_err().kind, StorageErrorKind::Corrupt);
        upload.abort().await;
        assert_eq!(peer.names().await, [""; 0]);
    }
    let long = Meta::from([("label".to_owned(), "x".repeat(257))]);
    assert_eq!(
        store.put(&object, Bytes::new(), &long).await.unwrap_err().kind,
        StorageErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_sweep_removes_what_broken_uploads_left_and_nothing_else() {
    let Some(peer) = Peer::find("sweep").await else { return };
    let store = peer.store().await;
    let kept = format!("{ID}.xbstream.zst");
    upload(&store, &kept, &bytes(75), &Meta::new()).await.unwrap();
    upload(&store, "log/1.zst", &bytes(35), &Meta::new()).await.unwrap();
    let whole = peer.names().await;
    for object in ["8b1e0c2a-9a7b-4f3d-8b11-6f8b5f0a1d22.xbstream.zst", "log/2.zst", &kept] {
        let upload = store.begin(&name(object), None).await.unwrap();
        for index in 0..7 {
            upload.part(index, Bytes::from(vec![b'x'; 10])).await.unwrap();
        }
    }
    // Somebody else's: no names of ours.
    peer.ask(Method::PUT, "photo_00000001", &[], "x").await;
    assert_eq!(store.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
    assert!(store.sweep(Duration::ZERO).await.unwrap() >= 3 * 7);
    let mut wanted = whole.clone();
    wanted.push("photo_00000001".to_owned());
    wanted.sort();
    assert_eq!(peer.names().await, wanted);
    assert!(read(&store, &kept).await.unwrap() == bytes(75));
}
