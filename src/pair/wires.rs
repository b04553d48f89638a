//! The network of this guest as the pair uses it: address plane, door, sessions. Each part may be missing.

use super::{Memory, Pair, PairError, PairSpec, Plane};
pub(super) use crate::vip::door::Door;
use crate::vip::door::{DoorSettings, DoorState};
use crate::vip::{
    AddressPlane, ArpPlane, DataNic, HoldOptions, KeepalivedPlane, KeepalivedSettings, Mac, Probe, ProbeOptions, Vip, routes,
    sockets,
};
use datastore_api::chain;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

/// The network of this guest.
pub(super) struct Wires {
    nic: Option<DataNic>,
    plane: Option<Arc<dyn AddressPlane>>,
    door: Option<Door>,
    port: u16,
    peers: Vec<IpAddr>,
}

impl Wires {
    /// No data network.
    pub fn none() -> Self {
        Self {
            nic: None,
            plane: None,
            door: None,
            port: 0,
            peers: Vec::new(),
        }
    }

    /// What the settings and the memory ask for.
    pub async fn build(pair: &Pair, memory: &Memory, spec: Option<&PairSpec>, port: u16) -> Result<Self, PairError> {
        let settings = &pair.0.settings;
        let Some(name) = &settings.data_interface else {
            return Ok(Self { port, ..Self::none() });
        };
        let nic = DataNic::by_name(name)?;
        let peers: Vec<IpAddr> = spec.iter().map(|spec| spec.peer.host).collect();
        let texts = if memory.vip.is_empty() { &settings.vip } else { &memory.vip };
        let plane = match texts.is_empty() {
            true => None,
            false => Some(plane(pair, memory, spec, Vip::parse(texts)?, &nic).await?),
        };
        let door = match port {
            0 => None,
            port => {
                let door = Door::new(DoorSettings {
                    data_nic: name.clone(),
                    port,
                    peers: peers.clone(),
                });
                let door = door.map_err(|failure| PairError::Failed(chain(&failure)))?;
                door.install(DoorState::Open)
                    .map_err(|failure| PairError::Failed(chain(&failure)))?;
                Some(door)
            }
        };
        Ok(Self {
            nic: Some(nic),
            plane,
            door,
            port,
            peers,
        })
    }

    /// Our own address on the data network, of the family of `like` if there is one.
    pub fn own_address(&self, like: Option<IpAddr>) -> Option<IpAddr> {
        let vip = self.plane.as_ref().map(|plane| plane.vip().clone());
        let own = |ip: &IpAddr| !vip.as_ref().is_some_and(|vip| vip.contains(*ip));
        let addresses = self.nic.as_ref()?.addresses().iter().map(|address| address.ip).filter(own);
        let mut all: Vec<IpAddr> = addresses
            .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
            .collect();
        all.sort_by_key(|ip| (like.is_some_and(|like| like.is_ipv4() != ip.is_ipv4()), ip.is_ipv6()));
        all.first().copied()
    }

    /// Hardware address of the data NIC.
    pub fn mac(&self) -> Option<String> {
        self.nic.as_ref().map(|nic| nic.mac().to_string())
    }

    /// Whether there is a service address.
    pub fn has_vip(&self) -> bool {
        self.plane.is_some()
    }

    /// Whether it shall be held.
    pub fn wanted(&self) -> bool {
        self.plane.as_ref().is_some_and(|plane| plane.state().borrow().wanted)
    }

    /// Whether it is on the NIC.
    pub async fn holds(&self) -> bool {
        match &self.plane {
            Some(plane) => plane.holds().await.unwrap_or(false),
            None => false,
        }
    }

    /// The plane, for the status.
    pub fn plane(&self) -> Option<&Arc<dyn AddressPlane>> {
        self.plane.as_ref()
    }

    /// Whether this may be a service address here.
    pub async fn check_vip(&self, pair: &Pair, vip: &Vip) -> Result<(), PairError> {
        let Some(nic) = &self.nic else {
            return Err(PairError::Refused(
                "there is no data network here (data_interface), so no place for a service address".to_owned(),
            ));
        };
        nic.check(vip, pair.0.settings.management_interface.as_deref())?;
        Ok(())
    }

    /// R2: does anybody else have the address?
    pub async fn probe(&self, old_mac: Option<&str>) -> Result<(), PairError> {
        self.probe_within(old_mac, ProbeOptions::default().limit).await
    }

