//! Operations on a pair that is there: ask the guest whose part it is, follow it to its end, tell how it ended.

use super::guests::{AskError, Guests};
use super::{code, render, succeeded};
use crate::cli::output;
use anyhow::bail;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long an operation may take to answer that it runs, or to end if it answers at its end.
const OPERATION_LIMIT: Duration = Duration::from_secs(120);
/// How long a guest may be silent while we follow its operation.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const PERIOD: Duration = Duration::from_millis(300);

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Planned change of source.
    Switchover { force: bool },
    /// Change of source without the source.
    Failover { force: bool },
    /// Back into the pair.
    Rejoin,
    /// No pair any more.
    Dissolve,
}

impl Verb {
    fn method(self) -> &'static str {
        match self {
            Verb::Switchover { .. } => "switchover",
            Verb::Failover { .. } => "failover",
            Verb::Rejoin => "rejoin",
            Verb::Dissolve => "dissolve_pair",
        }
    }

    fn args(self) -> Map<String, Value> {
        match self {
            Verb::Switchover { force } | Verb::Failover { force } => Map::from_iter([("force".to_owned(), json!(force))]),
            Verb::Rejoin | Verb::Dissolve => Map::new(),
        }
    }
}

/// Asks for the state of a guest.
pub async fn state(guests: &impl Guests, guest: &str, limit: Duration) -> Result<Value, AskError> {
    guests.ask(guest, "get_pair_status", Map::new(), limit).await
}

/// The state of a guest and of its peer, if it has one that can be asked. One that does not answer has an `error` instead; then the
/// second part of the answer is false.
pub async fn both(guests: &impl Guests, guest: &str, limit: Duration) -> Result<(Vec<Value>, bool), AskError> {
    let first = state(guests, guest, limit).await?;
    let Some(peer) = peer(&first).filter(|_| guests.reaches_peers()) else {
        return Ok((vec![first], true));
    };
    match state(guests, &peer, limit).await {
        Ok(second) => Ok((vec![first, second], true)),
        Err(error) => Ok((vec![first, json!({ "guest_id": peer, "error": error.to_string() })], false)),
    }
}

fn peer(status: &Value) -> Option<String> {
    Some(status["pair"]["peer"]["guest_id"].as_str()?.to_owned())
}

/// Runs an operation and prints how it ended.
pub async fn run(guests: &impl Guests, guest: &str, verb: Verb, limit: Duration, json: bool) -> anyhow::Result<ExitCode> {
    let reports = match verb {
        Verb::Dissolve if guests.reaches_peers() => dissolve_both(guests, guest, limit).await?,
        _ => {
            let doer = doer(guests, guest, verb, limit).await?;
            vec![operate(guests, &doer, verb.method(), verb.args()).await?]
        }
    };
    let good = reports.iter().all(succeeded);
    if json {
        match reports.as_slice() {
            [report] => output::json(report, false)?,
            several => output::json(&json!({ "operations": several }), false)?,
        };
    } else {
        for report in &reports {
            output::print(render::report(report).as_bytes())?;
        }
    }
    Ok(code(good))
}

/// Whose part it is: a switchover is the replica's, whichever of the two was named.
async fn doer(guests: &impl Guests, guest: &str, verb: Verb, limit: Duration) -> anyhow::Result<String> {
    if !matches!(verb, Verb::Switchover { .. }) || !guests.reaches_peers() {
        return Ok(guest.to_owned());
    }
    let status = state(guests, guest, limit).await?;
    match (status["role"].as_str(), peer(&status)) {
        (_, None) => bail!("guest {guest} is in no pair"),
        (Some("source"), Some(peer)) => Ok(peer),
        _ => Ok(guest.to_owned()),
    }
}

/// The replica first, so that it does not follow a source that no longer knows it. Both are tried.
async fn dissolve_both(guests: &impl Guests, guest: &str, limit: Duration) -> anyhow::Result<Vec<Value>> {
    let status = state(guests, guest, limit).await?;
    let mut members = vec![guest.to_owned()];
    match peer(&status) {
        Some(peer) if status["role"] == "source" => members.insert(0, peer),
        Some(peer) => members.push(peer),
        None => {}
    }
    let mut reports = Vec::new();
    for member in members {
        let report = match operate(guests, &member, Verb::Dissolve.method(), Map::new()).await {
            Ok(report) => report,
            Err(error) => json!({"kind": "dissolve_pair", "guest_id": member, "state": "failed", "error": format!("{error:#}")}),
        };
        reports.push(report);
    }
    Ok(reports)
}

/// Asks for an operation and follows it to its end. Answers its report.
pub async fn operate(guests: &impl Guests, guest: &str, method: &'static str, args: Map<String, Value>) -> anyhow::Result<Value> {
    let mut report = guests.ask(guest, method, args, OPERATION_LIMIT).await?;
    let mut shown = String::new();
    let mut heard = Instant::now();
    while report["state"] == "running" {
        let line = render::progress(guest, &report);
        if line != shown {
            output::complain(&line);
            shown = line;
        }
        tokio::time::sleep(PERIOD).await;
        match state(guests, guest, Duration::from_secs(5)).await {
            Ok(status) if status["last_operation"]["operation"] == report["operation"] => {
                report = status["last_operation"].clone();
                if let Some(lag) = status["replication"]["lag_ms"].as_u64() {
                    report["lag_ms"] = json!(lag);
                }
                heard = Instant::now();
            }
            Ok(_) | Err(_) if heard.elapsed() < SILENCE => {}
            Ok(_) => bail!(
                "guest {guest} knows nothing more of {method} {}; ask it by `pair status`",
                report["operation"]
            ),
            Err(error) => {
                return Err(
                    anyhow::Error::new(error).context(format!("{method} at guest {guest} may go on; `pair status` tells"))
                );
            }
        }
    }
    if let Some(fields) = report.as_object_mut() {
        fields.remove("lag_ms");
        fields.entry("guest_id").or_insert_with(|| json!(guest));
    }
    Ok(report)
}
