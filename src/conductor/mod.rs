//! The client of the control plane's conductor: heartbeats, backups' rows, root reports, notifications.
//!
//! Owns: what is reported and when. Uses: `instance` (the view), `journal` (the clock of `sent`), `bus`. Never does: decide
//! what the instance's state is.
//!
//! A heartbeat goes out at once at start, on each change of what is [`reportable`], and at least every report interval.
//! Whatever happens to the disk or the broker, it goes on: without the journal its time stamp is kept in memory, and while the
//! broker is away only the newest waits.

mod backup;
mod beat;
mod context;
mod settings;
mod status;
#[cfg(test)]
mod tests;

pub use backup::{BackupRow, BackupState};
pub use settings::{Era, Settings};
pub use status::{Status, reportable};

use crate::bus::{BusError, Cast};
use crate::instance::View;
use crate::journal::{Journal, later};
use datastore_api::chain;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Only the newest heartbeat waits for the broker.
const HEARTBEAT: &str = "heartbeat";
/// How long the journal may take for a time stamp before the heartbeat goes without it.
const JOURNAL_LIMIT: Duration = Duration::from_secs(2);
/// What the control plane stores of a failure's text, characters.
const MESSAGE_LIMIT: usize = 255;
/// What we send of its details: lines, and characters of each.
const DETAIL_LINES: usize = 50;
const DETAIL_CHARS: usize = 4000;

type Sender = dyn Fn(Cast) -> Result<(), BusError> + Send + Sync;

/// Handle to the conductor's client; clones share it. A message that cannot be sent is logged here; callers go on.
#[derive(Clone)]
pub struct Conductor {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    journal: Journal,
    view: watch::Receiver<View>,
    send: Box<Sender>,
    /// Time stamp of the last heartbeat. Held from the look at the view to the hand-over to the bus, so that a later
    /// heartbeat has the later state.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    sent: f64,
    unrecorded: bool,
}

impl Conductor {
    /// Starts the heartbeats; they end with `cancel`. `send` hands a message to the bus and must not block.
    pub fn start<S>(settings: Settings, journal: Journal, view: watch::Receiver<View>, send: S, cancel: CancellationToken) -> Self
    where
        S: Fn(Cast) -> Result<(), BusError> + Send + Sync + 'static,
    {
        let inner = Arc::new(Inner {
            settings,
            journal,
            view: view.clone(),
            send: Box::new(send),
            last: Mutex::default(),
        });
        let conductor = Self { inner };
        tokio::spawn(beat::run(conductor.clone(), view, cancel));
        conductor
    }

    /// Reports this status now, whatever the view says: `building`, the end of a preparation, `failed to spawn`.
    pub async fn report_now(&self, status: Status) {
        let mut last = self.inner.last.lock().await;
        self.heartbeat(&mut last, status).await;
    }

    /// Reports what the view says now, if it says anything.
    async fn report_view(&self) {
        let mut last = self.inner.last.lock().await;
        let status = reportable(&self.inner.view.borrow());
        if let Some(status) = status {
            self.heartbeat(&mut last, status).await;
        }
    }

    async fn heartbeat(&self, last: &mut Last, status: Status) {
        let sent = self.sent(last).await;
        let payload = json!({ "service_status": status.description(self.inner.settings.era) });
        let args = [("payload", payload), ("sent", Value::from(sent))];
        self.cast("heartbeat", object(args), context::fresh(), Some(HEARTBEAT));
    }

    /// The time stamp of the next heartbeat, later than every one before it.
    async fn sent(&self, last: &mut Last) -> f64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let least = later(now, last.sent);
        let recorded = tokio::time::timeout(JOURNAL_LIMIT, self.inner.journal.next_sent(least)).await;
        let failure = match &recorded {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(chain(error)),
            Err(_) => Some("the disk does not answer".to_owned()),
        };
        if let (Some(error), false) = (&failure, last.unrecorded) {
            warn!(
                error,
                "the time of a heartbeat is not recorded; it is kept in memory until the disk works again"
            );
        }
        last.unrecorded = failure.is_some();
        last.sent = match recorded {
            Ok(Ok(sent)) => sent,
            _ => least,
        };
        last.sent
    }

    /// Reports that root was enabled, on behalf of the request with this context.
    pub async fn report_root(&self, context: &Map<String, Value>) {
        // Conductors before Trove 10 demand the user; later ones ignore it.
        let args = [("user", Value::from("root"))];
        self.cast("report_root", object(args), context::echo(context, None), None);
    }

    /// Tells the end of the operation that the request with this context asked for; nothing if nobody asked to be told.
    /// `prepare_instance_id`: add our identity, which the notification of a creation needs.
    pub async fn notify_end(&self, context: &Map<String, Value>, prepare_instance_id: bool) {
        let Some(mut notification) = context::notification(context) else {
            return;
        };
        if prepare_instance_id {
            self.identify(&mut notification);
        }
        let echo = context::echo(context, Some(&notification));
        let args = [
            ("notification_args", json!({})),
            ("serialized_notification", Value::Object(notification)),
        ];
        self.notify("notify_end", args, echo);
    }

    /// Tells the failure of the operation that the request with this context asked for; nothing if nobody asked to be told.
    /// The end user sees `message` (cut to 255 characters) and `details`: never a secret.
    pub async fn notify_exc_info(&self, context: &Map<String, Value>, message: &str, details: Vec<String>) {
        let Some(mut notification) = context::notification(context) else {
            return;
        };
        self.identify(&mut notification);
        let mut details: Vec<String> = details
            .iter()
            .take(DETAIL_LINES)
            .map(|line| cut(line, DETAIL_CHARS))
            .collect();
        if details.is_empty() {
            details.push(cut(message, DETAIL_CHARS));
        }
        let echo = context::echo(context, Some(&notification));
        let args = [
            ("serialized_notification", Value::Object(notification)),
            ("message", Value::from(cut(message, MESSAGE_LIMIT))),
            ("exception", Value::from(details)),
        ];
        self.notify("notify_exc_info", args, echo);
    }

    fn identify(&self, notification: &mut Map<String, Value>) {
        let id = Value::from(self.inner.settings.guest_id.as_str());
        notification.insert("instance_id".to_owned(), id);
    }

    /// A message about this instance.
    fn cast(
        &self,
        method: &'static str,
        mut args: Map<String, Value>,
        context: Map<String, Value>,
        collapse: Option<&'static str>,
    ) {
        let id = Value::from(self.inner.settings.guest_id.as_str());
        args.insert("instance_id".to_owned(), id);
        self.send(Cast {
            method,
            args,
            context,
            collapse,
        });
    }

    /// A message that names the instance only inside its notification.
    fn notify<const N: usize>(&self, method: &'static str, args: [(&str, Value); N], context: Map<String, Value>) {
        self.send(Cast {
            method,
            args: object(args),
            context,
            collapse: None,
        });
    }

    fn send(&self, cast: Cast) {
        let method = cast.method;
        match (self.inner.send)(cast) {
            Ok(()) => debug!(method, "reported to the conductor"),
            Err(error) => warn!(method, error = chain(&error), "could not report to the conductor"),
        }
    }
}

fn object<const N: usize>(args: [(&str, Value); N]) -> Map<String, Value> {
    args.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// At most `limit` characters, the last one telling that there were more.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}
