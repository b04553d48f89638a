//! Pretended backups: a line that says what is in it, as many made-up bytes as a test wants, and an end mark.
//!
//! A restore is proven by the databases and users that come back, and by each made-up byte.

mod stream;

use crate::datastore::Sim;
use crate::state::State;
use async_trait::async_trait;
use datastore_api::{
    BackupKind, Backups, Change, CheckReport, DriverError, EngineFacts, ErrorKind, Frozen, Position, Restore, RestorePlace,
    Restored, RestoredAs, ScratchServer, Step, TableSample,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use stream::{Fault, read_stream, write_stream};
use tokio::io::{AsyncRead, AsyncWrite};

/// File of the pretended log.
const LOG: &str = "sim-log.000001";

/// The first line of a stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Head {
    /// Position that it builds upon; 0: nothing.
    from: u64,
    /// Everything, for simplicity in an increment, too.
    state: State,
    /// Made-up bytes that follow.
    filler: u64,
}

fn failed(text: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::Failed, text)
}

fn position(count: u64) -> Position {
    Position(if count == 0 { String::new() } else { count.to_string() })
}

fn facts(state: &State, from: u64, filler: u64, server_id: u16) -> EngineFacts {
    EngineFacts {
        engine: "sim".into(),
        strategy: "simbackup".into(),
        version: "1.0.0-sim".into(),
        tool: "sim 1.0".into(),
        position: position(state.role.position),
        log_file: Some(LOG.into()),
        log_offset: Some(state.role.position),
        from_lsn: Some(from.to_string()),
        to_lsn: Some(state.role.position.to_string()),
        data_bytes: filler,
        server_id: u32::from(server_id),
        lineage: state.instance.clone(),
        sample: sample(state),
        ..EngineFacts::default()
    }
}

/// The databases as tables, so that there is something to compare.
fn sample(state: &State) -> Vec<TableSample> {
    let users = u64::try_from(state.users.len()).unwrap_or(u64::MAX);
    let tables = state.databases.keys().map(|name| TableSample {
        database: name.clone(),
        table: "users".into(),
        rows: users,
        checksum: format!("{name}:{users}"),
    });
    tables.collect()
}

impl Sim {
    /// Does what a test wants of this verb.
    async fn verb(&self, verb: &str) -> Result<(), DriverError> {
        if self.options().hang_verb.as_deref() == Some(verb) {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        if self.options().fail_verb.as_deref() == Some(verb) {
            return Err(failed(format!("{verb} failed, as the test wanted")));
        }
        Ok(())
    }

    fn server_id(&self) -> u16 {
        self.options().port.unwrap_or(crate::datastore::INFO.default_port)
    }
}

#[async_trait]
impl Backups for Sim {
    fn strategy(&self) -> &'static str {
        "simbackup"
    }

