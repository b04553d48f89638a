//! Becoming a member of a pair, and leaving it; the address by hand.

use super::report::{Report, ReportState};
use super::{FailoverMode, Pair, PairError, PairSpec, SpecRole};
use crate::instance::role::{Role, RoleState};
use crate::link::PairKey;
use crate::vip::Vip;
use datastore_api::{ServerStart, chain};
use std::time::Duration;
use tracing::{info, warn};

/// How long a peer that is there already may take to be found with another key.
const FIRST_CONTACT: Duration = Duration::from_secs(3);
/// Shortest lease: below it a busy machine would close its own door.
const LEAST_LEASE_MS: u64 = 300;

impl Pair {
    /// Makes this guest a member of a pair. A source is done when this answers; a replica goes on by itself (see status).
    ///
    /// # Errors
    /// Says what is wrong; nothing was changed.
    pub async fn configure(&self, op: &str, spec: PairSpec) -> Result<Report, PairError> {
        if let Some(known) = self.known(op) {
            return Ok(known);
        }
        self.check_spec(&spec).await?;
        let _lane = self.lane().await?;
        let before = self.memory();
        let mut report = Report::new(op, "configure");
        let done = match spec.role {
            SpecRole::Source => self.configure_source(&mut report, &spec).await,
            SpecRole::Replica => self.configure_replica(&mut report, &spec).await,
        };
        report.generation = self.role().generation;
        if let Err(failure) = done {
            warn!(
                error = chain(&failure),
                "the pair was not configured; everything is taken back"
            );
            self.wires().release(Duration::ZERO).await;
            let restored = self
                .0
                .store
                .change(|memory| {
                    *memory = before;
                    Ok(())
                })
                .await;
            if let Err(failure) = restored.map_err(PairError::from).and(self.rewire().await) {
                warn!(error = chain(&failure), "and taking it back was not complete");
            }
            return Err(failure);
        }
        if spec.role == SpecRole::Source {
            report.state = ReportState::Done;
            self.remember(&report).await;
        }
        Ok(report)
    }

    async fn check_spec(&self, spec: &PairSpec) -> Result<(), PairError> {
        let invalid = |text: String| Err(PairError::Invalid(text));
        let known = self.memory().spec();
        if spec.peer.guest_id == self.0.settings.guest_id {
            return invalid("a guest cannot be a pair with itself".to_owned());
        }
        if Some(spec.peer.host) == self.data_address() {
            return invalid(format!("{} is this guest's own address", spec.peer.host));
        }
        if PairKey::from_base64(&spec.key).is_err() {
            return invalid("the pair's key is not 32 bytes in base64".to_owned());
        }
        if spec.lease_ms < LEAST_LEASE_MS || spec.blocked_ms == 0 || spec.id.is_empty() {
            return invalid(format!(
                "lease_ms is at least {LEAST_LEASE_MS}, blocked_ms at least 1, and id not empty"
            ));
        }
        if let Some(known) = known
            && known.id != spec.id
        {
            return Err(PairError::Refused(format!("this guest belongs to pair {} already", known.id)));
        }
        if !spec.vip.is_empty() {
            self.wires().check_vip(self, &Vip::parse(&spec.vip)?).await?;
        }
        if spec.failover == FailoverMode::Automatic && self.0.settings.data_interface.is_none() {
            return invalid(
                "automatic failover needs a data network (data_interface): its door is what fences a source".to_owned(),
            );
        }
        if !self.healthy() {
            return Err(PairError::Refused("the database does not answer here".to_owned()));
        }
        Ok(())
    }

    async fn configure_source(&self, report: &mut Report, spec: &PairSpec) -> Result<(), PairError> {
        let repl = self.replication()?;
        if let Some(peer) = repl.status().await?.following {
            return Err(PairError::Refused(format!(
                "this guest follows {} and cannot be a source",
                peer.host
            )));
        }
        let prepare = async {
            repl.make_source(None).await?;
            repl.ensure_login(&spec.replication).await?;
            repl.set_start(ServerStart::closed(spec.acknowledges())).await?;
            Ok::<_, PairError>(())
        };
        report.step("prepare", prepare).await?;
        let was_source = self.role().role == Role::Source;
        let record = async {
            let server_id = repl.status().await?.server_id;
            let (value, vip, plane) = (spec.to_sealed(), spec.vip.clone(), spec.plane);
            self.0
                .store
                .change(|memory| {
                    let generation = memory.role.generation.max(1);
                    memory.role = memory.role.configured(Role::Source, generation)?;
                    (memory.pair, memory.vip, memory.plane) = (Some(value), vip, plane);
                    if !was_source {
                        memory.alone = true;
                        memory.promoted(server_id, "configured", None);
                    }
                    Ok(())
                })
                .await?;
            self.rewire().await
        };
        report.step("record", record).await?;
        if was_source && !self.role().writable {
            // It closed for a reason; the guard opens it with proof.
            return Ok(());
        }
        let open = async {
            self.wires().probe(None).await?;
            self.lease_begins();
            self.wires().hold(None).await?;
            self.open_door();
            repl.open_writes().await?;
            let has_vip = self.wires().has_vip();
            self.0
                .store
                .live(|memory| {
                    let role = memory.role.opened()?;
                    memory.role = if has_vip { role.held()? } else { role };
                    Ok(())
                })
                .await?;
            Ok::<_, PairError>(())
        };
        report.step("open", open).await?;
        info!(pair = spec.id, "this guest is the source of a pair");
        Ok(())
    }

