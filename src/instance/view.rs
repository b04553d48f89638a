//! The published state of the instance. Everybody else watches it; nobody asks a room "are you busy?".

use super::gate::Lane;
use datastore_api::Health;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::info;

/// Where the instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never prepared.
    New,
    /// Being prepared (or rebuilt).
    Preparing,
    /// Prepared.
    Ready,
    /// Preparation failed.
    Failed,
}

/// The operation that has the turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id in the journal.
    pub id: String,
    /// Method name.
    pub method: String,
    /// Step it is at, if it has steps.
    pub step: Option<String>,
}

/// One numbered snapshot of the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Grows with each change.
    pub counter: u64,
    /// Phase of life.
    pub phase: Phase,
    /// What the database's health was when last looked at; `None` before the first look.
    pub health: Option<Health>,
    /// The operation that has the turn.
    pub operation: Option<Operation>,
    /// The change of role that has the turn of its own lane.
    pub role_operation: Option<Operation>,
    /// The backup that runs.
    pub backup_operation: Option<Operation>,
    /// Changes that wait for their turn.
    pub waiting: usize,
    /// A configuration change waits for a restart.
    pub restart_required: bool,
    /// A planned operation (restart, upgrade) keeps the server down or unproven at this moment.
    pub planned: bool,
}

impl View {
    /// The operation that has the turn of a lane.
    pub fn operation_of(&mut self, lane: Lane) -> &mut Option<Operation> {
        match lane {
            Lane::Main => &mut self.operation,
            Lane::Role => &mut self.role_operation,
            Lane::Backup => &mut self.backup_operation,
        }
    }
}

/// The one writer of the view.
#[derive(Debug, Clone)]
pub struct Publisher {
    tx: watch::Sender<View>,
}

impl Publisher {
    /// A publisher and the first receiver.
    #[must_use]
    pub fn new(phase: Phase) -> (Self, watch::Receiver<View>) {
        let (tx, rx) = watch::channel(View {
            counter: 0,
            phase,
            health: None,
            operation: None,
            role_operation: None,
            backup_operation: None,
            waiting: 0,
            restart_required: false,
            planned: false,
        });
        (Self { tx }, rx)
    }

    /// Another receiver.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.tx.subscribe()
    }

    /// The present view.
    #[must_use]
    pub fn now(&self) -> View {
        self.tx.borrow().clone()
    }

    /// Changes the view; a change that changes nothing is not published. State changes are logged here and nowhere else.
    pub fn update(&self, change: impl FnOnce(&mut View)) {
        self.tx.send_if_modified(|view| {
            let before = view.clone();
            change(view);
            if *view == before {
                return false;
            }
            view.counter = before.counter + 1;
            if view.phase != before.phase {
                info!(from = ?before.phase, to = ?view.phase, "phase changed");
            }
            if view.health != before.health {
                info!(from = ?before.health, to = ?view.health, "health changed");
            }
            true
        });
    }
}
