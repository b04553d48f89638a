//! `pair`: what an operator does with a pair, over the bus or on its own machine.

mod args;
mod create;
mod guests;
mod operate;
mod render;
#[cfg(test)]
mod tests;

pub use args::{PairCommand, TargetArgs};
pub(super) use guests::{AskError, Guests};

use super::{bus, local, output};
use crate::config::Sources;
use args::{OperationArgs, ReachArgs};
use guests::{OverBus, OverSocket};
use operate::Verb;
use serde_json::Value;
use std::process::ExitCode;
use std::time::Duration;

/// The command line says something that cannot be. Exit code 2, as for what the parser finds.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What a guest that is asked over its socket is called as long as it has not said its name.
const HERE: &str = "on this machine";

/// Runs a command.
pub fn run(command: PairCommand, sources: Sources) -> anyhow::Result<ExitCode> {
    bus::runtime()?.block_on(async {
        match command {
            PairCommand::Create(args) => {
                create::check(&args)?;
                let guests = OverBus::connect(&args.reach, sources, &args.source).await?;
                create::run(&guests, &args).await
            }
            PairCommand::Status { json, watch, target } => {
                let limit = Duration::from_secs(target.reach.timeout);
                match way(&target, sources).await? {
                    Way::Bus(guests, guest) => status(&*guests, &guest, limit, json, watch).await,
                    Way::Socket(guests) => status(&guests, HERE, limit, json, watch).await,
                }
            }
            PairCommand::Switchover { force, operation } => operate(Verb::Switchover { force }, operation, sources).await,
            PairCommand::Failover { force, operation } => operate(Verb::Failover { force }, operation, sources).await,
            PairCommand::Rejoin { operation } => operate(Verb::Rejoin, operation, sources).await,
            PairCommand::Dissolve { operation } => operate(Verb::Dissolve, operation, sources).await,
        }
    })
}

async fn operate(verb: Verb, args: OperationArgs, sources: Sources) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs(args.target.reach.timeout);
    match way(&args.target, sources).await? {
        Way::Bus(guests, guest) => operate::run(&*guests, &guest, verb, limit, args.json).await,
        Way::Socket(guests) => operate::run(&guests, HERE, verb, limit, args.json).await,
    }
}

/// How a guest is reached.
pub(super) enum Way {
    /// Over the bus, by its id.
    Bus(Box<OverBus>, String),
    /// The one on this machine.
    Socket(OverSocket),
}

/// Finds the way that the command line names.
pub(super) async fn way(target: &TargetArgs, sources: Sources) -> anyhow::Result<Way> {
    match &target.guest {
        Some(guest) => Ok(Way::Bus(
            Box::new(OverBus::connect(&target.reach, sources, guest).await?),
            guest.clone(),
        )),
        None if names_bus(&target.reach) => Err(Usage("the options of the bus need --guest ID".to_owned()).into()),
        None => Ok(Way::Socket(OverSocket(local::socket(&target.socket, &sources)?))),
    }
}

fn names_bus(reach: &ReachArgs) -> bool {
    let bus = &reach.bus;
    bus.transport_url.is_some() || bus.exchange.is_some() || bus.key_file.is_some() || reach.peer_key_file.is_some()
}

/// `status`: the guest, and its peer if it can be asked.
async fn status(guests: &impl Guests, guest: &str, limit: Duration, json: bool, watch: bool) -> anyhow::Result<ExitCode> {
    loop {
        let (all, whole) = operate::both(guests, guest, limit).await?;
        if json {
            output::json(&serde_json::json!({ "guests": all }), watch)?;
        } else {
            if watch && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
                output::print(b"\x1b[H\x1b[2J")?;
            }
            output::print(render::status(&all).as_bytes())?;
        }
        if !watch {
            return Ok(code(whole));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether an operation ended as it should.
fn succeeded(report: &Value) -> bool {
    matches!(report["state"].as_str(), Some("done" | "unchanged"))
}
