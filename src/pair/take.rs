//! The candidate's side of a switchover, and how a guest opens as the source.

use super::report::{Report, ReportState};
use super::talk::{Ask, Decision, Fenced, State};
use super::{Pair, PairError, ms_since};
use crate::instance::role::{Role, RoleState};
use crate::link::LinkErrorKind;
use datastore_api::{Durability, Position, Start, chain};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Limit of a question that needs no waiting.
const ASK: Duration = Duration::from_millis(1500);
/// How long the candidate may take to catch up before writes are blocked.
const CATCH_UP: Duration = Duration::from_secs(10);
/// How long the source's decision is asked for before the operation ends undecided (it is asked for further, by the guard).
const DECISION: Duration = Duration::from_secs(10);
/// How long ending to follow may take once everything is applied.
const DETACH: Duration = Duration::from_secs(5);

/// Why a switchover stopped.
enum Stop {
    /// Nothing was changed.
    Refused(PairError),
    /// It was taken back.
    Back(PairError),
    /// It is not known what the source decided, or we could not go forward.
    Stuck(PairError),
}

impl Pair {
    /// Makes the replica the source, with the present one's consent. Asked of either.
    ///
    /// # Errors
    /// `Refused`, and nothing was changed. What was begun and taken back is a report.
    pub async fn switchover(&self, op: &str, force: bool) -> Result<Report, PairError> {
        if let Some(known) = self.ended(op).await? {
            return Ok(known);
        }
        let role = self.role();
        if role.role == Role::Source || self.memory().left.as_deref() == Some(op) {
            let spec = self.spec()?;
            let limit = Duration::from_millis(spec.blocked_ms) + CATCH_UP + DECISION;
            let ask = Ask::Switchover {
                op: op.to_owned(),
                force,
            };
            return Ok(self.peer()?.ask(&ask, limit).await?);
        }
        let _lane = self.lane().await?;
        let mut report = Report::new(op, "switchover");
        self.remember(&report).await;
        let began = self.run_switchover(&mut report, force).await;
        report.generation = self.role().generation;
        let failure = match began {
            Ok(()) => {
                report.state = ReportState::Done;
                self.remember(&report).await;
                return Ok(report);
            }
            Err(Stop::Refused(failure)) => {
                *super::lock(&self.0.running) = None;
                return Err(failure);
            }
            Err(Stop::Back(failure)) => {
                report.state = ReportState::RolledBack;
                failure
            }
            Err(Stop::Stuck(failure)) => {
                report.state = ReportState::Failed;
                failure
            }
        };
        report.error = Some(chain(&failure));
        warn!(op, error = chain(&failure), state = ?report.state, "the switchover did not succeed");
        self.remember(&report).await;
        Ok(report)
    }

    /// How an operation ended that was asked for before: a restart of the agent may lie between.
    pub(super) async fn ended(&self, op: &str) -> Result<Option<Report>, PairError> {
        // One that is open is decided by the guard.
        let until = Instant::now() + DECISION;
        while self.role().switching() == Some(op) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let memory = self.memory();
        if memory.role.switching() == Some(op) {
            return Err(PairError::Failed(
                "the other guest's decision is not known yet; see status".to_owned(),
            ));
        }
        if let Some(known) = memory.last.filter(|last| last.operation == op) {
            return Ok(Some(known));
        }
        let done = memory
            .promotions
            .iter()
            .any(|promotion| promotion.operation.as_deref() == Some(op));
        let state = match memory.begun.as_deref() == Some(op) {
            _ if done => ReportState::Done,
            true => ReportState::RolledBack,
            false => return Ok(None),
        };
        let error = Some("the agent was restarted in the middle of it".to_owned()).filter(|_| !done);
        Ok(Some(Report {
            state,
            error,
            generation: memory.role.generation,
            ..Report::new(op, "switchover")
        }))
    }

