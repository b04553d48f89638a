//! Commands that ask the agent on this machine.

use super::args::SocketArgs;
use super::output;
use crate::config::{Sources, load};
use crate::rpc::local::{Ask, Told, ask};
use anyhow::bail;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Where the agent listens when no configuration says so.
const DEFAULT_SOCKET: &str = "/run/trove-guestagent/agent.sock";

/// The socket to use: given, configured, or the default. A configuration that was named and cannot be used is an error: the
/// default may be another agent's.
pub fn socket(args: &SocketArgs, sources: &Sources) -> anyhow::Result<PathBuf> {
    if let Some(path) = &args.socket {
        return Ok(path.clone());
    }
    let loaded = load(sources);
    match loaded.settings {
        Some(settings) => Ok(settings.agent.socket),
        None if sources.files.is_empty() => Ok(PathBuf::from(DEFAULT_SOCKET)),
        None => {
            super::check::complain(&loaded.report);
            bail!("the configuration has errors, so the agent's socket is not known; --socket names it")
        }
    }
}

/// `call METHOD` over the socket.
pub fn call(socket: &Path, method: &str, args: Map<String, Value>, timeout: u64, compact: bool) -> anyhow::Result<ExitCode> {
    let result = question(socket, method, args, Duration::from_secs(timeout))?;
    output::json(&result, compact)
}

/// `status`.
pub fn status(socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let status = question(socket, "get_status", Map::new(), Duration::from_secs(10))?;
    if json {
        return output::json(&status, false);
    }
    output::print(render(&status).as_bytes())
}

fn question(socket: &Path, method: &str, args: Map<String, Value>, limit: Duration) -> anyhow::Result<Value> {
    let ask_for = Ask {
        method: method.to_owned(),
        args,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(socket, &ask_for, limit))? {
        Told::Result(value) => Ok(value),
        Told::Failure(failure) => bail!("{}: {}", failure.class, failure.message),
    }
}

fn render(status: &Value) -> String {
    let text = |key: &str| match &status[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12}{value}");
    };
    line("guest", text("guest_id"));
    line("agent", text("agent_version"));
    line("bus", text("bus"));
    line("datastore", format!("{} {}", text("datastore"), text("server_version")));
    line("phase", text("phase"));
    let reason = status["reason"]
        .as_str()
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    line("health", text("health") + &reason);
    let operation = &status["operation"];
    let step = operation["step"]
        .as_str()
        .map(|step| format!(", step {step}"))
        .unwrap_or_default();
    line(
        "operation",
        operation["method"]
            .as_str()
            .map_or("none".to_owned(), |method| format!("{method}{step}")),
    );
    line("waiting", text("waiting"));
    for recent in status["recent"].as_array().into_iter().flatten() {
        let field = |key: &str| recent[key].as_str().unwrap_or("-").to_owned();
        line(
            "recent",
            format!("{:<8}{} ({})", field("state"), field("method"), field("id")),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn a_configuration_that_cannot_be_read_does_not_lead_to_another_agent() {
        let sources = |files| Sources {
            files,
            overrides: Vec::new(),
            env: Box::new(|_| None),
            program: "trove-guestagent".to_owned(),
            home: PathBuf::from("/nonexistent"),
        };
        let unreadable = sources(vec![Source::File("/nonexistent/agent.conf".into())]);
        let given = SocketArgs {
            socket: Some("/x/agent.sock".into()),
        };
        assert!(socket(&SocketArgs { socket: None }, &unreadable).is_err());
        assert_eq!(socket(&given, &unreadable).unwrap(), PathBuf::from("/x/agent.sock"));
        assert!(socket(&SocketArgs { socket: None }, &sources(Vec::new())).is_ok());
    }
}
