//! What keepalived does, as its FIFO, its supervisor and the kernel tell it.

use super::render::{Files, told};
use super::{KeepalivedSettings, LEAVE_LIMIT};
use crate::vip::frames;
use crate::vip::monitor::Monitor;
use crate::vip::packet::{Heard, PacketSocket};
use crate::vip::rtnl::{Found, Rtnl};
use crate::vip::{Address, DataNic, Vip, VipError, VipEvent, VipState};
use datastore_api::{Host, ServiceState};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep};

/// Events that wait for a slow reader.
const EVENTS: usize = 64;
/// A look even if nothing was heard.
const LOOK_EACH: Duration = Duration::from_millis(500);
/// What is not known of VRRP.
const UNKNOWN: &str = "unknown";

/// What the plane's verbs and its follower share.
pub(super) struct Shared {
    pub nic: String,
    pub vip: Vip,
    pub settings: KeepalivedSettings,
    pub files: Files,
    pub host: Arc<dyn Host>,
    pub state: watch::Sender<VipState>,
    pub events: broadcast::Sender<VipEvent>,
    said: watch::Sender<String>,
    rtnl: Mutex<Rtnl>,
    /// When keepalived was last told that it may not.
    denied: Mutex<Instant>,
}

/// The VIP's addresses on the NIC.
pub(super) struct Look {
    pub there: Vec<Found>,
    /// All of them.
    pub complete: bool,
}

impl Shared {
    pub fn open(
        nic: &DataNic,
        vip: Vip,
        settings: KeepalivedSettings,
        files: Files,
        host: Arc<dyn Host>,
    ) -> Result<Self, VipError> {
        let state = VipState {
            held: false,
            wanted: false,
            addresses: Vec::new(),
            link: nic.is_up(),
            last_announce: None,
            rivals: Vec::new(),
            reason: None,
        };
        Ok(Self {
            nic: nic.name().to_owned(),
            vip,
            settings,
            files,
            host,
            state: watch::Sender::new(state),
            events: broadcast::Sender::new(EVENTS),
            said: watch::Sender::new(UNKNOWN.to_owned()),
            rtnl: Mutex::new(Rtnl::open()?),
            denied: Mutex::new(Instant::now()),
        })
    }

    /// VRRP's state, as keepalived said last.
    pub fn said(&self) -> String {
        self.said.borrow().clone()
    }

    /// Takes over what a running keepalived was allowed.
    pub fn adopt(&self, running: bool) -> Result<(), VipError> {
        let allowed = fs::read(&self.files.may_hold).is_ok_and(|text| text.starts_with(b"1"));
        self.want(running && allowed);
        self.look().map(drop)
    }

    /// What shall be.
    pub fn want(&self, wanted: bool) {
        self.state.send_if_modified(|state| {
            let changed = state.wanted != wanted;
            state.wanted = wanted;
            state.held &= wanted;
            changed
        });
    }

    /// Tells keepalived whether it may hold. The file lies in memory; keepalived is woken by the kernel.
    pub fn allow(&self, may: bool) -> Result<(), VipError> {
        let path = &self.files.may_hold;
        if !may {
            *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        // Not truncated first: between the two steps it would be a file that says nothing.
        let opened = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path);
        let written = opened.and_then(|mut file| file.write_all(if may { b"1\n" } else { b"0\n" }));
        written.map_err(|error| super::broken("tell keepalived whether it may hold the address", &error))
    }

    /// Looks at the kernel and tells what is new.
    pub fn look(&self) -> Result<Look, VipError> {
        let (there, link) = {
            let mut rtnl = self.rtnl.lock().unwrap_or_else(PoisonError::into_inner);
            let link = rtnl.links()?.into_iter().find(|link| link.name == self.nic);
            let mut there = rtnl.addresses()?;
            there.retain(|found| link.as_ref().is_some_and(|link| link.index == found.nic) && self.address(found).is_some());
            (there, link.is_some_and(|link| link.up))
        };
        let addresses: Vec<Address> = there.iter().filter_map(|found| self.address(found)).collect();
        let complete = self.vip.addresses().iter().all(|wanted| addresses.contains(wanted));
        let said = self.said();
        let mut news = None;
        self.state.send_if_modified(|state| {
            let held = complete && state.wanted;
            let reason = (state.wanted && !held).then(|| format!("VRRP is {said}"));
            if state.held != held && state.wanted {
                news = Some(if held {
                    VipEvent::Held
                } else {
                    let missing = self.vip.addresses().iter().find(|wanted| !addresses.contains(wanted));
                    let missing = missing.copied().unwrap_or(self.vip.addresses()[0]);
                    VipEvent::Lost(missing, format!("VRRP is {said}"))
                });
            }
            if held && !state.held {
                state.last_announce = Some(SystemTime::now());
            }
            let changed = (state.held, &state.addresses, state.link, &state.reason) != (held, &addresses, link, &reason);
            (state.held, state.addresses, state.link, state.reason) = (held, addresses, link, reason);
            changed
        });
        if let Some(event) = news {
            let _ = self.events.send(event);
        }
        Ok(Look { there, complete })
    }

