//! Two machines as their agents drive them, and the network between them: state and what a message does.

use super::*;

/// How much of a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Power {
    /// Nothing. It boots from here.
    Off,
    /// The database with its door; no agent.
    NoAgent,
    On,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Guest {
    /// On disk: written before anything is done or answered.
    pub state: RoleState,
    pub power: Power,
    /// Answers to a former run of the agent find nobody.
    pub run: u8,
    /// Since the boot the peer (or an operator) has said that it is no source beside us. Lost with the agent unless writes are open.
    pub checked: bool,
    /// As source: a replica of this generation was pinged, so the door is leased. Before that nobody can take over by itself.
    pub armed: bool,
    /// The lease runs.
    pub lease: bool,
    /// As replica: a ping of a source of our own generation has come since the boot. Only then silence means something.
    pub confirmed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Message {
    Begin(String, u64),
    Begun(String),
    Fence(String),
    Fenced(String),
    Release(String, u64),
    Released(String),
    Denied(String),
    /// "I take over with this generation": the other closes first, then says so.
    Demote(u64),
    Closed(u64),
    Check,
    Peer(Role, u64, bool),
    Ping(u64),
    /// The answer to a ping; `true` while the lease that it brings has not ended.
    Echo(u64, bool),
}

/// A message under way. All carry the generation of their sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub to: usize,
    pub generation: u64,
    /// Run of the agent that asked.
    pub run: u8,
    pub message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Joint {
    pub guests: [Guest; 2],
    pub net: Vec<Flight>,
    pub automatic: bool,
    pub operations: u32,
}

impl Guest {
    fn new(role: Role) -> Self {
        Self {
            state: RoleState::default().configured(role, 1).unwrap(),
            power: Power::On,
            run: 0,
            checked: true,
            armed: false,
            lease: false,
            confirmed: false,
        }
    }

    /// Whether a client's write would be acknowledged.
    pub fn writes(&self, automatic: bool) -> bool {
        self.power != Power::Off && self.state.writable && (!automatic || !self.armed || self.lease)
    }

    pub fn highest(&self) -> u64 {
        let planned = match &self.state.switch {
            Some(Switch::Candidate { next, .. }) => next - 1,
            _ => 0,
        };
        self.state.highest().max(planned)
    }

    pub fn is(&self, role: Role) -> bool {
        self.state.role == role
    }

    /// The new state; what belongs to the old role or generation is over.
    pub fn set(&mut self, state: RoleState) {
        if (state.role, state.generation) != (self.state.role, self.state.generation) {
            (self.armed, self.lease, self.confirmed) = (false, false, false);
        }
        self.state = state;
    }

    /// Sets the state unless it was refused.
    pub fn try_set(&mut self, moved: Moved) -> bool {
        moved.map(|state| self.set(state)).is_ok()
    }
}

impl Joint {
    pub fn new(automatic: bool) -> Self {
        Self {
            guests: [Guest::new(Role::Source), Guest::new(Role::Replica)],
            net: Vec::new(),
            automatic,
            operations: 0,
        }
    }

    pub fn writers(&self) -> usize {
        self.guests.iter().filter(|guest| guest.writes(self.automatic)).count()
    }

    /// One serves, the other follows it.
    pub fn healthy(&self) -> bool {
        let [a, b] = &self.guests;
        let serves = |guest: &Guest| {
            guest.is(Role::Source)
                && guest.writes(self.automatic)
                && guest.state.vip == VipState::Held
                && guest.state.switch.is_none()
        };
        let follows = |guest: &Guest| guest.is(Role::Replica) && guest.power == Power::On && guest.state.switch.is_none();
        a.state.generation == b.state.generation && (serves(a) && follows(b) || serves(b) && follows(a))
    }

    pub fn ask(&mut self, from: usize, message: Message) {
        let guest = &self.guests[from];
        self.send(1 - from, guest.state.generation, guest.run, message);
    }

    fn send(&mut self, to: usize, generation: u64, run: u8, message: Message) {
        let flight = Flight {
            to,
            generation,
            run,
            message,
        };
        if !self.net.contains(&flight) {
            self.net.push(flight);
        }
    }

    /// What the agent does with a message. What is answered was written before.
    pub fn receive(&mut self, flight: &Flight) {
        let at = flight.to;
        let guest = &mut self.guests[at];
        if guest.power != Power::On {
            return;
        }
        let demoted = guest.state.saw_generation(flight.generation).0;
        guest.set(demoted);
        let answer = match &flight.message {
            Message::Begin(op, next) => guest
                .try_set(guest.state.begin_leaving(op, *next))
                .then(|| Message::Begun(op.clone())),
            Message::Fence(op) => guest.try_set(guest.state.fenced(op)).then(|| Message::Fenced(op.clone())),
            Message::Release(op, next) => Some(guest.release(op, *next)),
            Message::Demote(next) => {
                let demoted = guest.state.saw_generation(*next).0;
                guest.set(demoted);
                Some(if guest.is(Role::Source) {
                    guest.tell()
                } else {
                    Message::Closed(*next)
                })
            }
            Message::Check => Some(guest.tell()),
            Message::Ping(generation) => {
                let ours = guest.is(Role::Replica) && guest.state.generation == *generation;
                guest.confirmed |= ours;
                ours.then_some(Message::Echo(*generation, true))
            }
            answer => {
                if flight.run == guest.run {
                    let answer = answer.clone();
                    self.answered(at, &answer);
                }
                return;
            }
        };
        let generation = self.guests[at].state.generation;
        if let Some(answer) = answer {
            self.send(1 - at, generation, flight.run, answer);
        }
    }

    fn answered(&mut self, at: usize, answer: &Message) {
        let guest = &mut self.guests[at];
        match answer {
            Message::Begun(op) if guest.state.switching() == Some(op) => self.ask(at, Message::Fence(op.clone())),
            Message::Fenced(op) => {
                guest.try_set(guest.state.asked(op));
                self.ask_release(at);
            }
            Message::Released(op) => {
                let promoted = guest.try_set(guest.state.promoted(op));
                guest.checked |= promoted;
            }
            Message::Denied(op) => {
                guest.try_set(guest.state.gave_up(op, true));
            }
            Message::Closed(next) => {
                let over = guest.try_set(guest.state.taken_over(*next, Evidence::Released));
                guest.checked |= over;
            }
            Message::Peer(Role::Source, generation, writable) => {
                let state = if *writable {
                    guest.state.met_source(*generation).0
                } else {
                    guest.state.clone()
                };
                guest.set(state);
                if !guest.is(Role::Source) {
                    guest.try_set(guest.state.rejoined(*generation));
                }
            }
            Message::Peer(..) => guest.checked |= guest.is(Role::Source),
            Message::Echo(generation, valid) => {
                guest.lease |= *valid && guest.is(Role::Source) && guest.state.generation == *generation;
            }
            _ => {}
        }
    }

    /// A candidate that has asked asks (again).
    pub fn ask_release(&mut self, at: usize) {
        if let Some(Switch::Candidate { op, next, asked: true }) = self.guests[at].state.switch.clone() {
            self.ask(at, Message::Release(op, next));
        }
    }
}

impl Guest {
    fn tell(&self) -> Message {
        Message::Peer(self.state.role, self.state.generation, self.state.writable)
    }

    /// The decision, or that it will never be made. Who is a replica of this very generation has released it before.
    fn release(&mut self, op: &str, next: u64) -> Message {
        let before = self.is(Role::Replica) && self.state.generation == next;
        if before || self.try_set(self.state.released(op)) {
            return Message::Released(op.to_owned());
        }
        self.try_set(self.state.stayed(op));
        Message::Denied(op.to_owned())
    }
}
