//! What the control plane's own calls do to role and address, for guests it knows only by upstream's sequence.

use super::{Pair, PairError, Plane, lock};
use crate::instance::role::{Evidence, Role};
use datastore_api::{BlockLimits, Durability, ServerStart};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Longest time a read-only call may block writes before it goes back.
const BLOCK: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_millis(500);
/// How long a foreign holder of the address is listened for. Clients are waiting.
const PROBE: Duration = Duration::from_millis(120);

/// How long ago a probe may have begun that was made while the control plane spoke to others.
const STILL_NEW: Duration = Duration::from_millis(500);

/// A probe that runs while its outcome is not asked for yet.
pub(super) type EarlyProbe = (Instant, JoinHandle<Result<(), PairError>>);

/// What travels with a replica context or snapshot through a control plane that does not look at it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// Service addresses.
    pub vip: Vec<String>,
    /// How they are held.
    pub plane: Plane,
    /// Generation of the source.
    pub generation: u64,
}

impl Pair {
    /// For `get_replica_context` and `get_replication_snapshot`.
    #[must_use]
    pub fn extra(&self) -> Extra {
        let memory = self.memory();
        let vip = if memory.vip.is_empty() {
            self.0.settings.vip.clone()
        } else {
            memory.vip
        };
        Extra {
            vip,
            plane: memory.plane,
            generation: memory.role.generation,
        }
    }

