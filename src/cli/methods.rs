//! `methods`: the table of the guest interface, and the steps of `prepare`.

use super::output;
use crate::rpc::{METHODS, MethodOrigin, Mode};
use serde_json::json;
use std::process::ExitCode;

/// Prints the table, or the steps of `prepare` of a datastore.
pub fn run(json: bool, steps: Option<&str>, replica: bool) -> anyhow::Result<ExitCode> {
    if let Some(manager) = steps {
        let lines = crate::app::prepare_steps(manager, replica)?
            .iter()
            .map(|step| format!("{step}\n"))
            .collect::<String>();
        return output::print(lines.as_bytes());
    }
    if json {
        let rows: Vec<_> = METHODS
            .iter()
            .map(|entry| {
                let args = entry
                    .built
                    .as_ref()
                    .map(|built| built.args.iter().map(|arg| arg.name).collect::<Vec<_>>());
                json!({
                    "name": entry.name,
                    "version": format!("{}.{}", entry.version.major, entry.version.minor),
                    "kind": entry.kind,
                    "origin": entry.origin,
                    "state": if entry.built.is_some() { "built" } else { "not supported" },
                    "mode": entry.built.as_ref().map(|built| mode(built.mode)),
                    "args": args,
                })
            })
            .collect();
        return output::json(&json!(rows), false);
    }
    let rows: Vec<_> = METHODS
        .iter()
        .map(|entry| {
            [
                entry.name.to_owned(),
                format!("{}.{}", entry.version.major, entry.version.minor),
                format!("{:?}", entry.kind).to_lowercase(),
                entry
                    .built
                    .as_ref()
                    .map_or("not supported".to_owned(), |built| mode(built.mode).to_owned()),
                match entry.origin {
                    MethodOrigin::Upstream => String::new(),
                    MethodOrigin::Cluster => "sent by cluster strategies only".to_owned(),
                    MethodOrigin::Agent => "of this agent".to_owned(),
                },
            ]
        })
        .collect();
    let upstream = METHODS.iter().filter(|entry| entry.origin == MethodOrigin::Upstream);
    let (mut all, mut built) = (0, 0);
    for entry in upstream {
        all += 1;
        built += usize::from(entry.built.is_some());
    }
    let mut text = output::table(["METHOD", "VERSION", "KIND", "STATE", ""], rows);
    text.push_str(&format!("\n{all} methods of upstream's client, {built} built\n"));
    output::print(text.as_bytes())
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Query => "query",
        Mode::Change(_) => "change",
    }
}