    async fn run_switchover(&self, report: &mut Report, force: bool) -> Result<(), Stop> {
        let op = report.operation.clone();
        let (peer, spec) = (self.peer().map_err(Stop::Refused)?, self.spec().map_err(Stop::Refused)?);
        let source = report
            .step("check", self.check_switchover(force))
            .await
            .map_err(Stop::Refused)?;
        report
            .step("probe", self.probe(source.mac.as_deref()))
            .await
            .map_err(Stop::Refused)?;
        let repl = self.replication().map_err(Stop::Refused)?;
        let at = source.position.clone().unwrap_or_default();
        let caught_up = async { Ok::<_, PairError>(repl.wait_for(&at, CATCH_UP).await?) };
        report.step("catch_up", caught_up).await.map_err(Stop::Refused)?;

        let next = self.role().generation.max(source.generation) + 1;
        let begin = async {
            self.0
                .store
                .change(|memory| {
                    memory.role = memory.role.begin_candidate(&op, next)?.asked(&op)?;
                    memory.begun = Some(op.clone());
                    Ok(())
                })
                .await?;
            let begun: State = peer.ask(&Ask::Begin { op: op.clone(), next }, ASK).await?;
            Ok::<_, PairError>(begun)
        };
        if let Err(failure) = report.step("begin", begin).await {
            return Err(self.give_up(report, failure, false).await);
        }

        let blocked_since = Instant::now();
        let budget = Duration::from_millis(spec.blocked_ms);
        let fence = async { Ok::<Fenced, PairError>(peer.ask(&Ask::Fence { op: op.clone() }, budget).await?) };
        let fenced = match report.step("fence", fence).await {
            Ok(fenced) => fenced,
            Err(failure) => return Err(self.give_up(report, failure, false).await),
        };
        report.idle_ended = fenced.blocked.idle_ended;
        report.writers_killed = fenced.blocked.writers_killed;
        let left = budget.saturating_sub(blocked_since.elapsed());
        let arrived = async { Ok::<_, PairError>(repl.wait_for(&fenced.blocked.position, left).await?) };
        if let Err(failure) = report.step("wait", arrived).await {
            return Err(self.give_up(report, failure, false).await);
        }
        if let Err(failure) = report.step("detach", self.end_following(DETACH)).await {
            return Err(self.give_up(report, failure, true).await);
        }
        let decision = report.step("release", self.ask_release(&op)).await;
        match decision {
            Ok(Decision::Released) => {}
            Ok(_) => {
                let failure = PairError::Refused("the source took the switchover back before it was through".to_owned());
                return Err(self.give_up(report, failure, true).await);
            }
            Err(failure) => return Err(Stop::Stuck(failure)),
        }
        let opened = report
            .step(
                "open",
                self.become_source(|role| role.promoted(&op), "switchover", &op, source.mac.as_deref()),
            )
            .await;
        opened.map_err(Stop::Stuck)?;
        report.writes_blocked_ms = Some(ms_since(blocked_since));
        Ok(())
    }

    /// What must be true before anything is touched.
    async fn check_switchover(&self, force: bool) -> Result<State, PairError> {
        let (spec, repl) = (self.spec()?, self.replication()?);
        let role = self.role();
        if role.role != Role::Replica {
            return Err(PairError::Refused(format!(
                "this guest is {:?} and no replica; see rejoin and failover",
                role.role
            )));
        }
        let source = self.peer()?.hello(role.generation, ASK).await?;
        if source.role != Role::Source || !source.healthy || !source.writable {
            let text = format!(
                "the other guest is {:?}, its database {}: a switchover needs a living source (see failover)",
                source.role,
                if source.healthy {
                    "is closed to writes"
                } else {
                    "does not answer"
                }
            );
            return Err(PairError::Refused(text));
        }
        let status = repl.status().await?;
        if !(status.receiving && status.applying) {
            let why = status.error.unwrap_or_else(|| "it is not connected".to_owned());
            return Err(PairError::Refused(format!("the replica does not follow its source: {why}")));
        }
        if let Some(log) = &source.log_state {
            let errant = repl.errant(log).await?;
            if !errant.is_empty() {
                let text = format!(
                    "the replica has transactions its source never had ({}); see rejoin",
                    errant.join(", ")
                );
                return Err(PairError::Refused(text));
            }
        }
        let behind = repl.missing(&status.position, source.position.as_ref().unwrap_or(&Position::default()))?;
        if behind > spec.max_behind && !force {
            let text = format!(
                "the replica is {behind} transactions behind (lag {:?}), more than {}; see --force",
                status.lag, spec.max_behind
            );
            return Err(PairError::Refused(text));
        }
        Ok(source)
    }

    /// Whether anybody but the source has the address (R2), before writes are blocked.
    async fn probe(&self, source_mac: Option<&str>) -> Result<(), PairError> {
        self.wires().probe(source_mac).await
    }