    /// `make_read_only(true)`: blocks writes within a budget, then releases the address. A replica's is only made sure of.
    ///
    /// # Errors
    /// The budget was passed: writes are as they were.
    pub async fn make_read_only(&self) -> Result<(), PairError> {
        let _lane = self.lane().await?;
        let role = self.role();
        if role.switching().is_some() {
            return Err(PairError::Refused("a switchover is under way".to_owned()));
        }
        self.replication()?
            .block_writes(&BlockLimits {
                grace: GRACE,
                limit: BLOCK,
            })
            .await?;
        let wires = self.wires();
        if role.role != Role::Replica {
            wires.close_to_clients();
        }
        // No lingering: whoever still comes for the address is refused by the packet filter, and the next holder may ask for it at once.
        wires.release(Duration::ZERO).await;
        wires.set_door(crate::vip::door::DoorState::Open);
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.closed().let_go();
                memory.by_hand = memory.role.role != Role::Replica;
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// `enable_as_master`: a guest that follows nobody becomes the source of the next generation; writes stay closed.
    ///
    /// # Errors
    /// The database or the memory.
    pub async fn enable_as_source(&self, options: Option<&str>) -> Result<(), PairError> {
        let _lane = self.lane().await?;
        let repl = self.replication()?;
        repl.make_source(options).await?;
        let status = repl.status().await?;
        let role = self.role();
        if role.role == Role::Unconfigured {
            repl.set_start(ServerStart::closed(false)).await?;
            let first = self.0.store.change(|memory| {
                let generation = memory.role.generation.max(1);
                memory.role = crate::instance::role::RoleState {
                    role: Role::Source,
                    generation,
                    ..memory.role.clone()
                };
                memory.promoted(status.server_id, "upstream", None);
                Ok(())
            });
            first.await?;
            return Ok(());
        }
        if status.following.is_some() || !matches!(role.role, Role::Replica | Role::Detached) {
            return Ok(());
        }
        let next = role.generation.max(role.superseded_by.unwrap_or(0)) + 1;
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.taken_over(next, Evidence::Operator)?;
                memory.promoted(status.server_id, "upstream", None);
                memory.by_hand = true;
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// `make_read_only(false)`: opens writes and takes the address, if nobody else answers for it (R2).
    ///
    /// # Errors
    /// This guest is a replica, or somebody else has the address: writes stay closed.
    pub async fn make_writable(&self) -> Result<(), PairError> {
        let _lane = self.lane().await?;
        let _leave = self.0.leave.lock().await;
        self.0.in_sync.store(false, std::sync::atomic::Ordering::Relaxed);
        let (repl, role, wires) = (self.replication()?, self.role(), self.wires());
        if role.switching().is_some() {
            return Err(PairError::Refused("a switchover is under way".to_owned()));
        }
        if repl.status().await?.following.is_some() || matches!(role.role, Role::Replica | Role::Detached) {
            return Err(PairError::Refused(
                "this guest is a replica; its writes stay closed until it is made a source".to_owned(),
            ));
        }
        if !self.was_free().await {
            wires.probe_within(None, PROBE).await?;
        }
        if self.memory().spec().is_some() {
            repl.set_durability(Durability::Async, true).await?;
        }
        let (opened, held) = tokio::join!(repl.open_writes(), wires.hold(None));
        opened?;
        held?;
        self.lease_begins();
        self.open_door();
        let has_vip = wires.has_vip();
        self.0
            .store
            .change(|memory| {
                (memory.vip_off, memory.by_hand) = (false, false);
                let role = memory.role.opened()?;
                memory.role = if has_vip { role.held()? } else { role };
                Ok(())
            })
            .await?;
        Ok(())
    }

    /// Asks for other holders of the address in the background: what follows in a promotion is `make_read_only(false)`, and clients wait.
    fn probe_early(&self) {
        let wires = self.wires();
        if wires.has_vip() {
            let probing = tokio::spawn(async move { wires.probe_within(None, PROBE).await });
            *lock(&self.0.early) = Some((Instant::now(), probing));
        }
    }

    /// Whether a probe of just now found nobody.
    async fn was_free(&self) -> bool {
        let early = lock(&self.0.early).take();
        match early.filter(|(began, _)| began.elapsed() < STILL_NEW) {
            Some((_, probing)) => matches!(probing.await, Ok(Ok(()))),
            None => false,
        }
    }

    /// `attach_replica` is about to follow: this guest is a replica from here, of the generation that came with the context.
    ///
    /// # Errors
    /// The memory.
    pub async fn becomes_replica(&self, extra: &Extra) -> Result<(), PairError> {
        let _lane = self.lane().await?;
        self.wires().release(Duration::ZERO).await;
        let new_vip = !extra.vip.is_empty() && extra.vip != self.memory().vip;
        self.0
            .store
            .change(|memory| {
                let generation = extra
                    .generation
                    .max(memory.role.generation + u64::from(memory.role.role == Role::Source));
                memory.role = match memory.role.role {
                    Role::Unconfigured => memory.role.configured(Role::Replica, generation)?,
                    Role::Source => memory.role.saw_generation(generation).0.rejoined(generation)?,
                    _ => memory.role.rejoined(generation)?,
                };
                if new_vip {
                    (memory.vip, memory.plane) = (extra.vip.clone(), extra.plane);
                }
                (memory.vip_off, memory.by_hand) = (false, false);
                Ok(())
            })
            .await?;
        self.replication()?.set_start(ServerStart::closed(false)).await?;
        if new_vip { self.rewire().await } else { Ok(()) }
    }

    /// `detach_replica` has ended following. Not for a failover: this guest stands alone and may be written to.
    ///
    /// # Errors
    /// The database or the memory.
    pub async fn detached(&self, for_failover: bool) -> Result<(), PairError> {
        let _lane = self.lane().await?;
        if for_failover {
            let noted = self.0.store.change(|memory| {
                memory.by_hand = true;
                Ok(())
            });
            noted.await?;
            self.probe_early();
            return Ok(());
        }
        let repl = self.replication()?;
        repl.set_start(ServerStart::default()).await?;
        repl.open_writes().await?;
        self.0
            .store
            .change(|memory| {
                memory.role = crate::instance::role::RoleState::default();
                memory.vip.clear();
                Ok(())
            })
            .await?;
        self.rewire().await
    }
}
