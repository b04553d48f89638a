//! The command line of pairs.

use crate::cli::args::{BusArgs, SocketArgs};
use crate::vip::Address;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What to do with a pair.
#[derive(Debug, Subcommand)]
pub enum PairCommand {
    /// Make a pair of two guests: a source and its replica behind service addresses.
    Create(Box<CreateArgs>),
    /// Show both guests of a pair: roles, generation, addresses, lag, durability, door, last operation.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Show it again each second.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        target: TargetArgs,
    },
    /// Make the replica the source, as planned: nothing is lost, writes wait for milliseconds.
    Switchover {
        /// Also to a replica that is far behind.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operation: OperationArgs,
    },
    /// Make the replica the source although the source does not answer. --guest is the replica.
    Failover {
        /// You say that the source is dead, though nothing proves it. If it is not, there are two writers.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operation: OperationArgs,
    },
    /// Make a guest that was left behind follow the source again. What only it has is saved to a file first.
    Rejoin {
        #[command(flatten)]
        operation: OperationArgs,
    },
    /// End the pair: the source goes on alone, the replica stops following.
    Dissolve {
        #[command(flatten)]
        operation: OperationArgs,
    },
}

/// What a pair is to be.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Instance id of the guest that clients write to.
    #[arg(long, value_name = "ID", value_parser = guest)]
    pub source: String,
    /// Instance id of the guest that follows it. It must hold no databases of users.
    #[arg(long, value_name = "ID", value_parser = guest)]
    pub replica: String,
    /// Service address on the data network; may be given more than once (IPv4 and IPv6).
    #[arg(long, value_name = "ADDR/PREFIX")]
    pub vip: Vec<Address>,
    /// Who holds the addresses: the agent itself, or keepalived.
    #[arg(long, default_value = "arp", value_parser = ["arp", "keepalived"])]
    pub plane: String,
    /// What an acknowledged write is worth.
    #[arg(long, default_value = "async", value_parser = ["async", "semi-sync", "durable"])]
    pub durability: String,
    /// Who decides that the source is dead: a person, or the agents.
    #[arg(long, default_value = "manual", value_parser = ["manual", "automatic"])]
    pub failover: String,
    /// A third party that knows whether the source lives, for --failover automatic.
    #[arg(long, value_name = "ADDR:PORT")]
    pub witness: Option<SocketAddr>,
    /// Write the pair's key into this new file (mode 0600), for the witness.
    #[arg(long, value_name = "FILE", requires = "witness")]
    pub witness_key_file: Option<PathBuf>,
    /// Longest time that a switchover may block writes before it goes back, milliseconds.
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = RangedU64ValueParser::<u64>::new().range(100..=600_000))]
    pub blocked_ms: u64,
    /// How long a source that hears nothing lets clients write, milliseconds (--failover automatic).
    #[arg(long, value_name = "N", default_value_t = 1_500, value_parser = RangedU64ValueParser::<u64>::new().range(300..=60_000))]
    pub lease_ms: u64,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Instance id of a guest of the pair, over the bus; without it the agent on this machine is asked.
    #[arg(long, value_name = "ID", value_parser = guest)]
    pub guest: Option<String>,
    #[command(flatten)]
    pub reach: ReachArgs,
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// What all operations take.
#[derive(Debug, Args)]
pub struct OperationArgs {
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// How to reach guests over the bus.
#[derive(Debug, Args)]
pub struct ReachArgs {
    #[command(flatten)]
    pub bus: BusArgs,
    /// File that holds the payload key of the other guest (with `create`: of the replica); else that of --key-file.
    #[arg(long, value_name = "PATH")]
    pub peer_key_file: Option<PathBuf>,
    /// How long a guest may take to answer, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = RangedU64ValueParser::<u64>::new().range(1..=3_600))]
    pub timeout: u64,
}

/// An instance id, which names of queues are made of.
fn guest(text: &str) -> Result<String, String> {
    let fits = (1..=100).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("an instance id has at most 100 letters, digits, '-', '_' or '.'".to_owned())
    }
}