    /// Asks for the decision until it is known.
    async fn ask_release(&self, op: &str) -> Result<Decision, PairError> {
        let peer = self.peer()?;
        match peer.ask(&Ask::Release { op: op.to_owned() }, ASK).await {
            Ok(decision) => return Ok(decision),
            // It said no, in its own words: it is not ours, and will not be.
            Err(failure) if failure.kind() == LinkErrorKind::Told => {
                info!(error = chain(&failure), "the source did not release");
            }
            Err(failure) => warn!(error = chain(&failure), "the source's decision is not known; asking again"),
        }
        let until = Instant::now() + DECISION;
        loop {
            match peer.ask(&Ask::Decision { op: op.to_owned() }, ASK).await {
                Ok(Decision::Open) => {
                    let _: Result<Decision, _> = peer.ask(&Ask::Abort { op: op.to_owned() }, ASK).await;
                }
                Ok(decision) => return Ok(decision),
                Err(failure) if Instant::now() > until => return Err(failure.into()),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends following; everything that was received is applied first.
    pub(super) async fn end_following(&self, limit: Duration) -> Result<Position, PairError> {
        Ok(self.replication()?.detach(limit).await?)
    }

    /// Back to a replica; the source goes back, too.
    async fn give_up(&self, report: &mut Report, why: PairError, detached: bool) -> Stop {
        let op = report.operation.clone();
        if let Ok(peer) = self.peer() {
            match peer.ask::<Decision>(&Ask::Abort { op: op.clone() }, ASK).await {
                Ok(_) => report.rolled_back.push("source: writes open again".to_owned()),
                Err(failure) => {
                    report
                        .rolled_back
                        .push("source: takes itself back when its budget is over".to_owned());
                    warn!(error = chain(&failure), "the source could not be told");
                }
            }
        }
        let changed = self
            .0
            .store
            .change(|memory| {
                memory.role = memory.role.gave_up(&op, true)?;
                Ok(())
            })
            .await;
        if let Err(failure) = changed {
            error!(error = chain(&failure), "could not record that the switchover is taken back");
        }
        if detached {
            match self.follow_peer(Start::Current, ASK).await {
                Ok(()) => report.rolled_back.push("replica: follows again".to_owned()),
                Err(failure) => warn!(error = chain(&failure), "the replica does not follow yet; it is tried again"),
            }
        }
        Stop::Back(why)
    }

    /// Opens this guest as the source: role on disk, address, writes, at the same time as far as they may.
    pub(super) async fn become_source(
        &self,
        role: impl FnOnce(&RoleState) -> Result<RoleState, crate::instance::role::Refused>,
        why: &'static str,
        operation: &str,
        old_mac: Option<&str>,
    ) -> Result<(), PairError> {
        // Nobody gives way in between.
        let _leave = self.0.leave.lock().await;
        self.0.in_sync.store(false, std::sync::atomic::Ordering::Relaxed);
        let repl = self.replication()?;
        let mode = self.memory().spec().map_or(Durability::Async, |spec| spec.durability);
        let server_id = repl.status().await.map_or(0, |status| status.server_id);
        // Silence alone may have made us the source: then the witness lets us in, too.
        let witness = self.automatic().is_some_and(|spec| spec.witness.is_some());
        // On disk first: a source that opened and forgot it would be two sources after a crash.
        self.0
            .store
            .change(|memory| {
                memory.role = role(&memory.role)?;
                memory.promoted(server_id, why, Some(operation));
                (memory.vip_off, memory.by_hand, memory.unproven) = (false, false, false);
                memory.alone = !witness || why == "switchover";
                Ok(())
            })
            .await?;
        // After a failover nobody is there to acknowledge; the guard switches it on when the replica has caught up.
        let now = if why == "switchover" { mode } else { Durability::Async };
        self.lease_begins();
        let wires = self.wires();
        let open = async {
            repl.set_durability(now, true).await?;
            repl.open_writes().await?;
            Ok::<_, PairError>(())
        };
        let hold = async {
            self.open_door();
            wires.hold(old_mac).await
        };
        let (opened, held) = tokio::join!(open, hold);
        opened?;
        let held = held.map(|()| wires.has_vip());
        self.0
            .store
            .live(|memory| {
                let role = memory.role.opened()?;
                memory.role = if matches!(held, Ok(true)) { role.held()? } else { role };
                Ok(())
            })
            .await
            .map_err(PairError::from)?;
        held.map(drop)
    }
}
