//! The beat of an automatic pair: the source pings, echoes keep its door open, silence lets the replica promote.
//!
//! The arithmetic is [`super::lease`]'s. Nothing here touches disk or bus while the door is renewed or closed.

use super::lease::{Moment, ReplicaWatch, SourceLease, Step, Terms};
use super::talk::Ask;
use super::witness::{Answer, Question, Reason};
use super::{Pair, PairSpec, lock};
use crate::instance::role::{Evidence, Role};
use crate::link::Link;
use crate::vip::door::{DoorError, DoorState};
use datastore_api::{Durability, chain};
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How many pings go out in the time of a lease.
const PINGS: u32 = 8;
/// Since when this process counts.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub(super) fn now() -> Moment {
    ORIGIN.elapsed()
}

/// A number that no process used before.
pub(super) fn fresh() -> u64 {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers never fail");
    // Shown in JSON, whose numbers other readers take for floating point.
    u64::from_le_bytes(bytes) >> 12
}

/// What is known of leases.
#[derive(Default)]
pub(super) struct LeaseState {
    pub source: Option<(u64, SourceLease)>,
    pub replica: Option<ReplicaWatch>,
    /// The source said that it could lose what it acknowledged.
    pub degraded: bool,
    pub witness: Option<Link>,
    /// A source that has just begun waits so long for its first echo.
    pub first_until: Option<Moment>,
}

pub(super) fn terms(spec: &PairSpec) -> Terms {
    Terms::new(Duration::from_millis(spec.lease_ms))
}