    /// The same with a limit of its own; hosts of one network answer in less than a millisecond.
    pub async fn probe_within(&self, old_mac: Option<&str>, limit: Duration) -> Result<(), PairError> {
        let Some(plane) = &self.plane else { return Ok(()) };
        if plane.holds().await.unwrap_or(false) {
            return Ok(());
        }
        let options = ProbeOptions {
            ignore: macs(old_mac),
            limit,
            ..ProbeOptions::default()
        };
        match plane.probe(&options).await? {
            Probe::Free => Ok(()),
            Probe::Taken { address, by } => Err(PairError::Refused(format!("the service address {address} is in use by {by}"))),
        }
    }

    /// Takes the address; the caller has probed.
    pub async fn hold(&self, old_mac: Option<&str>) -> Result<(), PairError> {
        if let Some(plane) = &self.plane {
            plane
                .hold(&HoldOptions {
                    probe: None,
                    expected: macs(old_mac),
                })
                .await?;
        }
        Ok(())
    }

    /// Gives it up. What could not be removed is logged and tried again by the plane.
    pub async fn release(&self, linger: Duration) {
        if let Some(plane) = &self.plane
            && let Err(failure) = plane.release(linger).await
        {
            error!(error = chain(&failure), "the service address could not be released");
        }
    }

    /// Clients are refused from here, and their connections end with resets.
    pub fn close_to_clients(&self) {
        if let Some(door) = &self.door
            && let Err(failure) = door.set(DoorState::Closed)
        {
            error!(error = chain(&failure), "the door could not be closed");
        }
        self.reset_clients();
    }

    /// Ends the clients' connections.
    pub fn reset_clients(&self) {
        if self.nic.is_none() || self.port == 0 {
            return;
        }
        match sockets::destroy_clients(self.port, &self.peers) {
            Ok(count) => info!(count, "connections of clients were reset"),
            Err(failure) => warn!(error = chain(&failure), "the clients' connections could not be reset"),
        }
    }

    /// Sets the door.
    pub fn set_door(&self, state: DoorState) {
        if let Some(door) = &self.door
            && let Err(failure) = door.set(state)
        {
            error!(error = chain(&failure), "the door could not be set");
        }
    }

    /// The door, for lease and status.
    pub fn door(&self) -> Option<&Door> {
        self.door.as_ref()
    }

    /// Takes the door away.
    pub fn uninstall(&self) {
        if let Some(door) = &self.door
            && let Err(failure) = door.uninstall()
        {
            warn!(error = chain(&failure), "the door could not be taken away");
        }
    }

    /// Makes a source that is silent unreachable while following it is ended: the server would ask it over a second connection, and
    /// wait two seconds for the answer. [`Wires::let_replication`] follows at once.
    pub fn cut_replication(&self, peer: IpAddr) {
        if self.nic.is_some()
            && let Err(failure) = routes::unreachable(peer)
        {
            warn!(
                error = chain(&failure),
                "the silent source could not be made unreachable; ending to follow it takes longer"
            );
        }
    }

    /// Takes that back.
    pub fn let_replication(&self, peer: IpAddr) {
        if self.nic.is_some()
            && let Err(failure) = routes::reachable(peer)
        {
            error!(error = chain(&failure), "the other guest could not be made reachable again");
        }
    }
}

fn macs(text: Option<&str>) -> Vec<Mac> {
    text.and_then(|text| text.parse().ok()).into_iter().collect()
}

async fn plane(
    pair: &Pair,
    memory: &Memory,
    spec: Option<&PairSpec>,
    vip: Vip,
    nic: &DataNic,
) -> Result<Arc<dyn AddressPlane>, PairError> {
    let settings = &pair.0.settings;
    match memory.plane {
        Plane::Arp => Ok(Arc::new(ArpPlane::open(nic.clone(), vip)?)),
        Plane::Keepalived => {
            let v4 = vip.addresses().iter().any(|address| address.ip().is_ipv4());
            let fits = |ip: &IpAddr| ip.is_ipv4() == v4;
            let ours = nic
                .addresses()
                .iter()
                .filter(|address| !address.ours && !vip.contains(address.ip))
                .map(|address| address.ip);
            let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
            let Some(source) = ours.filter(fits).find(|ip| !link_local(ip)) else {
                return Err(PairError::Refused(
                    "keepalived needs an address of the service address's family on the data NIC".to_owned(),
                ));
            };
            let peers = spec.iter().map(|spec| spec.peer.host).collect();
            // The same on both hosts; another pair on the same network has another one, most likely, and is not a peer in any case.
            let router_id = spec.map_or(1, |spec| {
                spec.id
                    .bytes()
                    .fold(7_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte))
                    .max(1)
            });
            let mut keepalived = KeepalivedSettings::new(&settings.run_dir, &settings.state_dir, source, peers, router_id);
            keepalived.program.clone_from(&settings.keepalived);
            Ok(Arc::new(
                KeepalivedPlane::open(nic, vip, keepalived, pair.0.host.clone()).await?,
            ))
        }
    }
}
