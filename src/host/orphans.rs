//! Programs of an agent that died: nobody waits for them any more, and the step that started them is repeated by the next
//! agent, which must not meet them at work.

use super::service::process::{self, Seen};
use super::{HostError, as_blocking};
use std::path::{Path, PathBuf};

/// The environment variable that marks a program; its value is [`Mark`].
pub(super) const VARIABLE: &str = "TROVE_GUESTAGENT_PROGRAM";

/// Which agent started a program: its process, and the folder it works for.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    folder: PathBuf,
    value: String,
}

impl Mark {
    /// Our own mark.
    pub(super) fn new(state_dir: &Path) -> Result<Self, HostError> {
        let folder = state_dir.canonicalize().map_err(HostError::path("resolve", state_dir))?;
        let pid = std::process::id();
        let begun = process::look(pid).map_or(0, |seen| seen.start_time);
        let value = format!("{pid}:{begun}:{}", folder.display());
        Ok(Self { folder, value })
    }

    /// What goes into the environment.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// Kills the programs of earlier agents of this folder. Those of another that lives are its own; those with our own mark
    /// were started before we became what we are, so this comes before anything is run.
    pub(super) async fn end_orphans(&self) -> Result<(), HostError> {
        let mark = self.clone();
        let left = as_blocking(move || process::marked(VARIABLE, |value| mark.is_orphan(value))).await?;
        process::end(&left).await
    }

    fn is_orphan(&self, value: &[u8]) -> bool {
        let parsed = std::str::from_utf8(value).ok().and_then(|text| {
            let mut parts = text.splitn(3, ':');
            Some((
                parts.next()?.parse::<u32>().ok()?,
                parts.next()?.parse::<u64>().ok()?,
                parts.next()?,
            ))
        });
        let Some((pid, begun, folder)) = parsed else { return false };
        let lives = |Seen { start_time, .. }| start_time == begun;
        folder == self.folder.display().to_string() && (pid == std::process::id() || !process::look(pid).is_some_and(lives))
    }
}
