//! When heartbeats are sent.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test]
async fn a_new_guest_is_silent_and_each_change_is_told_at_once() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    rig.silence().await;
    rig.publisher.update(|view| view.phase = Phase::Preparing);
    let mut last = 0.0;
    let mut expect = async |rig: &mut Rig, wanted: &str| {
        let (status, sent) = rig.beat().await;
        assert_eq!(status, wanted);
        assert!(sent > last, "{sent} after {last}");
        last = sent;
    };
    expect(&mut rig, "building").await;
    rig.publisher.update(|view| view.phase = Phase::Ready);
    rig.health(Health::Healthy);
    expect(&mut rig, "healthy").await;
    rig.health(Health::Crashed {
        reason: "killed".to_owned(),
    });
    expect(&mut rig, "crashed").await;
    rig.health(Health::Starting);
    expect(&mut rig, "running").await;
    rig.health(Health::Unknown {
        reason: "hangs".to_owned(),
    });
    expect(&mut rig, "unknown").await;
    rig.health(Health::Stopped);
    expect(&mut rig, "shutdown").await;
    rig.publisher.update(|view| view.waiting = 3);
    rig.silence().await;
    rig.publisher.update(|view| view.phase = Phase::Failed);
    expect(&mut rig, "failed to spawn").await;
}

#[tokio::test]
async fn heartbeats_repeat_every_interval_and_end_with_the_agent() {
    let quick = Settings {
        report_interval: Duration::from_millis(300),
        ..settings(Era::Mitaka)
    };
    let mut rig = rig(quick, Phase::Ready);
    rig.health(Health::Healthy);
    for _ in 0..4 {
        assert_eq!(rig.beat().await.0, "running", "the good state of that era");
    }
    rig.cancel.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    while rig.casts.try_recv().is_ok() {}
    rig.silence().await;
}

#[tokio::test]
async fn a_restart_is_over_only_when_it_is_over() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::Ready);
    rig.health(Health::Healthy);
    assert_eq!(rig.beat().await.0, "healthy");
    rig.publisher.update(|view| view.planned = true);
    rig.silence().await;
    rig.publisher.update(|view| view.planned = false);
    assert_eq!(rig.beat().await.0, "healthy", "told again, although the health never changed");
}

#[tokio::test]
async fn a_wanted_restart_is_told_and_taken_back() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::Ready);
    rig.health(Health::Healthy);
    assert_eq!(rig.beat().await.0, "healthy");
    rig.publisher.update(|view| view.restart_required = true);
    assert_eq!(rig.beat().await.0, "restart required");
    rig.publisher.update(|view| view.restart_required = false);
    assert_eq!(rig.beat().await.0, "healthy");
}

#[tokio::test]
async fn a_flapping_server_does_not_flood_the_conductor() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::Ready);
    let began = tokio::time::Instant::now();
    for n in 0..400 {
        rig.health(if n % 2 == 0 { Health::Healthy } else { Health::Starting });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    rig.health(Health::Stopped);
    let allowed = began.elapsed().as_millis() / beat::SHORTEST.as_millis() + 2;
    let mut beats = 1;
    while rig.beat().await.0 != "shutdown" {
        beats += 1;
    }
    assert!(beats <= allowed, "{beats} heartbeats, {allowed} allowed");
}

#[tokio::test]
async fn forced_reports_go_out_at_once_and_in_order() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    for status in [
        Status::Building,
        Status::InstanceReady,
        Status::Healthy,
        Status::FailedToSpawn,
    ] {
        rig.conductor.report_now(status).await;
    }
    let mut last = 0.0;
    for wanted in ["building", "instance ready", "healthy", "failed to spawn"] {
        let (status, sent) = rig.beat().await;
        assert_eq!(status, wanted);
        assert!(sent > last);
        last = sent;
    }
}

#[tokio::test]
async fn sent_grows_over_a_restart_of_the_agent() {
    let mut rig = rig(settings(Era::Hibiscus), Phase::New);
    let ahead = rig.journal.next_sent(4_000_000_000.0).await.unwrap();
    rig.conductor.report_now(Status::Building).await;
    let (_, before) = rig.beat().await;
    assert!(before > ahead, "the clock went back by decades");
    let Rig {
        conductor,
        publisher,
        journal,
        cancel,
        dir,
        ..
    } = rig;
    cancel.cancel();
    drop((conductor, publisher, journal));
    let mut tries = 0;
    let journal = loop {
        match Journal::open(dir.path(), None) {
            Ok(journal) => break journal,
            Err(e) if tries > 100 => panic!("{e}"),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(journal.next_sent(5.0).await.unwrap() > before);
}

#[tokio::test]
async fn a_full_outbox_does_not_stop_the_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), None).unwrap();
    let (publisher, view) = Publisher::new(Phase::Preparing);
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tried);
    let refuse = move |cast: Cast| {
        assert_eq!(cast.collapse, Some(HEARTBEAT), "only the newest waits");
        counter.fetch_add(1, Ordering::SeqCst);
        Err(BusError::OutboxFull { limit: 1 })
    };
    let quick = Settings {
        report_interval: Duration::from_millis(200),
        ..settings(Era::Hibiscus)
    };
    let conductor = Conductor::start(quick, journal, view, refuse, CancellationToken::new());
    conductor.report_now(Status::Building).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while tried.load(Ordering::SeqCst) < 4 {
        assert!(tokio::time::Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(publisher);
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let flags = nix::mount::MsFlags::empty();
    if let Err(e) = nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=256k")) {
        eprintln!("SKIPPED: a file system cannot be mounted here ({e}); the full disk is not tested");
        return;
    }
    let journal = Journal::open(dir.path(), None).unwrap();
    let mut number = 0;
    while journal.put(&format!("filler{number}"), vec![7; 3000]).await.is_ok() {
        number += 1;
    }
    let (_publisher, view) = Publisher::new(Phase::New);
    let (tx, mut casts) = unbounded_channel();
    let send = move |cast| tx.send(cast).map_err(|_| BusError::Closed);
    let conductor = Conductor::start(settings(Era::Hibiscus), journal.clone(), view, send, CancellationToken::new());
    let mut last = 0.0;
    let mut unrecorded = 0;
    for _ in 0..30 {
        conductor.report_now(Status::Building).await;
        unrecorded += usize::from(conductor.inner.last.lock().await.unrecorded);
        let sent = casts.recv().await.unwrap().args["sent"].as_f64().unwrap();
        assert!(sent > last, "{sent} after {last}");
        last = sent;
    }
    assert!(unrecorded > 0, "the disk was not full");
    drop((conductor, journal));
    let _ = nix::mount::umount(dir.path());
}
