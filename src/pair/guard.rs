//! Looks after the role all the time: what is, is made what must be.
//!
//! Every 100 ms, and at once when the database changes: a source whose database died closes and lets the replica take over or opens again
//! with proof; one that is open and has no address takes it (R1); a guest outside its pair's generation rejoins; a switchover
//! that a restart cut off is decided.

use super::{FailoverMode, Pair, PairError};
use crate::instance::role::{Role, Switch};
use datastore_api::{Durability, Health, Position, chain};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

const TICK: Duration = Duration::from_millis(100);
pub(super) const ASK: Duration = Duration::from_millis(1500);
/// How often the server itself is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// First and longest pause between two tries to mend something.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_LONGEST: Duration = Duration::from_secs(3);
/// How long a pair is left without a source before the last one asks for its place.
pub(super) const ORPHAN: Duration = Duration::from_secs(3);

pub(super) struct Guard {
    pub pair: Pair,
    looked: Option<Instant>,
    next_try: Instant,
    pause: Duration,
    /// Since when nobody is the source.
    pub orphan_since: Option<Instant>,
    /// How many looks in a row found commits that wait.
    pub stuck: u32,
    /// What the replica must have received before acknowledged means received: what was written while nobody waited for it.
    pub proof: Option<Position>,
}

/// Guards until the agent stops.
pub(super) async fn run(pair: Pair) {
    let mut view = pair.0.view.clone();
    let mut guard = Guard {
        pair: pair.clone(),
        looked: None,
        next_try: Instant::now(),
        pause: AGAIN,
        orphan_since: None,
        stuck: 0,
        proof: None,
    };
    guard.adopt().await;
    loop {
        tokio::select! {
            () = pair.0.cancel.cancelled() => return,
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TICK) => {}
        }
        guard.tick().await;
    }
}

impl Guard {
    /// What is found at the start is taken as it is, if the state on disk and in the server agree (R4, R5).
    async fn adopt(&mut self) {
        let pair = &self.pair;
        let role = pair.role();
        if role.role == Role::Unconfigured {
            return;
        }
        // The first look at the database may still be on its way.
        let mut view = pair.0.view.clone();
        let _ = tokio::time::timeout(Duration::from_secs(2), view.wait_for(|view| view.health.is_some())).await;
        // Somebody may have taken over while we were away (R6).
        if let Ok(peer) = pair.peer()
            && peer.connected(Duration::from_millis(300)).await.is_ok()
            && let Ok(other) = peer.hello(role.generation, Duration::from_millis(500)).await
        {
            pair.saw(other.generation).await;
        }
        let role = pair.role();
        let open = match pair.replication() {
            Ok(repl) if pair.healthy() => repl.status().await.is_ok_and(|status| !status.read_only),
            _ => false,
        };
        let wires = pair.wires();
        let held = wires.holds().await;
        let source = role.role == Role::Source;
        if let Some(Switch::Leaving { op, .. }) = &role.switch {
            info!(
                op,
                "a switchover was cut off before it was decided; this guest stays the source"
            );
        }
        let settled = pair
            .0
            .store
            .change(|memory| {
                if let Some(Switch::Leaving { op, .. }) = memory.role.switch.clone() {
                    memory.role = memory.role.stayed(&op)?;
                }
                let role = memory.role.booted();
                memory.unproven |= source && !open;
                memory.role = if source && open && memory.role.switch.is_none() {
                    let role = role.opened()?;
                    if held { role.held()? } else { role }
                } else {
                    role
                };
                Ok(())
            })
            .await;
        if let Err(failure) = settled {
            error!(error = chain(&failure), "could not settle the role at the start");
        }
        let role = pair.role();
        if role.writable && held {
            if let Err(failure) = wires.hold(None).await {
                error!(error = chain(&failure), "the address could not be taken up");
            }
        } else if held {
            wires.release(Duration::ZERO).await;
        }
    }

    async fn tick(&mut self) {
        let pair = self.pair.clone();
        if pair.0.settings.data_interface.is_some() && pair.wires().mac().is_none() && self.due() {
            let wired = pair.rewire().await;
            if let Err(failure) = &wired {
                error!(error = chain(failure), "the data network cannot be used yet");
            }
            self.tried(wired.is_ok());
        }
        let role = pair.role();
        // A verb at work looks after the role itself.
        let Ok(lane) = pair.0.lane.try_lock() else { return };
        if pair.memory().by_hand {
            return;
        }
        match (role.role, &role.switch) {
            (_, Some(Switch::Candidate { op, .. })) => self.decide(op).await,
            (_, Some(Switch::Leaving { .. })) => {}
            (Role::Source, None) => self.source(lane).await,
            (Role::Replica | Role::Detached, None) => self.replica().await,
            (Role::Unconfigured, None) => self.address().await,
        }
    }

