//! Commands that speak to guests over the bus: the taskmanager's part, and a look at what the conductor gets.

use super::args::BusArgs;
use super::output;
use crate::bus::{self, Client, Observed, RpcVersion};
use crate::config::{Override, Sources, load};
use crate::rpc::{METHODS, MethodKind};
use anyhow::{Context, bail};
use datastore_api::Secret;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Bus settings and, if known, the payload key: from the configuration, with what the command line says over it.
pub(super) fn settings(args: &BusArgs, mut sources: Sources) -> anyhow::Result<(bus::Settings, Option<Secret>)> {
    let overrides = &mut sources.overrides;
    let mut set = |option: &str, value: &str| {
        overrides.push(Override {
            group: "DEFAULT".to_owned(),
            option: option.to_owned(),
            value: value.to_owned(),
        });
    };
    if let Some(url) = &args.transport_url {
        set("transport_url", url);
    }
    if let Some(exchange) = &args.exchange {
        set("control_exchange", exchange);
    }
    if sources.files.is_empty() {
        // The bus is all that is asked for: no file needs to name a guest.
        set("guest_id", "operator");
        set("datastore_manager", "none");
    }
    let loaded = load(&sources);
    let Some(settings) = loaded.settings else {
        super::check::complain(&loaded.report);
        bail!("the configuration has errors");
    };
    let key = match &args.key_file {
        Some(path) => Some(key(path)?),
        None => settings.bus.key.clone(),
    };
    Ok((settings.bus, key))
}

/// The payload key in a file.
pub(super) fn key(path: &PathBuf) -> anyhow::Result<Secret> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read the key file {}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        bail!("the key file {} is empty", path.display());
    }
    Ok(Secret::from(text.to_owned()))
}

pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// What `call --guest` was asked for.
pub struct Call<'a> {
    /// Instance id.
    pub guest: &'a str,
    /// Method.
    pub method: &'a str,
    /// Its arguments.
    pub args: Map<String, Value>,
    /// How long to wait, seconds.
    pub timeout: u64,
    /// Print on one line.
    pub compact: bool,
}

/// `call METHOD --guest ID`: as the taskmanager does, encryption included.
pub fn call(bus: &BusArgs, sources: Sources, call: Call<'_>) -> anyhow::Result<ExitCode> {
    let (settings, key) = settings(bus, sources)?;
    let Call {
        guest,
        method,
        args,
        timeout,
        compact,
    } = call;
    let entry = METHODS.iter().find(|entry| entry.name == method);
    let version = entry.map_or(RpcVersion { major: 1, minor: 0 }, |entry| entry.version);
    let cast = entry.is_some_and(|entry| entry.kind == MethodKind::Cast);
    let limit = Duration::from_secs(timeout);
    runtime()?.block_on(async {
        let client = tokio::time::timeout(Duration::from_secs(15), Client::connect(&settings))
            .await
            .context("no broker answered within 15 s")??;
        if cast {
            client.ensure_guest_queue(guest).await?;
            client.cast(guest, key.as_ref(), method, version, args, Map::new()).await?;
            output::complain(&format!(
                "{method} was sent to {guest}; what becomes of it is reported to the conductor"
            ));
            return Ok(ExitCode::SUCCESS);
        }
        let result = client
            .call(guest, key.as_ref(), method, version, args, Map::new(), limit)
            .await?;
        output::json(&result, compact)
    })
}

/// `conductor watch`.
pub fn watch(args: &BusArgs, sources: Sources, json: bool, count: Option<u64>, seconds: Option<u64>) -> anyhow::Result<ExitCode> {
    let (settings, key) = settings(args, sources)?;
    runtime()?.block_on(async {
        let keys = move |_guest: &str| key.clone();
        let mut reports = bus::watch(&settings, keys).await?;
        let end = tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX))));
        tokio::pin!(end);
        let mut seen = 0;
        while count.is_none_or(|count| seen < count) {
            let report = tokio::select! {
                () = &mut end => break,
                report = reports.recv() => report,
            };
            let Some(report) = report else {
                bail!("the connection to the broker was lost")
            };
            output::print(line(&report, json).as_bytes())?;
            seen += 1;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn line(report: &Observed, json: bool) -> String {
    let guest = report.guest.as_deref().unwrap_or("-");
    if json {
        let value = json!({"guest": guest, "method": report.method, "sealed": report.sealed, "args": report.args});
        return format!("{value}\n");
    }
    if report.sealed {
        return format!("{guest}  {}  (encrypted; give its key with --key-file)\n", report.method);
    }
    let text = |name: &str, key: Option<&str>| {
        let value = report.args.get(name).map(|value| key.map_or(value, |key| &value[key]));
        value.and_then(Value::as_str).unwrap_or("-").to_owned()
    };
    let detail = match report.method.as_str() {
        "heartbeat" => text("payload", Some("service_status")),
        "notify_exc_info" => text("message", None),
        "notify_end" => text("serialized_notification", Some("notification_classname")),
        _ => Value::Object(report.args.clone()).to_string(),
    };
    format!("{guest}  {:<16}  {detail}\n", report.method)
}
