//! The task that owns the sockets: takes commands, keeps the rhythm of announcing.

use super::rhythm::Rhythm;
use crate::vip::frames;
use crate::vip::monitor::Monitor;
use crate::vip::packet::{Heard, PacketSocket};
use crate::vip::rtnl::{Found, Link, Rtnl};
use crate::vip::{Address, DataNic, Mac, Vip, VipError, VipEvent, VipState};
use datastore_api::Change;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

/// While the address is held this task runs at least so often, to learn when it could not.
const ALIVE_EACH: Duration = Duration::from_millis(500);
/// It did not run for so long: the machine or the process was stopped, and others may have concluded that it is gone. Less than
/// any lease in use.
const PAUSE: Duration = Duration::from_secs(1);
/// After a pause it listens for so long before it says anything again.
const WARY: Duration = Duration::from_secs(2);

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, VipError>>;

/// What the plane asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Hold { expected: Vec<Mac>, reply: Reply<Change> },
    Release { linger: Duration, reply: Reply<Change> },
    Announce(Reply<()>),
    Holds(Reply<bool>),
}

/// Where the VIP is; see the picture in the room's own text.
#[derive(Debug)]
pub(super) enum Phase {
    Released,
    Held(Held),
    Leaving { at: Instant, replies: Vec<Reply<Change>> },
}

/// What matters only while it is held.
#[derive(Debug)]
pub(super) struct Held {
    pub rhythm: Rhythm,
    /// When to look whether the addresses are there.
    pub look: Instant,
    pub expected: Vec<Mac>,
    pub expected_until: Instant,
    pub put_back: Option<Instant>,
    /// When this task last ran.
    pub alive: Instant,
    /// It did not run for a while: nothing is said or put back until then. `None` in it: a rival was heard meanwhile, somebody else
    /// must decide.
    pub wary: Option<Option<Instant>>,
    pub defended: Option<Instant>,
    /// Rivals that were reported a moment ago.
    pub told: Vec<(Address, Mac, Instant)>,
}

/// Frames of one address, made beforehand.
#[derive(Debug)]
struct Frames {
    address: Address,
    announcement: Vec<Vec<u8>>,
    /// Asks who else has it. Only IPv4: whoever has an IPv6 address answers such a question to all nodes, with the override flag, and so
    /// would take our clients.
    probe: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Actor {
    pub nic: Link,
    pub mac: Mac,
    pub vip: Vip,
    pub rtnl: Rtnl,
    monitor: Monitor,
    arp: Option<PacketSocket>,
    nd: Option<PacketSocket>,
    frames: Vec<Frames>,
    pub phase: Phase,
    pub state: watch::Sender<VipState>,
    pub events: broadcast::Sender<VipEvent>,
}

impl Actor {
    pub fn open(
        nic: &DataNic,
        vip: &Vip,
        events: broadcast::Sender<VipEvent>,
    ) -> Result<(Self, watch::Receiver<VipState>), VipError> {
        // The monitor first: what changes after the first look is heard.
        let monitor = Monitor::open()?;
        let (state, receiver) = watch::channel(VipState {
            held: false,
            wanted: false,
            addresses: Vec::new(),
            link: nic.is_up(),
            last_announce: None,
            rivals: Vec::new(),
            reason: None,
        });
        let mut actor = Self {
            nic: nic.link.clone(),
            mac: nic.mac(),
            vip: vip.clone(),
            rtnl: Rtnl::open()?,
            monitor,
            arp: None,
            nd: None,
            frames: Vec::new(),
            phase: Phase::Released,
            state,
            events,
        };
        actor.open_packets()?;
        actor.look()?;
        Ok((actor, receiver))
    }

    /// Opens the packet sockets on the NIC as it is now, and makes the frames.
    pub fn open_packets(&mut self) -> Result<(), VipError> {
        self.arp = PacketSocket::open(&self.nic.name, &self.vip, true, Heard::Claims)?;
        self.nd = PacketSocket::open(&self.nic.name, &self.vip, false, Heard::Claims)?;
        self.make_frames();
        Ok(())
    }

    /// Makes the frames for the NIC's present hardware address.
    pub fn make_frames(&mut self) {
        let made = self.vip.addresses().iter().map(|address| Frames {
            address: *address,
            announcement: frames::announcement(self.mac, address.ip()),
            probe: address.ip().is_ipv4().then(|| frames::probe(self.mac, address.ip())),
        });
        self.frames = made.collect();
    }

