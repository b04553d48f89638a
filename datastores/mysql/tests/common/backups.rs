//! Backups in memory, and clients that write meanwhile.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "support code of tests, each of which uses its own part"
)]

use super::Machine;
use super::copies::{one, root};
use datastore_api::{BackupKind, Backups, Datastore, DriverError, EngineFacts, ErrorKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

pub fn of(datastore: &Arc<dyn Datastore>) -> &dyn Backups {
    datastore.backups().unwrap()
}

/// A backup.
pub async fn stored(datastore: &Arc<dyn Datastore>, kind: &BackupKind) -> Result<(EngineFacts, Vec<u8>), DriverError> {
    let mut blob = Vec::new();
    let facts = of(datastore).send_backup(kind, &mut blob).await?;
    Ok((facts, blob))
}

/// A full backup and increments, each upon the one before.
#[derive(Default)]
pub struct Chain {
    pub facts: Vec<EngineFacts>,
    pub blobs: Vec<Vec<u8>>,
}

impl Chain {
    pub async fn add(&mut self, datastore: &Arc<dyn Datastore>) {
        let kind = match self.facts.last() {
            None => BackupKind::Full,
            Some(facts) => BackupKind::Incremental {
                parent: Box::new(facts.clone()),
            },
        };
        let (facts, blob) = stored(datastore, &kind).await.unwrap();
        self.facts.push(facts);
        self.blobs.push(blob);
    }
}

/// Clients that write to `shop.log`, one row a transaction.
pub struct Writers(Arc<AtomicBool>, Vec<JoinHandle<()>>);

pub async fn load(machine: &Machine, clients: usize) -> Writers {
    let (stop, mut writers) = (Arc::new(AtomicBool::new(false)), Vec::new());
    for _ in 0..clients {
        let (stop, mut conn) = (Arc::clone(&stop), root(machine).await);
        writers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let insert = "INSERT INTO shop.log (v) VALUES (REPEAT(UUID(), 5))";
                conn.query_drop(insert).await.unwrap();
            }
        }));
    }
    Writers(stop, writers)
}

impl Writers {
    pub async fn stop(self) {
        self.0.store(true, Ordering::Relaxed);
        for writer in self.1 {
            writer.await.unwrap();
        }
    }
}

/// Rows of the tables of the tests.
pub async fn tenant_rows(conn: &mut Conn) -> (u64, u64, u64) {
    one(
        conn,
        "SELECT (SELECT COUNT(*) FROM shop.log), (SELECT COUNT(*) FROM shop.quiet), (SELECT COUNT(*) FROM shop.myisam)",
    )
    .await
}

/// The kind and the text of an error with its causes.
pub fn told<T>(result: Result<T, DriverError>) -> (ErrorKind, String) {
    let Err(error) = result else { panic!("it was accepted") };
    (error.kind(), datastore_api::chain(&error))
}
