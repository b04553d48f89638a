//! What the shipping of the log is doing, for status, metrics and the CLI.

use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What is kept when the store is away so long that the server's log fills its disk: the one choice that cannot be made for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// The service: old log is dropped, and the window gets a gap.
    #[default]
    DropLog,
    /// The window: the log stays, whatever becomes of the disk.
    KeepLog,
}

/// How the log is shipped.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two looks at the server's files.
    pub look: Duration,
    /// Between two objects, while there is always something to ship.
    pub gather: Duration,
    /// Bytes of log that are read at once.
    pub piece: usize,
    /// Level of zstd.
    pub level: i32,
    /// Bytes of log that was not shipped which the server may keep; 0: no limit.
    pub budget: u64,
    /// What happens when that is passed.
    pub when_full: WhenFull,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            look: Duration::from_millis(200),
            gather: Duration::from_millis(400),
            piece: 4 << 20,
            level: 3,
            budget: 8 << 30,
            when_full: WhenFull::DropLog,
        }
    }
}

/// What shipping is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogState {
    /// Not asked for, or not this server's business in its role.
    #[default]
    Off,
    /// Finding out where to go on.
    Starting,
    /// Everything the server wrote is in the store.
    Current,
    /// There is more than is in the store; it is being shipped.
    Shipping,
    /// It is tried again: see the error.
    Failing,
}

/// How far the log is shipped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogStatus {
    /// What is being done.
    pub state: LogState,
    /// The timeline that is written now.
    pub timeline: u64,
    /// The server's file.
    pub file: String,
    /// Up to this byte it is in the store.
    pub offset: u64,
    /// The last transactions in the store.
    pub position: String,
    /// When the server's files were last seen to have nothing more, in milliseconds since 1970.
    pub current_at: Option<u64>,
    /// Since when something waits for the store, in milliseconds since 1970.
    pub waits_since: Option<u64>,
    /// Objects and bytes shipped since the agent started.
    pub objects: u64,
    /// Bytes of log, as the server wrote them.
    pub bytes: u64,
    /// Why it fails now.
    pub error: Option<String>,
    /// Why the present timeline was begun, if it was by this agent.
    pub began: Option<String>,
}

impl LogStatus {
    /// How far behind the server the store is.
    #[must_use]
    pub fn behind(&self) -> Duration {
        self.waits_since
            .map_or(Duration::ZERO, |since| Duration::from_millis(now().saturating_sub(since)))
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
