//! Where the log goes: standard error (the journal takes it from there) or a file, as text or as a line of JSON each.

use crate::config::LogSettings;
use anyhow::Context;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The open log file; the log is one for the process, and so is this.
static LOG_FILE: OnceLock<LogFile> = OnceLock::new();

struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &PathBuf) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(path)
    }
}

/// Writes to the log file if there is one, else to standard error.
struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A log that cannot be written must not stop the agent.
        match LOG_FILE.get() {
            Some(log) => drop(log.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)),
            None => drop(io::stderr().lock().write_all(bytes)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log of this process.
pub fn start(settings: &LogSettings) -> anyhow::Result<()> {
    if let Some(path) = path(settings) {
        let file = LogFile::open(&path).with_context(|| format!("could not open the log file {}", path.display()))?;
        let _ = LOG_FILE.set(LogFile {
            path,
            file: Mutex::new(file),
        });
    }
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
    let Some(log) = LOG_FILE.get() else { return };
    match LogFile::open(&log.path) {
        Ok(file) => {
            *log.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
            tracing::info!(path = %log.path.display(), "log file opened again");
        }
        Err(error) => tracing::error!(%error, path = %log.path.display(), "could not open the log file again"),
    }
}
