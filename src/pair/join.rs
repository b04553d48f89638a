//! Following the source of the pair: after a change of source, after a return, and for the first time.

use super::report::{Progress, Report, ReportState};
use super::talk::State;
use super::{Pair, PairError, lock};
use crate::instance::role::Role;
use datastore_api::{ErrorKind, FileMode, FollowPlan, Position, ServerStart, SourceEndpoint, Start, chain};
use serde_json::json;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tracing::{error, info, warn};

const ASK: Duration = Duration::from_millis(1500);
/// How long the first connection to the source may take.
const FOLLOW: Duration = Duration::from_secs(10);
/// Between two looks for transactions the source never had: what was on its way is no finding.
const SECOND_LOOK: Duration = Duration::from_millis(200);
/// The deadline of all of a rejoin but the copy, which has a limit on standing still.
const REJOIN: Duration = Duration::from_secs(120);

impl Pair {
    /// Follows the other guest of the pair from `start`.
    pub(super) async fn follow_peer(&self, start: Start, limit: Duration) -> Result<(), PairError> {
        let (spec, repl) = (self.spec()?, self.replication()?);
        let heard = self
            .peer()?
            .heard()
            .map(|(_, state)| state.database_port)
            .filter(|port| *port != 0);
        let port = spec.peer.database_port.or(heard).unwrap_or_else(|| repl.port());
        repl.set_durability(spec.durability, false).await?;
        let plan = FollowPlan {
            source: SourceEndpoint {
                host: spec.peer.host.to_string(),
                port,
            },
            login: spec.replication.clone(),
            start,
            tls: None,
        };
        self.wires().let_replication(spec.peer.host);
        repl.follow(&plan, limit).await?;
        Ok(())
    }

    /// Brings this guest back under the pair's source: puts aside what the source never had, and copies its data if need be.
    ///
    /// # Errors
    /// `Refused`, and nothing was changed. A rejoin that began and failed is a report; the guard tries it again.
    pub async fn rejoin(&self, op: &str) -> Result<Report, PairError> {
        if let Some(known) = self.known(op) {
            return Ok(known);
        }
        let role = self.role();
        match role.role {
            Role::Replica | Role::Detached => {}
            Role::Source => {
                return Err(PairError::Refused(
                    "this guest is the source of its pair; there is nothing to rejoin".to_owned(),
                ));
            }
            Role::Unconfigured => return Err(PairError::Refused("this guest belongs to no pair".to_owned())),
        }
        if role.role == Role::Replica && !self.memory().reseed && self.follows_well().await {
            return Ok(Report::unchanged(
                op,
                "rejoin",
                role.generation,
                "this guest follows its source already",
            ));
        }
        let _lane = self.lane().await?;
        self.rejoin_in_lane(op).await
    }

    /// Whether this guest is a replica whose data are whole and follow.
    pub async fn follows(&self) -> bool {
        self.role().role == Role::Replica && !self.memory().reseed && self.follows_well().await
    }

    /// Whether receiver and applier run.
    pub(super) async fn follows_well(&self) -> bool {
        let Ok(repl) = self.replication() else { return false };
        repl.status()
            .await
            .is_ok_and(|status| status.following.is_some() && status.receiving && status.applying)
    }

    /// The same for a caller who has the lane.
    pub(super) async fn rejoin_in_lane(&self, op: &str) -> Result<Report, PairError> {
        let source = self.peer()?.hello(self.role().generation, ASK).await?;
        if source.role != Role::Source || source.generation < self.role().generation {
            let text = format!(
                "the other guest is {:?} of generation {}; there is no source to follow",
                source.role, source.generation
            );
            return Err(PairError::Refused(text));
        }
        if !source.healthy {
            return Err(PairError::Refused("the source's database does not answer".to_owned()));
        }
        let mut report = Report::new(op, "rejoin");
        self.remember(&report).await;
        match self.run_rejoin(&mut report, &source).await {
            Ok(()) => report.state = ReportState::Done,
            Err(failure) => {
                report.state = ReportState::Failed;
                report.error = Some(chain(&failure));
                error!(op, error = chain(&failure), "this guest could not rejoin; it is tried again");
            }
        }
        report.generation = self.role().generation;
        report.progress = None;
        self.remember(&report).await;
        Ok(report)
    }

