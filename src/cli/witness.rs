//! `witness`.

use super::args::WitnessArgs;
use crate::app::{self, WitnessSettings};
use std::process::ExitCode;
use std::time::Duration;

/// Runs until it is told to stop.
pub fn run(args: WitnessArgs, debug: bool) -> anyhow::Result<ExitCode> {
    app::witness(WitnessSettings {
        listen: args.listen,
        key_files: args.key_file,
        state_dir: args.state_dir,
        lease: Duration::from_millis(args.lease_ms),
        debug,
    })?;
    Ok(ExitCode::SUCCESS)
}