    async fn configure_replica(&self, report: &mut Report, spec: &PairSpec) -> Result<(), PairError> {
        let repl = self.replication()?;
        let again = self.memory().spec().is_some();
        if !again {
            let found = repl.user_databases().await?;
            if !found.is_empty() {
                let text = format!(
                    "the replica-to-be is not empty (it has {}); nothing was changed",
                    found.join(", ")
                );
                return Err(PairError::Refused(text));
            }
        }
        let (value, vip, plane) = (spec.to_sealed(), spec.vip.clone(), spec.plane);
        let record = async {
            self.0
                .store
                .change(|memory| {
                    let generation = memory.role.generation;
                    memory.role = memory.role.configured(Role::Replica, generation)?;
                    (memory.pair, memory.vip, memory.plane) = (Some(value), vip, plane);
                    memory.reseed |= !again;
                    Ok(())
                })
                .await?;
            self.rewire().await
        };
        report.step("record", record).await?;
        let contact = async {
            match self.peer()?.connected(FIRST_CONTACT).await {
                Err(super::peer::Reach::WrongKey) => {
                    Err(PairError::Refused("the other guest has another key for this pair".to_owned()))
                }
                // It may be prepared at this very moment.
                _ => Ok(()),
            }
        };
        report.step("contact", contact).await?;
        self.open_door();
        Ok(())
    }

    /// Ends the membership. The data stay as they are; what was the source stays open, a replica stays read-only.
    ///
    /// # Errors
    /// The database or the memory.
    pub async fn dissolve(&self, op: &str) -> Result<Report, PairError> {
        let _lane = self.lane().await?;
        let role = self.role();
        if self.memory().spec().is_none() && role.role == Role::Unconfigured {
            return Ok(Report::unchanged(
                op,
                "dissolve_pair",
                role.generation,
                "this guest belongs to no pair",
            ));
        }
        let mut report = Report::new(op, "dissolve_pair");
        let work = async {
            self.wires().release(Duration::ZERO).await;
            let repl = self.replication()?;
            if self.healthy() {
                if role.role != Role::Source {
                    repl.detach(Duration::from_secs(10)).await?;
                }
                repl.set_durability(datastore_api::Durability::Async, true).await?;
                repl.set_start(ServerStart::default()).await?;
            }
            self.wires().uninstall();
            self.0
                .store
                .change(|memory| {
                    let writable = memory.role.writable;
                    memory.role = RoleState {
                        writable,
                        generation: memory.role.generation,
                        ..RoleState::default()
                    };
                    (memory.pair, memory.reseed) = (None, false);
                    memory.vip.clear();
                    Ok(())
                })
                .await?;
            self.rewire().await
        };
        report.step("dissolve", work).await?;
        report.state = ReportState::Done;
        self.remember(&report).await;
        Ok(report)
    }

    /// Takes the service address; `vip` makes it known first. For a source, or an instance without a role.
    ///
    /// # Errors
    /// Says what is wrong, or who has the address.
    pub async fn hold_vip(&self, op: &str, vip: Option<Vec<String>>) -> Result<Report, PairError> {
        let _lane = self.lane().await?;
        let role = self.role();
        if !matches!(role.role, Role::Source | Role::Unconfigured) {
            return Err(PairError::Refused(format!(
                "this guest is {:?}; only a source holds the address (see switchover)",
                role.role
            )));
        }
        if !role.writable && role.role == Role::Source {
            return Err(PairError::Refused(
                "writes are closed here; the address would lead clients to a closed database".to_owned(),
            ));
        }
        if let Some(vip) = vip.filter(|vip| !vip.is_empty() && *vip != self.memory().vip) {
            self.wires().check_vip(self, &Vip::parse(&vip)?).await?;
            self.wires().release(Duration::ZERO).await;
            self.0
                .store
                .change(|memory| {
                    memory.vip = vip;
                    Ok(())
                })
                .await?;
            self.rewire().await?;
        }
        let wires = self.wires();
        if !wires.has_vip() {
            return Err(PairError::Refused("no service address is configured".to_owned()));
        }
        if wires.holds().await {
            return Ok(Report::unchanged(
                op,
                "hold_vip",
                role.generation,
                "the address is held already",
            ));
        }
        let mut report = Report::new(op, "hold_vip");
        let held = async {
            wires.probe(None).await?;
            wires.hold(None).await
        };
        if let Err(failure) = report.step("hold", held).await {
            if matches!(failure, PairError::Refused(_)) {
                let conflict = |memory: &mut super::memory::Memory| {
                    memory.role = RoleState {
                        vip: crate::instance::role::VipState::Conflict,
                        ..memory.role.clone()
                    };
                    Ok(())
                };
                let _ = self.0.store.live(conflict).await;
            }
            return Err(failure);
        }
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.held()?;
                memory.vip_off = false;
                Ok(())
            })
            .await?;
        report.state = ReportState::Done;
        report.generation = role.generation;
        self.remember(&report).await;
        Ok(report)
    }

    /// Gives the service address up. A source that has none is not raised again by the guard until it is told to hold.
    ///
    /// # Errors
    /// The memory.
    pub async fn release_vip(&self, op: &str) -> Result<Report, PairError> {
        let _lane = self.lane().await?;
        let wires = self.wires();
        if !wires.holds().await && !wires.wanted() {
            return Ok(Report::unchanged(
                op,
                "release_vip",
                self.role().generation,
                "the address is not held here",
            ));
        }
        let mut report = Report::new(op, "release_vip");
        wires.release(Duration::ZERO).await;
        self.0
            .store
            .change(|memory| {
                memory.role = memory.role.let_go();
                memory.vip_off = true;
                Ok(())
            })
            .await?;
        report.state = ReportState::Done;
        self.remember(&report).await;
        Ok(report)
    }
}
