//! Pretended backups: what is restored is what was there, and what a test wants to go wrong does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use datastore_api::contract::TestHost;
use datastore_api::{
    BackupKind, Database, Datastore, DriverContext, EngineFacts, ErrorKind, PreparePlan, RestorePlace, RestoredAs,
};
use serde_json::Map;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

async fn guest(options: &[(&str, &str)]) -> (TempDir, Arc<dyn Datastore>) {
    let folder = tempfile::tempdir().unwrap();
    let context = DriverContext {
        host: Arc::new(TestHost::default()),
        mount_point: folder.path().join("volume"),
        instance_id: "guest".into(),
        service_user: "nobody".into(),
        ignore_users: Vec::new(),
        ignore_databases: Vec::new(),
        hostname_require_valid_ip: true,
        root_grant: Vec::new(),
        root_grant_option: true,
        password_length: 36,
        state_change_limit: Duration::from_secs(5),
        root: folder.path().join("root"),
        options: options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let sim = (datastore_sim::ENTRY.open)(context, "sim").unwrap();
    let plan = PreparePlan {
        config_contents: None,
        overrides: Map::new(),
        memory_mb: 0,
        version: None,
    };
    for step in sim.prepare_steps() {
        sim.prepare_step(*step, &plan).await.unwrap();
    }
    (folder, sim)
}

async fn add(sim: &Arc<dyn Datastore>, name: &str) {
    let database = Database {
        name: name.to_owned(),
        character_set: None,
        collation: None,
    };
    sim.accounts().unwrap().create_databases(&[database]).await.unwrap();
}

#[tokio::test]
async fn a_chain_brings_back_what_was_there() {
    let (_folder, sim) = guest(&[("backup_bytes", "1000000"), ("port", "40001")]).await;
    let backups = sim.backups().unwrap();
    let mut blobs: Vec<(EngineFacts, Vec<u8>)> = Vec::new();
    for name in ["one", "two"] {
        add(&sim, name).await;
        let kind = match blobs.last() {
            None => BackupKind::Full,
            Some((facts, _)) => BackupKind::Incremental {
                parent: Box::new(facts.clone()),
            },
        };
        let mut blob = Vec::new();
        let facts = backups.send_backup(&kind, &mut blob).await.unwrap();
        assert_eq!(facts.stream_bytes, blob.len() as u64);
        blobs.push((facts, blob));
    }
    add(&sim, "late").await;
    let mut wrong = backups.begin_restore("x", &RestorePlace::Replace).await.unwrap();
    let error = wrong.unpack(&mut blobs[1].1.as_slice()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongData);
    for place in [RestorePlace::Scratch("/nowhere".into()), RestorePlace::Replace] {
        let mut restore = backups.begin_restore("x", &place).await.unwrap();
        for (_, blob) in &blobs {
            restore.unpack(&mut blob.as_slice()).await.unwrap();
        }
        let restored = restore.finish(RestoredAs::Open).await.unwrap();
        assert_eq!(restored.position, blobs[1].0.position);
        if let Some(scratch) = restored.scratch {
            let report = scratch.check(&blobs[1].0.sample, Duration::from_secs(1)).await.unwrap();
            assert_eq!((report.compared, report.problems.len()), (2, 0));
            scratch.close().await.unwrap();
        }
    }
    let names = sim.replication().unwrap().user_databases().await.unwrap();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn what_a_test_wants_to_go_wrong_does() {
    for (fault, is_told) in [("fail", true), ("truncate", true), ("swallow", false)] {
        let options = [
            ("backup_bytes", "1000000"),
            ("backup_fault", fault),
            ("backup_fault_at", "500000"),
        ];
        let (_folder, sim) = guest(&options).await;
        let backups = sim.backups().unwrap();
        let mut blob = Vec::new();
        let sent = backups.send_backup(&BackupKind::Full, &mut blob).await;
        assert_eq!(blob.len(), 500_000);
        match sent {
            Ok(facts) => assert!(!is_told && facts.stream_bytes > 500_000),
            Err(error) => assert!(is_told && error.kind() == ErrorKind::Failed, "{error}"),
        }
        let mut restore = backups.begin_restore("x", &RestorePlace::Replace).await.unwrap();
        assert_eq!(
            restore.unpack(&mut blob.as_slice()).await.unwrap_err().kind(),
            ErrorKind::Failed
        );
        restore.abandon().await.unwrap();
    }
}
