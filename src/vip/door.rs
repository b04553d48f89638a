//! The door: what of the network reaches the database's port, decided by the kernel's packet filter.
//!
//! Three things in one table, `inet trove_guestagent`. The *guard* lets the port be reached only over `lo` and the data NIC. The *door*
//! on the data NIC lets clients in and answers out only while an element lives in a set; the pair's other agents always pass.
//! An element with a timeout is a lease: the kernel takes it away alone, whatever has become of this process.
//!
//! ```text
//!   Closed --set(Open)--> Open          element without timeout
//!   Closed --set(Leased)--> Leased      element with timeout; renew() puts it off
//!   Leased --time--> Closed             by the kernel
//! ```
//!
//! Behind a closed door everything from clients is answered with a TCP reset, old sessions too, and nothing but resets leaves towards
//! them: a commit that ends after the lease is never acknowledged. The segments that the server still wants to send stay in its sockets,
//! so end those ([`super::sockets::destroy_clients`]) before a door that ran out is opened again.
//!
//! A third part answers what comes to the port of an address that is not this machine's: clients that have not yet heard that the service
//! address has moved are refused, and ask again at its new place.
//!
//! The lease runs on the kernel's tick counter: neither a change of the wall clock nor a stopped process holds it up. A machine that is
//! paused as a whole (a suspended guest) stands still with its lease; only durable replication covers that.

use super::nft::{Batch, Hook, Key, NEEDS, Nft, Rule, Verdict};
use super::nlmsg::NetlinkError;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const TABLE: &str = "trove_guestagent";
const DOOR: &str = "door";
const PEERS_V4: &str = "peers4";
const PEERS_V6: &str = "peers6";
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const STRAY: &str = "stray";
/// The kernel's longest name of an interface.
const LONGEST_INTERFACE: usize = 15;

/// What the door is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorSettings {
    /// Name of the interface of the data network.
    pub data_nic: String,
    /// TCP port of the database.
    pub port: u16,
    /// Data addresses of the pair's other agents, which always pass.
    pub peers: Vec<IpAddr>,
}

/// How the door stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorState {
    /// Clients pass until somebody closes it.
    Open,
    /// Clients pass for this time from now on, then the kernel closes it. Less than a millisecond is closed.
    Leased(Duration),
    /// Clients are refused.
    Closed,
}

/// Why the door could not be moved or looked at.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The settings cannot be.
    #[error("the data interface's name {name:?} is not one of 1 to {LONGEST_INTERFACE} bytes without blanks and slashes")]
    BadInterface {
        /// The name.
        name: String,
    },
    /// A renewal came too late: the door has closed. What was behind it may have been written and not acknowledged.
    #[error("the door's lease had run out before it was renewed")]
    Lapsed,
    /// The table is not there: never installed, or somebody flushed the packet filter. Clients are not held back; install it again.
    #[error("the packet filter's table inet {TABLE} is not there")]
    Missing,
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The door of this machine's network namespace. Every call is a few system calls without waiting, disk, or bus.
#[derive(Debug)]
pub struct Door {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    nft: Nft,
    settings: DoorSettings,
}

