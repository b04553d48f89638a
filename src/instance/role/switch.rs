//! The steps of a change of source, on both sides.

use super::{Evidence, Moved, Refused, Role, RoleState, Switch, VipState};

impl RoleState {
    // --- the source's side of a switchover ---

    /// A candidate asks to take over with generation `next`.
    pub fn begin_leaving(&self, op: &str, next: u64) -> Moved {
        if matches!(self.leaving(op), Ok((ours, _)) if ours == next) {
            return Ok(self.clone());
        }
        self.need(Role::Source)?;
        self.idle()?;
        self.follows(next)?;
        Ok(Self {
            switch: Some(Switch::Leaving {
                op: op.to_owned(),
                next,
                fenced: false,
            }),
            ..self.clone()
        })
    }

    /// Writes are blocked.
    pub fn fenced(&self, op: &str) -> Moved {
        let (next, _) = self.leaving(op)?;
        Ok(Self {
            writable: false,
            switch: Some(Switch::Leaving {
                op: op.to_owned(),
                next,
                fenced: true,
            }),
            ..self.clone()
        })
    }

    /// The decision: from here the candidate is the source. Needs blocked writes.
    pub fn released(&self, op: &str) -> Moved {
        let (next, fenced) = self.leaving(op)?;
        if !fenced {
            return Err(Refused::NotAtStage(op.to_owned()));
        }
        Ok(Self {
            role: Role::Replica,
            writable: false,
            vip: VipState::Released,
            generation: next,
            switch: None,
            superseded_by: None,
        })
    }

    /// Back to what was before. Writes stay closed here; [`RoleState::opened`] follows.
    pub fn stayed(&self, op: &str) -> Moved {
        self.leaving(op)?;
        Ok(Self {
            switch: None,
            ..self.clone()
        })
    }

    // --- the candidate's side ---

    /// A replica begins to take over with generation `next`.
    pub fn begin_candidate(&self, op: &str, next: u64) -> Moved {
        self.need(Role::Replica)?;
        self.idle()?;
        self.follows(next)?;
        Ok(Self {
            switch: Some(Switch::Candidate {
                op: op.to_owned(),
                next,
                asked: false,
            }),
            ..self.clone()
        })
    }

    /// The source is about to be asked for its decision.
    pub fn asked(&self, op: &str) -> Moved {
        let (next, _) = self.candidate(op)?;
        Ok(Self {
            switch: Some(Switch::Candidate {
                op: op.to_owned(),
                next,
                asked: true,
            }),
            ..self.clone()
        })
    }

    /// The source has released. Writes are still closed; [`RoleState::opened`] follows.
    pub fn promoted(&self, op: &str) -> Moved {
        let (next, asked) = self.candidate(op)?;
        if !asked {
            return Err(Refused::NotAtStage(op.to_owned()));
        }
        Ok(Self {
            role: Role::Source,
            writable: false,
            vip: VipState::Released,
            generation: next,
            switch: None,
            superseded_by: None,
        })
    }

    /// Back to a replica. `denied`: the source has said that it did not release and never will; needed once it was asked.
    pub fn gave_up(&self, op: &str, denied: bool) -> Moved {
        let (_, asked) = self.candidate(op)?;
        if asked && !denied {
            return Err(Refused::NotAtStage(op.to_owned()));
        }
        Ok(Self {
            switch: None,
            ..self.clone()
        })
    }

    /// Takes over from a source that is gone. A switchover in which the source was asked is decided by this. Who was left behind in an
    /// older generation takes over on somebody's word only.
    pub fn taken_over(&self, next: u64, why: Evidence) -> Moved {
        match self.role {
            Role::Replica => {}
            Role::Detached if why != Evidence::LeaseOver => {}
            found => {
                return Err(Refused::Role {
                    needed: Role::Replica,
                    found,
                });
            }
        }
        self.follows(next)?;
        if let Some(Switch::Candidate { next: planned, .. }) = &self.switch
            && next < *planned
        {
            return Err(Refused::Generation {
                given: next,
                ours: *planned,
            });
        }
        Ok(Self {
            role: Role::Source,
            writable: false,
            vip: VipState::Released,
            generation: next,
            switch: None,
            superseded_by: None,
        })
    }
}
