//! What the client of the conductor needs to know. Filled by `config`.

use std::time::Duration;

/// Generation of the Trove we talk to; later ones compare greater. Contract section 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// Trove 5: no payload encryption, "ready" is `running`, `healthy` is unknown.
    Mitaka,
    /// Trove 7 to 12: "ready" is `running`, `healthy` is unknown.
    Ocata,
    /// Trove 13: `healthy` is known.
    Ussuri,
    /// Trove 14 to 22.
    Victoria,
    /// Trove 23 to 25.
    Epoxy,
    /// Trove 26 and later.
    Hibiscus,
}

/// What the conductor room needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Identity of this guest, `instance_id` of what we report.
    pub guest_id: String,
    /// Longest time between two heartbeats.
    pub report_interval: Duration,
    /// Generation of Trove.
    pub era: Era,
}
