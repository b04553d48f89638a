//! A change: journal, acknowledge, wait for the turn, pass the gate, run, record, answer.

use super::ctx::Ctx;
use super::dispatch::{Dispatcher, Origin, expired};
use super::failure::{ErrorClass, RpcError};
use super::method::{Built, Entry, Mode};
use super::op::Op;
use super::{methods, table};
use crate::bus::{Answer, Failure, Request, RpcVersion};
use crate::instance::Operation;
use crate::instance::gate::{Lane, OpKind};
use crate::instance::turn::Ticket;
use crate::journal::{Admission, JournalError, OpId, Outcome, Record};
use datastore_api::chain;
use serde_json::{Map, Value};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{error, info, warn};

/// Name of the first recorded step of every change: it had its turn and may have acted.
const STARTED: &str = "started";

/// First and longest pause before an outcome that could not be recorded is tried again.
const FINISH_AGAIN: Duration = Duration::from_secs(1);
const FINISH_AGAIN_LONGEST: Duration = Duration::from_secs(60);

/// A change that was looked up and whose arguments are good.
pub(super) struct Change {
    pub entry: &'static Entry,
    pub built: &'static Built,
    pub kind: OpKind,
    pub request: Request,
    pub origin: Origin,
    /// Turns of other lanes that come first: see [`Dispatcher::before`].
    pub before: Vec<Ticket>,
}

impl Dispatcher {
    /// Takes a change from its arrival to its answer. `accepted`: the journal's word on it.
    pub(super) async fn accept(
        &self,
        change: Change,
        accepted: impl Future<Output = Result<Admission, JournalError>>,
        ticket: Ticket,
    ) {
        self.take(change, accepted, ticket).await;
        // Also of one that was refused, repeated or late: its place in the queue is free.
        self.ctx.publisher.update(|view| view.waiting = self.waiting());
    }

    async fn take(&self, mut change: Change, accepted: impl Future<Output = Result<Admission, JournalError>>, ticket: Ticket) {
        let (method, request_id) = (change.entry.name, change.request.unique_id.as_str());
        match accepted.await {
            Ok(Admission::New) => {}
            Ok(Admission::Running) => {
                info!(method, request_id, "request is running already");
                return self.acknowledge(change.origin).await;
            }
            Ok(Admission::Finished(outcome)) => {
                info!(method, request_id, "request was done before; answered from the journal");
                self.respond(change.origin, answer(outcome)).await;
                return;
            }
            Err(error) => return self.refuse(&change.request, change.origin, error).await,
        }
        // Safe now: from here the journal, not the broker, owns the request.
        if let Origin::Bus { ack, .. } = &mut change.origin
            && let Some(ack) = ack.take()
        {
            ack.ack().await;
        }
        // Here, not on arrival: a request that is delivered twice is not refused because of itself.
        if change.kind == OpKind::Backup && self.ctx.backups.refuses_second() && !self.is_first_backup() {
            let error = RpcError::new(
                ErrorClass::Trove,
                "another backup is running or waits, and a second one is not queued",
            );
            reject(&self.ctx, &change.request, &error).await;
            drop(ticket);
            let outcome = Outcome::Failed(failure_value(&error.failure()));
            let id = OpId(change.request.unique_id);
            return self
                .record(change.entry, &id, outcome, change.origin, None::<(Lane, ())>)
                .await;
        }
        self.change(change, Vec::new(), ticket).await;
    }

    /// Whether no backup runs, and none but the one that asks waits.
    fn is_first_backup(&self) -> bool {
        self.ctx.publisher.now().backup_operation.is_none() && self.turn(Lane::Backup).waiting() <= 1
    }

    /// Takes a change that is in the journal to its answer; `done` are the steps done before a restart.
    pub(super) async fn change(&self, change: Change, done: Vec<String>, ticket: Ticket) {
        let Change {
            entry,
            built,
            kind,
            request,
            origin,
            before,
        } = change;
        let id = OpId(request.unique_id.clone());
        let publisher = &self.ctx.publisher;
        publisher.update(|view| view.waiting = self.waiting());
        let mut earlier = Vec::new();
        for turn in before {
            earlier.push(turn.wait().await);
        }
        if kind.lane() == Lane::Backup {
            // What came before it is in it; what comes later does not wait for it.
            earlier.clear();
        }
        let held = ticket.wait().await;
        let started = done.iter().any(|step| step == STARTED);
        let outcome = if expired(&request) && !started {
            info!(method = entry.name, request_id = id.0, "call expired before its turn");
            Outcome::Failed(failure_value(
                &RpcError::new(ErrorClass::Trove, "the call expired before its turn").failure(),
            ))
        } else {
            publisher.update(|view| {
                view.waiting = self.waiting();
                *view.operation_of(kind.lane()) = Some(Operation {
                    id: id.0.clone(),
                    method: entry.name.to_owned(),
                    step: None,
                });
            });
            self.admitted(entry, built, kind, &request, done).await
        };
        self.record(entry, &id, outcome, origin, Some((kind.lane(), (held, earlier))))
            .await;
    }

