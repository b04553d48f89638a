//! The source's side of a change of source: it blocks, decides, and follows the new one; or goes back by itself.

use super::talk::{Decision, Fenced, State};
use super::{Pair, PairError, ms_since};
use crate::instance::role::{Role, Switch};
use datastore_api::{BlockLimits, Blocked, Position, chain};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How long a candidate that began may take until it fences.
const BEGUN_LIMIT: Duration = Duration::from_secs(30);
/// How long the old source keeps the address, refusing and resetting, after it has released it.
const LINGER: Duration = Duration::from_millis(50);
/// How long a forced yield may try to block writes in order.
const YIELD_LIMIT: Duration = Duration::from_millis(700);

impl Pair {
    /// A candidate wants to take over.
    pub(super) async fn on_begin(&self, op: &str, next: u64) -> Result<State, PairError> {
        let Ok(_lane) = self.0.lane.try_lock() else {
            return Err(PairError::Refused(
                "another change of role is running on the source".to_owned(),
            ));
        };
        self.spec()?;
        if !self.healthy() {
            return Err(PairError::Refused(
                "the source's database does not answer; this is a case for failover".to_owned(),
            ));
        }
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.begin_leaving(op, next)?;
                Ok(())
            })
            .await?;
        self.go_back_after(op, BEGUN_LIMIT);
        Ok(self.state().await)
    }

    /// Blocks writes. From here the budget runs.
    pub(super) async fn on_fence(&self, op: &str) -> Result<Fenced, PairError> {
        let spec = self.spec()?;
        let _leave = self.0.leave.lock().await;
        let began = Instant::now();
        self.0.store.role().fenced(op)?;
        let budget = Duration::from_millis(spec.blocked_ms);
        self.go_back_after(op, budget);
        let limits = BlockLimits {
            grace: Duration::from_millis(spec.grace_ms).min(budget / 2),
            limit: budget * 8 / 10,
        };
        let blocked = match self.replication()?.block_writes(&limits).await {
            Ok(blocked) => blocked,
            Err(failure) => {
                self.stay(op, "writes could not be blocked").await;
                return Err(failure.into());
            }
        };
        self.0
            .store
            .live(|memory| {
                memory.role = memory.role.fenced(op)?;
                Ok(())
            })
            .await?;
        self.wires().close_to_clients();
        Ok(Fenced {
            blocked,
            ms: ms_since(began),
        })
    }

    /// The decision. It is on disk when this answers.
    pub(super) async fn on_release(&self, op: &str) -> Result<Decision, PairError> {
        let _leave = self.0.leave.lock().await;
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.released(op)?;
                memory.left = Some(op.to_owned());
                Ok(())
            })
            .await?;
        let (this, op) = (self.clone(), op.to_owned());
        tokio::spawn(async move { this.after_release(&op).await });
        Ok(Decision::Released)
    }

    /// The candidate gives up.
    pub(super) async fn on_abort(&self, op: &str) -> Decision {
        let _leave = self.0.leave.lock().await;
        self.stay(op, "the candidate gave up").await;
        Decision::Stayed
    }

    /// What became of it. An operation that is not under way here and did not change our role will never be released.
    pub(super) async fn on_decision(&self, op: &str) -> Decision {
        let _leave = self.0.leave.lock().await;
        let memory = self.memory();
        match &memory.role.switch {
            _ if memory.left.as_deref() == Some(op) => Decision::Released,
            Some(Switch::Leaving { op: ours, .. }) if ours == op => Decision::Open,
            _ => Decision::Stayed,
        }
    }

    /// Gives way at once, whatever state the database is in.
    pub(super) async fn on_yield(&self, op: &str, next: u64) -> Result<Fenced, PairError> {
        let began = Instant::now();
        let _leave = self.0.leave.lock().await;
        if next <= self.role().highest() {
            return Err(PairError::Refused(format!(
                "generation {} is in force",
                self.role().highest()
            )));
        }
        let repl = self.replication()?;
        let limits = BlockLimits {
            grace: Duration::from_millis(100),
            limit: YIELD_LIMIT,
        };
        let mut blocked = Blocked {
            idle_ended: 0,
            writers_killed: 0,
            position: Position::default(),
        };
        if self.role().role == Role::Source && self.healthy() {
            match repl.block_writes(&limits).await {
                Ok(done) => blocked = done,
                // The door is closed next, and nothing that still commits is acknowledged.
                Err(failure) => warn!(
                    error = chain(&failure),
                    op, "writes could not be blocked in order; clients are cut off"
                ),
            }
        }
        self.wires().close_to_clients();
        self.0
            .store
            .change_or_live(|memory| {
                memory.role = memory.role.saw_generation(next).0;
                Ok(())
            })
            .await?;
        self.wires().release(Duration::ZERO).await;
        info!(op, next, "gave way");
        Ok(Fenced {
            blocked,
            ms: ms_since(began),
        })
    }

    /// A higher generation was seen: demotes itself before anything else (R6).
    pub(super) async fn saw(&self, generation: u64) {
        if !self.role().saw_generation(generation).1 {
            return;
        }
        let _leave = self.0.leave.lock().await;
        if !self.role().saw_generation(generation).1 {
            return;
        }
        warn!(generation, "the pair has a newer source; this guest demotes itself");
        self.wires().close_to_clients();
        self.wires().release(Duration::ZERO).await;
        let demoted = self
            .0
            .store
            .change_or_live(|memory| {
                memory.role = memory.role.saw_generation(generation).0;
                Ok(())
            })
            .await;
        if let Err(failure) = demoted {
            error!(error = chain(&failure), "could not record the demotion");
        }
        if self.healthy() {
            self.close_server().await;
        }
    }

    /// The other guest says that it is a source and open.
    pub(super) async fn met_source(&self, generation: u64) {
        let met = self.0.store.change_or_live(|memory| {
            memory.role = memory.role.met_source(generation).0;
            Ok(())
        });
        if let Err(failure) = met.await {
            error!(error = chain(&failure), "could not record what the other guest is");
        }
        self.wires().release(Duration::ZERO).await;
    }

    /// Read-only as fast as it goes, sessions ended.
    pub(super) async fn close_server(&self) {
        let Ok(repl) = self.replication() else { return };
        let limits = BlockLimits {
            grace: Duration::ZERO,
            limit: YIELD_LIMIT,
        };
        if let Err(failure) = repl.block_writes(&limits).await {
            warn!(
                error = chain(&failure),
                "the database is not read-only yet; its clients are cut off"
            );
        }
        if let Err(failure) = repl.end_sessions().await {
            warn!(error = chain(&failure), "could not end the clients' sessions");
        }
    }

    /// Goes back if the operation is still not decided by then.
    fn go_back_after(&self, op: &str, limit: Duration) {
        let (this, op) = (self.clone(), op.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            // A fence that has begun meanwhile has set a limit of its own.
            let fenced_since = matches!(&this.role().switch, Some(Switch::Leaving { op: ours, fenced: true, .. }) if *ours == op);
            if limit == BEGUN_LIMIT && fenced_since {
                return;
            }
            let _leave = this.0.leave.lock().await;
            this.stay(&op, "the candidate took too long").await;
        });
    }

    /// Back to what was before. The caller has the leave lock.
    async fn stay(&self, op: &str, why: &str) {
        let Some(Switch::Leaving { op: ours, fenced, .. }) = self.role().switch else {
            return;
        };
        if ours != op {
            return;
        }
        info!(op, why, fenced, "the switchover is taken back");
        let changed = self
            .0
            .store
            .change_or_live(|memory| {
                memory.role = memory.role.stayed(op)?;
                Ok(())
            })
            .await;
        if let Err(failure) = changed {
            error!(
                error = chain(&failure),
                op, "could not record that the switchover is taken back"
            );
            return;
        }
        // Also when it was not fenced: blocking may have been cut off half-way.
        let Ok(repl) = self.replication() else { return };
        if let Err(failure) = repl.open_writes().await {
            error!(error = chain(&failure), op, "could not open writes again");
            return;
        }
        let opened = self
            .0
            .store
            .live(|memory| {
                memory.role = memory.role.opened()?;
                Ok(())
            })
            .await;
        match opened {
            Ok(()) => self.open_door(),
            Err(refused) => error!(%refused, op, "writes stay closed"),
        }
    }

    /// The released source becomes a replica; the address goes a moment later.
    async fn after_release(&self, op: &str) {
        let wires = self.wires();
        let released = wires.release(LINGER);
        let follows = async {
            let _lane = self.0.lane.lock().await;
            self.follow_peer(datastore_api::Start::Current, Duration::from_secs(10)).await
        };
        let ((), followed) = tokio::join!(released, follows);
        match followed {
            Ok(()) => info!(op, "the old source follows the new one"),
            Err(failure) => warn!(
                error = chain(&failure),
                op, "the old source does not follow yet; it is tried again"
            ),
        }
        self.open_door();
    }
}
