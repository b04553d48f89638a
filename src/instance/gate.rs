//! Admission: may this operation run in this phase, and which phase follows. No I/O, no clock, no locks.
//!
//! There are three lanes. Changes of role have a lane of their own, so that a promotion never waits behind a long change; backups
//! have one, because they take hours and hold nobody up; every other kind shares the main one. The caller holds the turn of its
//! lane, so at most one operation of a lane is admitted and not yet completed; the gate checks that too. What starts, stops or
//! replaces the server, or its volume, is never admitted beside a backup ([`OpKind::excludes_backup`]).

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
    /// Changes who is source, who follows whom, who may write. Runs beside an operation of any other kind.
    Role,
    /// Copies the running database to a store.
    Backup,
    /// Replaces the data of a prepared instance.
    Restore,
}

/// A queue of operations that run one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Everything but changes of role.
    Main,
    /// Changes of role.
    Role,
    /// Backups.
    Backup,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 3] = [Lane::Main, Lane::Role, Lane::Backup];
}

impl OpKind {
    /// All kinds.
    pub const ALL: [OpKind; 9] = [
        OpKind::Prepare,
        OpKind::Lifecycle,
        OpKind::Stop,
        OpKind::Configure,
        OpKind::Database,
        OpKind::Volume,
        OpKind::Role,
        OpKind::Backup,
        OpKind::Restore,
    ];

    /// The lane it waits in.
    #[must_use]
    pub fn lane(self) -> Lane {
        match self {
            OpKind::Role => Lane::Role,
            OpKind::Backup => Lane::Backup,
            _ => Lane::Main,
        }
    }

    /// Whether the server, its data or its volume may go away under a backup that runs beside it.
    #[must_use]
    pub fn excludes_backup(self) -> bool {
        matches!(
            self,
            OpKind::Prepare | OpKind::Lifecycle | OpKind::Stop | OpKind::Volume | OpKind::Restore
        )
    }
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
    role: bool,
    backup: bool,
}

impl Gate {
    /// A gate in the phase read from disk. `Preparing` means that a preparation was cut off; only `Prepare` is admitted then.
    #[must_use]
    pub fn new(phase: Phase) -> Self {
        Self {
            phase,
            running: None,
            role: false,
            backup: false,
        }
    }