    /// Records how a change ended, lets the next one have its turn (this one had it, if it is given), and answers.
    async fn record<H: Send>(&self, entry: &Entry, id: &OpId, outcome: Outcome, origin: Origin, turn: Option<(Lane, H)>) {
        let method = entry.name;
        let finished = self.ctx.journal.finish(id, &outcome).await;
        if let Some((lane, ..)) = &turn {
            self.ctx.publisher.update(|view| {
                *view.operation_of(*lane) = None;
                // Of one that panicked.
                if *lane == Lane::Main {
                    view.planned = false;
                }
            });
        }
        drop(turn);
        let served = self.respond(origin, answer(outcome.clone())).await;
        if let Err(error) = finished {
            error!(
                error = chain(&error),
                method,
                request_id = id.0,
                "could not record an outcome; it is tried again"
            );
            self.finish_later(id, &outcome).await;
        }
        if served && let Err(error) = self.ctx.journal.answered(id).await {
            warn!(
                error = chain(&error),
                request_id = id.0,
                "could not record that an answer was sent"
            );
        }
    }

    /// Records an outcome as soon as the disk takes it: an operation that counts as unfinished would run again at the next
    /// start, whenever that is. A stop of the agent does not wait for this for ever.
    async fn finish_later(&self, id: &OpId, outcome: &Outcome) {
        let mut pause = FINISH_AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            match self.ctx.journal.finish(id, outcome).await {
                Ok(()) => return info!(request_id = id.0, "the outcome is recorded"),
                Err(JournalError::Write { .. }) => pause = (pause * 2).min(FINISH_AGAIN_LONGEST),
                Err(error) => return error!(error = chain(&error), request_id = id.0, "an outcome cannot be recorded"),
            }
        }
    }

    /// Runs a change that has the turn.
    async fn admitted(
        &self,
        entry: &'static Entry,
        built: &'static Built,
        kind: OpKind,
        request: &Request,
        done: Vec<String>,
    ) -> Outcome {
        let ctx = &self.ctx;
        let id = OpId(request.unique_id.clone());
        let resumed = !done.is_empty();
        let op = Op::query(id.0, entry.name, request.context.clone(), request.deadline).journaled(
            kind,
            done,
            ctx.journal.clone(),
            ctx.publisher.clone(),
        );
        let room = self.room(kind, entry.name).await;
        let admission = match &room {
            Ok(_) => ctx.gate().admit(kind).map_err(RpcError::from),
            Err(text) => Err(RpcError::new(ErrorClass::Trove, text.clone())),
        };
        let began = Instant::now();
        let result = match admission {
            Err(denied) => {
                fail_backup(ctx, request, &denied).await;
                Err(denied)
            }
            Ok(_) => {
                info!(method = entry.name, request_id = op.id.0, resumed, "request admitted");
                if !op.is_done(STARTED) {
                    op.record(STARTED).await;
                }
                let result = self.run(built, &op, request.args.clone()).await;
                let phase = ctx.gate().complete(kind, result.is_ok());
                if phase != ctx.publisher.now().phase {
                    ctx.set_phase(phase).await;
                }
                result
            }
        };
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(_) => info!(method = entry.name, request_id = op.id.0, millis, "request done"),
            Err(error) => warn!(
                method = entry.name,
                request_id = op.id.0,
                millis,
                error = error.chain(),
                "request failed"
            ),
        }
        if built.notifies {
            notify(ctx, entry.name, &op.context, result.as_ref().err()).await;
        }
        match result {
            Ok(value) => Outcome::Done(value),
            Err(error) => Outcome::Failed(failure_value(&error.failure())),
        }
    }

    /// A backup and what stops or replaces the server exclude each other: the backup gives way.
    async fn room(&self, kind: OpKind, method: &str) -> Result<Option<crate::backup::Held>, String> {
        if kind.lane() == Lane::Backup {
            return Ok(Some(self.ctx.backups.hold().await));
        }
        if !kind.excludes_backup() {
            return Ok(None);
        }
        self.ctx.backups.clear(method).await.map(Some)
    }

    /// The journal cannot take the request: it is refused loudly, not run unrecorded.
    async fn refuse(&self, request: &Request, origin: Origin, cause: JournalError) {
        error!(
            error = chain(&cause),
            method = request.method,
            request_id = request.unique_id,
            "could not record a request"
        );
        let error = RpcError::caused(ErrorClass::Trove, "the agent could not record the request", cause);
        reject(&self.ctx, request, &error).await;
        self.respond(origin, Answer::Failure(error.failure())).await;
    }
}

