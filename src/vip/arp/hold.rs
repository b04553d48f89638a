//! Putting the VIP on the NIC and taking it off.

use super::actor::{Actor, Held, Phase, Reply, missing};
use super::rhythm::Rhythm;
use super::watch::LOOK_EACH;
use crate::vip::rtnl::Found;
use crate::vip::{Address, Mac, VipError, VipEvent};
use datastore_api::Change;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{info, warn};

/// How long the source of a planned switchover may still be heard without being a rival.
const EXPECTED_FOR: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) fn hold(&mut self, expected: Vec<Mac>) -> Result<Change, VipError> {
        let was_held = matches!(self.phase, Phase::Held(_));
        if !was_held {
            self.see_link()?;
            if !self.nic.up {
                return Err(VipError::LinkDown(self.nic.name.clone()));
            }
        }
        let found = self.look()?;
        let mut change = Change::Unchanged;
        for address in missing(&self.vip, &found) {
            match self.add(address, &found) {
                Ok(added) => change = added.or(change),
                Err(error) => {
                    if !was_held {
                        // All or nothing.
                        self.stop_holding();
                        let _ = self.remove_all();
                    }
                    return Err(error);
                }
            }
        }
        let now = Instant::now();
        self.stop_holding();
        self.phase = Phase::Held(Held {
            rhythm: Rhythm::begun(now),
            look: now + LOOK_EACH,
            expected,
            expected_until: now + EXPECTED_FOR,
            put_back: None,
            alive: now,
            wary: None,
            defended: None,
            told: Vec::new(),
        });
        self.send_all(false);
        let all = self.vip.addresses().to_vec();
        self.state.send_modify(|state| {
            (state.held, state.wanted, state.link, state.reason) = (true, true, true, None);
            state.addresses = all;
            state.rivals.clear();
        });
        if !was_held {
            info!(vip = %self.vip, nic = self.nic.name, added = change == Change::Done, "the service address is held");
            self.event(VipEvent::Held);
        }
        Ok(change)
    }

    /// Adds one address and says so on the wire at once. What the kernel found to be somebody else's is made anew.
    pub(super) fn add(&mut self, address: Address, found: &[Found]) -> Result<Change, VipError> {
        for broken in found.iter().filter(|found| found.ip == address.ip() && !found.usable) {
            self.rtnl.remove(broken)?;
        }
        let change = self.rtnl.add(&address, &self.nic)?;
        if let Err(error) = self.send(address.ip(), false) {
            warn!(%address, %error, "the first announcement could not be sent");
        }
        Ok(change)
    }

    pub(super) fn release(&mut self, linger: Duration, reply: Reply<Change>) {
        let mut replies = vec![reply];
        let mut at = Instant::now() + linger;
        match std::mem::replace(&mut self.phase, Phase::Released) {
            Phase::Leaving {
                at: sooner,
                replies: waiting,
            } => {
                at = at.min(sooner);
                replies.extend(waiting);
            }
            Phase::Released => at = Instant::now(),
            Phase::Held(_) => {}
        }
        self.state
            .send_modify(|state| (state.held, state.wanted, state.reason) = (false, false, None));
        self.phase = Phase::Leaving { at, replies };
        if at <= Instant::now() {
            self.leave();
        }
    }

    /// Takes the addresses off the NIC and answers all who wait for it.
    pub(super) fn leave(&mut self) {
        let Phase::Leaving { replies, .. } = std::mem::replace(&mut self.phase, Phase::Released) else {
            return;
        };
        let mut outcome = self.remove_all();
        match &outcome {
            Ok(Change::Done) => {
                info!(vip = %self.vip, nic = self.nic.name, "the service address is released");
                self.event(VipEvent::Released);
            }
            Ok(Change::Unchanged) => {}
            Err(error) => {
                let reason = error.to_string();
                self.state.send_modify(|state| state.reason = Some(reason));
            }
        }
        let _ = self.look();
        for reply in replies {
            // The error goes to the first; the others are told the same in short.
            let again = match &outcome {
                Ok(change) => Ok(*change),
                Err(error) => Err(VipError::Plane {
                    doing: "remove the service address",
                    problem: error.to_string(),
                }),
            };
            let _ = reply.send(std::mem::replace(&mut outcome, again));
        }
    }

    /// Those that were told to wait for the end of a linger learn that it was held again.
    fn stop_holding(&mut self) {
        if let Phase::Leaving { replies, .. } = std::mem::replace(&mut self.phase, Phase::Released) {
            for reply in replies {
                let _ = reply.send(Err(VipError::Plane {
                    doing: "remove the service address",
                    problem: "it was asked to be held again meanwhile".to_owned(),
                }));
            }
        }
    }

    fn remove_all(&mut self) -> Result<Change, VipError> {
        let (mut change, mut refused) = (Change::Unchanged, None);
        for found in self.look()? {
            match self.rtnl.remove(&found) {
                Ok(removed) => change = removed.or(change),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(change), Err)
    }
}
