//! The role machine: who may write, who holds the address, in which generation. Pure: no I/O, no clock, no locks.
//!
//! ```text
//!             configured as source                    released (decision of the source) / fenced / forced
//! unconfigured ───────────────────► source ◄──────────────────────────────────────────────┐
//!      │                         writable? │ leaving(begun ► fenced) ── release ──► replica ── candidate(begun ► asked)
//!      └── configured as replica ──────────┼────────────────────────────────────────► ▲
//!                                          └── a higher generation is seen ► detached ┘ rejoined
//! ```
//!
//! The rules are architecture section 5. R1: an address is held by a writable source, or by one about to open or that has just closed. R2:
//! a conflict keeps writes closed. R3: nobody opens while another may write. R4: [`RoleState::booted`] never raises. R6:
//! [`RoleState::saw_generation`]. The decision of a switchover is the source's `release`: before it both sides go back
//! alone, after it only forward.

mod switch;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What this guest is to its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Never told.
    Unconfigured,
    /// Others follow it.
    Source,
    /// Follows a source.
    Replica,
    /// Was a source or replica in an older generation and has to rejoin.
    Detached,
}

/// What the address is to this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VipState {
    /// There is none.
    None,
    /// On our NIC and announced.
    Held,
    /// Not on our NIC.
    Released,
    /// Somebody else answers for it.
    Conflict,
}

/// How far a switchover is, on either side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// A source on its way out; writes are still open.
    Leaving {
        /// The operation.
        op: String,
        /// The generation that follows.
        next: u64,
        /// Writes are blocked.
        fenced: bool,
    },
    /// A replica on its way in.
    Candidate {
        /// The operation.
        op: String,
        /// The generation that follows.
        next: u64,
        /// The source was asked to release; until it is known what it said, nobody goes back or forth.
        asked: bool,
    },
}

/// Why a replica may become source though no living source released it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The other's agent said that writes are closed there and stay closed: before it answered it took the generation that is asked for
    /// as seen ([`RoleState::saw_generation`]), so that nothing older opens it again.
    Released,
    /// The source's door has closed by itself. Only for a replica that the source of its own generation has pinged since this guest
    /// booted; one that follows nobody any more does not take over by itself.
    LeaseOver,
    /// A person, or the control plane, says that the other guest is dead. It is asked in the same moment all the same: if it answers, its
    /// word counts.
    Operator,
}

/// Why a transition is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another role is needed.
    #[error("this guest is {found:?}, not {needed:?}")]
    Role {
        /// Needed.
        needed: Role,
        /// Found.
        found: Role,
    },
    /// A switchover is under way.
    #[error("a switchover is under way (operation {0})")]
    Switching(String),
    /// No such switchover is under way, or it is at another stage.
    #[error("operation {0} is not at this stage here")]
    NotAtStage(String),
    /// The generation does not follow ours.
    #[error("generation {given} does not follow {ours}")]
    Generation {
        /// Given.
        given: u64,
        /// Ours.
        ours: u64,
    },
    /// Somebody else answers for the address.
    #[error("somebody else answers for the service address")]
    Conflict,
    /// Writes are closed.
    #[error("writes are closed here")]
    Closed,
}

/// The state, durable and live together. `writable` is what the agent lets happen, `vip` what it did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RoleState {
    /// What this guest is.
    pub role: Role,
    /// Whether clients may write.
    pub writable: bool,
    /// What the address is to us.
    pub vip: VipState,
    /// Grows at each promotion.
    pub generation: u64,
    /// A switchover under way.
    pub switch: Option<Switch>,
    /// The highest generation seen elsewhere that we do not belong to yet.
    pub superseded_by: Option<u64>,
}

impl Default for RoleState {
    fn default() -> Self {
        Self {
            role: Role::Unconfigured,
            writable: true,
            vip: VipState::None,
            generation: 0,
            switch: None,
            superseded_by: None,
        }
    }
}

pub(super) type Moved = Result<RoleState, Refused>;

impl RoleState {
    /// The operation of the switchover under way.
    #[must_use]
    pub fn switching(&self) -> Option<&str> {
        match &self.switch {
            Some(Switch::Leaving { op, .. } | Switch::Candidate { op, .. }) => Some(op),
            None => None,
        }
    }

