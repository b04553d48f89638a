//! The command line of backups.

use crate::cli::pair::TargetArgs;
use clap::{Args, Subcommand, ValueEnum};

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Take a backup now and wait for its end.
    Create(Box<CreateArgs>),
    /// List the backups in a storage.
    List {
        /// Of all instances, not only of this guest.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show all that is known of a backup.
    Show {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Replace the data of the guest by a backup. The present data are kept until the restored server answers.
    Restore {
        /// Also where the guest is the source of a pair: dissolves the pair on this side. Its replica must be made again.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        to: TargetPointArgs,
        /// Id of the backup. Default with a moment: the one that lies before it.
        #[arg(value_name = "ID", required_unless_present_any = ["location", "to_time", "to_gtid", "before_gtid", "latest"])]
        id: Option<String>,
        /// URL of its blob, as the control plane has it.
        #[arg(long, value_name = "URL")]
        location: Option<String>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Restore a backup into a scratch server that nobody reaches, and check it there.
    Verify {
        #[command(flatten)]
        which: WhichArgs,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// End the backup that runs.
    Cancel {
        /// Only if it is this one.
        #[arg(value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Delete the backups that the configured retention does not keep.
    Prune {
        /// Only tell which.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: CommonArgs,
    },
    /// Show to which times recovery is possible, the job that runs, and how the last ones ended.
    Window {
        #[command(flatten)]
        common: CommonArgs,
    },
}

/// A backup to be taken.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its id, a UUID. Default: a new one.
    #[arg(long, value_name = "UUID")]
    pub id: Option<String>,
    /// Its name, for people.
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Only what changed since the newest backup of this guest.
    #[arg(long)]
    pub incremental: bool,
    /// Only what changed since this backup.
    #[arg(long, value_name = "ID", conflicts_with = "incremental")]
    pub parent: Option<String>,
    /// Whose format. Default: as the guest is configured.
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Whose format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// Ours: zstd, encrypted if the guest has a key.
    Native,
    /// Upstream's: gzip.
    Upstream,
}

/// Which backup.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// Its id.
    #[arg(value_name = "ID", required_unless_present = "location")]
    pub id: Option<String>,
    /// URL of its blob, as the control plane has it.
    #[arg(long, value_name = "URL")]
    pub location: Option<String>,
}

/// To which point; without any, to the end of the backup.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct TargetPointArgs {
    /// To this moment (RFC 3339, e.g. 2026-11-22T14:05:00Z): transactions committed later are left out.
    #[arg(long, value_name = "TIME")]
    pub to_time: Option<String>,
    /// Up to and with this transaction (0-1-4711).
    #[arg(long, value_name = "GTID")]
    pub to_gtid: Option<String>,
    /// Up to and without this transaction: what came before it.
    #[arg(long, value_name = "GTID")]
    pub before_gtid: Option<String>,
    /// To the newest transaction there is.
    #[arg(long)]
    pub latest: bool,
}

/// What all take.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Another storage than the guest's: file:///srv/backups, s3://bucket/prefix, swift, conductor.
    #[arg(long, value_name = "PLACE")]
    pub storage: Option<String>,
    /// For programs.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: TargetArgs,
}
