//! Backups for people's eyes.

use crate::cli::output;
use serde_json::Value;
use std::fmt::Write;

/// A value as text; `-` for none.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Bytes in few digits.
pub fn bytes(value: &Value) -> String {
    let Some(count) = value.as_u64() else { return "-".to_owned() };
    let (mut rest, mut unit) = (count as f64, 0);
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    while rest >= 1024.0 && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{rest:.1} {}", UNITS[unit]),
    }
}

/// How far something is, on one line.
pub fn progress(progress: &Value) -> String {
    let mut line = bytes(&progress["plain_bytes"]);
    if progress["plain_bytes"].as_u64().unwrap_or(0) == 0 {
        line = bytes(&progress["stored_bytes"]);
    }
    let _ = write!(line, ", {}/s", bytes(&progress["rate"]));
    if let Some(percent) = progress["percent"].as_f64() {
        let _ = write!(line, ", {percent:.0} %");
    }
    if let Some(eta) = progress["eta"].as_u64() {
        let _ = write!(line, ", {eta} s to go");
    }
    line
}

fn verdict(verified: &Value) -> &'static str {
    match verified["good"].as_bool() {
        None => "-",
        Some(true) => "good",
        Some(false) => "BAD",
    }
}

/// The list.
pub fn list(answer: &Value) -> String {
    let rows = answer["backups"].as_array().into_iter().flatten().map(|backup| {
        [
            text(&backup["id"]),
            text(&backup["created"]).chars().take(19).collect(),
            text(&backup["kind"]),
            bytes(&backup["plain_bytes"]),
            bytes(&backup["stored_bytes"]),
            verdict(&backup["verified"]).to_owned(),
            text(&backup["key_id"]),
            text(&backup["guest"]),
            text(&backup["name"]),
        ]
    });
    let header = ["ID", "CREATED", "KIND", "DATA", "STORED", "VERIFIED", "KEY", "GUEST", "NAME"];
    let mut out = output::table(header, rows.collect());
    for bad in answer["unreadable"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "not readable: {}: {}", text(&bad["name"]), text(&bad["error"]));
    }
    out
}

/// All that is known of one.
pub fn show(answer: &Value) -> String {
    answer["backups"].as_array().into_iter().flatten().map(details).collect()
}

fn details(backup: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12}{value}");
    };
    line("backup", text(&backup["id"]));
    line("name", text(&backup["name"]));
    line("guest", text(&backup["guest"]));
    line("kind", text(&backup["kind"]));
    if backup["parent"].is_object() {
        line("parent", text(&backup["parent"]["id"]));
    }
    line("created", text(&backup["created"]));
    line("finished", text(&backup["finished"]));
    line("engine", format!("{} {}", text(&backup["engine"]), text(&backup["version"])));
    line("position", text(&backup["position"]));
    line("data", bytes(&backup["plain_bytes"]));
    line(
        "stored",
        format!("{}, {}", bytes(&backup["stored_bytes"]), text(&backup["format"])),
    );
    line("key", text(&backup["key_id"]));
    line("location", text(&backup["location"]));
    line("checksum", text(&backup["checksum"]));
    let verified = &backup["verified"];
    let at = verified["at"].as_str().map(|at| format!(", {at}")).unwrap_or_default();
    line("verified", verdict(verified).to_owned() + &at);
    for problem in verified["report"]["problems"].as_array().into_iter().flatten() {
        line("problem", text(problem));
    }
    out
}

/// The end of `create`.
pub fn created(answer: &Value) -> String {
    details(answer)
}

/// The end of `restore`.
pub fn restored(answer: &Value) -> String {
    format!(
        "backup {} is restored; position {}\n",
        text(&answer["backup"]["id"]),
        text(&answer["position"])
    )
}

/// The end of `verify`.
pub fn verified(answer: &Value) -> String {
    let report = &answer["verified"]["report"];
    let mut out = format!(
        "backup {} is {}: {} tables, {} checked, {} compared\n",
        text(&answer["id"]),
        verdict(&answer["verified"]),
        text(&report["tables"]),
        text(&report["checked"]),
        text(&report["compared"])
    );
    for problem in report["problems"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "  {}", text(problem));
    }
    out
}

/// The end of `cancel`.
pub fn cancelled(answer: &Value) -> String {
    format!("backup {} is being cancelled\n", text(&answer["id"]))
}

/// The end of `prune`.
pub fn pruned(answer: &Value) -> String {
    let word = if answer["dry_run"] == true {
        "would be deleted"
    } else {
        "deleted"
    };
    let mut out = String::new();
    for one in answer["deleted"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "{} {word}: {}", text(&one["id"]), text(&one["why"]));
    }
    for one in answer["kept"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "{} kept: {}", text(&one["id"]), text(&one["why"]));
    }
    out
}

fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), crate::backup::shown)
}

/// What can be recovered, and how far the log is.
pub fn window(answer: &Value) -> String {
    let mut out = String::new();
    let window = &answer["window"];
    for span in window["spans"].as_array().into_iter().flatten() {
        let history = if span["is_present"] == true {
            ""
        } else {
            "  (another history)"
        };
        let _ = writeln!(out, "from {}  to {}{history}", time(&span["from"]), time(&span["to"]));
        let _ = writeln!(
            out,
            "     {}  to {}",
            text(&span["from_position"]),
            text(&span["to_position"])
        );
    }
    for gap in window["gaps"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "gap  {}: {}", time(&gap["at"]), text(&gap["text"]));
    }
    if out.is_empty() {
        out.push_str("there is nothing to recover from\n");
    }
    let log = &answer["log"];
    match answer["shipped_here"].as_bool() {
        Some(true) => {
            let behind = answer["behind_seconds"].as_f64().unwrap_or(0.0);
            let _ = writeln!(
                out,
                "log  {}, {behind:.1} s behind, at {}",
                text(&log["state"]),
                text(&log["position"])
            );
            if log["error"].is_string() {
                let _ = writeln!(out, "     {}", text(&log["error"]));
            }
        }
        _ => out.push_str("log  not shipped: backup_log is off\n"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_are_short() {
        assert_eq!(bytes(&json!(0)), "0 B");
        assert_eq!(bytes(&json!(1536)), "1.5 KiB");
        assert_eq!(bytes(&json!(5_368_709_120u64)), "5.0 GiB");
        let at = json!({"plain_bytes": 1_048_576, "rate": 524_288, "percent": 12.4, "eta": 9});
        assert_eq!(progress(&at), "1.0 MiB, 512.0 KiB/s, 12 %, 9 s to go");
    }
}
