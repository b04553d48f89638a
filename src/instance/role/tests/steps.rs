//! What may happen to two guests, at random and at will; and how their agents bring them back to health.

use super::joint::{Joint, Message, Power};
use super::*;

/// Something that may happen. The number is the guest it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Deliver {
        message: usize,
        again: bool,
    },
    Lose(usize),
    PowerOff(usize),
    Boot(usize),
    AgentDies(usize),
    AgentStarts(usize),
    DatabaseRestarts(usize),
    Switchover(usize),
    SendAgain(usize),
    GiveUp(usize),
    GoBack(usize),
    Check(usize),
    Open(usize),
    Close(usize),
    Hold(usize),
    LetGo(usize),
    Conflict(usize),
    AskToTakeOver(usize),
    /// A person says that the other is dead, and it is.
    OperatorFailover(usize),
    /// A person says to a source that the other is dead, and it is.
    OperatorOpen(usize),
    LeaseOver(usize),
    Ping(usize),
    /// The other's host answers that no agent runs there, and that is so: the lease goes on.
    Refused(usize),
}

/// All steps of one guest.
pub(super) fn of_guest(at: usize) -> [Step; 21] {
    use Step::*;
    [
        PowerOff(at),
        Boot(at),
        AgentDies(at),
        AgentStarts(at),
        DatabaseRestarts(at),
        Switchover(at),
        SendAgain(at),
        GiveUp(at),
        GoBack(at),
        Check(at),
        Open(at),
        Close(at),
        Hold(at),
        LetGo(at),
        Conflict(at),
        AskToTakeOver(at),
        OperatorFailover(at),
        OperatorOpen(at),
        LeaseOver(at),
        Ping(at),
        Refused(at),
    ]
}

