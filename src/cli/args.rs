//! The command line. Without a subcommand it is the daemon's, drop-in for upstream's (contract section 4.2).

use super::backup::BackupCommand;
use super::pair::PairCommand;
use clap::{ArgAction, Args, Parser, Subcommand};
use std::path::PathBuf;

/// OpenStack Trove guest agent.
///
/// Without a subcommand it runs as the daemon, with the options upstream's agent takes.
#[derive(Debug, Parser)]
#[command(name = "trove-guestagent", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of the daemon; the other commands read the same configuration.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// What to do instead of running as the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of the daemon.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Configuration file; may be given more than once, later ones win.
    #[arg(long, value_name = "PATH", global = true, action = ArgAction::Append)]
    pub config_file: Vec<PathBuf>,
    /// Folder of *.conf files, read in the order of their names; may be given more than once.
    #[arg(long, value_name = "DIR", global = true, action = ArgAction::Append)]
    pub config_dir: Vec<PathBuf>,
    /// Log at debug level.
    #[arg(long, short = 'd', overrides_with = "nodebug")]
    pub debug: bool,
    /// Log at info level.
    #[arg(long)]
    pub nodebug: bool,
    /// Append the log to this file.
    #[arg(long, value_name = "PATH", alias = "logfile")]
    pub log_file: Option<PathBuf>,
    /// Folder of the log file.
    #[arg(long, value_name = "DIR", alias = "logdir")]
    pub log_dir: Option<PathBuf>,
    /// Log as JSON, a line each.
    #[arg(long, overrides_with = "nouse_json")]
    pub use_json: bool,
    /// Log as text.
    #[arg(long)]
    pub nouse_json: bool,
    /// Accepted for upstream's sake and without effect: Python's logging configuration.
    #[arg(long, value_name = "PATH", hide = true, aliases = ["log-config", "log_config"])]
    pub log_config_append: Option<PathBuf>,
    /// Accepted for upstream's sake and without effect.
    #[arg(long, value_name = "FORMAT", hide = true)]
    pub log_date_format: Option<String>,
    /// Accepted for upstream's sake and without effect: the journal gets what we print.
    #[arg(long, hide = true)]
    pub use_journal: bool,
    /// Accepted for upstream's sake and without effect.
    #[arg(long, hide = true)]
    pub nouse_journal: bool,
    /// Accepted for upstream's sake and without effect.
    #[arg(long, hide = true)]
    pub use_syslog: bool,
    /// Accepted for upstream's sake and without effect.
    #[arg(long, hide = true)]
    pub nouse_syslog: bool,
    /// Accepted for upstream's sake and without effect.
    #[arg(long, value_name = "FACILITY", hide = true)]
    pub syslog_log_facility: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what the agent on this machine is doing.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// List the methods of the guest interface.
    Methods {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Print the journaled steps of `prepare` instead, a line each, in order, for this datastore manager.
        #[arg(long, value_name = "MANAGER")]
        steps: Option<String>,
        /// The steps of a `prepare` that makes a replica.
        #[arg(long, requires = "steps")]
        replica: bool,
    },
    /// Check the configuration: every problem at once, with file and line, and which file won.
    Check {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Call a method: over the local socket, or with --guest over the bus as the taskmanager does.
    Call {
        /// Its name.
        method: String,
        /// Its arguments, a JSON object; `-` reads it from standard input, so that secrets stay out of the list of processes.
        #[arg(long, value_name = "OBJECT", default_value = "{}")]
        json: String,
        /// Instance id of the guest to call over the bus.
        #[arg(long, value_name = "ID")]
        guest: Option<String>,
        /// How long to wait for the answer, seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 180)]
        timeout: u64,
        /// Print the answer on one line.
        #[arg(long)]
        compact: bool,
        #[command(flatten)]
        bus: BusArgs,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Pairs: a source and its replica behind a service address.
    Pair {
        /// What to do.
        #[command(subcommand)]
        command: PairCommand,
    },
    /// Backups: take, list, restore, verify, cancel, prune.
    Backup {
        /// What to do.
        #[command(subcommand)]
        command: BackupCommand,
    },
    /// What guests report to the conductor.
    Conductor {
        /// What to do.
        #[command(subcommand)]
        command: ConductorCommand,
    },
    /// Be the third party of pairs with automatic failover, on any host that is neither of theirs.
    Witness(WitnessArgs),
    /// Print completions for a shell.
    Completions {
        /// Which.
        shell: clap_complete::Shell,
    },
}

/// Commands about the conductor.
#[derive(Debug, Subcommand)]
pub enum ConductorCommand {
    /// Decode and print what guests report, without taking it from the real conductor.
    Watch {
        /// For programs: a line of JSON each.
        #[arg(long)]
        json: bool,
        /// Stop after this many messages.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// Stop after this many seconds.
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
        #[command(flatten)]
        bus: BusArgs,
    },
}

/// Options of a witness.
#[derive(Debug, Args)]
pub struct WitnessArgs {
    /// Where it listens; may be given more than once.
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    pub listen: Vec<std::net::SocketAddr>,
    /// File with the key of a pair, in Base64; once for each pair.
    #[arg(long, value_name = "PATH", required = true)]
    pub key_file: Vec<PathBuf>,
    /// Folder where it keeps its promises over a restart.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Longest lease of the pairs it serves, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub lease_ms: u64,
}

/// Where the local agent listens.
#[derive(Debug, Args)]
pub struct SocketArgs {
    /// Socket of the agent; else that of the configuration.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// How to reach the bus; else as the configuration says.
#[derive(Debug, Args)]
pub struct BusArgs {
    /// Transport URL, e.g. rabbit://user:password@host:5672/vhost. Better in a file: this one shows in the list of processes.
    #[arg(long, value_name = "URL")]
    pub transport_url: Option<String>,
    /// Control exchange.
    #[arg(long, value_name = "NAME")]
    pub exchange: Option<String>,
    /// File that holds the guest's payload key (`instance_rpc_encr_key`).
    #[arg(long, value_name = "PATH")]
    pub key_file: Option<PathBuf>,
}
