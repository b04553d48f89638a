//! The plane `arp`: the address by netlink, the neighbours by our own frames. One task owns the sockets; the plane talks to it.

mod actor;
mod hold;
mod rhythm;
mod watch;

use super::rtnl::Rtnl;
use super::{Address, AddressPlane, DataNic, HoldOptions, Probe, ProbeOptions, Vip, VipError, VipEvent, VipState, probe};
use actor::{Actor, Command};
use async_trait::async_trait;
use datastore_api::Change;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot, watch as state};

/// Events that wait for a slow reader.
const EVENTS: usize = 64;
/// Commands that wait for the task.
const COMMANDS: usize = 8;

/// The VIP on one NIC, by netlink and ARP. Dropping it ends announcing and watching; the addresses stay (R5), and
/// [`cleanup`] or a later plane finds them.
#[derive(Debug)]
pub struct ArpPlane {
    nic: DataNic,
    vip: Vip,
    commands: mpsc::Sender<Command>,
    state: state::Receiver<VipState>,
    events: broadcast::Sender<VipEvent>,
}

impl ArpPlane {
    /// Opens the sockets and starts the task on the current runtime. Changes no address: what an earlier run has left is held again
    /// by [`AddressPlane::hold`], which answers `Unchanged` then, or removed by [`AddressPlane::release`].
    ///
    /// # Errors
    /// CAP_NET_RAW or the interface is missing.
    pub fn open(nic: DataNic, vip: Vip) -> Result<Self, VipError> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let (actor, state) = Actor::open(&nic, &vip, events.clone())?;
        tokio::spawn(actor.run(inbox));
        Ok(Self {
            nic,
            vip,
            commands,
            state,
            events,
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, VipError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| VipError::Stopped)?;
        answer.await.map_err(|_| VipError::Stopped)
    }
}

#[async_trait]
impl AddressPlane for ArpPlane {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn vip(&self) -> &Vip {
        &self.vip
    }

    async fn holds(&self) -> Result<bool, VipError> {
        self.ask(Command::Holds).await?
    }

    async fn probe(&self, options: &ProbeOptions) -> Result<Probe, VipError> {
        // The NIC may have another hardware address by now, or be another interface of the same name.
        let nic = DataNic::by_name(self.nic.name())?;
        probe(&nic, &self.vip, options).await
    }

    async fn hold(&self, options: &HoldOptions) -> Result<Change, VipError> {
        if let Some(probe) = &options.probe
            && let Probe::Taken { address, by } = self.probe(probe).await?
        {
            return Err(VipError::Taken { address, by });
        }
        let expected = options.expected.clone();
        self.ask(|reply| Command::Hold { expected, reply }).await?
    }

    async fn release(&self, linger: Duration) -> Result<Change, VipError> {
        self.ask(|reply| Command::Release { linger, reply }).await?
    }

    async fn announce(&self) -> Result<(), VipError> {
        self.ask(Command::Announce).await?
    }

    fn state(&self) -> state::Receiver<VipState> {
        self.state.clone()
    }

    fn events(&self) -> broadcast::Receiver<VipEvent> {
        self.events.subscribe()
    }
}

/// Removes every address with our mark, on any interface, but those in `keep`: what a killed agent, or a pair that is no more, has
/// left. Answers what was removed.
///
/// # Errors
/// The kernel's first refusal; the others are removed all the same.
pub fn cleanup(keep: &[Address]) -> Result<Vec<Address>, VipError> {
    let mut rtnl = Rtnl::open()?;
    let (mut removed, mut refused) = (Vec::new(), None);
    for found in rtnl.addresses()?.iter().filter(|found| found.ours) {
        if keep
            .iter()
            .any(|address| (address.ip(), address.prefix()) == (found.ip, found.prefix))
        {
            continue;
        }
        match rtnl.remove(found) {
            Ok(_) => removed.extend(Address::new(found.ip, found.prefix)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    refused.map_or(Ok(removed), Err)
}
