//! Pairs for people's eyes.

use crate::cli::output;
use serde_json::Value;
use std::fmt::Write;

/// A value as text; `-` for none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The guests of a pair: what both share, a row for each, then what needs words.
pub fn status(guests: &[Value]) -> String {
    let mut out = String::new();
    if let Some(first) = guests.iter().find(|guest| guest["pair"].is_object()) {
        let pair = &first["pair"];
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<12}{value}");
        };
        line("pair", text(&pair["id"]));
        let vip = &first["vip"];
        let addresses: Vec<String> = vip["addresses"].as_array().into_iter().flatten().map(text).collect();
        let plane = format!("{} ({})", addresses.join(", "), text(&vip["plane"]));
        line("vip", if addresses.is_empty() { "none".to_owned() } else { plane });
        line("durability", text(&pair["durability"]));
        let witness = &pair["witness"];
        let with = if witness.is_object() {
            format!(", witness {}:{}", text(&witness["host"]), text(&witness["port"]))
        } else {
            String::new()
        };
        let lease = format!(", lease {} ms", text(&pair["lease_ms"]));
        let automatic = pair["failover"] == "automatic";
        line(
            "failover",
            text(&pair["failover"]) + if automatic { &lease } else { "" } + &with,
        );
        out.push('\n');
    }
    let rows = guests.iter().map(row).collect();
    let header = [
        "GUEST",
        "ROLE",
        "WRITES",
        "VIP",
        "GENERATION",
        "LAG",
        "DOOR",
        "PEER",
        "LAST OPERATION",
    ];
    out.push_str(&output::table(header, rows));
    for guest in guests {
        remarks(guest, &mut out);
    }
    out
}