/// Beats until the agent stops.
pub(super) async fn run(pair: Pair) {
    loop {
        let spec = pair.automatic();
        let pause = spec.as_ref().map_or(Duration::from_millis(250), |spec| {
            Duration::from_millis(spec.lease_ms) / PINGS
        });
        tokio::select! {
            () = pair.0.cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(spec) = spec else { continue };
        match pair.role().role {
            Role::Source => source(&pair, &spec).await,
            Role::Replica => replica(&pair, &spec).await,
            Role::Detached | Role::Unconfigured => *lock(&pair.0.lease) = LeaseState::default(),
        }
    }
}

async fn source(pair: &Pair, spec: &PairSpec) {
    if pair.0.away.load(Ordering::Relaxed) {
        return;
    }
    let role = pair.role();
    let alone = pair.memory().alone;
    let still = lock(&pair.0.lease).source.as_ref().is_none_or(|(_, lease)| lease.is_alone());
    let inherited = match pair.wires().door().map(super::wires::Door::state) {
        Some(Ok(DoorState::Leased(left))) => Some(left),
        _ => None,
    };
    let (ping, left) = {
        let mut state = lock(&pair.0.lease);
        state.replica = None;
        if state
            .source
            .as_ref()
            .is_none_or(|(generation, _)| *generation != role.generation)
        {
            let lease = match alone {
                true => SourceLease::alone(terms(spec)),
                false => SourceLease::new(terms(spec), now(), inherited.filter(|_| role.writable)),
            };
            state.source = Some((role.generation, lease.numbered_from(fresh() >> 12)));
        }
        let Some((_, lease)) = state.source.as_mut() else { return };
        if let Ok(peer) = pair.peer()
            && let super::peer::Reach::Refused { since } = peer.reach()
        {
            lease.refused(since.saturating_duration_since(*ORIGIN), now());
        }
        (lease.ping(now()), lease.remaining(now()))
    };
    let Some(role) = Some(pair.role()).filter(|now| now.generation == role.generation) else {
        return;
    };
    let fenced = matches!(role.switch, Some(crate::instance::role::Switch::Leaving { fenced: true, .. }));
    match left {
        Some(left) if role.writable && !fenced => renew(pair, left).await,
        Some(_) => {}
        None if role.writable && lock(&pair.0.lease).first_until.is_none_or(|until| now() >= until) => lapsed(pair).await,
        None => {}
    }
    if alone && !still {
        // On disk before the ping that may arm the replica; the door was renewed before.
        let taken_back = pair.0.store.change(|memory| {
            memory.alone = false;
            Ok(())
        });
        if taken_back.await.is_err() {
            return;
        }
    }
    let ask = Ask::Ping {
        pair: spec.id.clone(),
        generation: role.generation,
        seq: ping.seq,
        arms: ping.arms,
        ends_hold: ping.ends_hold,
        degraded: spec.durability != Durability::Async && !pair.0.in_sync.load(Ordering::Relaxed),
    };
    let limit = Duration::from_millis(spec.lease_ms);
    if let Ok(peer) = pair.peer() {
        let (pair, ask) = (pair.clone(), ask.clone());
        tokio::spawn(async move {
            if let Ok(answer) = peer.ask::<Answer>(&ask, limit).await {
                answered(&pair, answer).await;
            }
        });
    }
    if spec.witness.is_some() {
        let (pair, spec) = (pair.clone(), spec.clone());
        let question = Question::ping(&spec.id, role.generation, ping, &terms(&spec));
        tokio::spawn(async move {
            if let Ok(answer) = pair.ask_witness(&spec, &question).await {
                answered(&pair, answer).await;
            }
        });
    }
}

async fn answered(pair: &Pair, answer: Answer) {
    match answer {
        Answer::Echo { echo, hold } => {
            if pair.0.away.load(Ordering::Relaxed) {
                return;
            }
            let mut state = lock(&pair.0.lease);
            let Some((_, lease)) = state.source.as_mut() else { return };
            lease.echoed(echo, hold, now());
            let first = lease.remaining(now()).filter(|_| state.first_until.is_some());
            state.first_until = None;
            drop(state);
            if let Some(left) = first
                && pair.role().writable
            {
                pair.wires().set_door(DoorState::Leased(left));
            }
        }
        Answer::Denied {
            reason: Reason::Newer,
            generation: Some(generation),
            ..
        } => pair.saw(generation).await,
        _ => {}
    }
}

async fn renew(pair: &Pair, left: Duration) {
    let wires = pair.wires();
    let Some(door) = wires.door() else { return };
    match door.renew(left) {
        Ok(()) => return,
        Err(DoorError::Missing) => {
            warn!("somebody took the door away; it is made again");
            if door.install(DoorState::Leased(left)).is_ok() {
                return;
            }
        }
        Err(_) => {}
    }
    // The kernel closed it: this process stood still. Whoever waited for an answer then gets none now.
    warn!("the door had closed by itself");
    lapsed(pair).await;
}

/// The lease is over: closed, and open again only with proof (see the guard).
async fn lapsed(pair: &Pair) {
    warn!("nobody vouches for this source any more; it closes itself");
    pair.wires().close_to_clients();
    let closed = pair.0.store.live(|memory| {
        memory.role = memory.role.closed();
        Ok(())
    });
    let _ = closed.await;
    let pair = pair.clone();
    lock(&pair.0.lease).first_until = None;
    // Neither may hold up the beat.
    tokio::spawn(async move {
        pair.wires().release(Duration::ZERO).await;
        if pair.healthy() && !pair.role().writable {
            pair.close_server().await;
        }
    });
}

async fn replica(pair: &Pair, spec: &PairSpec) {
    let generation = pair.role().generation;
    let step = {
        let mut state = lock(&pair.0.lease);
        state.source = None;
        let watch = state
            .replica
            .get_or_insert_with(|| ReplicaWatch::new(terms(spec), generation, spec.witness.is_some()));
        watch.step(now())
    };
    match step {
        Step::Unarmed | Step::Wait(_) => {}
        // Neither may hold up the beat.
        step => {
            if pair.0.promoting.swap(true, Ordering::Relaxed) {
                return;
            }
            let (pair, spec) = (pair.clone(), spec.clone());
            tokio::spawn(async move {
                match step {
                    Step::Fence => fence(&pair, &spec, generation).await,
                    _ => promote(&pair, &spec).await,
                }
                pair.0.promoting.store(false, Ordering::Relaxed);
            });
        }
    }
}

/// Asks the witness not to let the source in any more.
async fn fence(pair: &Pair, spec: &PairSpec, generation: u64) {
    if unfit(pair, spec).is_some() {
        return;
    }
    let asked = now();
    let Some(attempt) = lock(&pair.0.lease)
        .replica
        .as_mut()
        .map(|watch| watch.fence_asked(asked, fresh()))
    else {
        return;
    };
    let ask = Question::Fence {
        pair: spec.id.clone(),
        generation,
        attempt,
        insist: false,
    };
    match pair.ask_witness(spec, &ask).await {
        Ok(Answer::Promised { granted_ago_ms, .. }) => {
            let ago = granted_ago_ms.map(Duration::from_millis);
            if let Some(watch) = lock(&pair.0.lease).replica.as_mut() {
                watch.fence_promised(asked, now(), attempt, ago);
            }
        }
        Ok(Answer::Denied { denied, .. }) => {
            info!(denied, "the witness does not agree to a failover");
            lock(&pair.0.lease).replica.as_mut().and_then(ReplicaWatch::abandon);
        }
        Ok(_) => warn!("the witness answered something else"),
        Err(failure) => info!(error = chain(&failure), "the witness cannot be asked for a failover"),
    }
}

/// Why this replica is not to be promoted by itself.
fn unfit(pair: &Pair, spec: &PairSpec) -> Option<&'static str> {
    if !pair.healthy() {
        return Some("its database does not answer");
    }
    if pair.memory().reseed {
        return Some("its data are not whole");
    }
    if spec.durability != Durability::Async && !pair.keeps() {
        return Some("its database was started anew, and may have lost what it had received and acknowledged");
    }
    if spec.durability != Durability::Async && lock(&pair.0.lease).degraded {
        return Some("the source acknowledged writes that this replica may not have");
    }
    None
}

async fn promote(pair: &Pair, spec: &PairSpec) {
    if let Some(why) = unfit(pair, spec) {
        warn!(why, "the source is silent, and this replica does not take over");
        let attempt = lock(&pair.0.lease).replica.as_mut().and_then(ReplicaWatch::abandon);
        if let Some(attempt) = attempt {
            pair.tell_witness(pair.role().generation, attempt);
        }
        return;
    }
    let committed = {
        let mut state = lock(&pair.0.lease);
        let Some(watch) = state.replica.as_mut() else { return };
        watch.commit(now()).is_some() || watch.step(now()) == Step::Committed
    };
    if !committed {
        return;
    }
    warn!("the source is silent and its door is closed by now; this replica takes over");
    let Ok(_lane) = pair.lane().await else { return };
    let op = format!("automatic-{}", pair.role().generation + 1);
    if let Err(failure) = pair.failover_in_lane(&op, Some(Evidence::LeaseOver)).await {
        warn!(error = chain(&failure), "the failover could not begin");
    }
}
