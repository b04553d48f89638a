//! The operation a use-case runs as: its identity, its context, its journaled steps.

use super::failure::RpcError;
use crate::instance::Operation;
use crate::instance::view::Publisher;
use crate::journal::{Journal, OpId};
use datastore_api::chain;
use serde_json::{Map, Value};
use std::future::Future;
use tracing::{info, warn};

/// An operation.
pub struct Op {
    /// Its id.
    pub id: OpId,
    /// Method name.
    pub method: &'static str,
    /// The caller's context, as received.
    pub context: Map<String, Value>,
    /// Steps done before the agent was last restarted.
    done: Vec<String>,
    journal: Option<Journal>,
    publisher: Option<Publisher>,
}

impl Op {
    /// A query: no journal, no steps.
    #[must_use]
    pub fn query(id: String, method: &'static str, context: Map<String, Value>) -> Self {
        Self {
            id: OpId(id),
            method,
            context,
            done: Vec::new(),
            journal: None,
            publisher: None,
        }
    }

    /// A change with its journal.
    #[must_use]
    pub fn change(
        id: OpId,
        method: &'static str,
        context: Map<String, Value>,
        done: Vec<String>,
        journal: Journal,
        publisher: Publisher,
    ) -> Self {
        Self {
            id,
            method,
            context,
            done,
            journal: Some(journal),
            publisher: Some(publisher),
        }
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
        if let Some(publisher) = &self.publisher {
            let (id, method) = (self.id.0.clone(), self.method.to_owned());
            publisher.update(|view| {
                view.operation = Some(Operation {
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