    /// The highest generation known here.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.generation.max(self.superseded_by.unwrap_or(0))
    }

    fn need(&self, role: Role) -> Result<(), Refused> {
        if self.role != role {
            return Err(Refused::Role {
                needed: role,
                found: self.role,
            });
        }
        Ok(())
    }

    fn idle(&self) -> Result<(), Refused> {
        self.switching().map_or(Ok(()), |op| Err(Refused::Switching(op.to_owned())))
    }

    fn follows(&self, next: u64) -> Result<(), Refused> {
        if next <= self.highest() {
            return Err(Refused::Generation {
                given: next,
                ours: self.highest(),
            });
        }
        Ok(())
    }

    fn leaving(&self, op: &str) -> Result<(u64, bool), Refused> {
        match &self.switch {
            Some(Switch::Leaving { op: ours, next, fenced }) if ours == op => Ok((*next, *fenced)),
            _ => Err(Refused::NotAtStage(op.to_owned())),
        }
    }

    fn candidate(&self, op: &str) -> Result<(u64, bool), Refused> {
        match &self.switch {
            Some(Switch::Candidate { op: ours, next, asked }) if ours == op => Ok((*next, *asked)),
            _ => Err(Refused::NotAtStage(op.to_owned())),
        }
    }

    /// Told its role for the first time, or again with the same role (or after it was dissolved).
    pub fn configured(&self, role: Role, generation: u64) -> Moved {
        self.idle()?;
        let fits = self.role == Role::Unconfigured || self.role == role || (self.role == Role::Detached && role == Role::Replica);
        if !fits {
            return Err(Refused::Role {
                needed: role,
                found: self.role,
            });
        }
        if generation < self.highest() {
            return Err(Refused::Generation {
                given: generation,
                ours: self.highest(),
            });
        }
        let stays = self.role == role && role == Role::Source;
        Ok(Self {
            role,
            writable: stays && self.writable,
            generation,
            vip: if stays { self.vip } else { VipState::Released },
            switch: None,
            superseded_by: None,
        })
    }

    // --- the address and the writes of a source ---

    /// Writes open. The caller has made sure of R2 and R3: after a boot, that the other guest, asked in this run of the agent, is no
    /// source (the question carries our generation, which demotes an older one first), or that a person says it is dead.
    pub fn opened(&self) -> Moved {
        self.idle()?;
        match self.role {
            Role::Source | Role::Unconfigured if self.vip == VipState::Conflict => Err(Refused::Conflict),
            Role::Source | Role::Unconfigured => Ok(Self {
                writable: true,
                ..self.clone()
            }),
            found => Err(Refused::Role {
                needed: Role::Source,
                found,
            }),
        }
    }

    /// Writes are closed: lease over, database died, told so.
    #[must_use]
    pub fn closed(&self) -> Self {
        Self {
            writable: false,
            ..self.clone()
        }
    }

    /// The address is on our NIC.
    pub fn held(&self) -> Moved {
        match self.role {
            Role::Source | Role::Unconfigured if matches!(self.switch, Some(Switch::Leaving { fenced: true, .. })) => {
                Err(Refused::Closed)
            }
            Role::Source | Role::Unconfigured => Ok(Self {
                vip: VipState::Held,
                ..self.clone()
            }),
            found => Err(Refused::Role {
                needed: Role::Source,
                found,
            }),
        }
    }

    /// The address is not on our NIC any more.
    #[must_use]
    pub fn let_go(&self) -> Self {
        let vip = if self.vip == VipState::None {
            VipState::None
        } else {
            VipState::Released
        };
        Self { vip, ..self.clone() }
    }

    /// Somebody else answers for the address: it is not ours, and writes are closed.
    #[must_use]
    pub fn conflicted(&self) -> Self {
        Self {
            vip: VipState::Conflict,
            writable: false,
            ..self.clone()
        }
    }

    // --- what comes from outside ---

    /// Another guest of the pair has this generation. A higher one than ours demotes us at once (R6); the answer says whether.
    #[must_use]
    pub fn saw_generation(&self, other: u64) -> (Self, bool) {
        let ours = match &self.switch {
            // A candidate that has asked expects its own next generation at the source.
            Some(Switch::Candidate { next, asked: true, .. }) => *next,
            _ => self.generation,
        };
        if self.role == Role::Unconfigured || other <= ours || self.superseded_by.is_some_and(|seen| seen >= other) {
            return (self.clone(), false);
        }
        let demoted = Self {
            role: Role::Detached,
            writable: false,
            vip: VipState::Released,
            generation: self.generation,
            switch: None,
            superseded_by: Some(other),
        };
        (demoted, true)
    }

    /// The other guest says that it is a source that lets clients write. A higher generation demotes us (R6); at the same one, which only
    /// a person's word can have given twice, who is closed yields to who is open. The answer says whether we are demoted.
    #[must_use]
    pub fn met_source(&self, other: u64) -> (Self, bool) {
        if self.role == Role::Source && !self.writable && self.switch.is_none() && other == self.generation {
            let demoted = Self {
                role: Role::Detached,
                vip: VipState::Released,
                superseded_by: Some(other),
                ..self.clone()
            };
            return (demoted, true);
        }
        self.saw_generation(other)
    }

    /// It follows the source of this generation.
    pub fn rejoined(&self, generation: u64) -> Moved {
        self.idle()?;
        match self.role {
            Role::Replica | Role::Detached if generation >= self.highest() => Ok(Self {
                role: Role::Replica,
                writable: false,
                vip: VipState::Released,
                generation,
                switch: None,
                superseded_by: None,
            }),
            Role::Replica | Role::Detached => Err(Refused::Generation {
                given: generation,
                ours: self.highest(),
            }),
            found => Err(Refused::Role {
                needed: Role::Detached,
                found,
            }),
        }
    }

    /// The machine or its database has started: nothing is raised (R4). Who was unconfigured stays as open as it was, without the
    /// address.
    #[must_use]
    pub fn booted(&self) -> Self {
        Self {
            writable: self.writable && self.role == Role::Unconfigured,
            ..self.let_go()
        }
    }
}
