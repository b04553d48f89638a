//! From a delivery to its answer.

use super::change;
use super::ctx::Ctx;
use super::failure::{ErrorClass, RpcError};
use super::method::{Built, Entry, Mode};
use super::op::Op;
use super::table;
use crate::bus::{Ack, Answer, Bus, BusError, Delivery, ReplyTo, Request, RpcVersion};
use crate::instance::gate::{Lane, OpKind};
use crate::instance::turn::{Ticket, Turn};
use datastore_api::chain;
use futures_util::FutureExt;
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

/// The newest version of upstream's guest interface that we speak.
pub const VERSION: RpcVersion = RpcVersion { major: 1, minor: 3 };
/// Queries that run at the same time, as upstream's pool (`executor_thread_pool_size`).
const QUERIES: usize = 64;

/// Where a request came from and its answer goes.
pub enum Origin {
    /// The bus. The acknowledgement is taken when it is given.
    Bus {
        /// Acknowledges the delivery.
        ack: Option<Ack>,
        /// Where the answer goes; `None` for a cast.
        reply: Option<ReplyTo>,
    },
    /// The local socket.
    Local(oneshot::Sender<Answer>),
    /// The journal: an operation that a restart cut off. Its caller's address was kept.
    Journal(Option<ReplyTo>),
}

/// Takes requests and sees to their answers.
#[derive(Clone)]
pub struct Dispatcher {
    pub(super) ctx: Arc<Ctx>,
    pub(super) bus: Bus,
    main: Turn,
    roles: Turn,
    backups: Turn,
    queries: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
}

impl Dispatcher {
    /// A dispatcher; its tasks are counted in `tasks`, so that a stop can wait for them.
    #[must_use]
    pub fn new(ctx: Arc<Ctx>, bus: Bus, tasks: TaskTracker) -> Self {
        Self {
            ctx,
            bus,
            main: Turn::default(),
            roles: Turn::default(),
            backups: Turn::default(),
            queries: Arc::new(Semaphore::new(QUERIES)),
            tasks,
        }
    }

    /// The queue of a lane.
    pub(super) fn turn(&self, lane: Lane) -> &Turn {
        match lane {
            Lane::Main => &self.main,
            Lane::Role => &self.roles,
            Lane::Backup => &self.backups,
        }
    }

    /// Turns of other lanes that a change waits for beside its own. A backup has in it what was asked for before it; a restore has the
    /// server for itself, and lets no change of role begin.
    pub(super) fn before(&self, kind: OpKind) -> Vec<Ticket> {
        match kind {
            OpKind::Backup => vec![self.turn(Lane::Main).ticket()],
            OpKind::Restore => vec![self.turn(Lane::Role).ticket()],
            _ => Vec::new(),
        }
    }

    /// Changes that wait for a turn.
    pub(super) fn waiting(&self) -> usize {
        Lane::ALL.iter().map(|lane| self.turn(*lane).waiting()).sum()
    }

    /// Handles a delivery of the bus.
    pub fn deliver(&self, delivery: Delivery) {
        let Delivery {
            request,
            redelivered,
            ack,
        } = delivery;
        if redelivered {
            debug!(
                method = request.method,
                request_id = request.unique_id,
                "request was delivered again"
            );
        }
        let origin = Origin::Bus {
            ack: Some(ack),
            reply: request.reply.clone(),
        };
        self.dispatch(request, origin);
    }

    /// Handles a request of the local socket.
    pub fn local(&self, request: Request) -> oneshot::Receiver<Answer> {
        let (tx, rx) = oneshot::channel();
        self.dispatch(request, Origin::Local(tx));
        rx
    }

    fn dispatch(&self, request: Request, origin: Origin) {
        let this = self.clone();
        match lookup(&self.ctx, &request) {
            Ok((entry, built)) => match built.mode {
                Mode::Query => {
                    self.tasks
                        .spawn(async move { this.query(entry, built, request, origin).await });
                }
                Mode::Change(kind) => {
                    let kind = (built.kind)(&self.ctx, &request.args).unwrap_or(kind);
                    // The places in the queue and in the journal are taken here, in arrival order; everything else is the
                    // task's own business.
                    let (ticket, before) = (self.turn(kind.lane()).ticket(), self.before(kind));
                    let accepted = self.ctx.journal.accept(change::record(&request));
                    let change = change::Change {
                        entry,
                        built,
                        kind,
                        request,
                        origin,
                        before,
                    };
                    self.tasks.spawn(async move { this.accept(change, accepted, ticket).await });
                }
            },
            Err(error) => {
                warn!(
                    method = request.method,
                    request_id = request.unique_id,
                    error = error.chain(),
                    "request refused"
                );
                self.tasks.spawn(async move {
                    change::reject(&this.ctx, &request, &error).await;
                    this.respond(origin, Answer::Failure(error.failure())).await;
                });
            }
        }
    }