    /// Present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Admits an operation, or says why not. The phase it answers is in force while the operation runs.
    pub fn admit(&mut self, op: OpKind) -> Result<Phase, Denied> {
        let busy = match op.lane() {
            Lane::Main => self.running.is_some() || (self.backup && op.excludes_backup()),
            Lane::Role => self.role,
            Lane::Backup => self.backup || self.running.is_some_and(OpKind::excludes_backup),
        };
        if busy {
            return Err(Denied::Busy);
        }
        match (op, self.phase) {
            (OpKind::Prepare, Phase::Ready) => return Err(Denied::AlreadyPrepared),
            (OpKind::Prepare, _) => self.phase = Phase::Preparing,
            (OpKind::Volume | OpKind::Stop, _) | (_, Phase::Ready) => {}
            (_, Phase::New | Phase::Preparing) => return Err(Denied::NotPrepared),
            (_, Phase::Failed) => return Err(Denied::PrepareFailed),
        }
        match op.lane() {
            Lane::Main => self.running = Some(op),
            Lane::Role => self.role = true,
            Lane::Backup => self.backup = true,
        }
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
        match op.lane() {
            Lane::Role => self.role = false,
            Lane::Backup => self.backup = false,
            Lane::Main => {}
        }
        if op.lane() != Lane::Main {
            return self.phase;
        }
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

    /// A step of a random history.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Admit(OpKind),
        Prepared,
        Refused,
        Complete(OpKind, bool),
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => kinds().prop_map(Event::Admit),
            1 => Just(Event::Prepared),
            1 => Just(Event::Refused),
            4 => (kinds(), any::<bool>()).prop_map(|(kind, ok)| Event::Complete(kind, ok)),
        ]
    }

    proptest! {
        /// Whatever happens: one operation of a lane at a time, no lane waits for the other, nothing needs a database before
        /// there is one, a prepared instance never goes back, and there is always a way out.
        #[test]
        fn no_sequence_breaks_the_rules(events in prop::collection::vec(events(), 0..80)) {
            let mut gate = Gate::new(Phase::New);
            let (mut main, mut role, mut backup, mut was_ready) = (None::<OpKind>, false, false, false);
            for event in events {
                let before = gate.phase();
                match event {
                    Event::Admit(op) => {
                        let busy = match op {
                            OpKind::Role => role,
                            OpKind::Backup => backup || main.is_some_and(OpKind::excludes_backup),
                            _ => main.is_some() || (backup && op.excludes_backup()),
                        };
                        let needs = !matches!(op, OpKind::Prepare | OpKind::Volume | OpKind::Stop);
                        match gate.admit(op) {
                            Ok(_) => {
                                prop_assert!(!busy && (!needs || before == Phase::Ready));
                                match op {
                                    OpKind::Role => role = true,
                                    OpKind::Backup => backup = true,
                                    _ => main = Some(op),
                                }
                            }
                            Err(Denied::Busy) => prop_assert!(busy),
                            Err(_) => prop_assert!(!busy && gate.phase() == before),
                        }
                    }
                    Event::Prepared => { gate.prepared(); }
                    Event::Refused => { gate.refused(); }
                    Event::Complete(op, ok) => {
                        gate.complete(op, ok);
                        match op {
                            OpKind::Role => role = false,
                            OpKind::Backup => backup = false,
                            _ if main == Some(op) => main = None,
                            _ => {}
                        }
                    }
                }
                was_ready |= gate.phase() == Phase::Ready;
                prop_assert!(!was_ready || gate.phase() == Phase::Ready);
                prop_assert!((gate.phase() == Phase::Preparing) == (main == Some(OpKind::Prepare) && gate.phase() != Phase::Ready));
                // In a prepared instance a change of role is never kept waiting by anything but another one.
                prop_assert!(gate.phase() != Phase::Ready || gate.clone().admit(OpKind::Role).is_ok() != role);
                let mut idle = gate;
                idle.complete(OpKind::Role, true);
                idle.complete(OpKind::Backup, true);
                if let Some(op) = main { idle.complete(op, false); }
                prop_assert!(OpKind::ALL.iter().any(|kind| idle.clone().admit(*kind).is_ok()));
            }
        }
    }

    #[test]
    fn a_change_of_role_runs_beside_a_long_change_and_not_beside_another() {
        let mut gate = Gate::new(Phase::Ready);
        gate.admit(OpKind::Database).unwrap();
        gate.admit(OpKind::Role).unwrap();
        assert_eq!(gate.clone().admit(OpKind::Role), Err(Denied::Busy));
        gate.complete(OpKind::Role, false);
        gate.admit(OpKind::Role).unwrap();
        assert_eq!(gate.admit(OpKind::Lifecycle), Err(Denied::Busy), "the main lane has its own");
    }

    #[test]
    fn a_backup_runs_beside_changes_of_role_and_of_databases_but_not_beside_a_stop() {
        let mut gate = Gate::new(Phase::Ready);
        gate.admit(OpKind::Backup).unwrap();
        for kind in [OpKind::Role, OpKind::Database, OpKind::Configure] {
            assert!(gate.clone().admit(kind).is_ok(), "{kind:?}");
        }
        for kind in [
            OpKind::Stop,
            OpKind::Lifecycle,
            OpKind::Volume,
            OpKind::Restore,
            OpKind::Backup,
        ] {
            assert_eq!(gate.clone().admit(kind), Err(Denied::Busy), "{kind:?}");
        }
        gate.complete(OpKind::Backup, false);
        gate.admit(OpKind::Stop).unwrap();
        assert_eq!(gate.admit(OpKind::Backup), Err(Denied::Busy));
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
