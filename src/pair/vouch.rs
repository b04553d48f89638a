//! Who vouches for a source: the lease as the verbs and the other guest see it.

use super::beat::{fresh, now, terms};
use super::lease::{Heard, ReplicaWatch, SourceLease};
use super::talk::Ask;
use super::witness::{Answer, Question};
use super::{FailoverMode, Pair, PairError, PairSpec, lock};
use crate::instance::role::Role;
use crate::link::{Limits, Link, PairKey};
use crate::vip::door::DoorState;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::info;

/// How long a stopping agent says it will be away.
const AWAY: Duration = Duration::from_secs(30);

impl Pair {
    pub(super) fn automatic(&self) -> Option<PairSpec> {
        self.memory().spec().filter(|spec| spec.failover == FailoverMode::Automatic)
    }

    /// The door as this guest's role wants it.
    pub(super) fn open_door(&self) {
        let Some(_) = self.automatic().filter(|_| self.role().role == Role::Source) else {
            return self.wires().set_door(DoorState::Open);
        };
        match self.lease_left() {
            Some(left) => self.wires().set_door(DoorState::Leased(left)),
            // A replica's door may have stood open.
            None => self.wires().set_door(DoorState::Closed),
        }
    }

    /// How long the door may stand open; always, where there is no lease.
    pub(super) fn lease_left(&self) -> Option<Duration> {
        if self.automatic().is_none() {
            return Some(Duration::MAX);
        }
        // Without a door nothing would close by itself.
        self.wires().door()?;
        lock(&self.0.lease)
            .source
            .as_ref()
            .and_then(|(_, lease)| lease.remaining(now()))
    }

    /// The lease of a source that has just begun its generation: nobody can take over from it yet, or the witness is to let it in.
    pub(super) fn lease_begins(&self) {
        let Some(spec) = self.automatic() else { return };
        let memory = self.memory();
        let lease = match memory.alone {
            true => SourceLease::alone(terms(&spec)),
            false => SourceLease::new(terms(&spec), now(), None),
        };
        let mut state = lock(&self.0.lease);
        state.replica = None;
        state.source = Some((memory.role.generation, lease.numbered_from(fresh() >> 12)));
        state.first_until = Some(now() + terms(&spec).lease);
    }

    /// A source pings.
    pub(super) fn on_ping(&self, ask: &Ask) -> Answer {
        let Ask::Ping {
            generation,
            seq,
            arms,
            ends_hold,
            degraded,
            ..
        } = ask
        else {
            return Answer::newer(0);
        };
        let role = self.role();
        if role.generation > *generation || role.role == Role::Source {
            return Answer::newer(role.generation);
        }
        let echo = |hold| Answer::Echo { echo: *seq, hold };
        let mut state = lock(&self.0.lease);
        state.degraded = *degraded;
        let Some(watch) = state.replica.as_mut() else {
            return echo(None);
        };
        match watch.heard(now(), *generation, *arms, *ends_hold) {
            Heard::Echo { abandoned, hold } => {
                drop(state);
                if let Some(attempt) = abandoned {
                    self.tell_witness(*generation, attempt);
                }
                echo(hold)
            }
            Heard::Denied { generation } => Answer::newer(generation),
        }
    }

    /// A source says that it goes away for a moment.
    pub(super) fn on_away(&self, generation: u64, within: Duration, number: u64) -> Answer {
        let role = self.role();
        if role.generation > generation || role.role == Role::Source {
            return Answer::newer(role.generation);
        }
        let mut state = lock(&self.0.lease);
        let Some(watch) = state.replica.as_mut() else {
            return Answer::Echo { echo: 0, hold: None };
        };
        match watch.away(now(), generation, within, number) {
            Heard::Echo { hold, .. } => Answer::Echo { echo: 0, hold },
            Heard::Denied { generation } => Answer::newer(generation),
        }
    }

    /// A stopping agent: the other one holds off, and the door stays open meanwhile (R5).
    pub(super) async fn say_away(&self) {
        let role = self.role();
        if self.automatic().is_none() || role.role != Role::Source || !role.writable {
            return;
        }
        let Ok(peer) = self.peer() else { return };
        self.0.away.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent = now();
        let ask = Ask::Away {
            generation: role.generation,
            within_ms: AWAY.as_millis() as u64,
            number: fresh(),
        };
        let noted = matches!(
            peer.ask::<Answer>(&ask, Duration::from_millis(500)).await,
            Ok(Answer::Echo { .. })
        );
        let refused = matches!(peer.reach(), super::peer::Reach::Refused { .. });
        if !noted && !refused {
            return;
        }
        let left = {
            let mut state = lock(&self.0.lease);
            let Some((_, lease)) = state.source.as_mut() else { return };
            let may = lease.announced(sent, AWAY, refused, now());
            lease.remaining(now()).filter(|_| may)
        };
        if let Some(left) = left {
            self.wires().set_door(DoorState::Leased(left));
            info!(?left, "the door stays open while this agent is away");
        }
    }

    /// An attempt to promote was given up.
    pub(super) fn tell_witness(&self, generation: u64, attempt: u64) {
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(spec) = this.spec() else { return };
            if spec.witness.is_none() {
                return;
            }
            let mut attempt = attempt;
            for _ in 0..20 {
                let ask = Question::Unfence {
                    pair: spec.id.clone(),
                    generation,
                    attempt,
                };
                if let Ok(Answer::Unfenced { standing, .. }) = this.ask_witness(&spec, &ask).await {
                    let own = lock(&this.0.lease).replica.as_ref().and_then(ReplicaWatch::attempt);
                    match standing.filter(|standing| Some(*standing) != own) {
                        Some(standing) => attempt = standing,
                        None => return,
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    pub(super) async fn ask_witness(&self, spec: &PairSpec, ask: &Question) -> Result<Answer, PairError> {
        let Some(witness) = &spec.witness else {
            return Err(PairError::Failed("there is no witness".to_owned()));
        };
        let open = lock(&self.0.lease).witness.clone().filter(|link| !link.is_closed());
        let limit = Duration::from_millis(spec.lease_ms / 3);
        let link = match open {
            Some(link) => link,
            None => {
                let key = PairKey::from_base64(&spec.key).map_err(|_| PairError::Failed("no key".to_owned()))?;
                let limits = Limits {
                    connect: limit,
                    unacknowledged: limit * 2,
                    ..Limits::default()
                };
                let link = Link::connect(SocketAddr::new(witness.host, witness.port), key, limits).await?;
                lock(&self.0.lease).witness = Some(link.clone());
                link
            }
        };
        let body = serde_json::to_value(ask).map_err(|error| PairError::Failed(error.to_string()))?;
        let answer = link.ask(&body, limit).await?;
        serde_json::from_value(answer)
            .map_err(|error| PairError::Failed(format!("the witness does not speak our language: {error}")))
    }
}
