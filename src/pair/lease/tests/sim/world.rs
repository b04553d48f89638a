//! The machinery of the world: time, network, processes, and what the agents do with the lease.

use super::*;
use std::collections::BinaryHeap;
use std::ops::Range;

mod agents;
mod faults;

pub use faults::Fault;

const WITNESS: usize = 2;
const TICK: Real = 200_000;
const ANSWER_LIMIT: Real = 500_000;

#[derive(Debug, Clone)]
enum Ask {
    Ping {
        generation: u64,
        ping: Ping,
    },
    Away {
        generation: u64,
        within: Duration,
        number: u64,
        sent: Moment,
    },
    Fence {
        generation: u64,
        attempt: u64,
        asked: Moment,
    },
    Unfence {
        generation: u64,
        attempt: u64,
    },
}

#[derive(Debug, Clone)]
enum Tell {
    Echo {
        seq: u64,
        hold: Option<u64>,
    },
    Newer(u64),
    Refused {
        started: Moment,
        within: Option<(Moment, Duration)>,
    },
    Noted {
        sent: Moment,
        within: Duration,
    },
    Promised {
        asked: Moment,
        attempt: u64,
        ago: Option<Duration>,
    },
    Standing(Option<u64>),
}

#[derive(Debug, Clone)]
enum What {
    Asked { from: usize, life: u64, at: Moment, ask: Ask },
    Told { life: u64, tell: Tell },
    Tick { life: u64 },
    Fault(Fault),
    Resume,
    Start { life: u64 },
    Die { life: u64, ms: u64 },
}

#[derive(Clone, Copy, PartialEq)]
enum Process {
    Runs,
    Paused,
    /// Its kernel refuses connections.
    Dead,
    /// And so does nobody.
    Off,
}

struct Host {
    process: Process,
    life: u64,
    rate: i64,
    offset: u64,
    waiting: Vec<What>,
}

pub enum Role {
    Source(SourceLease),
    Replica(ReplicaWatch),
}

/// A guest: what is on its disk, in its kernel, and in its agent.
pub struct Guest {
    pub generation: u64,
    is_source: bool,
    alone: bool,
    door: Option<Moment>,
    role: Role,
    stopping: bool,
    to_unfence: Option<u64>,
}

pub struct World {
    now: Real,
    seed: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(Real, u64, usize)>>,
    events: BTreeMap<u64, What>,
    hosts: [Host; 3],
    pub guests: [Guest; 2],
    grants: Grants<()>,
    witness: bool,
    forgetful: bool,
    insist: bool,
    cut: [[Real; 3]; 3],
    lossy: (u64, Real),
    slow: (u64, Real),
    numbers: u64,
    pub promotions: u64,
    pub watch_door: Option<Range<Real>>,
}

impl World {
    pub fn new(seed: u64, rates: [i64; 3], witness: bool, forgetful: bool, insist: bool) -> Self {
        let host = |at: usize| Host {
            process: Process::Runs,
            life: 1,
            rate: rates[at],
            offset: seed.rotate_left(at as u32 * 7) % 1_000_000_000,
            waiting: Vec::new(),
        };
        let guest = |role| Guest {
            generation: 1,
            is_source: matches!(role, Role::Source(_)),
            alone: false,
            door: None,
            role,
            stopping: false,
            to_unfence: None,
        };
        let hosts = [host(0), host(1), host(2)];
        let started = Moment::from_micros(hosts[2].offset);
        let mut world = Self {
            now: 0,
            seed,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            hosts,
            guests: [
                guest(Role::Source(SourceLease::new(terms(), Moment::ZERO, None))),
                guest(Role::Replica(ReplicaWatch::new(terms(), 1, witness))),
            ],
            grants: Grants::new(terms(), started, []),
            witness,
            forgetful,
            insist,
            cut: [[0; 3]; 3],
            lossy: (0, 0),
            slow: (0, 0),
            numbers: 0,
            promotions: 0,
            watch_door: None,
        };
        for host in 0..2 {
            let first = world.random(TICK);
            world.push(first, host, What::Tick { life: 1 });
        }
        world
    }

    pub fn plan(&mut self, at: Real, fault: Fault) {
        self.push(at, 0, What::Fault(fault));
    }

    pub fn run(&mut self) -> Result<(), TestCaseError> {
        let mut served = false;
        while let Some(Reverse((at, id, host))) = self.queue.pop() {
            let what = self.events.remove(&id).expect("each event is queued once");
            self.now = at;
            if at > END {
                break;
            }
            self.event(host, what)?;
            let open = [self.is_open(0), self.is_open(1)];
            prop_assert!(!(open[0] && open[1]), "both doors are open at {at}");
            let newest = self.guests[0].generation.max(self.guests[1].generation);
            for (guest, open) in self.guests.iter().zip(open) {
                // A witness that forgets may let an old source in again; then at least nobody else is in.
                let may = self.forgetful && self.witness;
                prop_assert!(
                    !open || may || guest.generation == newest,
                    "an old source's door is open at {at}"
                );
            }
            if self.watch_door.as_ref().is_some_and(|time| time.contains(&at)) {
                prop_assert!(open[0] || open[1], "the door closed at {at}");
            }
            served |= at > END - SECOND && (open[0] || open[1]);
        }
        prop_assert!(served, "all is well, and no door is open");
        prop_assert!(self.guests[0].is_source != self.guests[1].is_source);
        prop_assert_eq!(self.guests[0].generation, self.guests[1].generation);
        Ok(())
    }

    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn push(&mut self, at: Real, host: usize, what: What) {
        self.order += 1;
        self.events.insert(self.order, what);
        self.queue.push(Reverse((at, self.order, host)));
    }

