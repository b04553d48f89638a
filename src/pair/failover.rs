//! Failover: the replica becomes the source without the present one's consent, or because it is gone.

use super::report::{Report, ReportState};
use super::talk::{Ask, Fenced, State};
use super::{Pair, PairError, ms_since};
use crate::instance::role::{Evidence, Role};
use datastore_api::{Durability, Position, ServerStart, chain};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// Limit of a question that needs no waiting.
const ASK: Duration = Duration::from_secs(4);
/// How long what was received may take to be applied.
const APPLY: Duration = Duration::from_secs(60);

impl Pair {
    /// Makes the replica the source though the present one does not consent, or is gone.
    ///
    /// # Errors
    /// `Refused`, and nothing was changed.
    pub async fn failover(&self, op: &str, force: bool) -> Result<Report, PairError> {
        if let Some(known) = self.ended(op).await? {
            return Ok(known);
        }
        let role = self.role();
        if role.role == Role::Source && !role.writable && force {
            return self.open_by_word(op).await;
        }
        if role.role == Role::Source {
            return Ok(Report::unchanged(
                op,
                "failover",
                role.generation,
                "this guest is the source already",
            ));
        }
        let _lane = self.lane().await?;
        self.failover_in_lane(op, force.then_some(Evidence::Operator)).await
    }

    /// A source that is closed, because nobody could vouch for it, opens by a person's word.
    async fn open_by_word(&self, op: &str) -> Result<Report, PairError> {
        let _lane = self.lane().await?;
        let mut report = Report::new(op, "failover");
        let opened = async {
            let (repl, wires) = (self.replication()?, self.wires());
            wires.probe(None).await?;
            let said = self.0.store.change(|memory| {
                (memory.unproven, memory.by_hand, memory.vip_off, memory.alone) = (false, false, false, true);
                Ok(())
            });
            said.await?;
            repl.set_durability(datastore_api::Durability::Async, true).await?;
            repl.open_writes().await?;
            self.lease_begins();
            self.open_door();
            wires.hold(None).await?;
            let has_vip = wires.has_vip();
            let live = self.0.store.live(|memory| {
                let role = memory.role.opened()?;
                memory.role = if has_vip { role.held()? } else { role };
                Ok(())
            });
            Ok::<_, PairError>(live.await?)
        };
        report.step("open", opened).await?;
        warn!(op, "this source was opened by a person's word");
        (report.state, report.generation) = (ReportState::Done, self.role().generation);
        self.remember(&report).await;
        Ok(report)
    }

    /// The same for a caller who has the lane, and knows why.
    pub(super) async fn failover_in_lane(&self, op: &str, evidence: Option<Evidence>) -> Result<Report, PairError> {
        let mut report = Report::new(op, "failover");
        self.remember(&report).await;
        let ended = self.run_failover(&mut report, evidence).await;
        self.0.coming.store(0, Ordering::Relaxed);
        report.generation = self.role().generation;
        match ended {
            Ok(()) => report.state = ReportState::Done,
            Err(failure) if report.steps.iter().all(|step| step.name != "apply") => {
                *super::lock(&self.0.running) = None;
                return Err(failure);
            }
            Err(failure) => {
                report.state = ReportState::Failed;
                report.error = Some(chain(&failure));
                error!(op, error = chain(&failure), "the failover did not succeed; it is tried again");
            }
        }
        self.remember(&report).await;
        Ok(report)
    }