    pub(super) fn due(&mut self) -> bool {
        Instant::now() >= self.next_try
    }

    pub(super) fn tried(&mut self, ok: bool) {
        self.pause = if ok { AGAIN } else { (self.pause * 2).min(AGAIN_LONGEST) };
        self.next_try = Instant::now() + self.pause;
    }

    fn look_due(&mut self) -> bool {
        let due = self.looked.is_none_or(|at| at.elapsed() >= LOOK);
        if due {
            self.looked = Some(Instant::now());
        }
        due
    }

    async fn source(&mut self, lane: tokio::sync::MutexGuard<'_, ()>) {
        let pair = self.pair.clone();
        let role = pair.role();
        let health = pair.0.view.borrow().health.clone();
        match health {
            Some(Health::Healthy) => {}
            Some(Health::Crashed { .. } | Health::Stopped | Health::Starting)
                if role.writable || (self.due() && pair.automatic().is_some()) =>
            {
                drop(lane);
                return self.database_died().await;
            }
            _ => return,
        }
        if !role.writable {
            if self.due() {
                let opened = self.reopen().await;
                if let Err(failure) = &opened {
                    warn!(error = chain(failure), "this source stays closed");
                }
                self.next_try = Instant::now() + AGAIN;
            }
            return;
        }
        if !self.look_due() {
            return;
        }
        let Ok(repl) = pair.replication() else { return };
        let Ok(status) = repl.status().await else { return };
        if status.read_only {
            // It was restarted behind our back, and starts closed.
            warn!("the database is read-only, though this guest is an open source");
            pair.doubt().await;
            return;
        }
        self.address().await;
        self.durability(status.semi_sync.source_on).await;
        self.unblock(&status).await;
        let in_sync = status.semi_sync.source_on && !status.semi_sync.degraded && self.proven();
        pair.0.in_sync.store(in_sync, std::sync::atomic::Ordering::Relaxed);
    }

    /// An open guest that has a service address and does not hold it takes it (R1).
    async fn address(&mut self) {
        let pair = self.pair.clone();
        let wires = pair.wires();
        let ready = pair.0.view.borrow().phase == crate::instance::Phase::Ready && pair.healthy() && pair.role().writable;
        if !ready || !wires.has_vip() || pair.memory().vip_off || wires.wanted() || !self.due() {
            return;
        }
        let taken = async {
            wires.probe(None).await?;
            wires.hold(None).await
        };
        let taken = taken.await;
        let settled = pair.0.store.live(|memory| {
            memory.role = match &taken {
                Ok(()) => memory.role.held()?,
                Err(PairError::Refused(_)) => crate::instance::role::RoleState {
                    vip: crate::instance::role::VipState::Conflict,
                    ..memory.role.clone()
                },
                Err(_) => memory.role.clone(),
            };
            Ok(())
        });
        let _ = settled.await;
        if let Err(failure) = &taken {
            warn!(error = chain(failure), "the service address is not ours");
        }
        self.tried(taken.is_ok());
    }

    /// The database of an open source died: nobody is led to it, and the replica is asked to take over if the pair wants that.
    async fn database_died(&mut self) {
        let pair = self.pair.clone();
        warn!("the source's database died; its door is closed and the address released");
        pair.wires().close_to_clients();
        pair.doubt().await;
        let automatic = pair.spec().is_ok_and(|spec| spec.failover == FailoverMode::Automatic);
        let release = async { pair.wires().release(Duration::ZERO).await };
        if !automatic {
            release.await;
            return;
        }
        let (handed, ()) = tokio::join!(pair.hand_over(), release);
        if let Err(failure) = handed {
            warn!(error = chain(&failure), "the replica does not take over");
        }
        // Nobody serves until then.
        self.next_try = Instant::now() + AGAIN;
    }

