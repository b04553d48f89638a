//! Operations on a pair that is there: ask the guest whose part it is, follow it to its end, tell how it ended.

use super::guests::{AskError, Guests};
use super::{code, render, succeeded};
use crate::cli::output;
use anyhow::bail;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// How long an operation may take to answer. What is not begun until then is not begun; what runs then is followed by looking.
const OPERATION_LIMIT: Duration = Duration::from_secs(60);
/// How long a guest may be silent while we follow its operation.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it is asked.
const PERIOD: Duration = Duration::from_millis(300);
/// How long it may take to answer that.
const LOOK: Duration = Duration::from_secs(5);
/// How many attempts to seed a replica may fail.
const ATTEMPTS: usize = 3;

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
    let mut report = ask(guests, guest, method, args).await?;
    if report["state"] == "running" {
        report = follow(guests, guest, method, report).await?;
    }
    if let Some(fields) = report.as_object_mut() {
        fields.entry("guest_id").or_insert_with(|| json!(guest));
    }
    Ok(report)
}

/// Asks, and shows how far it is while the answer is not there. One that takes longer than the answer may is the report of what runs.
pub async fn ask(guests: &impl Guests, guest: &str, method: &'static str, args: Map<String, Value>) -> Result<Value, AskError> {
    let asked = guests.ask(guest, method, args, OPERATION_LIMIT);
    tokio::pin!(asked);
    let mut shown = String::new();
    let silent = loop {
        let answer = tokio::select! {
            answer = &mut asked => answer,
            () = tokio::time::sleep(PERIOD) => {
                if let Ok(status) = state(guests, guest, LOOK).await {
                    show(guest, &status, &mut shown);
                }
                continue;
            }
        };
        match answer {
            Err(silent @ AskError::Silent { .. }) => break silent,
            answer => return answer,
        }
    };
    match state(guests, guest, LOOK).await {
        Ok(status) if status["last_operation"]["state"] == "running" => Ok(status["last_operation"].clone()),
        _ => Err(silent),
    }
}

/// Prints how far the running operation is, when that is another line than the last.
fn show(guest: &str, status: &Value, shown: &mut String) {
    let operation = &status["last_operation"];
    if operation["state"] != "running" {
        return;
    }
    let line = render::progress(guest, operation, status["replication"]["lag_ms"].as_u64());
    if line != *shown {
        output::complain(&line);
        *shown = line;
    }
}

async fn follow(guests: &impl Guests, guest: &str, method: &'static str, first: Value) -> anyhow::Result<Value> {
    let (mut shown, mut heard) = (String::new(), Instant::now());
    loop {
        tokio::time::sleep(PERIOD).await;
        match state(guests, guest, LOOK).await {
            Ok(status) if status["last_operation"]["operation"] == first["operation"] => {
                let report = &status["last_operation"];
                if report["state"] != "running" {
                    return Ok(report.clone());
                }
                show(guest, &status, &mut shown);
                heard = Instant::now();
            }
            Ok(_) | Err(_) if heard.elapsed() < SILENCE => {}
            Ok(_) => bail!(
                "guest {guest} knows nothing more of {method} {}",
                render::text(&first["operation"])
            ),
            Err(error) => {
                return Err(
                    anyhow::Error::new(error).context(format!("{method} at guest {guest} may go on; `pair status` tells"))
                );
            }
        }
    }
}

/// Waits until a replica-to-be has its data and follows. It goes on by itself, in attempts that are operations of their own; after
/// [`ATTEMPTS`] that failed the last one's reason is the error.
pub async fn seeded(guests: &impl Guests, guest: &str, first: &Value) -> anyhow::Result<Value> {
    let (mut shown, mut heard) = (String::new(), Instant::now());
    let mut failed: Vec<Value> = Vec::new();
    while heard.elapsed() < SILENCE {
        tokio::time::sleep(PERIOD).await;
        let Ok(status) = state(guests, guest, LOOK).await else {
            continue;
        };
        show(guest, &status, &mut shown);
        let (last, replication) = (&status["last_operation"], &status["replication"]);
        let runs = replication["receiving"] == true && replication["applying"] == true;
        let follows = status["role"] == "replica" && status["reseed"] == false && runs;
        let ended = last["operation"] == first["operation"] && last["state"] != "running";
        if follows || (ended && succeeded(last)) {
            let mut report = first.clone();
            report["state"] = json!("done");
            return Ok(report);
        }
        if last["state"] == "running" {
            heard = Instant::now();
        }
        if (ended || last["state"] == "failed") && !failed.contains(&last["operation"]) {
            failed.push(last["operation"].clone());
            let why = render::text(&last["error"]);
            if ended || failed.len() >= ATTEMPTS {
                bail!("guest {guest} could not be made a replica: {why}");
            }
            output::complain(&format!(
                "{guest}: {} failed and is tried again: {why}",
                render::text(&last["kind"])
            ));
            heard = Instant::now();
        }
    }
    bail!(
        "guest {guest} has neither become a replica nor worked on it for {} s",
        SILENCE.as_secs()
    )
}