    async fn run_failover(&self, report: &mut Report, evidence: Option<Evidence>) -> Result<(), PairError> {
        let role = self.role();
        if !matches!(role.role, Role::Replica | Role::Detached) {
            return Err(PairError::Refused(format!("this guest is {:?}", role.role)));
        }
        if self.memory().reseed {
            return Err(PairError::Refused(
                "the data here are not whole: a copy from the source was not finished".to_owned(),
            ));
        }
        if !self.healthy() {
            return Err(PairError::Refused("the database does not answer here".to_owned()));
        }
        let (peer, repl) = (self.peer()?, self.replication()?);
        let next = role.generation.max(role.superseded_by.unwrap_or(0)) + 1;
        let old_mac = peer.heard().and_then(|(_, state)| state.mac);
        let op = report.operation.clone();
        let mut last = Position::default();
        let evidence = match evidence {
            Some(known @ (Evidence::Released | Evidence::LeaseOver)) => known,
            known => {
                let ask = Ask::Yield { op: op.clone(), next };
                let asked = async { Ok::<Fenced, PairError>(peer.ask(&ask, ASK).await?) };
                match report.step("yield", asked).await {
                    Ok(fenced) => {
                        last = fenced.blocked.position;
                        Evidence::Released
                    }
                    Err(failure) => match known {
                        Some(evidence) => evidence,
                        None => {
                            let text = format!(
                                "the source cannot be asked to give way ({}), and nothing proves that it does not write. If you know that it is \
                                 dead or cut off: --force",
                                chain(&failure)
                            );
                            return Err(PairError::Refused(text));
                        }
                    },
                }
            }
        };
        if role.role == Role::Detached {
            // It may have been told to yield, and is to keep from now on what nobody else has.
            repl.set_start(ServerStart::closed(self.spec()?.acknowledges())).await?;
        }
        let blocked_since = Instant::now();
        let peer_host = self.spec()?.peer.host;
        self.0.coming.store(next, Ordering::Relaxed);
        if evidence != Evidence::Released {
            self.wires().cut_replication(peer_host);
        } else if !last.is_zero()
            && let Err(failure) = repl.wait_for(&last, Duration::from_secs(5)).await
        {
            warn!(error = chain(&failure), "not all that the source had has arrived");
        }
        let applied = report.step("apply", self.end_following(APPLY)).await;
        self.wires().let_replication(peer_host);
        applied?;
        if evidence != Evidence::Operator && last.is_zero() && self.spec()?.durability != Durability::Async && !self.keeps() {
            return Err(PairError::Failed(
                "the database here was started anew meanwhile, and may have lost what it had acknowledged".to_owned(),
            ));
        }
        let promote = self.become_source(|role| role.taken_over(next, evidence), "failover", &op, old_mac.as_deref());
        report.step("open", promote).await?;
        report.writes_blocked_ms = Some(ms_since(blocked_since));
        Ok(())
    }

    /// Asks the replica to take over from this source, whose writes are closed. Whatever comes of it, this guest opens only with the
    /// other's word from here on: it takes the next generation as seen before it asks.
    pub(super) async fn hand_over(&self) -> Result<(), PairError> {
        let (peer, role) = (self.peer()?, self.role());
        let other = peer.hello(role.generation, Duration::from_millis(500)).await?;
        if other.role != Role::Replica || !other.healthy || other.generation != role.generation {
            return Err(PairError::Refused(format!(
                "the other guest is {:?} and cannot take over",
                other.role
            )));
        }
        let next = role.generation + 1;
        let durability = self.spec()?.durability;
        if durability != Durability::Async && !other.keeps {
            return Err(PairError::Refused(
                "the replica's database was started anew, and may have lost what it had acknowledged".to_owned(),
            ));
        }
        if durability != Durability::Async && !self.0.in_sync.load(Ordering::Relaxed) {
            return Err(PairError::Refused(
                "the replica may not have all that was acknowledged here".to_owned(),
            ));
        }
        let seen = self.0.store.change_or_live(|memory| {
            memory.role = memory.role.saw_generation(next).0;
            Ok(())
        });
        seen.await?;
        let ask = Ask::TakeOver {
            generation: role.generation,
        };
        let taken: State = peer.ask(&ask, APPLY).await?;
        if taken.role == Role::Source && taken.generation == next {
            // All that anybody was told of is on the other's disk. What is only in the log here would make following from there impossible;
            // this is in time if the server is not started again yet.
            let yields = ServerStart {
                yields: true,
                ..ServerStart::closed(durability != Durability::Async)
            };
            if let Err(failure) = self.replication()?.set_start(yields).await {
                warn!(error = chain(&failure), "the server will keep what only it has");
            }
        }
        Ok(())
    }

    /// A source whose database died asks us to take over.
    pub(super) async fn on_take_over(&self, generation: u64) -> Result<State, PairError> {
        let role = self.role();
        if role.role == Role::Source && role.generation > generation {
            return Ok(self.state().await);
        }
        if role.role != Role::Replica || role.generation != generation {
            return Err(PairError::Refused(format!(
                "this guest is {:?} of generation {}",
                role.role, role.generation
            )));
        }
        let _lane = self.lane().await?;
        let now = self.role();
        if now.role != Role::Replica || now.generation != generation || now.highest() != generation {
            return Err(PairError::Refused("the pair changed while this waited".to_owned()));
        }
        if self.spec()?.durability != Durability::Async && !self.keeps() {
            return Err(PairError::Refused("the database here was started anew meanwhile".to_owned()));
        }
        let op = format!("take-over-{}", generation + 1);
        self.failover_in_lane(&op, Some(Evidence::Released)).await?;
        Ok(self.state().await)
    }
}