    fn address(&self, found: &Found) -> Option<Address> {
        let ours = |address: &&Address| (address.ip(), address.prefix()) == (found.ip, found.prefix);
        self.vip.addresses().iter().find(ours).copied()
    }

    /// Takes the VIP off the NIC, as far as it is there.
    pub fn remove_all(&self) -> Result<(), VipError> {
        let there = self.look()?.there;
        let mut rtnl = self.rtnl.lock().unwrap_or_else(PoisonError::into_inner);
        let mut refused = Ok(());
        for found in &there {
            refused = refused.and(rtnl.remove(found).map(drop));
        }
        refused
    }

    /// Tells the neighbours, if the VIP is held.
    pub fn announce(&self) -> Result<(), VipError> {
        if !self.state.borrow().held {
            return Ok(());
        }
        let nic = DataNic::by_name(&self.nic)?;
        for v4 in [true, false] {
            let Some(socket) = PacketSocket::open(nic.name(), &self.vip, v4, Heard::Claims)? else {
                continue;
            };
            for address in self.vip.addresses().iter().filter(|address| address.ip().is_ipv4() == v4) {
                for frame in frames::announcement(nic.mac(), address.ip()) {
                    socket.send(&frame).map_err(|source| VipError::Kernel {
                        doing: "announce the service address",
                        nic: self.nic.clone(),
                        source,
                    })?;
                }
            }
        }
        self.state.send_modify(|state| state.last_announce = Some(SystemTime::now()));
        Ok(())
    }

    /// Until the plane is dropped.
    pub async fn follow(self: Arc<Self>, told_by: pipe::Receiver) {
        let mut lines = BufReader::new(told_by).lines();
        let mut monitor = match Monitor::open() {
            Ok(monitor) => Some(monitor),
            Err(error) => {
                self.report(format!(
                    "changes of addresses are seen late: {}",
                    datastore_api::chain(&error)
                ));
                None
            }
        };
        let mut service = self.service().await.ok();
        let mut worker = None;
        loop {
            let unknown = ServiceState::Stopped;
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => self.hear(&line),
                    // Our own end keeps it open; this cannot go on.
                    Ok(None) | Err(_) => {
                        self.report("keepalived's notify FIFO broke".to_owned());
                        return self.blind().await;
                    }
                },
                news = news(&mut monitor) => if news.is_err() {
                    monitor = None;
                },
                () = self.host.service_changed(&self.settings.service, service.as_ref().unwrap_or(&unknown)) => {
                    let now = self.service().await.ok();
                    if now != service {
                        self.service_is(now.as_ref());
                        worker = None;
                    }
                    service = now;
                }
                () = sleep(LOOK_EACH) => {}
            }
            let now = fs::read_to_string(&self.files.vrrp_pid).ok();
            if worker.is_some() && now.is_some() && now != worker {
                self.report("keepalived's VRRP process died and was started again".to_owned());
            }
            worker = now.or(worker);
            self.settle();
        }
    }

    /// Without a FIFO: only the kernel's word.
    async fn blind(&self) {
        loop {
            sleep(LOOK_EACH).await;
            self.settle();
        }
    }

    fn hear(&self, line: &str) {
        let Some(state) = told(line) else { return };
        tracing::info!(state, "keepalived changed its state");
        self.said.send_replace(state.to_owned());
    }

    fn service_is(&self, state: Option<&ServiceState>) {
        match state {
            Some(ServiceState::Running { .. }) => {}
            Some(ServiceState::Restarting { last_exit } | ServiceState::Failed { last_exit }) => {
                self.said.send_replace(UNKNOWN.to_owned());
                self.report(format!("keepalived died: {last_exit}"));
            }
            Some(ServiceState::Stopped) | None => {
                self.said.send_replace(UNKNOWN.to_owned());
                self.report("keepalived does not run".to_owned());
            }
        }
    }

    fn report(&self, problem: String) {
        tracing::error!(problem, "the keepalived plane is broken");
        let _ = self.events.send(VipEvent::Broken(problem));
    }

    /// What must not be held is not left to a keepalived that died: nobody else takes it off the NIC.
    fn settle(&self) {
        let looked = self.look();
        let allowed = fs::read(&self.files.may_hold).is_ok_and(|text| text.starts_with(b"1"));
        let left = looked.is_ok_and(|look| !look.there.is_empty()) && !self.state.borrow().wanted && !allowed;
        let denied = *self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if left && denied.elapsed() > LEAVE_LIMIT {
            if let Err(error) = self.remove_all() {
                tracing::error!(error = %datastore_api::chain(&error), "the service address could not be removed");
            } else {
                tracing::warn!("the service address was left on the interface without right; it was removed");
            }
            let _ = self.look();
        }
    }
}

async fn news(monitor: &mut Option<Monitor>) -> io::Result<()> {
    match monitor {
        Some(monitor) => monitor.news().await.map(drop),
        None => std::future::pending().await,
    }
}
