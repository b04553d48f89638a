//! The catalogue of corruptions: each is done to a backup, and each must be caught. None may be called complete, or be restored.

use super::bed::{Bed, End, keys};
use super::faulty::Faults;
use crate::backup::BackupId;
use crate::storage::StorageErrorKind::{Failed, NoSpace, Refused, Unreachable};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a sealed chunk.
const SEALED: usize = (64 << 10) + 16;

fn faults(set: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults::default();
    set(&mut faults);
    faults
}

/// The backup must fail with these words, and leave nothing.
async fn must_fail(caught: &mut u32, name: &str, words: &str, bed: &Bed, faults: Faults) {
    let error = bed.take(faults).await.map(|_| ()).expect_err(name);
    let error = datastore_api::chain(&error);
    assert!(error.contains(words), "{name}: {error}");
    assert_eq!(bed.files(), [""; 0], "{name}: {error}");
    *caught += 1;
    println!("{caught:3} {name}: {error}");
}

/// The restore must fail with these words.
async fn must_not_restore(caught: &mut u32, name: &str, words: &str, bed: &Bed, faults: Faults) {
    let error = bed.restore(faults).await.map(|bytes| bytes.len()).expect_err(name);
    assert!(error.contains(words), "{name}: {error}");
    *caught += 1;
    println!("{caught:3} {name}: {error}");
}

/// A complete backup.
async fn taken(sealed: bool) -> Bed {
    let bed = Bed::new(sealed);
    bed.take(Faults::default()).await.unwrap();
    bed
}

fn flip(bed: &Bed, path: &PathBuf, place: impl FnOnce(usize) -> usize) {
    bed.edit(path, |bytes| {
        let at = place(bytes.len());
        bytes[at] ^= 0x04;
    });
}

#[tokio::test]
async fn whatever_goes_wrong_while_a_backup_is_taken_fails_it() {
    let mut n = 0;
    for (name, words, end) in [
        ("the tool's exit code says failed", "exit code", End::Badly),
        ("the tool's tail is missing", "arrived", End::Early),
        ("more came than the tool wrote", "arrived", End::Talkative),
    ] {
        let mut bed = Bed::new(false);
        bed.end = end;
        must_fail(&mut n, name, words, &bed, Faults::default()).await;
    }
    for (name, words, faults) in [
        (
            "storage answers 500 at once",
            "told to fail",
            faults(|f| f.gone_after = Some((0, Failed))),
        ),
        (
            "storage vanishes half way",
            "told to fail",
            faults(|f| f.gone_after = Some((3, Unreachable))),
        ),
        (
            "storage is full half way",
            "told to fail",
            faults(|f| f.gone_after = Some((2, NoSpace))),
        ),
        (
            "the token runs out half way",
            "told to fail",
            faults(|f| f.gone_after = Some((2, Refused))),
        ),
        ("a part is confirmed and lost", "missing", faults(|f| f.loses = Some(2))),
        (
            "the last part is confirmed and lost",
            "storage has",
            faults(|f| f.loses = Some(6)),
        ),
        (
            "a part is stored without its last byte",
            "short",
            faults(|f| f.shortens = Some(1)),
        ),
        (
            "the last part is stored without its last byte",
            "storage has",
            faults(|f| f.shortens = Some(6)),
        ),
        (
            "the whole cannot be made",
            "told to fail",
            faults(|f| f.no_finish = Some(Failed)),
        ),
        (
            "the whole is one byte short",
            "storage has",
            faults(|f| f.finishes_short = true),
        ),
        (
            "no space for the manifest",
            "told to fail",
            faults(|f| f.no_put = Some(NoSpace)),
        ),
    ] {
        let bed = Bed::new(n % 2 == 0);
        must_fail(&mut n, name, words, &bed, faults).await;
    }
    // A storage that confirms other bytes than it got: only reading them back finds that before the backup is called complete.
    for (name, sealed, words, faults) in [
        ("a bit changed on its way", false, "damaged", faults(|f| f.flips = Some(1))),
        (
            "a bit of a sealed part changed on its way",
            true,
            "sealed chunk",
            faults(|f| f.flips = Some(1)),
        ),
        ("two parts were swapped", false, "damaged", faults(|f| f.swaps = Some((1, 2)))),
        (
            "two sealed parts were swapped",
            true,
            "sealed chunk",
            faults(|f| f.swaps = Some((2, 3))),
        ),
        (
            "a part was stored twice",
            true,
            "sealed chunk",
            faults(|f| f.repeats = Some((1, 2))),
        ),
    ] {
        let mut bed = Bed::new(sealed);
        bed.settings.read_back = true;
        must_fail(&mut n, name, words, &bed, faults).await;
    }
    println!("{n} injected, {n} caught, none complete");
    assert_eq!(n, 19);
}

