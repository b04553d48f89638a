//! What goes well, and how much of the machine it takes.

use super::bed::{Bed, End, LENGTH, PART, data};
use super::faulty::Faults;
use crate::backup::pipeline::{Adaptive, Verdict};
use crate::backup::{BackupError, Format, Scheme};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_stream_comes_back_as_it_was() {
    for (length, sealed, format, scheme, threads) in [
        (LENGTH, false, Format::Native, None, 2),
        (LENGTH, true, Format::Native, None, 2),
        (LENGTH, true, Format::Native, Some(Scheme::ChaCha20Poly1305), 0),
        (LENGTH, false, Format::Upstream, None, 1),
        (0, false, Format::Native, None, 2),
        (0, true, Format::Native, None, 0),
        (1, true, Format::Native, None, 1),
        (0, false, Format::Upstream, None, 0),
    ] {
        let mut bed = Bed::new(sealed);
        bed.data = Arc::new(data(length, 3));
        bed.format = format;
        (bed.settings.scheme, bed.settings.threads, bed.settings.read_back) = (scheme, threads, true);
        let manifest = bed.take(Faults::default()).await.unwrap();
        assert_eq!(manifest.plain_bytes, length as u64);
        assert_eq!(manifest.stored_bytes, std::fs::metadata(bed.blob()).unwrap().len());
        assert_eq!(u64::from(manifest.parts.count), manifest.stored_bytes.div_ceil(PART as u64));
        assert!(bed.progress.borrow().done);
        let back = bed.restore(Faults::default()).await.unwrap();
        assert!(back == *bed.data, "{length} bytes, sealed {sealed}, {format:?}");
        assert_eq!(bed.files().len(), 2);
    }
}

#[tokio::test]
async fn what_is_sealed_shows_nothing_and_is_never_sealed_twice_alike() {
    let mut one = Bed::new(true);
    one.data = Arc::new(b"a secret ".repeat(50_000));
    one.settings.threads = 0;
    one.take(Faults::default()).await.unwrap();
    let first = std::fs::read(one.blob()).unwrap();
    assert!(!first.windows(8).any(|bytes| bytes == b"a secret"));
    std::fs::remove_file(one.blob()).unwrap();
    std::fs::remove_file(one.manifest()).unwrap();
    one.take(Faults::default()).await.unwrap();
    assert_ne!(std::fs::read(one.blob()).unwrap(), first);
}

#[tokio::test]
async fn reading_goes_on_after_breaks_and_takes_small_bites() {
    let bed = Bed::new(true);
    bed.take(Faults::default()).await.unwrap();
    for faults in [
        Faults {
            breaks: Some((200_000, 3)),
            ..Faults::default()
        },
        Faults {
            breaks: Some((0, 2)),
            sips: Some(1_003),
            ..Faults::default()
        },
    ] {
        assert!(bed.restore(faults).await.unwrap() == *bed.data);
    }
}

#[tokio::test]
async fn who_stops_reading_early_learns_at_the_end_whether_it_was_good() {
    use crate::backup::Manifest;
    use crate::backup::pipeline::{Progress, open};
    use tokio::io::AsyncReadExt;
    let bed = Bed::new(false);
    let taken = bed.take(Faults::default()).await.unwrap();
    let manifest = Manifest::decode_signed(&std::fs::read(bed.manifest()).unwrap(), &bed.id, &bed.keys).unwrap();
    assert_eq!(manifest, taken);
    let progress = || tokio::sync::watch::Sender::new(Progress::default());
    let mut opened = open(&bed.store(Faults::default()), &manifest, &bed.keys, bed.read, progress())
        .await
        .unwrap();
    let mut some = [0; 1000];
    opened.read_exact(&mut some).await.unwrap();
    assert_eq!(opened.verdict(), Verdict::Reading);
    opened.finish().await.unwrap();

    let path = bed.blob();
    bed.edit(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let mut opened = open(&bed.store(Faults::default()), &manifest, &bed.keys, bed.read, progress())
        .await
        .unwrap();
    opened.read_exact(&mut some).await.unwrap();
    let error = opened.finish().await.unwrap_err();
    assert!(matches!(&*error, BackupError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_cancelled_backup_leaves_nothing_and_does_not_take_long() {
    let mut bed = Bed::new(true);
    bed.end = End::Never;
    let begun = Instant::now();
    let (taken, ()) = tokio::join!(bed.take(Faults::default()), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bed.cancel.cancel();
    });
    assert!(matches!(taken, Err(BackupError::Cancelled)), "{taken:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(bed.files(), [""; 0]);
}

#[tokio::test]
async fn a_throttled_backup_takes_its_time_and_says_so() {
    let mut bed = Bed::new(false);
    bed.settings.rate = Some(1_000_000);
    let mut seen = bed.progress.subscribe();
    let begun = Instant::now();
    let (taken, held) = tokio::join!(bed.take(Faults::default()), async move {
        loop {
            seen.changed().await.unwrap();
            let now = *seen.borrow_and_update();
            if let Some(held) = now.held_to {
                return (held, now.percent);
            }
        }
    });
    taken.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(600), "{:?}", begun.elapsed());
    assert_eq!(held.0, 1_000_000);
    assert!(held.1.is_some_and(|percent| percent < 100.0));
}

#[tokio::test]
async fn a_backup_under_pressure_goes_on_at_the_floor() {
    let mut bed = Bed::new(false);
    bed.settings.adaptive = Some(Adaptive {
        files: Vec::new(),
        probe: Some(Arc::new(|| Some(100.0))),
        floor: 2_000_000,
        ..Adaptive::default()
    });
    bed.take(Faults::default()).await.unwrap();
    assert!(bed.restore(Faults::default()).await.unwrap() == *bed.data);
}

#[tokio::test]
async fn the_same_id_is_not_taken_twice() {
    let bed = Bed::new(false);
    bed.take(Faults::default()).await.unwrap();
    let again = bed.take(Faults::default()).await.unwrap_err().to_string();
    assert!(again.contains("already"), "{again}");
    assert!(bed.restore(Faults::default()).await.unwrap() == *bed.data);
}
