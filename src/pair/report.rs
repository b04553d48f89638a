//! What an operation did: its steps, how long they took, what was taken back.

use crate::journal::failpoint;
use datastore_api::Saved;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::time::Instant;

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// It goes on.
    Running,
    /// Done.
    Done,
    /// It was so already.
    Unchanged,
    /// It failed, and everything is as it was before.
    RolledBack,
    /// It failed.
    Failed,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// Whether it succeeded.
    pub ok: bool,
}

/// How far a long step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes copied.
    pub bytes: u64,
    /// Of so many, if that is known.
    pub of: Option<u64>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Its id.
    pub operation: String,
    /// switchover, failover, rejoin, configure, hold_vip, …
    pub kind: String,
    /// How it stands.
    pub state: ReportState,
    /// Its steps in order.
    pub steps: Vec<StepReport>,
    /// What was taken back, in order.
    pub rolled_back: Vec<String>,
    /// Why it failed, or did nothing.
    pub error: Option<String>,
    /// Generation in force at its end.
    pub generation: u64,
    /// How long writes were blocked, in milliseconds, as far as the agents know.
    pub writes_blocked_ms: Option<f64>,
    /// Idle transactions that were ended.
    pub idle_ended: u64,
    /// Writers that were killed after the grace.
    pub writers_killed: u64,
    /// Transactions that were put aside.
    pub saved: Option<Saved>,
    /// How far a running one is.
    pub progress: Option<Progress>,
}

impl Report {
    /// One that begins.
    #[must_use]
    pub fn new(operation: &str, kind: &str) -> Self {
        Self {
            operation: operation.to_owned(),
            kind: kind.to_owned(),
            state: ReportState::Running,
            steps: Vec::new(),
            rolled_back: Vec::new(),
            error: None,
            generation: 0,
            writes_blocked_ms: None,
            idle_ended: 0,
            writers_killed: 0,
            saved: None,
            progress: None,
        }
    }

    /// One that had nothing to do.
    #[must_use]
    pub fn unchanged(operation: &str, kind: &str, generation: u64, why: &str) -> Self {
        Self {
            state: ReportState::Unchanged,
            error: Some(why.to_owned()),
            generation,
            ..Self::new(operation, kind)
        }
    }

    /// Runs a step and records it. The crash tests end the process before and after each.
    pub async fn step<T, E>(&mut self, name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        failpoint(&format!("{}/{name}/before", self.kind));
        let began = Instant::now();
        let result = work.await;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        self.steps.push(StepReport {
            name: name.to_owned(),
            ms,
            ok: result.is_ok(),
        });
        failpoint(&format!("{}/{name}/after", self.kind));
        result
    }
}
