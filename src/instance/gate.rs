//! Admission: may this operation run in this phase, and which phase follows. No I/O, no clock, no locks.
//!
//! The caller holds the turn, so at most one operation is admitted and not yet completed; the gate checks that too.

use super::Phase;

/// What an operation is to the life cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Makes the instance out of an empty volume.
    Prepare,
    /// Starts, stops, restarts the database.
    Lifecycle,
    /// Stops the database; also right when there is none.
    Stop,
    /// Rewrites stored configuration.
    Configure,
    /// Talks to the running database: databases, users, grants.
    Database,
    /// Mounts, unmounts, grows the volume.
    Volume,
}

impl OpKind {
    /// All kinds.
    pub const ALL: [OpKind; 6] = [
        OpKind::Prepare,
        OpKind::Lifecycle,
        OpKind::Stop,
        OpKind::Configure,
        OpKind::Database,
        OpKind::Volume,
    ];
}

/// Why an operation may not run. Shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// `prepare` on an instance that has been prepared.
    #[error("the instance is already prepared")]
    AlreadyPrepared,
    /// Anything that needs a database before `prepare` has succeeded.
    #[error("the instance is not prepared yet")]
    NotPrepared,
    /// Anything that needs a database after `prepare` has failed.
    #[error("preparing the instance failed; prepare it again or delete it")]
    PrepareFailed,
    /// Another operation was admitted and has not completed.
    #[error("another operation is running")]
    Busy,
}

/// The admission state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    phase: Phase,
    running: Option<OpKind>,
}

impl Gate {
    /// A gate in the phase read from disk. `Preparing` means that a preparation was cut off; only `Prepare` is admitted then.
    #[must_use]
    pub fn new(phase: Phase) -> Self {
        Self { phase, running: None }
    }

    /// Present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Admits an operation, or says why not. The phase it answers is in force while the operation runs.
    pub fn admit(&mut self, op: OpKind) -> Result<Phase, Denied> {
        if self.running.is_some() {
            return Err(Denied::Busy);
        }
        match (op, self.phase) {
            (OpKind::Prepare, Phase::Ready) => return Err(Denied::AlreadyPrepared),
            (OpKind::Prepare, _) => self.phase = Phase::Preparing,
            (OpKind::Volume | OpKind::Stop, _) | (_, Phase::Ready) => {}
            (_, Phase::New | Phase::Preparing) => return Err(Denied::NotPrepared),
            (_, Phase::Failed) => return Err(Denied::PrepareFailed),
        }
        self.running = Some(op);
        Ok(self.phase)
    }

    /// Marks a running preparation as good: the database runs and is secured, what follows in it (databases, users) may
    /// fail without failing the instance. Answers the phase then in force.
    pub fn prepared(&mut self) -> Phase {
        if self.running == Some(OpKind::Prepare) {
            self.phase = Phase::Ready;
        }
        self.phase
    }

    /// A preparation was refused before it had its turn: an instance that has no database yet, and for which none is being
    /// prepared, is failed. Answers whether that is so.
    pub fn refused(&mut self) -> bool {
        let fails = self.phase != Phase::Ready && self.running.is_none();
        if fails {
            self.phase = Phase::Failed;
        }
        fails
    }

    /// Completes the admitted operation and answers the phase then in force. A completion nobody was admitted for changes nothing.
    pub fn complete(&mut self, op: OpKind, ok: bool) -> Phase {
        if self.running != Some(op) {
            return self.phase;
        }
        self.running = None;
        if op == OpKind::Prepare && self.phase == Phase::Preparing {
            self.phase = if ok { Phase::Ready } else { Phase::Failed };
        }
        self.phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = OpKind> {
        prop::sample::select(OpKind::ALL.to_vec())
    }

    proptest! {
        /// Whatever happens: one operation at a time, a prepared instance never goes back, and there is always a way out.
        #[test]
        fn no_sequence_breaks_the_rules(ops in prop::collection::vec((kinds(), any::<bool>(), any::<bool>()), 0..60)) {
            let mut gate = Gate::new(Phase::New);
            let mut was_ready = false;
            for (op, complete, ok) in ops {
                let before = gate.phase();
                let admitted = gate.admit(op);
                if admitted.is_ok() {
                    prop_assert_eq!(gate.admit(OpKind::Stop), Err(Denied::Busy));
                    if op == OpKind::Database || op == OpKind::Lifecycle || op == OpKind::Configure {
                        prop_assert_eq!(before, Phase::Ready);
                    }
                    if complete && op == OpKind::Prepare { gate.prepared(); }
                    gate.complete(op, ok);
                }
                was_ready |= gate.phase() == Phase::Ready;
                prop_assert!(!was_ready || gate.phase() == Phase::Ready);
                prop_assert!(gate.phase() != Phase::Preparing);
                let way_out = OpKind::ALL.iter().any(|k| gate.clone().admit(*k).is_ok());
                prop_assert!(way_out);
            }
        }
    }

    #[test]
    fn a_cut_off_preparation_may_only_be_prepared_again() {
        let gate = Gate::new(Phase::Preparing);
        assert_eq!(gate.clone().admit(OpKind::Database), Err(Denied::NotPrepared));
        assert_eq!(gate.clone().admit(OpKind::Prepare), Ok(Phase::Preparing));
    }

    #[test]
    fn a_refused_preparation_fails_what_is_neither_ready_nor_being_prepared() {
        let mut gate = Gate::new(Phase::New);
        gate.admit(OpKind::Prepare).unwrap();
        assert!(!gate.refused());
        assert_eq!(gate.complete(OpKind::Prepare, true), Phase::Ready);
        assert!(!gate.refused() && gate.phase() == Phase::Ready);
        let mut gate = Gate::new(Phase::Preparing);
        assert!(gate.refused() && gate.phase() == Phase::Failed);
    }

    #[test]
    fn a_late_failure_does_not_unmake_a_good_instance() {
        let mut gate = Gate::new(Phase::New);
        gate.admit(OpKind::Prepare).unwrap();
        gate.prepared();
        assert_eq!(gate.complete(OpKind::Prepare, false), Phase::Ready);
    }
}
