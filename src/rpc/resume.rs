//! What the agent's last end cut off: taken up again, or failed loudly.

use super::change::{Change, answer, changeable, failure_value, notify, request_of};
use super::dispatch::{Dispatcher, Origin};
use super::failure::{ErrorClass, RpcError};
use super::methods;
use crate::bus::ReplyTo;
use crate::journal::{JournalError, Outcome, Record};
use serde_json::Value;
use tracing::{error, info};

impl Dispatcher {
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
            if let (methods::CREATE_BACKUP, Some(id)) = (record.method.as_str(), record.args["backup_info"]["id"].as_str()) {
                self.ctx.conductor.backup_failed(context, id).await;
            }
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
            let kind = match &record.args {
                Value::Object(args) => (built.kind)(&self.ctx, args).unwrap_or(kind),
                _ => kind,
            };
            info!(
                method = record.method,
                request_id = record.id.0,
                steps = record.steps.len(),
                "taking up an unfinished operation"
            );
            let done = record.steps.clone();
            let request = request_of(record);
            let (ticket, before) = (self.turn(kind.lane()).ticket(), self.before(kind));
            let change = Change {
                entry,
                built,
                kind,
                request,
                origin: Origin::Journal(reply),
                before,
            };
            let this = self.clone();
            self.tasks.spawn(async move { this.change(change, done, ticket).await });
        }
        Ok(count)
    }
}