    /// Until the plane is dropped.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        loop {
            let due = self.due();
            tokio::select! {
                biased;
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.tick(),
                news = self.monitor.news() => self.news(news),
                frame = receive(&mut self.arp) => {
                    let claim = frame.map(frames::claim);
                    self.heard(claim);
                }
                frame = receive(&mut self.nd) => {
                    let claim = frame.map(frames::claim);
                    self.heard(claim);
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Released => None,
            Phase::Held(held) => Some(held.rhythm.due().min(held.look).min(held.alive + ALIVE_EACH)),
            Phase::Leaving { at, .. } => Some(*at),
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        match &mut self.phase {
            Phase::Released => {}
            Phase::Held(held) => {
                let paused = now.saturating_duration_since(held.alive);
                held.alive = now;
                if paused > PAUSE {
                    held.wary = Some(Some(now + WARY));
                    warn!(
                        ?paused,
                        "this process did not run for a while; nothing is announced until it is clear who has the address"
                    );
                } else if held.wary.flatten().is_some_and(|until| until <= now) {
                    held.wary = None;
                }
                let announce = held.rhythm.due() <= now;
                let verify = announce && held.rhythm.made(now);
                if held.wary.is_some() {
                    return;
                }
                if held.look <= now {
                    self.reconcile();
                }
                if announce {
                    self.send_all(verify);
                }
            }
            Phase::Leaving { at, .. } => {
                if *at <= now {
                    self.leave();
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        // Whoever asked may have stopped waiting; what was asked is done all the same.
        match command {
            Command::Hold { expected, reply } => {
                let outcome = self.hold(expected);
                let _ = reply.send(outcome);
            }
            Command::Release { linger, reply } => self.release(linger, reply),
            Command::Announce(reply) => {
                let outcome = self.announce();
                let _ = reply.send(outcome);
            }
            Command::Holds(reply) => {
                let outcome = self.look().map(|found| missing(&self.vip, &found).is_empty());
                let _ = reply.send(outcome);
            }
        }
    }

    fn announce(&mut self) -> Result<(), VipError> {
        let Phase::Held(held) = &mut self.phase else { return Ok(()) };
        (held.rhythm, held.wary) = (Rhythm::begun(Instant::now()), None);
        self.send_all(false).map_or(Ok(()), |source| {
            Err(VipError::Kernel {
                doing: "announce the service address",
                nic: self.nic.name.clone(),
                source,
            })
        })
    }

    /// Announces each address, and asks who else has it if wanted. The first error is answered and noted.
    pub fn send_all(&mut self, verify: bool) -> Option<io::Error> {
        let all: Vec<IpAddr> = self.vip.addresses().iter().map(Address::ip).collect();
        let failed = all.into_iter().filter_map(|ip| self.send(ip, verify).err()).next();
        if let Some(error) = &failed {
            warn!(nic = self.nic.name, %error, "the service address could not be announced");
        } else {
            self.state.send_modify(|state| state.last_announce = Some(SystemTime::now()));
        }
        failed
    }

    pub fn send(&self, ip: IpAddr, verify: bool) -> io::Result<()> {
        let socket = if ip.is_ipv4() { &self.arp } else { &self.nd };
        let (Some(socket), Some(frames)) = (socket, self.frames.iter().find(|f| f.address.ip() == ip)) else {
            return Ok(());
        };
        for frame in frames.announcement.iter().chain(frames.probe.as_ref().filter(|_| verify)) {
            socket.send(frame)?;
        }
        Ok(())
    }

    /// The addresses of the VIP that are on the NIC, by whom ever, also as state.
    pub fn look(&mut self) -> Result<Vec<Found>, VipError> {
        let mut found = self.rtnl.addresses()?;
        found.retain(|found| found.nic == self.nic.index && self.vip.contains(found.ip));
        let there: Vec<Address> = self
            .vip
            .addresses()
            .iter()
            .copied()
            .filter(|address| is_there(address, &found))
            .collect();
        self.state.send_if_modified(|state| {
            let changed = state.addresses != there;
            state.addresses.clone_from(&there);
            changed
        });
        Ok(found)
    }

    pub fn event(&self, event: VipEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

fn is_there(address: &Address, found: &[Found]) -> bool {
    found.iter().any(|found| found.ip == address.ip() && found.usable)
}

/// The addresses that are not on the NIC, or not usable.
pub(super) fn missing(vip: &Vip, found: &[Found]) -> Vec<Address> {
    vip.addresses()
        .iter()
        .copied()
        .filter(|address| !is_there(address, found))
        .collect()
}

/// The next frame of a socket that may not be there.
async fn receive(socket: &mut Option<PacketSocket>) -> io::Result<&[u8]> {
    match socket {
        Some(socket) => socket.receive().await,
        None => std::future::pending().await,
    }
}
