//! `trove-guestagent witness`: no guest, only the third party of pairs.

use super::{keep_memory_private, logging};
use crate::config::LogSettings;
use crate::link::{Limits, Listener, PairKey};
use crate::pair::lease::Terms;
use crate::pair::witness::Witness;
use anyhow::{Context, bail};
use datastore_api::Secret;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Largest key file read, bytes.
const KEY_FILE: u64 = 4096;

/// What a witness is started with.
pub struct WitnessSettings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// A file for each pair's key.
    pub key_files: Vec<PathBuf>,
    /// Where it keeps its promises.
    pub state_dir: Option<PathBuf>,
    /// The longest lease it serves.
    pub lease: Duration,
    /// Debug messages too.
    pub debug: bool,
}

/// Runs a witness until SIGTERM or SIGINT.
pub fn witness(settings: WitnessSettings) -> anyhow::Result<()> {
    let keys = settings
        .key_files
        .iter()
        .map(|path| key(path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    logging::start(&LogSettings {
        debug: settings.debug,
        ..LogSettings::default()
    })?;
    keep_memory_private();
    for path in &settings.key_files {
        if std::fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
            warn!(path = %path.display(), "a key file can be read by others than its owner");
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let served = runtime.block_on(serve(settings, keys));
    runtime.shutdown_timeout(Duration::from_secs(1));
    logging::flush();
    served
}

async fn serve(settings: WitnessSettings, keys: Vec<PairKey>) -> anyhow::Result<()> {
    let witness = Witness::open(Terms::new(settings.lease), settings.state_dir.as_deref())?;
    if settings.state_dir.is_none() {
        warn!("without --state-dir the witness forgets its promises when it restarts");
    }
    let listener = Listener::bind(&settings.listen)?;
    for address in listener.addresses() {
        info!(%address, pairs = keys.len(), "the witness listens");
    }
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = CancellationToken::new();
    let serving = listener.serve(
        Arc::new(move || keys.clone()),
        Arc::new(witness),
        Limits::default(),
        cancel.clone(),
    );
    tokio::select! {
        () = serving => {}
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    cancel.cancel();
    info!("the witness stops");
    Ok(())
}

fn key(path: &Path) -> anyhow::Result<PairKey> {
    let name = path.display();
    let size = std::fs::metadata(path)
        .with_context(|| format!("could not read the key file {name}"))?
        .len();
    if size > KEY_FILE {
        bail!("the key file {name} has {size} bytes; a key has 44");
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read the key file {name}"))?;
    PairKey::from_base64(&Secret::from(text)).with_context(|| format!("the key file {name} holds no key"))
}
