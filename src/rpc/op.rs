//! The operation a use-case runs as: its identity, its context, its journaled steps.

use super::failure::RpcError;
use crate::instance::Operation;
use crate::instance::gate::{Lane, OpKind};
use crate::instance::view::Publisher;
use crate::journal::{Journal, OpId};
use datastore_api::chain;
use serde_json::{Map, Value};
use std::future::Future;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// An operation.
pub struct Op {
    /// Its id.
    pub id: OpId,
    /// Method name.
    pub method: &'static str,
    /// The caller's context, as received.
    pub context: Map<String, Value>,
    /// When its caller stops waiting.
    deadline: Option<Instant>,
    /// Steps done before the agent was last restarted.
    done: Vec<String>,
    journal: Option<Journal>,
    publisher: Option<(Publisher, Lane)>,
}

impl Op {
    /// A query: no journal, no steps.
    #[must_use]
    pub fn query(id: String, method: &'static str, context: Map<String, Value>, deadline: Option<Instant>) -> Self {
        Self {
            id: OpId(id),
            method,
            context,
            deadline,
            done: Vec::new(),
            journal: None,
            publisher: None,
        }
    }

    /// The same as a change of this kind, with its journal; `done` are the steps done before a restart.
    #[must_use]
    pub fn journaled(self, kind: OpKind, done: Vec<String>, journal: Journal, publisher: Publisher) -> Self {
        Self {
            done,
            journal: Some(journal),
            publisher: Some((publisher, kind.lane())),
            ..self
        }
    }

    /// How long this may still take if its caller is to hear of it: the time it has left without `reserve`, at most `most`. What
    /// was taken up after a restart, when nobody waits any more, gets `reserve`.
    #[must_use]
    pub fn time_left(&self, most: Duration, reserve: Duration) -> Duration {
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(most, |left| most.min(left.saturating_sub(reserve).max(reserve)))
    }

    /// Whether a step was done before a restart of the agent.
    #[must_use]
    pub fn is_done(&self, step: &str) -> bool {
        self.done.iter().any(|done| done == step)
    }

    /// Does a step unless it was done before, and records it. Steps are idempotent, so one that was done but not recorded is
    /// done again.
    pub async fn step<F>(&self, step: &str, work: F) -> Result<(), RpcError>
    where
        F: Future<Output = Result<(), RpcError>>,
    {
        if self.is_done(step) {
            info!(method = self.method, step, "step was done before the restart");
            return Ok(());
        }
        if let Some((publisher, lane)) = &self.publisher {
            let (id, method) = (self.id.0.clone(), self.method.to_owned());
            publisher.update(|view| {
                *view.operation_of(*lane) = Some(Operation {
                    id,
                    method,
                    step: Some(step.to_owned()),
                })
            });
        }
        work.await?;
        self.record(step).await;
        Ok(())
    }

    /// Records a step as done. A journal that cannot be written costs a repetition after a crash, not the operation.
    pub async fn record(&self, step: &str) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.step_done(&self.id, step).await {
            warn!(error = chain(&error), method = self.method, step, "could not record a step");
        }
    }
}
