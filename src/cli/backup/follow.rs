//! What takes long is followed while it runs: a bar on a terminal, now and then a line elsewhere.

use super::render;
use crate::backup::BackupId;
use crate::cli::output;
use crate::cli::pair::{AskError, Guests};
use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::Instant;

/// How long it may take: a limit for what hangs, not for what is large.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often the guest is asked how far it is.
const PERIOD: Duration = Duration::from_millis(500);
/// How long it may take to answer that.
const LOOK: Duration = Duration::from_secs(5);
/// How often a line is printed where there is no terminal.
const LINE: Duration = Duration::from_secs(5);
/// How long a guest may be silent while it is followed by looking alone.
const SILENCE: Duration = Duration::from_secs(120);

/// A job that is asked for.
pub struct Job<'a, G> {
    pub guests: &'a G,
    pub guest: &'a str,
    /// Id of the backup.
    pub id: &'a str,
    /// `backup`, `restore` or `verify`.
    pub doing: &'a str,
    /// Only its end is printed.
    pub quiet: bool,
}

impl<G: Guests> Job<'_, G> {
    /// Asks for it and follows it to its end.
    pub async fn run(&self, method: &'static str, args: Map<String, Value>) -> anyhow::Result<Value> {
        let mut shown = Shown::new(self.quiet);
        let asked = self.guests.ask(self.guest, method, args, LIMIT);
        tokio::pin!(asked);
        let ended = loop {
            tokio::select! {
                ended = &mut asked => break ended,
                () = tokio::time::sleep(PERIOD) => {
                    if let Ok(status) = self.look().await {
                        shown.at(&status["running"]);
                    }
                }
            }
        };
        let ended = match ended {
            // It was accepted, and the way to it broke: it goes on.
            Err(AskError::Way { .. } | AskError::Silent { .. })
                if self.look().await.is_ok_and(|status| status["running"].is_object()) =>
            {
                self.follow(&mut shown).await
            }
            other => other.map_err(Into::into),
        };
        shown.over();
        ended
    }

    async fn look(&self) -> Result<Value, AskError> {
        // Without an id (a moment, a location) it is whatever runs.
        let id = self.id.parse::<BackupId>().ok();
        let args = id.map(|id| ("id".to_owned(), Value::from(id.as_str()))).into_iter().collect();
        self.guests.ask(self.guest, "get_backup_status", args, LOOK).await
    }

    async fn follow(&self, shown: &mut Shown) -> anyhow::Result<Value> {
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            tokio::time::sleep(PERIOD).await;
            let Ok(status) = self.look().await else { continue };
            heard = Instant::now();
            if status["running"].is_object() {
                shown.at(&status["running"]);
                continue;
            }
            let ended = status["ended"]
                .as_array()
                .and_then(|ended| ended.iter().find(|one| one["doing"] == self.doing));
            let Some(ended) = ended else {
                bail!("guest {} knows nothing more of it", self.guest)
            };
            if ended["state"] == "completed" {
                return Ok(ended["result"].clone());
            }
            bail!("guest {}: {}", self.guest, render::text(&ended["error"]));
        }
        bail!(
            "guest {} has not answered for {} s; what it does may go on",
            self.guest,
            SILENCE.as_secs()
        )
    }
}

/// What is seen of it.
struct Shown {
    quiet: bool,
    bar: Option<ProgressBar>,
    line: Instant,
    last: String,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bar: None,
            line: Instant::now(),
            last: String::new(),
        }
    }

    fn at(&mut self, running: &Value) {
        if self.quiet || !running.is_object() {
            return;
        }
        let progress = &running["progress"];
        let line = format!("{} {}", render::text(&running["doing"]), render::progress(progress));
        if !std::io::stderr().is_terminal() {
            if self.line.elapsed() >= LINE && line != self.last {
                output::complain(&line);
                (self.line, self.last) = (Instant::now(), line);
            }
            return;
        }
        let whole = progress["estimate"].as_u64().unwrap_or(0);
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(Some(whole), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template("{bar:32} {msg}").expect("the template is a constant"));
            bar
        });
        let now = progress["plain_bytes"]
            .as_u64()
            .unwrap_or(0)
            .max(progress["stored_bytes"].as_u64().unwrap_or(0));
        bar.set_length(whole.max(now));
        bar.set_position(now);
        bar.set_message(line);
    }

    fn over(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