    /// A source whose writes are closed opens again: only with proof that nobody else has opened.
    pub(super) async fn reopen(&mut self) -> Result<(), PairError> {
        let pair = self.pair.clone();
        let (repl, wires) = (pair.replication()?, pair.wires());
        let generation = pair.role().generation;
        if let Ok(peer) = pair.peer() {
            let durability = pair.spec()?.durability;
            let doubt = pair.memory().unproven && durability != Durability::Async;
            match peer.hello(generation, ASK).await {
                Ok(other) if other.generation > generation || (other.role == Role::Source && other.writable) => {
                    pair.met_source(other.generation).await;
                    return Err(PairError::Refused("the pair has a newer source".to_owned()));
                }
                Ok(other) if doubt => match &other.received {
                    Some(theirs) if repl.covers(&repl.position().await?, theirs)? => {}
                    Some(_) => {
                        info!("the replica has what this server lost when it died; the replica takes over");
                        return pair.hand_over().await;
                    }
                    None => {
                        let text = "the replica's database does not answer, and it may have what this one lost when it died";
                        return Err(PairError::Refused(text.to_owned()));
                    }
                },
                Ok(_) => {}
                Err(failure) if doubt => {
                    warn!(
                        "the replica may have what this server lost when it died; it is waited for (or: failover --force here)"
                    );
                    return Err(failure.into());
                }
                // With a lease somebody else has vouched, a witness; see below. Else it may have taken over by a person's word.
                Err(failure) if pair.automatic().is_none() => {
                    warn!("the other guest cannot be asked whether it has taken over (or: failover --force here)");
                    return Err(failure.into());
                }
                Err(failure) => warn!(error = chain(&failure), "the other guest cannot be asked"),
            }
        }
        if pair.lease_left().is_none() {
            return Err(PairError::Refused(
                "nobody vouches for this source: neither the replica nor a witness answers".to_owned(),
            ));
        }
        if let Err(failure) = wires.probe(None).await {
            if pair.spec().is_err() && matches!(failure, PairError::Refused(_)) {
                // Outside a pair there is nobody to ask who is right. The other one may let the address go for a moment, while the
                // control plane moves it on: this guest must not step in there.
                warn!("the service address is elsewhere; this guest stays closed until the control plane opens it");
                let settled = pair.0.store.change(|memory| {
                    memory.by_hand = true;
                    memory.role.vip = crate::instance::role::VipState::Conflict;
                    Ok(())
                });
                settled.await?;
            }
            return Err(failure);
        }
        // Nobody gives way in between.
        let _leave = pair.0.leave.lock().await;
        if pair.role().role != Role::Source || pair.role().generation != generation || pair.role().switch.is_some() {
            return Err(PairError::Refused("the role changed meanwhile".to_owned()));
        }
        pair.0.in_sync.store(false, std::sync::atomic::Ordering::Relaxed);
        pair.open_door();
        // Nobody acknowledges yet: the replica connects when it sees us.
        repl.open_writes().await?;
        if !pair.memory().vip_off {
            wires.hold(None).await?;
        }
        let has_vip = wires.has_vip() && !pair.memory().vip_off;
        pair.0
            .store
            .live(|memory| {
                let role = memory.role.opened()?;
                memory.role = if has_vip { role.held()? } else { role };
                memory.unproven = false;
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// A replica that does not follow, or a guest outside its generation.
    async fn replica(&mut self) {
        let pair = self.pair.clone();
        if pair.spec().is_err() || !self.due() || !(pair.healthy() || pair.memory().reseed) {
            return;
        }
        let role = pair.role();
        let whole = role.role == Role::Replica && !pair.memory().reseed;
        if whole && !self.look_due() {
            return;
        }
        if whole && pair.follows_well().await {
            pair.catch_up().await;
            return;
        }
        if role.role == Role::Detached && pair.automatic().is_some() && self.orphaned().await {
            return;
        }
        let op = format!("rejoin-{}", role.generation.max(role.superseded_by.unwrap_or(0)));
        let done = pair.rejoin_in_lane(&op).await;
        let ok = matches!(&done, Ok(report) if report.state == super::ReportState::Done);
        if let Err(failure) = done {
            info!(error = chain(&failure), "there is no source to rejoin yet");
        }
        self.tried(ok);
    }
}

impl Pair {
    /// The database of this source was started anew, or is gone: closed, and open again only when nothing is missing.
    async fn doubt(&self) {
        let doubted = self.0.store.change(|memory| {
            memory.role = memory.role.closed();
            memory.unproven = true;
            Ok(())
        });
        if let Err(failure) = doubted.await {
            error!(error = chain(&failure), "could not record that the database died");
            let live = self.0.store.live(|memory| {
                memory.role = memory.role.closed();
                memory.unproven = true;
                Ok(())
            });
            let _ = live.await;
        }
    }
}