    fn local(&self, host: usize) -> Moment {
        let Host { rate, offset, .. } = self.hosts[host];
        let passed = i64::try_from(self.now).expect("the world is young");
        Moment::from_micros(offset + (passed + passed * rate / 1_000_000).unsigned_abs())
    }

    fn is_open(&self, guest: usize) -> bool {
        self.guests[guest].door.is_some_and(|until| until > self.local(guest))
    }

    /// How long a message takes; `None`: it is lost.
    fn travel(&mut self, from: usize, to: usize) -> Option<Real> {
        let lost = self.random(100) < if self.now < self.lossy.1 { self.lossy.0 } else { 0 };
        if lost || self.now < self.cut[from][to] {
            return None;
        }
        let most = if self.now < self.slow.1 { self.slow.0 * 1000 } else { 5000 };
        Some(100 + self.random(most))
    }

    fn ask(&mut self, from: usize, to: usize, ask: Ask) {
        if to == WITNESS && !self.witness {
            return;
        }
        let (life, at) = (self.hosts[from].life, self.local(from));
        if let Some(delay) = self.travel(from, to) {
            self.push(self.now + delay, to, What::Asked { from, life, at, ask });
        }
    }

    fn tell(&mut self, from: usize, to: usize, life: u64, tell: Tell) {
        if let Some(delay) = self.travel(from, to) {
            self.push(self.now + delay, to, What::Told { life, tell });
        }
    }

    fn event(&mut self, host: usize, what: What) -> Result<(), TestCaseError> {
        match what {
            What::Fault(fault) => self.strike(fault),
            What::Resume => return self.resume(host),
            What::Start { life } if self.hosts[host].life == life => self.start(host),
            What::Die { life, ms } if self.hosts[host].life == life => self.kill(host, Process::Dead, ms),
            What::Start { .. } | What::Die { .. } => {}
            other => match self.hosts[host].process {
                Process::Runs => return self.handle(host, other),
                Process::Paused => self.hosts[host].waiting.push(other),
                Process::Dead => self.refuse(host, other),
                Process::Off => {}
            },
        }
        Ok(())
    }

    fn refuse(&mut self, host: usize, what: What) {
        if let What::Asked { from, life, at, ask } = what {
            let within = match ask {
                Ask::Away { sent, within, .. } => Some((sent, within)),
                _ => None,
            };
            if host != WITNESS && from != WITNESS && matches!(ask, Ask::Ping { .. } | Ask::Away { .. }) {
                self.tell(host, from, life, Tell::Refused { started: at, within });
            }
        }
    }

    fn start(&mut self, host: usize) {
        self.hosts[host].process = Process::Runs;
        let (now, life) = (self.local(host), self.hosts[host].life);
        if host == WITNESS {
            let kept = self.grants.kept(&());
            let kept = if self.forgetful { None } else { Some(((), kept)) };
            self.grants = Grants::new(terms(), now, kept);
            return;
        }
        let guest = &mut self.guests[host];
        guest.stopping = false;
        guest.to_unfence = Some(1);
        guest.role = match (guest.is_source, guest.alone) {
            (true, true) => Role::Source(SourceLease::alone(terms())),
            (true, false) => {
                let left = guest.door.and_then(|until| until.checked_sub(now));
                Role::Source(SourceLease::new(terms(), now, left))
            }
            (false, _) => Role::Replica(ReplicaWatch::new(terms(), guest.generation, self.witness)),
        };
        self.push(self.now, host, What::Tick { life });
    }

    /// What waited comes in any order: sockets and timers are looked at as they please.
    fn resume(&mut self, host: usize) -> Result<(), TestCaseError> {
        if self.hosts[host].process != Process::Paused {
            return Ok(());
        }
        self.hosts[host].process = Process::Runs;
        let mut waiting = std::mem::take(&mut self.hosts[host].waiting);
        while !waiting.is_empty() {
            let at = usize::try_from(self.random(waiting.len() as u64)).expect("an index");
            self.handle(host, waiting.swap_remove(at))?;
        }
        Ok(())
    }

    fn handle(&mut self, host: usize, what: What) -> Result<(), TestCaseError> {
        match what {
            What::Asked { from, life, ask, .. } if host == WITNESS => {
                if let Some(tell) = self.witnessed(ask) {
                    self.tell(host, from, life, tell);
                }
            }
            What::Asked { from, life, ask, .. } => {
                if let Some(tell) = self.answered(host, ask) {
                    self.tell(host, from, life, tell);
                }
            }
            What::Told { life, tell } if self.hosts[host].life == life => self.told(host, tell),
            What::Tick { life } if self.hosts[host].life == life => {
                self.tick(host)?;
                let next = self.now + TICK - 10_000 + self.random(20_000);
                self.push(next, host, What::Tick { life });
            }
            _ => {}
        }
        self.set_door(host);
        Ok(())
    }
}
