//! A change: journal, acknowledge, wait for the turn, pass the gate, run, record, answer.

use super::ctx::Ctx;
use super::dispatch::{Dispatcher, Origin, expired};
use super::failure::{ErrorClass, RpcError};
use super::method::{Built, Entry, Mode};
use super::op::Op;
use super::{methods, table};
use crate::bus::{Answer, Failure, ReplyTo, Request, RpcVersion};
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
        self.change(change, Vec::new(), ticket).await;
    }

    /// Takes a change that is in the journal to its answer; `done` are the steps done before a restart.
    async fn change(&self, change: Change, done: Vec<String>, ticket: Ticket) {
        let Change {
            entry,
            built,
            kind,
            request,
            origin,
        } = change;
        let id = OpId(request.unique_id.clone());
        let publisher = &self.ctx.publisher;
        publisher.update(|view| view.waiting = self.waiting());
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
        let finished = self.ctx.journal.finish(&id, &outcome).await;
        publisher.update(|view| {
            *view.operation_of(kind.lane()) = None;
            // Of one that panicked.
            if kind.lane() == Lane::Main {
                view.planned = false;
            }
        });
        drop(held);
        let served = self.respond(origin, answer(outcome.clone())).await;
        if let Err(error) = finished {
            error!(
                error = chain(&error),
                method = entry.name,
                request_id = id.0,
                "could not record an outcome; it is tried again"
            );
            self.finish_later(&id, &outcome).await;
        }
        if served && let Err(error) = self.ctx.journal.answered(&id).await {
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
        let admission = ctx.gate().admit(kind);
        let began = Instant::now();
        let result = match admission {
            Err(denied) => Err(denied.into()),
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

    /// Fails an unfinished operation that cannot be taken up, loudly.
    async fn lose(&self, record: &Record, reply: Option<ReplyTo>, why: &str) -> Result<(), JournalError> {
        error!(
            method = record.method,
            request_id = record.id.0,
            why,
            "an unfinished operation is lost"
        );
        let error = RpcError::new(ErrorClass::Trove, format!("{} was cut off: {why}", record.method));
        let outcome = Outcome::Failed(failure_value(&error.failure()));
        // Before it is over in the journal: should we die in between, it is lost once more, not silently.
        if record.method == methods::PREPARE {
            methods::prepare_refused(&self.ctx).await;
        }
        if let Value::Object(context) = &record.context {
            notify(&self.ctx, &record.method, context, Some(&error)).await;
        }
        self.ctx.journal.finish(&record.id, &outcome).await?;
        let (this, id) = (self.clone(), record.id.clone());
        self.tasks.spawn(async move {
            if this.respond(Origin::Journal(reply), answer(outcome)).await {
                let _ = this.ctx.journal.answered(&id).await;
            }
        });
        Ok(())
    }

    /// Takes up what the agent's last end cut off: unfinished operations run again from their first step not done, answers
    /// that were not delivered are sent again.
    pub async fn resume(&self) -> Result<usize, JournalError> {
        for record in self.ctx.journal.unanswered().await? {
            let (this, id) = (self.clone(), record.id.clone());
            let reply: Option<ReplyTo> = serde_json::from_value(record.reply).unwrap_or(None);
            let Some(outcome) = record.outcome else { continue };
            self.tasks.spawn(async move {
                if this.respond(Origin::Journal(reply), answer(outcome)).await {
                    let _ = this.ctx.journal.answered(&id).await;
                }
            });
        }
        let unfinished = self.ctx.journal.unfinished().await?;
        let count = unfinished.len();
        for record in unfinished {
            let reply: Option<ReplyTo> = serde_json::from_value(record.reply.clone()).unwrap_or(None);
            let lost = if record.is_sealed() {
                Some("the agent was restarted with another key and cannot read what it was asked")
            } else if changeable(&record.method).is_none() {
                Some("the agent was replaced by one that does not have this operation")
            } else {
                None
            };
            let Some((entry, built, kind)) = changeable(&record.method).filter(|_| lost.is_none()) else {
                self.lose(&record, reply, lost.unwrap_or_default()).await?;
                continue;
            };
            info!(
                method = record.method,
                request_id = record.id.0,
                steps = record.steps.len(),
                "taking up an unfinished operation"
            );
            let done = record.steps.clone();
            let request = request_of(record);
            let ticket = self.turn(kind.lane()).ticket();
            let change = Change {
                entry,
                built,
                kind,
                request,
                origin: Origin::Journal(reply),
            };
            let this = self.clone();
            self.tasks.spawn(async move { this.change(change, done, ticket).await });
        }
        Ok(count)
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
    if request.method == "create_backup"
        && let Some(id) = request.args.get("backup_info").and_then(|info| info["id"].as_str())
    {
        ctx.conductor.backup_failed(&request.context, id).await;
    }
    if table::find(&request.method).is_some_and(|entry| entry.built.as_ref().is_none_or(|built| built.notifies)) {
        notify(ctx, &request.method, &request.context, Some(error)).await;
    }
}

async fn notify(ctx: &Ctx, method: &str, context: &Map<String, Value>, error: Option<&RpcError>) {
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

fn changeable(method: &str) -> Option<(&'static Entry, &'static Built, OpKind)> {
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

fn request_of(record: Record) -> Request {
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

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Done(value) => Answer::Result(value),
        Outcome::Failed(value) => Answer::Failure(serde_json::from_value(value).unwrap_or_else(|_| {
            RpcError::new(ErrorClass::Trove, "the operation failed; its reason cannot be read any more").failure()
        })),
    }
}

fn failure_value(failure: &Failure) -> Value {
    serde_json::to_value(failure).unwrap_or(Value::Null)
}

fn epoch_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
