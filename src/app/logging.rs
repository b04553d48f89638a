//! Where the log goes: standard error (the journal takes it from there) or a file, as text or as a line of JSON each.

use super::log_file::LogFile;
use crate::config::LogSettings;
use anyhow::Context;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How long a stop waits for the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The log is one for the process, and so is this.
static LOG: OnceLock<LogFile> = OnceLock::new();

/// Hands each line to the log's own thread.
struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = LOG.get() {
            log.line(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log of this process.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    let path = path(settings);
    let place = path
        .as_ref()
        .map_or("standard error".to_owned(), |path| path.display().to_string());
    let log = LogFile::start(path).with_context(|| format!("could not open the log file {place}"))?;
    let _ = LOG.set(log);
    let level = if settings.debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    // The AMQP and MySQL clients report at ERROR what our own code handles and logs itself.
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("trove_guestagent", level)
        .with_target("datastore_mysql", level)
        .with_target("datastore_sim", level)
        .with_target("lapin", LevelFilter::OFF)
        .with_target("mysql_async", LevelFilter::OFF);
    let layer = fmt::layer().with_writer(|| Out).with_ansi(false);
    let layer = if settings.json { layer.json().boxed() } else { layer.boxed() };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init()
        .context("could not start the log")
}

/// The log file: a relative one lies in the log folder, a folder alone means the program's own name, as in oslo.log.
fn path(settings: &LogSettings) -> Option<PathBuf> {
    match (&settings.dir, &settings.file) {
        (None, file) => file.clone(),
        (Some(dir), Some(file)) => Some(dir.join(file)),
        (Some(dir), None) => Some(dir.join("trove-guestagent.log")),
    }
}

/// Opens the log file again, after it was rotated.
pub fn reopen() {
    if let Some(log) = LOG.get() {
        log.reopen();
    }
}

/// Waits a moment for the last lines to be written.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_LIMIT);
    }
}
