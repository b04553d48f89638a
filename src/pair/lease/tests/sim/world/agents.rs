//! What the agents and the witness do with the lease, as the real ones do.

use super::*;

impl World {
    pub(super) fn witnessed(&mut self, ask: Ask) -> Option<Tell> {
        let now = self.local(WITNESS);
        match ask {
            Ask::Ping { generation, ping } => match self.grants.ping(&(), generation, now) {
                Ok(()) => Some(Tell::Echo {
                    seq: ping.seq,
                    hold: None,
                }),
                Err(Denied::Newer { generation }) => Some(Tell::Newer(generation)),
                Err(_) => None,
            },
            Ask::Fence {
                generation,
                attempt,
                asked,
            } => {
                let ago = self.grants.fence(&(), generation, attempt, self.insist, now).ok()?;
                Some(Tell::Promised { asked, attempt, ago })
            }
            Ask::Unfence { generation, attempt } => Some(Tell::Standing(self.grants.unfence(&(), generation, attempt))),
            Ask::Away { .. } => None,
        }
    }

    pub(super) fn answered(&mut self, host: usize, ask: Ask) -> Option<Tell> {
        let now = self.local(host);
        let asked = match ask {
            Ask::Ping { generation, .. } | Ask::Away { generation, .. } => generation,
            Ask::Fence { .. } | Ask::Unfence { .. } => return None,
        };
        if self.guests[host].is_source {
            if asked <= self.guests[host].generation {
                return Some(Tell::Newer(self.guests[host].generation));
            }
            self.demote(host, asked);
        }
        let guest = &mut self.guests[host];
        let Role::Replica(watch) = &mut guest.role else { return None };
        let heard = match &ask {
            Ask::Ping { ping, .. } => watch.heard(now, asked, ping.arms, ping.ends_hold),
            Ask::Away { within, number, .. } => watch.away(now, asked, *within, *number),
            Ask::Fence { .. } | Ask::Unfence { .. } => return None,
        };
        guest.generation = watch.generation();
        match (heard, ask) {
            (Heard::Denied { generation }, _) => Some(Tell::Newer(generation)),
            (Heard::Echo { abandoned, hold }, Ask::Ping { ping, .. }) => {
                guest.to_unfence = abandoned.or(guest.to_unfence);
                Some(Tell::Echo { seq: ping.seq, hold })
            }
            (Heard::Echo { abandoned, .. }, Ask::Away { within, sent, .. }) => {
                guest.to_unfence = abandoned.or(guest.to_unfence);
                Some(Tell::Noted { sent, within })
            }
            (Heard::Echo { .. }, _) => None,
        }
    }

    fn demote(&mut self, host: usize, generation: u64) {
        let guest = &mut self.guests[host];
        (guest.is_source, guest.alone, guest.door, guest.generation) = (false, false, None, generation);
        guest.role = Role::Replica(ReplicaWatch::new(terms(), generation, self.witness));
        guest.to_unfence = Some(1);
    }

    pub(super) fn told(&mut self, host: usize, tell: Tell) {
        let now = self.local(host);
        if let Tell::Newer(generation) = tell {
            if generation > self.guests[host].generation {
                self.demote(host, generation);
            }
            return;
        }
        let guest = &mut self.guests[host];
        match (&mut guest.role, tell) {
            (Role::Source(lease), Tell::Echo { seq, hold }) if !guest.stopping => {
                lease.echoed(seq, hold, now);
                guest.alone = lease.is_alone();
            }
            (Role::Source(lease), Tell::Refused { started, within: None }) => lease.refused(started, now),
            (
                Role::Source(lease),
                Tell::Refused {
                    started,
                    within: Some((_, within)),
                },
            ) => {
                lease.announced(started, within, true, now);
            }
            (Role::Source(lease), Tell::Noted { sent, within }) => {
                lease.announced(sent, within, false, now);
            }
            (Role::Replica(watch), Tell::Promised { asked, attempt, ago }) => watch.fence_promised(asked, now, attempt, ago),
            (Role::Replica(watch), Tell::Standing(standing)) => {
                guest.to_unfence = standing.filter(|standing| watch.attempt() != Some(*standing));
            }
            _ => {}
        }
    }

    pub(super) fn tick(&mut self, host: usize) -> Result<(), TestCaseError> {
        let now = self.local(host);
        let other = 1 - host;
        let guest = &mut self.guests[host];
        let generation = guest.generation;
        match &mut guest.role {
            Role::Source(_) if guest.stopping => {}
            Role::Source(lease) => {
                let ping = lease.ping(now);
                for to in [other, WITNESS] {
                    self.ask(host, to, Ask::Ping { generation, ping });
                }
            }
            Role::Replica(watch) => {
                let step = watch.step(now);
                if let (None, Some(attempt)) = (watch.attempt(), guest.to_unfence) {
                    self.ask(host, WITNESS, Ask::Unfence { generation, attempt });
                }
                match step {
                    Step::Fence => self.fence(host),
                    Step::Promote => self.promote(host)?,
                    Step::Unarmed | Step::Wait(_) | Step::Committed => {}
                }
            }
        }
        Ok(())
    }

    fn fence(&mut self, host: usize) {
        let asked = self.local(host);
        self.numbers += 1;
        let fresh = 1000 + self.numbers;
        let Role::Replica(watch) = &mut self.guests[host].role else {
            return;
        };
        let (attempt, generation) = (watch.fence_asked(asked, fresh), watch.generation());
        let ask = Ask::Fence {
            generation,
            attempt,
            asked,
        };
        self.ask(host, WITNESS, ask);
    }

    fn promote(&mut self, host: usize) -> Result<(), TestCaseError> {
        let now = self.local(host);
        prop_assert!(!self.is_open(1 - host), "promoted before an open door at {}", self.now);
        let witness = self.witness;
        let guest = &mut self.guests[host];
        let Role::Replica(watch) = &mut guest.role else {
            return Ok(());
        };
        guest.generation = watch.commit(now).expect("the step said so at this very moment");
        (guest.is_source, guest.alone) = (true, !witness);
        guest.role = Role::Source(if witness {
            SourceLease::new(terms(), now, None)
        } else {
            SourceLease::alone(terms())
        });
        self.promotions += 1;
        Ok(())
    }

    pub(super) fn set_door(&mut self, host: usize) {
        if host == WITNESS {
            return;
        }
        let now = self.local(host);
        let guest = &mut self.guests[host];
        guest.door = match &guest.role {
            Role::Source(lease) => lease.remaining(now).map(|left| now + left),
            Role::Replica(_) => None,
        };
    }
}