    async fn run_rejoin(&self, report: &mut Report, source: &State) -> Result<(), PairError> {
        let (spec, repl) = (self.spec()?, self.replication()?);
        if !self.memory().reseed {
            let attach = async {
                // Read-only before it looks, or it could find what its own clients still write.
                self.close_server().await;
                let errant = self.errant(source).await?;
                if errant.is_empty() {
                    return match self.follow_peer(Start::Current, FOLLOW).await {
                        Ok(()) => Ok(true),
                        Err(PairError::Driver(failure)) if failure.kind() == ErrorKind::WrongData => {
                            warn!(error = chain(&failure), "this guest cannot follow from where it is");
                            Ok(false)
                        }
                        // It may be able to a moment later: nothing is given up for that.
                        Err(failure) => Err(failure),
                    };
                }
                warn!(
                    transactions = errant.join(", "),
                    "this guest has transactions that the source never had"
                );
                Ok::<_, PairError>(false)
            };
            let attached = tokio::time::timeout(REJOIN, report.step("attach", attach))
                .await
                .map_err(|_| PairError::Failed("attaching took too long".to_owned()))??;
            if !attached {
                if !self.peer_still_source(source).await {
                    return Err(PairError::Failed("the source changed while this guest rejoined".to_owned()));
                }
                report.saved = report.step("save", self.save(source)).await?;
                self.0
                    .store
                    .change(|memory| {
                        memory.reseed = true;
                        Ok(())
                    })
                    .await?;
            }
        }
        if self.memory().reseed {
            let position = self.seed(report).await?;
            repl.ensure_login(&spec.replication).await?;
            report.step("follow", self.follow_peer(Start::At(position), FOLLOW)).await?;
            self.0
                .store
                .change(|memory| {
                    memory.reseed = false;
                    Ok(())
                })
                .await?;
        }
        repl.set_start(ServerStart::closed(spec.acknowledges())).await?;
        let generation = source.generation;
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.rejoined(generation)?;
                (memory.by_hand, memory.unproven) = (false, false);
                Ok(())
            })
            .await?;
        self.open_door();
        info!(generation, "this guest follows the source of its pair");
        Ok(())
    }

    async fn peer_still_source(&self, before: &State) -> bool {
        let Ok(peer) = self.peer() else { return false };
        let now = peer.hello(self.role().generation, ASK).await;
        now.is_ok_and(|now| now.role == Role::Source && now.generation == before.generation && now.healthy)
    }

    /// What is here and not at the source, found twice.
    async fn errant(&self, source: &State) -> Result<Vec<String>, PairError> {
        let repl = self.replication()?;
        let first = match &source.log_state {
            Some(log) => repl.errant(log).await?,
            None => return Err(PairError::Failed("the source did not tell its log".to_owned())),
        };
        if first.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(SECOND_LOOK).await;
        let again = self.peer()?.hello(self.role().generation, ASK).await?;
        match &again.log_state {
            Some(log) => Ok(repl.errant(log).await?),
            None => Err(PairError::Failed("the source did not tell its log".to_owned())),
        }
    }

    async fn save(&self, source: &State) -> Result<Option<datastore_api::Saved>, PairError> {
        let folder = self.0.settings.state_dir.join("put-aside");
        let private = FileMode {
            mode: 0o700,
            owner: None,
        };
        let made = self.0.host.make_dir(&folder, &private).await;
        made.map_err(|error| PairError::Failed(format!("could not make {}: {error}", folder.display())))?;
        let log = source.log_state.clone().unwrap_or_default();
        let saved = self.replication()?.save_errant(&log, &folder).await?;
        if let Some(saved) = &saved {
            warn!(file = %saved.path.display(), transactions = saved.transactions, "transactions that the source never had were put aside");
        }
        Ok(saved)
    }

    /// Replaces the data here by a copy of the source's.
    async fn seed(&self, report: &mut Report) -> Result<Position, PairError> {
        let repl = self.replication()?;
        let copy = async {
            let stream = self.peer()?.stream(&json!({"verb": "clone"})).await?;
            let mut counted = Counted {
                inner: stream,
                pair: self.clone(),
                bytes: 0,
                shown: 0,
            };
            Ok::<_, PairError>(repl.receive_clone(&mut counted).await?)
        };
        report.step("clone", copy).await
    }
}

/// Counts what passes, for the status.
struct Counted<T> {
    inner: T,
    pair: Pair,
    bytes: u64,
    shown: u64,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buf);
        self.bytes += (buf.filled().len() - before) as u64;
        if self.bytes - self.shown > 4 << 20 {
            self.shown = self.bytes;
            if let Some(running) = lock(&self.pair.0.running).as_mut() {
                running.progress = Some(Progress {
                    bytes: self.bytes,
                    of: None,
                });
            }
        }
        polled
    }
}
