//! R2: does another host have the address? RFC 5227 for IPv4, the questions of duplicate address detection for IPv6.

use super::frames::{self, Claim};
use super::packet::{Heard, PacketSocket};
use super::{DataNic, Probe, ProbeOptions, Vip, VipError};
use std::io;
use tokio::time::{Instant, timeout_at};

/// Asks for every address of the VIP at once. The NIC needs no address. A host that at this moment asks the same, as RFC 5227
/// wants, counts as one that has it.
///
/// # Errors
/// The NIC cannot send, or CAP_NET_RAW is missing.
pub async fn probe(nic: &DataNic, vip: &Vip, options: &ProbeOptions) -> Result<Probe, VipError> {
    let open = |v4| PacketSocket::open(nic.name(), vip, v4, Heard::ClaimsAndQuestions);
    let (arp, nd) = (open(true)?, open(false)?);
    let both = tokio::try_join!(family(nic, vip, options, arp, true), family(nic, vip, options, nd, false));
    both.map_or_else(|early| early, |_| Ok(Probe::Free))
}

/// Ends early, with an error as `try_join` calls it, when there is something to say.
async fn family(
    nic: &DataNic,
    vip: &Vip,
    options: &ProbeOptions,
    socket: Option<PacketSocket>,
    v4: bool,
) -> Result<(), Result<Probe, VipError>> {
    let Some(mut socket) = socket else { return Ok(()) };
    let begin = Instant::now();
    let rounds = options.count.max(1);
    for round in 0..rounds {
        send(nic, vip, &socket, v4).map_err(|source| Err(kernel(nic, source)))?;
        let until = begin + options.limit * (round + 1) / rounds;
        while let Ok(frame) = timeout_at(until, socket.receive()).await {
            let claim = frames::claim(frame.map_err(|source| Err(kernel(nic, source)))?);
            if let Some(taken) = claim.and_then(|claim| counts(nic, vip, options, claim)) {
                return Err(Ok(taken));
            }
        }
    }
    Ok(())
}

fn send(nic: &DataNic, vip: &Vip, socket: &PacketSocket, v4: bool) -> io::Result<()> {
    let mut family = vip.addresses().iter().filter(|address| address.ip().is_ipv4() == v4);
    family.try_for_each(|address| socket.send(&frames::probe(nic.mac(), address.ip())))
}

fn counts(nic: &DataNic, vip: &Vip, options: &ProbeOptions, claim: Claim) -> Option<Probe> {
    let address = *vip.addresses().iter().find(|address| address.ip() == claim.ip)?;
    let counts = claim.mac != nic.mac() && !options.ignore.contains(&claim.mac);
    counts.then_some(Probe::Taken { address, by: claim.mac })
}

fn kernel(nic: &DataNic, source: io::Error) -> VipError {
    if source.raw_os_error() == Some(nix::libc::ENETDOWN) {
        return VipError::LinkDown(nic.name().to_owned());
    }
    VipError::Kernel {
        doing: "probe the service address",
        nic: nic.name().to_owned(),
        source,
    }
}
