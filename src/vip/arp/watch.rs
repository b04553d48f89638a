//! What others do to the VIP, and what is done about it.

use super::actor::{Actor, Phase, missing};
use super::rhythm::Rhythm;
use crate::vip::frames::Claim;
use crate::vip::monitor::News;
use crate::vip::rtnl::{Changed, Link};
use crate::vip::{Address, Mac, Rival, VipError, VipEvent};
use datastore_api::Change;
use std::io;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tracing::{info, warn};

/// An address is put back at most this often, so that a fight with another program costs little.
const PUT_BACK_EACH: Duration = Duration::from_millis(20);
/// What could not be put back is tried again after this.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// A rival is answered at most this often: two of our kind must not fill the network.
const DEFEND_EACH: Duration = Duration::from_millis(500);
/// A rival is forgotten after this.
const REMEMBER: Duration = Duration::from_mins(1);
/// More rivals than this are not kept.
const RIVALS: usize = 16;
/// A look at the kernel even if nothing was heard.
pub(super) const LOOK_EACH: Duration = Duration::from_secs(5);

impl Actor {
    /// The kernel told of changes.
    pub(super) fn news(&mut self, news: io::Result<News>) {
        let changes = match news {
            Ok(News::These(changes)) => changes,
            Ok(News::TooMuch) => {
                self.reconcile();
                if let Err(error) = self.see_link() {
                    warn!(%error, "the state of the data interface is unknown");
                }
                return;
            }
            Err(error) => return self.broken("watch links and addresses", &error),
        };
        let mut look = false;
        for change in changes {
            match change {
                Changed::Link(link) => self.link(link),
                Changed::LinkGone(index) if index == self.nic.index => {
                    let gone = Link {
                        up: false,
                        ..self.nic.clone()
                    };
                    self.link(gone);
                }
                Changed::LinkGone(_) => {}
                Changed::Address(found) | Changed::AddressGone(found) if !self.concerns(found.nic, found.ip) => {}
                Changed::Address(found) if found.dad_failed => {
                    if let Some(address) = self.address(found.ip) {
                        warn!(%address, "another host has the service address, says the kernel");
                        self.event(VipEvent::DadFailed(address));
                    }
                    look = true;
                }
                Changed::Address(_) | Changed::AddressGone(_) => look = true,
            }
        }
        if look {
            self.reconcile();
        }
    }

    fn concerns(&self, nic: u32, ip: std::net::IpAddr) -> bool {
        nic == self.nic.index && self.vip.contains(ip)
    }

    fn address(&self, ip: std::net::IpAddr) -> Option<Address> {
        self.vip.addresses().iter().copied().find(|address| address.ip() == ip)
    }

    /// Makes it so that what shall be held is there. Never more often than every 20 ms.
    pub(super) fn reconcile(&mut self) {
        let now = Instant::now();
        if let Phase::Held(held) = &mut self.phase
            && held.wary.is_some()
        {
            held.look = now + TRY_AGAIN;
            return;
        }
        if let Phase::Held(held) = &mut self.phase
            && let Some(last) = held.put_back
            && now < last + PUT_BACK_EACH
        {
            held.look = last + PUT_BACK_EACH;
            return;
        }
        let found = match self.look() {
            Ok(found) => found,
            Err(error) => return self.not_there(None, &error),
        };
        let Phase::Held(held) = &mut self.phase else { return };
        held.look = now + LOOK_EACH;
        let gone = missing(&self.vip, &found);
        if gone.is_empty() {
            self.state.send_if_modified(|state| {
                let changed = !state.held;
                state.held = true;
                if changed && state.link {
                    state.reason = None;
                }
                changed
            });
            return;
        }
        held.put_back = Some(now);
        held.rhythm = Rhythm::begun(now);
        for address in gone {
            match self.add(address, &found) {
                Ok(Change::Done) => {
                    warn!(%address, nic = self.nic.name, "somebody removed the service address; it was put back");
                    self.event(VipEvent::PutBack(address));
                }
                Ok(Change::Unchanged) => {}
                Err(error) => self.not_there(Some(address), &error),
            }
        }
        if let Ok(found) = self.look() {
            let held = missing(&self.vip, &found).is_empty();
            self.state.send_modify(|state| state.held = held);
        }
    }

    fn not_there(&mut self, address: Option<Address>, error: &VipError) {
        let Phase::Held(held) = &mut self.phase else { return };
        held.look = Instant::now() + TRY_AGAIN;
        let reason = error.to_string();
        let news = self.state.send_if_modified(|state| {
            let changed = state.reason.as_deref() != Some(&reason);
            (state.held, state.reason) = (false, Some(reason.clone()));
            changed
        });
        if news {
            warn!(vip = %self.vip, %error, "the service address could not be put back");
            if let Some(address) = address {
                self.event(VipEvent::Lost(address, reason));
            }
        }
    }