fn row(guest: &Value) -> [String; 9] {
    let id = text(&guest["guest_id"]);
    if guest["error"].is_string() {
        let unknown = || "?".to_owned();
        return [
            id,
            "no answer".to_owned(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
        ];
    }
    let writes = match guest["writable"].as_bool() {
        Some(true) => "open".to_owned(),
        Some(false) => "closed".to_owned(),
        None => "?".to_owned(),
    };
    let door = &guest["door"];
    let door = match door["left_ms"].as_u64() {
        Some(left) => format!("{}, {left} ms left", text(&door["state"])),
        None => text(&door["state"]),
    };
    let operation = &guest["last_operation"];
    let operation = match operation["kind"].as_str() {
        Some(kind) => format!("{kind} {}", text(&operation["state"])),
        None => "none".to_owned(),
    };
    let lag = match (&guest["role"], guest["replication"]["lag_ms"].as_u64()) {
        (Value::String(role), _) if role == "source" => "-".to_owned(),
        (_, Some(lag)) => format!("{lag} ms"),
        _ => "?".to_owned(),
    };
    [
        id,
        text(&guest["role"]),
        writes,
        text(&guest["vip"]["state"]),
        text(&guest["generation"]),
        lag,
        door,
        text(&guest["peer_link"]["state"]),
        operation,
    ]
}

/// What is not as it should be.
fn remarks(guest: &Value, out: &mut String) {
    let id = text(&guest["guest_id"]);
    let mut remark = |words: String| {
        let _ = writeln!(out, "{id}: {words}");
    };
    if let Some(error) = guest["error"].as_str() {
        remark(error.to_owned());
        return;
    }
    if guest["pair"].is_null() {
        remark("is in no pair".to_owned());
    }
    if let Some(other) = guest["superseded_by"].as_u64() {
        remark(format!("was left behind by generation {other} and has to rejoin"));
    }
    if !guest["switch"].is_null() {
        remark(format!("a change of source is under way: {}", switch(&guest["switch"])));
    }
    if let Some(reason) = guest["vip"]["reason"].as_str() {
        remark(format!("service address: {reason}"));
    }
    let replication = &guest["replication"];
    if let Some(error) = replication["error"].as_str() {
        remark(format!("replication: {error}"));
    }
    if replication["semi_sync"]["degraded"] == true {
        remark("semi-sync is not in force: a write is acknowledged without a replica".to_owned());
    }
    let operation = &guest["last_operation"];
    if operation["state"] == "running" {
        remark(progress_of(operation));
    }
    let went_wrong = matches!(operation["state"].as_str(), Some("failed" | "rolled_back"));
    if let Some(error) = operation["error"].as_str().filter(|_| went_wrong) {
        remark(format!("{}: {error}", text(&operation["kind"])));
    }
    if let Some(saved) = saved(operation) {
        remark(saved);
    }
}

/// `{"leaving": {…}}` as words.
fn switch(value: &Value) -> String {
    let Some((kind, fields)) = value.as_object().and_then(|map| map.iter().next()) else {
        return text(value);
    };
    format!(
        "{kind}, to generation {} (operation {})",
        text(&fields["next"]),
        text(&fields["op"])
    )
}

fn saved(report: &Value) -> Option<String> {
    let saved = report["saved"].as_object()?;
    let field = |key: &str| saved.get(key).map_or("?".to_owned(), text);
    Some(format!(
        "{} transactions that the source never had are saved in {} ({} bytes)",
        field("transactions"),
        field("path"),
        field("bytes")
    ))
}

/// How an operation ended.
pub fn report(report: &Value) -> String {
    let mut head = format!(
        "{}: {} {}",
        text(&report["guest_id"]),
        text(&report["kind"]),
        text(&report["state"])
    );
    if let Some(generation) = report["generation"].as_u64() {
        let _ = write!(head, ", generation {generation}");
    }
    if let Some(blocked) = report["writes_blocked_ms"].as_f64() {
        let _ = write!(head, ", writes blocked for {blocked:.1} ms");
    }
    for (key, what) in [
        ("idle_ended", "idle transactions ended"),
        ("writers_killed", "writers killed"),
    ] {
        match report[key].as_u64() {
            None | Some(0) => {}
            Some(count) => {
                let _ = write!(head, ", {count} {what}");
            }
        }
    }
    let mut out = head + "\n";
    for step in report["steps"].as_array().into_iter().flatten() {
        let ms = step["ms"].as_f64().map_or("?".to_owned(), |ms| format!("{ms:.1}"));
        let state = match step["ok"].as_bool() {
            Some(true) => "ok".to_owned(),
            Some(false) => "failed".to_owned(),
            None => text(&step["state"]),
        };
        let _ = writeln!(out, "  {:<24}{ms:>10} ms  {state}", text(&step["name"]));
    }
    let rolled_back: Vec<String> = report["rolled_back"].as_array().into_iter().flatten().map(text).collect();
    if !rolled_back.is_empty() {
        let _ = writeln!(out, "  taken back: {}", rolled_back.join(", "));
    }
    if let Some(error) = report["error"].as_str() {
        let what = if report["state"] == "unchanged" { "" } else { "error: " };
        let _ = writeln!(out, "  {what}{error}");
    }
    if let Some(saved) = saved(report) {
        let _ = writeln!(out, "  {saved}");
    }
    out
}

/// How far an operation is.
pub fn progress(guest: &str, report: &Value, lag_ms: Option<u64>) -> String {
    let mut line = format!("{guest}: {}", progress_of(report));
    if let Some(lag) = lag_ms {
        let _ = write!(line, ", {lag} ms behind");
    }
    line
}

fn progress_of(report: &Value) -> String {
    let mut line = format!("{} runs", text(&report["kind"]));
    let steps = report["steps"].as_array();
    if let Some(step) = steps.and_then(|steps| steps.iter().rev().find(|step| step["state"] == "running").or(steps.last())) {
        let _ = write!(line, ", {}", text(&step["name"]));
    }
    if let Some(bytes) = report["progress"]["bytes"].as_u64() {
        let _ = write!(line, ", {}", size(bytes));
        if let Some(of) = report["progress"]["of"].as_u64() {
            let _ = write!(line, " of {}", size(of));
        }
    }
    line
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}