    async fn query(&self, entry: &'static Entry, built: &'static Built, request: Request, origin: Origin) {
        let Ok(permit) = self.queries.acquire().await else { return };
        if expired(&request) {
            info!(
                method = entry.name,
                request_id = request.unique_id,
                "call expired before it started"
            );
            return self.acknowledge(origin).await;
        }
        let op = Op::query(request.unique_id, entry.name, request.context, request.deadline);
        let answer = match self.run(built, &op, request.args).await {
            Ok(result) => Answer::Result(result),
            Err(error) => {
                info!(
                    method = entry.name,
                    request_id = op.id.0,
                    error = error.chain(),
                    "query failed"
                );
                Answer::Failure(error.failure())
            }
        };
        // It may take a minute to find out that the caller is gone; nobody else's query waits for that.
        drop(permit);
        self.respond(origin, answer).await;
    }

    /// Runs a method; a panic in it is a failure of this request and of nothing else.
    pub(super) async fn run(&self, built: &Built, op: &Op, args: serde_json::Map<String, Value>) -> Result<Value, RpcError> {
        match AssertUnwindSafe((built.run)(&self.ctx, op, args)).catch_unwind().await {
            Ok(result) => result,
            Err(_) => {
                error!(method = op.method, request_id = op.id.0, "a method panicked");
                Err(RpcError::new(ErrorClass::Trove, format!("internal error in {}", op.method)))
            }
        }
    }

    /// Sends the answer, then acknowledges: a query that was cut off is simply delivered again. Answers whether the caller
    /// has been served (or nobody waits).
    pub(super) async fn respond(&self, origin: Origin, answer: Answer) -> bool {
        let (ack, reply) = match origin {
            Origin::Bus { ack, reply } => (ack, reply),
            Origin::Journal(reply) => (None, reply),
            Origin::Local(tx) => {
                // The local caller may have gone; nothing is lost by that.
                let _ = tx.send(answer);
                return true;
            }
        };
        let served = match &reply {
            None => true,
            Some(to) => match self.bus.answer(to, answer).await {
                Ok(()) => true,
                Err(BusError::CallerGone { queue }) => {
                    info!(queue, "the caller is gone");
                    true
                }
                // Not acknowledged: the next agent gets it again.
                Err(BusError::Closed) => return false,
                // It would be refused again, too, and must not take up a place among the deliveries for ever.
                Err(error) => {
                    warn!(error = chain(&error), "could not send an answer");
                    false
                }
            },
        };
        if let Some(ack) = ack {
            ack.ack().await;
        }
        served
    }

    /// Acknowledges without an answer.
    pub(super) async fn acknowledge(&self, origin: Origin) {
        if let Origin::Bus { ack: Some(ack), .. } = origin {
            ack.ack().await;
        }
    }
}

/// Whether nobody waits for the answer any more.
pub(super) fn expired(request: &Request) -> bool {
    request.deadline.is_some_and(|deadline| deadline <= Instant::now())
}

fn lookup(ctx: &Ctx, request: &Request) -> Result<(&'static Entry, &'static Built), RpcError> {
    let RpcVersion { major, minor } = request.version;
    let method: String = request.method.chars().take(64).collect();
    if major != VERSION.major || minor > VERSION.minor {
        let text = format!("Endpoint does not support RPC version {major}.{minor}. Attempted method: {method}");
        return Err(RpcError::new(ErrorClass::UnsupportedVersion, text));
    }
    let Some(entry) = table::find(&request.method) else {
        let text = format!("Endpoint does not support RPC method {method}");
        return Err(RpcError::new(ErrorClass::NoSuchMethod, text));
    };
    let Some(built) = &entry.built else {
        return Err(ctx.not_supported(entry.name));
    };
    (built.check)(&request.args)?;
    Ok((entry, built))
}