#[tokio::test]
async fn whatever_happens_to_a_backup_later_is_found_before_it_counts_as_restored() {
    let mut n = 0;
    let none = Faults::default;
    for sealed in [false, true] {
        let kind = if sealed { "sealed" } else { "plain" };
        for (name, place) in [("first", 0), ("middle", 1), ("last", 2)] {
            let bed = taken(sealed).await;
            flip(&bed, &bed.blob(), |length| place * (length - 1) / 2);
            must_not_restore(
                &mut n,
                &format!("a bit of the {name} byte of a {kind} blob"),
                "damaged",
                &bed,
                none(),
            )
            .await;
        }
        let bed = taken(sealed).await;
        bed.edit(&bed.blob(), |bytes| bytes.truncate(bytes.len() - 1));
        must_not_restore(
            &mut n,
            &format!("a {kind} blob without its last byte"),
            "its manifest says",
            &bed,
            none(),
        )
        .await;
        bed.refit();
        must_not_restore(
            &mut n,
            &format!("a {kind} blob cut off, manifest made to fit"),
            "damaged",
            &bed,
            none(),
        )
        .await;
        let bed = taken(sealed).await;
        bed.edit(&bed.blob(), |bytes| bytes.extend_from_slice(b"more"));
        must_not_restore(
            &mut n,
            &format!("a {kind} blob with more behind it"),
            "its manifest says",
            &bed,
            none(),
        )
        .await;
        bed.refit();
        must_not_restore(
            &mut n,
            &format!("a longer {kind} blob, manifest made to fit"),
            "damaged",
            &bed,
            none(),
        )
        .await;
        let bed = taken(sealed).await;
        fs::remove_file(bed.blob()).unwrap();
        must_not_restore(&mut n, &format!("a {kind} blob is gone"), "it is not in", &bed, none()).await;
    }

    let bed = taken(true).await;
    bed.edit(&bed.blob(), |bytes| bytes.truncate(3 * SEALED));
    bed.refit();
    must_not_restore(
        &mut n,
        "a sealed blob cut off between two chunks",
        "sealed chunk 2",
        &bed,
        none(),
    )
    .await;
    let bed = taken(true).await;
    bed.edit(&bed.blob(), |bytes| {
        let (one, other) = bytes[..2 * SEALED].split_at_mut(SEALED);
        one.swap_with_slice(other);
    });
    bed.refit();
    must_not_restore(&mut n, "two sealed chunks swapped", "sealed chunk 0", &bed, none()).await;

    let (bed, other) = (taken(true).await, taken(true).await);
    fs::copy(other.blob(), bed.blob()).unwrap();
    must_not_restore(&mut n, "the blob of another backup under this name", "damaged", &bed, none()).await;
    bed.refit();
    must_not_restore(
        &mut n,
        "the blob of another backup, manifest made to fit",
        "sealed chunk 0",
        &bed,
        none(),
    )
    .await;
    fs::copy(other.manifest(), bed.manifest()).unwrap();
    must_not_restore(&mut n, "the manifest of another backup", "it is of the backup", &bed, none()).await;

    let bed = taken(false).await;
    let (old, older) = (fs::read(bed.blob()).unwrap(), Bed::new(false));
    let mut older = older;
    older.data = std::sync::Arc::new(super::bed::data(bed.data.len(), 99));
    older.id = bed.id.clone();
    older.take(none()).await.unwrap();
    fs::copy(older.blob(), bed.blob()).unwrap();
    must_not_restore(&mut n, "an older blob under the same name", "damaged", &bed, none()).await;
    fs::write(bed.blob(), &old).unwrap();
    bed.edit(&bed.manifest(), |bytes| bytes.truncate(bytes.len() / 2));
    must_not_restore(&mut n, "half a manifest", "not a manifest", &bed, none()).await;
    bed.edit(&bed.manifest(), Vec::clear);
    must_not_restore(&mut n, "an empty manifest", "not a manifest", &bed, none()).await;

    manifests(&mut n).await;
    reading(&mut n).await;
    println!("{n} injected, {n} caught, none restored");
    assert_eq!(n, 36);
}