impl Door {
    /// Opens the way to the packet filter, and changes nothing yet.
    pub fn new(settings: DoorSettings) -> Result<Self, DoorError> {
        let name = &settings.data_nic;
        let odd = |b: u8| b.is_ascii_whitespace() || b == b'/' || b == 0;
        if name.is_empty() || name.len() > LONGEST_INTERFACE || name.bytes().any(odd) {
            return Err(DoorError::BadInterface { name: name.clone() });
        }
        let inner = Inner {
            nft: Nft::open(TABLE)?,
            settings,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Puts guard and door in place in one step, and answers how the door stands. A table of an earlier run is replaced, and its door
    /// stays as it stands, with what is left of its lease; `initial` counts only where there was none.
    pub fn install(&self, initial: DoorState) -> Result<DoorState, DoorError> {
        let mut inner = self.lock();
        let Inner { nft, settings } = &mut *inner;
        let (state, seen) = match read(nft) {
            Ok(state) => (state, Instant::now()),
            Err(DoorError::Missing) => (initial, Instant::now()),
            Err(error) => return Err(error),
        };
        // What passes between reading and writing is not given to the lease as a present.
        let state = match state {
            DoorState::Leased(left) => DoorState::Leased(left.saturating_sub(seen.elapsed())),
            other => other,
        };
        let doing = "put the database port's guard in place";
        let mut installed = Ok(());
        // A kernel that cannot tell strays does without.
        for strays in [true, false] {
            installed = nft.batch(doing, |batch| {
                table(batch, settings);
                stand(batch, settings.port, state);
                if strays {
                    turn_back(batch, settings);
                }
            });
            if !installed.as_ref().is_err_and(NetlinkError::is_not_found) {
                break;
            }
        }
        match installed {
            // Everything it names is made in the same batch: what is not there is a part of the kernel.
            Err(error) if error.is_not_found() => Err(NetlinkError::Unsupported { doing, needs: NEEDS }.into()),
            other => other.map(|()| state).map_err(DoorError::from),
        }
    }

    /// Sets the door, however it stood.
    pub fn set(&self, state: DoorState) -> Result<(), DoorError> {
        let mut inner = self.lock();
        let port = inner.settings.port;
        let moved = inner.nft.batch("set the database port's door", |batch| {
            batch.flush(DOOR);
            stand(batch, port, state);
        });
        moved.map_err(missing)
    }

    /// Gives a door that still stands open `lease` from now on. One that is closed stays closed: [`DoorError::Lapsed`].
    pub fn renew(&self, lease: Duration) -> Result<(), DoorError> {
        let mut inner = self.lock();
        let port = inner.settings.port;
        let renewed = inner.nft.batch("renew the lease of the database port", |batch| {
            batch.remove(DOOR, &port.to_be_bytes());
            stand(batch, port, DoorState::Leased(lease));
        });
        match renewed {
            Err(error) if error.is_not_found() => Err(read(&mut inner.nft).err().unwrap_or(DoorError::Lapsed)),
            other => other.map_err(DoorError::from),
        }
    }

    /// How the door stands, read from the kernel.
    pub fn state(&self) -> Result<DoorState, DoorError> {
        read(&mut self.lock().nft)
    }

    /// Other peers; the door stays as it stands.
    pub fn set_peers(&self, peers: Vec<IpAddr>) -> Result<(), DoorError> {
        let mut inner = self.lock();
        let changed = inner.nft.batch("set who passes the database port's door", |batch| {
            batch.flush(PEERS_V4);
            batch.flush(PEERS_V6);
            admit(batch, &peers);
        });
        changed.map_err(missing)?;
        inner.settings.peers = peers;
        Ok(())
    }

    /// Takes guard and door away; the port is reachable from everywhere.
    pub fn uninstall(&self) -> Result<(), DoorError> {
        let removed = self
            .lock()
            .nft
            .batch("take the database port's guard away", |batch| batch.no_table());
        Ok(removed?)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each call starts a batch of its own: nothing half done stays behind a panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(error: NetlinkError) -> DoorError {
    if error.is_not_found() {
        DoorError::Missing
    } else {
        error.into()
    }
}

fn read(nft: &mut Nft) -> Result<DoorState, DoorError> {
    let elements = nft.elements("read the database port's door", DOOR).map_err(missing)?;
    Ok(match elements.first() {
        None => DoorState::Closed,
        Some(None) => DoorState::Open,
        Some(Some(left)) => DoorState::Leased(*left),
    })
}

/// The element of an empty set.
fn stand(batch: &mut Batch<'_>, port: u16, state: DoorState) {
    match state {
        DoorState::Open => batch.element(DOOR, &port.to_be_bytes(), None),
        DoorState::Leased(left) if left.as_millis() > 0 => batch.element(DOOR, &port.to_be_bytes(), Some(left)),
        DoorState::Leased(_) | DoorState::Closed => {}
    }
}

fn admit(batch: &mut Batch<'_>, peers: &[IpAddr]) {
    for peer in peers {
        match peer.to_canonical() {
            IpAddr::V4(peer) => batch.element(PEERS_V4, &peer.octets(), None),
            IpAddr::V6(peer) => batch.element(PEERS_V6, &peer.octets(), None),
        }
    }
}

/// Clients that still believe the service address to be here after it has left are refused at once. Without an answer they would wait
/// for TCP's next try, a second or three, though they know the new place by then.
fn turn_back(batch: &mut Batch<'_>, settings: &DoorSettings) {
    batch.chain(STRAY, Hook::Prerouting);
    batch.rule(STRAY, Rule::new().not_tcp().verdict(Verdict::Accept));
    batch.rule(STRAY, Rule::new().other_target_port(settings.port).verdict(Verdict::Accept));
    batch.rule(STRAY, Rule::new().came_by(&settings.data_nic).for_another_host().reset());
}

fn table(batch: &mut Batch<'_>, settings: &DoorSettings) {
    let DoorSettings { data_nic, port, peers } = settings;
    let accept = |rule: Rule| rule.verdict(Verdict::Accept);
    batch.fresh_table("written by trove-guestagent, which replaces it as a whole");
    batch.set(DOOR, Key::Port, true, 1);
    batch.set(PEERS_V4, Key::V4, false, 2);
    batch.set(PEERS_V6, Key::V6, false, 3);
    admit(batch, peers);

    // No shortcut for established connections: they are what the lease is about.
    batch.chain(INPUT, Hook::Input);
    batch.rule(INPUT, accept(Rule::new().not_tcp()));
    batch.rule(INPUT, accept(Rule::new().other_target_port(*port)));
    batch.rule(INPUT, accept(Rule::new().came_by("lo")));
    batch.rule(INPUT, Rule::new().came_by_other(data_nic).reset());
    batch.rule(INPUT, accept(Rule::new().sender4_in(PEERS_V4)));
    batch.rule(INPUT, accept(Rule::new().sender6_in(PEERS_V6)));
    batch.rule(INPUT, accept(Rule::new().target_port_in(DOOR)));
    batch.rule(INPUT, Rule::new().reset());

    batch.chain(OUTPUT, Hook::Output);
    batch.rule(OUTPUT, accept(Rule::new().not_tcp()));
    batch.rule(OUTPUT, accept(Rule::new().other_source_port(*port)));
    batch.rule(OUTPUT, accept(Rule::new().leaves_by_other(data_nic)));
    batch.rule(OUTPUT, accept(Rule::new().receiver4_in(PEERS_V4)));
    batch.rule(OUTPUT, accept(Rule::new().receiver6_in(PEERS_V6)));
    batch.rule(OUTPUT, accept(Rule::new().source_port_in(DOOR)));
    // Our own resets, and those of sockets that were ended, are what the clients wait for.
    batch.rule(OUTPUT, accept(Rule::new().tcp_reset()));
    batch.rule(OUTPUT, Rule::new().verdict(Verdict::Drop));
}