    /// Reads the state of the NIC, which may be another interface of the same name by now.
    pub(super) fn see_link(&mut self) -> Result<(), VipError> {
        let links = self.rtnl.links()?;
        let link = links.into_iter().find(|link| link.name == self.nic.name);
        self.link(link.ok_or_else(|| VipError::NoSuchNic(self.nic.name.clone()))?);
        Ok(())
    }

    fn link(&mut self, link: Link) {
        let renamed = link.index == self.nic.index && link.name != self.nic.name;
        if link.name != self.nic.name && !renamed {
            return;
        }
        let (was_up, other) = (self.nic.up, link.index != self.nic.index);
        let mac = link.mac.unwrap_or(self.mac);
        let other_mac = mac != self.mac;
        (self.nic, self.mac) = (link, mac);
        if other {
            info!(nic = self.nic.name, "the data interface is another one of the same name");
            if let Err(error) = self.open_packets() {
                self.broken("open a packet socket", &error);
            }
        } else if other_mac {
            self.make_frames();
        }
        let up = self.nic.up;
        if was_up != up {
            self.state.send_modify(|state| {
                state.link = up;
                state.reason = (!up).then(|| "the data interface is down or has no carrier".to_owned());
            });
            self.event(if up { VipEvent::LinkUp } else { VipEvent::LinkDown });
        }
        let Phase::Held(held) = &mut self.phase else { return };
        if up && (!was_up || other || other_mac) {
            held.put_back = None;
            held.rhythm = Rhythm::begun(Instant::now());
            if held.wary.is_none() {
                self.reconcile();
                self.send_all(false);
            }
        }
    }

    /// A frame came in.
    pub(super) fn heard(&mut self, claim: io::Result<Option<Claim>>) {
        match claim {
            Ok(Some(claim)) if claim.mac != self.mac && !claim.asks => self.rival(claim),
            Ok(_) => {}
            // The socket has said so once; it hears again when the NIC is up.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENETDOWN) => {}
            Err(error) => self.broken("hear the neighbours", &error),
        }
    }

    fn rival(&mut self, claim: Claim) {
        let now = Instant::now();
        let Some(address) = self.address(claim.ip) else { return };
        let Phase::Held(held) = &mut self.phase else { return };
        if now < held.expected_until && held.expected.contains(&claim.mac) {
            return;
        }
        self.remember(address, claim.mac);
        let Phase::Held(held) = &mut self.phase else { return };
        // After a pause others may rightly have it: they are reported, and whoever decides says `hold`, `announce` or `release`.
        let wary = held.wary.is_some();
        if wary {
            held.wary = Some(None);
        }
        let defend = !wary && held.defended.is_none_or(|last| now >= last + DEFEND_EACH);
        held.told.retain(|(_, _, when)| now < *when + DEFEND_EACH);
        let known = |told: &(Address, Mac, Instant)| (told.0, told.1) == (address, claim.mac);
        let tell = held.told.len() < RIVALS && !held.told.iter().any(known);
        if tell {
            held.told.push((address, claim.mac, now));
        }
        if defend {
            (held.defended, held.rhythm) = (Some(now), Rhythm::begun(now));
            self.send_all(false);
        }
        if tell {
            warn!(%address, rival = %claim.mac, "another host claims the service address");
            self.event(VipEvent::Rival { address, mac: claim.mac });
        }
    }

    fn remember(&self, address: Address, mac: Mac) {
        let last = SystemTime::now();
        self.state.send_modify(|state| {
            let recent = |rival: &Rival| last.duration_since(rival.last).is_ok_and(|age| age < REMEMBER);
            state.rivals.retain(recent);
            let room = state.rivals.len() < RIVALS;
            match state
                .rivals
                .iter_mut()
                .find(|rival| rival.address == address && rival.mac == mac)
            {
                Some(rival) => (rival.heard, rival.last) = (rival.heard + 1, last),
                None if room => state.rivals.push(Rival {
                    address,
                    mac,
                    heard: 1,
                    last,
                }),
                None => {}
            }
        });
    }

    fn broken(&mut self, doing: &'static str, error: &(dyn std::error::Error + 'static)) {
        let reason = format!("could not {doing}: {error}");
        let news = self.state.send_if_modified(|state| {
            let changed = state.reason.as_deref() != Some(&reason);
            state.reason = Some(reason.clone());
            changed
        });
        if news {
            warn!(error, doing, "the address plane is impaired");
            self.event(VipEvent::Broken(reason));
        }
    }
}