impl Joint {
    /// Does it if it can happen now. Answers whether it did.
    pub fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Deliver { message, again } => {
                let Some(flight) = self.net.get(message).cloned() else {
                    return false;
                };
                if !again {
                    self.net.remove(message);
                }
                self.receive(&flight);
                true
            }
            Step::Lose(message) => {
                message < self.net.len() && {
                    self.net.remove(message);
                    true
                }
            }
            Step::PowerOff(at) => self.power(at, &[Power::On, Power::NoAgent], Power::Off),
            Step::AgentDies(at) => self.power(at, &[Power::On], Power::NoAgent),
            Step::AgentStarts(at) => {
                self.power(at, &[Power::NoAgent], Power::On) && {
                    let guest = &mut self.guests[at];
                    guest.run += 1;
                    guest.checked = guest.state.writable;
                    true
                }
            }
            Step::Boot(at) => {
                self.power(at, &[Power::Off], Power::On) && {
                    let guest = &mut self.guests[at];
                    guest.run += 1;
                    guest.set(guest.state.booted());
                    (guest.checked, guest.lease, guest.confirmed) = (false, false, false);
                    true
                }
            }
            Step::DatabaseRestarts(at)
            | Step::Switchover(at)
            | Step::SendAgain(at)
            | Step::GiveUp(at)
            | Step::GoBack(at)
            | Step::Check(at)
            | Step::Open(at)
            | Step::Close(at)
            | Step::Hold(at)
            | Step::LetGo(at)
            | Step::Conflict(at)
            | Step::AskToTakeOver(at)
            | Step::OperatorFailover(at)
            | Step::OperatorOpen(at)
            | Step::LeaseOver(at)
            | Step::Ping(at)
            | Step::Refused(at) => self.guests[at].power == Power::On && self.agent(at, step),
        }
    }

    fn power(&mut self, at: usize, from: &[Power], to: Power) -> bool {
        let guest = &mut self.guests[at];
        let can = from.contains(&guest.power);
        if can {
            guest.power = to;
        }
        can
    }

    /// What an agent does by itself or is told to do.
    fn agent(&mut self, at: usize, step: Step) -> bool {
        let other = self.guests[1 - at].power;
        let automatic = self.automatic;
        let guest = &mut self.guests[at];
        let next = guest.highest() + 1;
        match step {
            Step::DatabaseRestarts(_) => {
                guest.set(guest.state.booted());
                guest.checked = false;
                true
            }
            Step::Switchover(_) => {
                let op = format!("{}", self.operations);
                guest.try_set(guest.state.begin_candidate(&op, next)) && {
                    self.operations += 1;
                    self.ask(at, Message::Begin(op, next));
                    true
                }
            }
            Step::SendAgain(_) => match guest.state.switch.clone() {
                Some(Switch::Candidate { op, next, asked: false }) => {
                    self.ask(at, Message::Begin(op, next));
                    true
                }
                Some(Switch::Candidate { asked: true, .. }) => {
                    self.ask_release(at);
                    true
                }
                _ => false,
            },
            Step::GiveUp(_) => match guest.state.switch.clone() {
                Some(Switch::Candidate { op, .. }) => guest.try_set(guest.state.gave_up(&op, false)),
                _ => false,
            },
            Step::GoBack(_) => match guest.state.switch.clone() {
                Some(Switch::Leaving { op, .. }) => guest.try_set(guest.state.stayed(&op)),
                _ => false,
            },
            Step::Check(_) => {
                self.ask(at, Message::Check);
                true
            }
            Step::Open(_) => guest.checked && guest.try_set(guest.state.opened()),
            Step::Close(_) => guest.try_set(Ok(guest.state.closed())),
            Step::Hold(_) => guest.try_set(guest.state.held()),
            Step::LetGo(_) => guest.try_set(Ok(guest.state.let_go())),
            Step::Conflict(_) => guest.try_set(Ok(guest.state.conflicted())),
            Step::AskToTakeOver(_) => {
                !guest.is(Role::Source) && {
                    self.ask(at, Message::Demote(next));
                    true
                }
            }
            Step::OperatorFailover(_) => {
                other == Power::Off && guest.try_set(guest.state.taken_over(next, Evidence::Operator)) && {
                    guest.checked = true;
                    true
                }
            }
            Step::OperatorOpen(_) => {
                other == Power::Off && guest.is(Role::Source) && {
                    (guest.checked, guest.armed) = (true, false);
                    guest.try_set(guest.state.opened())
                }
            }
            Step::LeaseOver(_) => {
                automatic && guest.confirmed && guest.try_set(guest.state.taken_over(next, Evidence::LeaseOver)) && {
                    guest.checked = true;
                    self.lease_ends(1 - at);
                    true
                }
            }
            Step::Ping(_) => {
                automatic && guest.is(Role::Source) && {
                    // The first ping of a generation begins the lease.
                    guest.lease |= !guest.armed;
                    guest.armed = true;
                    let generation = guest.state.generation;
                    self.ask(at, Message::Ping(generation));
                    true
                }
            }
            Step::Refused(_) => {
                // It keeps a lease alive; one that has ended stays ended, for the agent that is gone may have taken over before.
                guest.lease && other == Power::NoAgent
            }
            _ => false,
        }
    }

    /// Time passes without an answer: the door of this guest closes, and answers under way bring nothing any more.
    fn lease_ends(&mut self, at: usize) {
        self.guests[at].lease = false;
        for flight in &mut self.net {
            if let (true, Message::Echo(_, valid)) = (flight.to == at, &mut flight.message) {
                *valid = false;
            }
        }
    }

    /// What two living agents do while the network works: everything that is sent arrives, and each acts on what it knows. The last
    /// resort is a person who turns one of them off.
    pub fn heal(&mut self) -> bool {
        for round in 0..40 {
            for at in [0, 1] {
                self.step(Step::Boot(at));
                self.step(Step::AgentStarts(at));
            }
            for at in [0, 1] {
                self.tend(at, round);
            }
            while !self.net.is_empty() {
                self.step(Step::Deliver {
                    message: 0,
                    again: false,
                });
            }
            if self.healthy() {
                return true;
            }
            if round == 30 {
                self.step(Step::PowerOff(1));
                self.step(Step::OperatorFailover(0));
                self.step(Step::LetGo(0));
                self.step(Step::OperatorOpen(0));
            }
        }
        false
    }

    fn tend(&mut self, at: usize, round: usize) {
        match self.guests[at].state.switch {
            Some(Switch::Candidate { asked: false, .. }) => drop(self.step(Step::GiveUp(at))),
            Some(Switch::Candidate { asked: true, .. }) => drop(self.step(Step::SendAgain(at))),
            Some(Switch::Leaving { .. }) if round > 3 => drop(self.step(Step::GoBack(at))),
            _ => {}
        }
        self.step(Step::Check(at));
        if self.guests[at].is(Role::Source) {
            self.step(Step::LetGo(at));
            self.step(Step::Open(at));
            self.step(Step::Hold(at));
            self.step(Step::Ping(at));
        } else if round > 8 && round % 4 == 2 * at {
            self.step(Step::AskToTakeOver(at));
        }
    }
}