    fn extension(&self) -> &'static str {
        "sim"
    }

    fn restore_step(&self) -> Step {
        Step("data")
    }

    async fn describe(&self) -> Result<EngineFacts, DriverError> {
        self.verb("describe").await?;
        let state = self.running().await?;
        Ok(facts(&state, 0, self.options().backup_bytes, self.server_id()))
    }

    async fn send_backup(
        &self,
        kind: &BackupKind,
        out: &mut (dyn AsyncWrite + Send + Unpin),
    ) -> Result<EngineFacts, DriverError> {
        self.verb("send_backup").await?;
        let state = self.running().await?;
        let from = match kind {
            BackupKind::Full => 0,
            BackupKind::Incremental { parent } => {
                let wrong = || DriverError::new(ErrorKind::WrongData, "the parent is no backup of this server");
                let lsn = parent
                    .to_lsn
                    .as_deref()
                    .filter(|_| parent.engine == "sim")
                    .ok_or_else(wrong)?;
                let from: u64 = lsn.parse().map_err(|_| wrong())?;
                if from > state.role.position {
                    return Err(wrong());
                }
                from
            }
        };
        let mut facts = facts(&state, from, self.options().backup_bytes, self.server_id());
        let head = Head {
            from,
            state,
            filler: self.options().backup_bytes,
        };
        let fault = Fault {
            kind: self.options().backup_fault,
            at: self.options().backup_fault_at,
        };
        facts.stream_bytes = write_stream(&head, fault, out).await?;
        Ok(facts)
    }

    async fn check_restore(&self, facts: &EngineFacts, bytes: u64, place: &RestorePlace) -> Result<(), DriverError> {
        self.verb("check_restore").await?;
        let wrong = |what: &str| Err(DriverError::new(ErrorKind::WrongData, format!("the backup is of {what}")));
        if facts.engine != "sim" {
            return wrong(&format!("a {} server, this is a sim server", facts.engine));
        }
        if !facts.version.is_empty() && !facts.version.starts_with('1') {
            return wrong(&format!("a server {}, installed is 1.0.0-sim", facts.version));
        }
        if *place == RestorePlace::Empty && self.state().await?.running {
            return Err(DriverError::new(ErrorKind::Exists, "there is a server already"));
        }
        let mount = &self.context().mount_point;
        let free = self.context().host.free_space(mount).await.unwrap_or(u64::MAX);
        if free < bytes {
            let text = format!("the backup needs {bytes} bytes, {} has room for {free}", mount.display());
            return Err(DriverError::new(ErrorKind::NoSpace, text));
        }
        Ok(())
    }

    async fn begin_restore(&self, _id: &str, place: &RestorePlace) -> Result<Box<dyn Restore>, DriverError> {
        self.verb("begin_restore").await?;
        Ok(Box::new(Restoring {
            sim: self.clone(),
            place: place.clone(),
            have: None,
        }))
    }

    async fn settle(&self) -> Result<Option<String>, DriverError> {
        self.verb("settle").await.map(|()| None)
    }

    async fn freeze(&self, limit: Duration) -> Result<Frozen, DriverError> {
        self.verb("freeze").await?;
        let at = self.running().await?.role.position;
        let mut frozen = self.frozen.lock().await;
        if frozen.is_none() {
            *frozen = Some(tokio::time::Instant::now() + limit);
        }
        Ok(Frozen {
            position: position(at),
            log_file: Some(LOG.into()),
            log_offset: Some(at),
        })
    }

    async fn thaw(&self) -> Result<Change, DriverError> {
        self.verb("thaw").await?;
        match self.frozen.lock().await.take() {
            None => Ok(Change::Unchanged),
            Some(end) if end > tokio::time::Instant::now() => Ok(Change::Done),
            Some(_) => {
                let text = "the volume was thawed before its time: the snapshot is worth nothing";
                Err(DriverError::new(ErrorKind::Timeout, text))
            }
        }
    }
}

/// A restore under way.
struct Restoring {
    sim: Sim,
    place: RestorePlace,
    have: Option<State>,
}

#[async_trait]
impl Restore for Restoring {
    async fn unpack(&mut self, from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), DriverError> {
        self.sim.verb("unpack").await?;
        let head = read_stream(from).await?;
        let have = self.have.as_ref().map_or(0, |state| state.role.position);
        if head.from != have || (head.from == 0) != self.have.is_none() {
            let text = format!("the stream builds upon {}, what came before it ends at {have}", head.from);
            return Err(DriverError::new(ErrorKind::WrongData, text));
        }
        self.have = Some(head.state);
        Ok(())
    }

    async fn finish(self: Box<Self>, as_what: RestoredAs) -> Result<Restored, DriverError> {
        self.sim.verb("finish").await?;
        let state = self.have.ok_or_else(|| failed("there is nothing to make a server of"))?;
        let at = state.role.position;
        let mut restored = Restored {
            position: position(at),
            log_file: Some(LOG.into()),
            log_offset: Some(at),
            scratch: None,
        };
        if let RestorePlace::Scratch(_) = self.place {
            restored.scratch = Some(Box::new(Scratch { sim: self.sim, state }));
            return Ok(restored);
        }
        let instance = self.sim.context().instance_id.clone();
        self.sim
            .change_stored(move |now| {
                (now.databases, now.users) = (state.databases, state.users);
                (now.role.position, now.role.read_only) = (at, as_what == RestoredAs::Closed);
                now.done.insert("data".into());
                (now.instance, now.running) = (instance, true);
                Ok(())
            })
            .await?;
        crate::replication::publish(self.sim.server_id(), at);
        Ok(restored)
    }

    async fn abandon(self: Box<Self>) -> Result<(), DriverError> {
        self.sim.verb("abandon").await
    }
}

/// A restored server that nobody reaches.
struct Scratch {
    sim: Sim,
    state: State,
}

#[async_trait]
impl ScratchServer for Scratch {
    async fn check(&self, wanted: &[TableSample], _budget: Duration) -> Result<CheckReport, DriverError> {
        self.sim.verb("check").await?;
        let have = sample(&self.state);
        let tables = u64::try_from(have.len()).unwrap_or(u64::MAX);
        let wrong = wanted.iter().filter(|table| !have.contains(table));
        let problems = wrong.map(|table| format!("table {}.{} is not as it was", table.database, table.table));
        Ok(CheckReport {
            tables,
            checked: tables,
            compared: u64::try_from(wanted.len()).unwrap_or(u64::MAX),
            problems: problems.collect(),
            complete: true,
        })
    }

    async fn close(self: Box<Self>) -> Result<(), DriverError> {
        self.sim.verb("close").await
    }
}