/// What a refused request leaves behind: whoever waits for its end is told, and a refused `prepare` fails the instance
/// instead of leaving it in BUILD for ever.
pub(super) async fn reject(ctx: &Ctx, request: &Request, error: &RpcError) {
    if request.reply.is_some() {
        return;
    }
    if request.method == methods::PREPARE {
        methods::prepare_refused(ctx).await;
    }
    fail_backup(ctx, request, error).await;
    if table::find(&request.method).is_some_and(|entry| entry.built.as_ref().is_none_or(|built| built.notifies)) {
        notify(ctx, &request.method, &request.context, Some(error)).await;
    }
}

/// The row of a backup that is refused before it begins does not wait for ever.
async fn fail_backup(ctx: &Ctx, request: &Request, error: &RpcError) {
    if request.method == methods::CREATE_BACKUP
        && let Some(id) = request.args.get("backup_info").and_then(|info| info["id"].as_str())
    {
        ctx.backups.refused(id, &request.context, &error.chain()).await;
    }
}

pub(super) async fn notify(ctx: &Ctx, method: &str, context: &Map<String, Value>, error: Option<&RpcError>) {
    let instance = method == methods::PREPARE;
    match error {
        None => ctx.conductor.notify_end(context, instance).await,
        Some(error) => {
            let text = error.chain();
            let (class, module) = error.class().wire();
            let details = vec![format!("{module}.{class}: {text}\n")];
            ctx.conductor.notify_exc_info(context, &text, details).await;
        }
    }
}

pub(super) fn changeable(method: &str) -> Option<(&'static Entry, &'static Built, OpKind)> {
    let entry = table::find(method)?;
    let built = entry.built.as_ref()?;
    match built.mode {
        Mode::Change(kind) => Some((entry, built, kind)),
        Mode::Query => None,
    }
}

/// The journal's entry for a request.
pub(super) fn record(request: &Request) -> Record {
    let now = epoch_now();
    let left = request
        .deadline
        .map(|deadline| deadline.saturating_duration_since(Instant::now()));
    Record {
        id: OpId(request.unique_id.clone()),
        method: request.method.clone(),
        args: Value::Object(request.args.clone()),
        context: Value::Object(request.context.clone()),
        reply: serde_json::to_value(&request.reply).unwrap_or(Value::Null),
        accepted: now,
        deadline: left.map(|left| now + left.as_secs_f64()),
        steps: Vec::new(),
        outcome: None,
        answered: request.reply.is_none(),
    }
}

pub(super) fn request_of(record: Record) -> Request {
    let deadline = record.deadline.map(|at| {
        let left = Duration::try_from_secs_f64(at - epoch_now()).unwrap_or_default();
        Instant::now() + left
    });
    let map = |value| if let Value::Object(map) = value { map } else { Map::new() };
    Request {
        unique_id: record.id.0,
        method: record.method,
        version: RpcVersion { major: 1, minor: 0 },
        args: map(record.args),
        context: map(record.context),
        reply: None,
        keep_alive: None,
        deadline,
    }
}

pub(super) fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done(value) => Answer::Result(value),
        Outcome::Failed(value) => Answer::Failure(serde_json::from_value(value).unwrap_or_else(|_| {
            RpcError::new(ErrorClass::Trove, "the operation failed; its reason cannot be read any more").failure()
        })),
    }
}

pub(super) fn failure_value(failure: &Failure) -> Value {
    serde_json::to_value(failure).unwrap_or(Value::Null)
}

fn epoch_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