async fn manifests(n: &mut u32) {
    let none = Faults::default;
    let bed = taken(true).await;
    bed.doctor(&bed.keys, |manifest| manifest.version = 2);
    must_not_restore(n, "a manifest of a newer agent", "version 2", &bed, none()).await;
    let bed = taken(true).await;
    bed.doctor(&keys("k1", 9), |manifest| manifest.guest = "another".into());
    must_not_restore(
        n,
        "a manifest changed by who has not the key",
        "was not written by",
        &bed,
        none(),
    )
    .await;
    let mut bed = taken(true).await;
    bed.keys = keys("k1", 2);
    must_not_restore(n, "another key of the same name", "\"k1\"", &bed, none()).await;
    bed.keys = keys("k2", 1);
    must_not_restore(n, "no key of this name", "\"k1\"", &bed, none()).await;
    let bed = taken(false).await;
    bed.doctor(&bed.keys, |manifest| manifest.plain_bytes = 1000);
    must_not_restore(
        n,
        "a blob that unpacks to more than it may",
        "more than the 1000 bytes",
        &bed,
        none(),
    )
    .await;
    let bed = taken(false).await;
    bed.doctor(&bed.keys, |manifest| manifest.compression.window_log = 12);
    must_not_restore(n, "a blob that asks for more memory than it may", "zstd", &bed, none()).await;
    bed.doctor(&bed.keys, |manifest| manifest.compression.window_log = 31);
    must_not_restore(n, "a manifest that asks for two gigabytes", "window of 2^31", &bed, none()).await;
    let bed = taken(false).await;
    bed.doctor(&bed.keys, |manifest| manifest.id = BackupId::random().unwrap());
    must_not_restore(n, "a manifest with another id", "it is of the backup", &bed, none()).await;
}

async fn reading(n: &mut u32) {
    let mut bed = taken(false).await;
    bed.read.stall = Duration::from_millis(100);
    bed.read.reconnects = 2;
    for (name, words, faults) in [
        (
            "reads that end early",
            "it ended early",
            faults(|f| f.ends_at = Some(300_000)),
        ),
        ("reads that hang", "nothing came", faults(|f| f.hangs_at = Some(300_000))),
        ("reads that break too often", "broke", faults(|f| f.breaks = Some((1000, 9)))),
        (
            "a bit changed on its way back",
            "damaged",
            faults(|f| f.flips_back = Some(250_000)),
        ),
    ] {
        must_not_restore(n, name, words, &bed, faults).await;
    }
}

/// One bit of each byte, one after the other.
#[tokio::test]
async fn every_bit_of_a_manifest_is_guarded() {
    use crate::backup::Manifest;
    let bed = taken(true).await;
    let good = fs::read(bed.manifest()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 7);
        Manifest::decode_signed(&bad, &bed.id, &bed.keys).expect_err(&format!("byte {at}"));
    }
    println!("{} bits flipped, all found", good.len());
}
