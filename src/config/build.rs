//! Makes checked settings of the inputs.

use super::network::{self, DataNetwork};
use super::reader::Reader;
use super::report::{FileRead, Severity};
use super::schema::{DATASTORE, DEFAULT, DRIVER, OWN};
use super::settings::{AgentSettings, DatastoreSettings, LogSettings, Settings, SslMode, Supervisor};
use super::{Sources, backup, files, messaging, pair, schema};
use crate::conductor::{self, Era};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What differs by engine where the configuration says nothing.
struct Engine {
    mount_point: &'static str,
    user: &'static str,
    ignore_users: &'static [&'static str],
    ignore_dbs: &'static [&'static str],
}

fn engine(manager: &str) -> Engine {
    let mysql = Engine {
        mount_point: "/var/lib/mysql",
        user: "mysql",
        ignore_users: &["os_admin", "root"],
        ignore_dbs: &["mysql", "information_schema", "performance_schema", "sys"],
    };
    match manager {
        "postgresql" => Engine {
            mount_point: "/var/lib/postgresql",
            user: "postgres",
            ignore_users: &["os_admin", "postgres"],
            ignore_dbs: &["os_admin", "postgres"],
        },
        // MariaDB 10.6 and later have a `sys` too, which upstream's list forgets.
        _ => mysql,
    }
}

/// Builds everything. Problems are in the reader's report; with an error among them the answer is not to be used.
pub(super) fn build(reader: &mut Reader<'_>, sources: &Sources) -> Settings {
    let guest_id = guest_id(reader);
    let datastore_manager = manager(reader);
    reader.inputs.datastore.clone_from(&datastore_manager);
    let root = reader.path(OWN, "root").unwrap_or_default();
    defaults(reader, &datastore_manager, &root);
    // The URL's options must be known before any messaging option is read, also before the era is derived.
    let bus = messaging::build(reader, &guest_id, &sources.program);
    let era = era(reader);
    let report_interval = reader.seconds(DEFAULT, "report_interval").unwrap_or(Duration::from_secs(30));
    let network_isolation = reader.bool(DEFAULT, "network_isolation");
    let network = network(reader, network_isolation);
    let datastore = datastore(reader, &datastore_manager);
    let agent = agent(reader, root);
    Settings {
        ssl_mode: ssl_mode(reader),
        datastore_version: reader.text(DEFAULT, "datastore_version"),
        replication_strategy: reader.text(DEFAULT, "replication_strategy"),
        era,
        bus,
        conductor: conductor::Settings {
            guest_id: guest_id.clone(),
            report_interval,
            era,
        },
        backup: backup::build(reader, &guest_id, &datastore),
        datastore,
        pair: pair::build(reader, network.as_ref()),
        network,
        network_isolation,
        log: log(reader, &sources.program),
        agent,
        guest_id,
        datastore_manager,
    }
}

/// Defaults that depend on the engine, and those of paths, which lie under the root.
fn defaults(reader: &mut Reader<'_>, manager: &str, root: &Path) {
    let engine = engine(manager);
    let mut set = |group, name, text: String| reader.inputs.defaults.insert((group, name), text);
    set(DATASTORE, "mount_point", under(root, engine.mount_point));
    set(DATASTORE, "ignore_users", engine.ignore_users.join(","));
    set(DATASTORE, "ignore_dbs", engine.ignore_dbs.join(","));
    set(DATASTORE, "database_service_uname", engine.user.to_owned());
    for name in ["state_dir", "run_dir", "marker_dir", "network_file"] {
        let path = schema::find(OWN, name).and_then(|opt| opt.default).unwrap_or_default();
        set(OWN, name, under(root, path));
    }
    let run_dir = reader.path(OWN, "run_dir").unwrap_or_default();
    let socket = run_dir.join("agent.sock").to_string_lossy().into_owned();
    reader.inputs.defaults.insert((OWN, "socket"), socket);
}

fn under(root: &Path, path: &str) -> String {
    if root.as_os_str().is_empty() {
        path.to_owned()
    } else {
        root.join(path.trim_start_matches('/')).to_string_lossy().into_owned()
    }
}

fn guest_id(reader: &mut Reader<'_>) -> String {
    let id = reader.text(DEFAULT, "guest_id").unwrap_or_default();
    // The names of queues are made of it, twice, and AMQP allows them 255 bytes.
    let fits = id.len() <= 100 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if id.is_empty() {
        reader.error(
            DEFAULT,
            "guest_id",
            "is not set; guest_info.conf was not injected or is not among the files read",
        );
    } else if !fits {
        reader.error(DEFAULT, "guest_id", "expected at most 100 letters, digits, '-', '_' or '.'");
    }
    id
}

/// The key of `datastore_registry_ext`: after a rebuild `datastore_manager` holds the datastore's name instead (contract 4.3).
fn manager(reader: &mut Reader<'_>) -> String {
    let named = reader.text(DEFAULT, "datastore_manager");
    let registered = reader.dict(DEFAULT, "datastore_registry_ext");
    let listed = named
        .as_ref()
        .is_some_and(|name| registered.iter().any(|(key, _)| key == name));
    match (named, registered.as_slice()) {
        (Some(named), _) if listed => named,
        (named, [(only, _)]) => {
            if let Some(named) = named {
                let text = format!("is {named}, datastore_registry_ext names {only}, which is taken (usual after a rebuild)");
                reader.warning(DEFAULT, "datastore_manager", text);
            }
            only.clone()
        }
        (Some(named), _) => named,
        (None, _) => {
            reader.error(
                DEFAULT,
                "datastore_manager",
                "is not set; guest_info.conf was not injected or is not among the files read",
            );
            String::new()
        }
    }
}

/// What guest_info.conf tells of the Trove that wrote it (contract section 0). In doubt a modern one, whose flows wait for
/// `healthy` and nothing else.
fn era(reader: &mut Reader<'_>) -> Era {
    match reader.text(OWN, "era").as_deref() {
        Some("mitaka") => return Era::Mitaka,
        Some("ocata") => return Era::Ocata,
        Some("ussuri") => return Era::Ussuri,
        Some("victoria") => return Era::Victoria,
        Some("epoxy") => return Era::Epoxy,
        Some("hibiscus") => return Era::Hibiscus,
        _ => {}
    }
    let mut has = |name: &str| reader.is_set(DEFAULT, name);
    if has("ssl_mode") {
        return Era::Hibiscus;
    }
    if has("datastore_registry_ext") || has("replication_strategy") {
        return Era::Epoxy;
    }
    let later = has("instance_rpc_encr_key") || has("datastore_version") || has("network_isolation");
    if !later && messaging::is_mitaka_style(reader) {
        Era::Mitaka
    } else {
        Era::Victoria
    }
}

/// Trove writes the literal `None` where it has no mode.
fn ssl_mode(reader: &mut Reader<'_>) -> Option<SslMode> {
    match reader.text(DEFAULT, "ssl_mode").as_deref() {
        None | Some("None") => None,
        Some("basic") => Some(SslMode::Basic),
        Some("enforced") => Some(SslMode::Enforced),
        Some("mtls") => Some(SslMode::Mtls),
        Some(other) => {
            let text = format!("expected None, basic, enforced or mtls, found {other:?}");
            reader.error(DEFAULT, "ssl_mode", text);
            None
        }
    }
}

fn datastore(reader: &mut Reader<'_>, manager: &str) -> DatastoreSettings {
    // In upstream the engine's section has defaults, so that these have never had an effect in [DEFAULT].
    for name in ["device_path", "mount_point", "volume_support"] {
        if let Some(found) = reader.inputs.find_by(&[(DEFAULT, name)]) {
            let text = format!("has no effect here: write it in section [{manager}]");
            reader.report.of_option(Severity::Warning, DEFAULT, name, &found.origin, text);
        }
    }
    let mut options = reader.unknown_of(manager);
    options.extend(reader.unknown_of(DRIVER));
    DatastoreSettings {
        mount_point: reader.path(DATASTORE, "mount_point").unwrap_or_default(),
        device_path: reader.path(DATASTORE, "device_path").unwrap_or_default(),
        volume_support: reader.bool(DATASTORE, "volume_support"),
        volume_fstype: reader.text(DEFAULT, "volume_fstype").unwrap_or_default(),
        format_options: reader
            .text(DEFAULT, "format_options")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        mount_options: reader.text(DEFAULT, "mount_options").unwrap_or_default(),
        volume_format_timeout: reader.seconds(DEFAULT, "volume_format_timeout").unwrap_or_default(),
        num_tries: reader.count(DEFAULT, "num_tries"),
        command_timeout: reader.seconds(DEFAULT, "command_process_timeout").unwrap_or_default(),
        ignore_users: reader.list(DATASTORE, "ignore_users").unwrap_or_default(),
        ignore_dbs: reader.list(DATASTORE, "ignore_dbs").unwrap_or_default(),
        root_grant: reader.list(DEFAULT, "root_grant").unwrap_or_default(),
        root_grant_option: reader.bool(DEFAULT, "root_grant_option"),
        hostname_require_valid_ip: reader.bool(DEFAULT, "hostname_require_valid_ip"),
        default_password_length: reader.count::<u32>(DATASTORE, "default_password_length") as usize,
        service_user: reader.text(DATASTORE, "database_service_uname").unwrap_or_default(),
        state_change_wait_time: reader.seconds(DEFAULT, "state_change_wait_time").unwrap_or_default(),
        options,
    }
}

/// The data network, where there is one of its own and it is described. Read by its own file name, not as a fragment.
fn network(reader: &mut Reader<'_>, network_isolation: bool) -> Option<DataNetwork> {
    let path = reader.path(OWN, "network_file").unwrap_or_default();
    if !network_isolation || !path.exists() {
        return None;
    }
    let read = files::read(&path);
    let status = read.as_ref().map_or_else(String::clone, |_| "read".to_owned());
    reader.report.files.push(FileRead {
        path: path.clone(),
        status,
    });
    let parsed = match read {
        Ok((text, _)) => network::parse(&text),
        Err(text) => {
            reader.report.in_file(Severity::Error, path, None, text);
            return None;
        }
    };
    match parsed {
        Ok(network) => Some(network),
        Err(errors) => {
            for (field, text) in errors {
                let text = if field.is_empty() {
                    text.to_owned()
                } else {
                    format!("{field}: {text}")
                };
                reader.report.in_file(Severity::Error, &path, None, text);
            }
            None
        }
    }
}

fn log(reader: &mut Reader<'_>, program: &str) -> LogSettings {
    let dir = reader.path(DEFAULT, "log_dir");
    let file = match (reader.path(DEFAULT, "log_file"), &dir) {
        (Some(file), Some(dir)) => Some(dir.join(file)),
        (Some(file), None) => {
            if file.is_relative() && !reader.is_set(DEFAULT, "log_dir") {
                reader.error(DEFAULT, "log_file", "is relative and log_dir is not set");
            }
            Some(file)
        }
        (None, Some(dir)) => Some(dir.join(format!("{program}.log"))),
        (None, None) => None,
    };
    let syslog = reader
        .bool(DEFAULT, "use_syslog")
        .then(|| reader.text(DEFAULT, "syslog_log_facility").unwrap_or_default());
    LogSettings {
        debug: reader.bool(DEFAULT, "debug"),
        file,
        dir,
        json: reader.bool(DEFAULT, "use_json"),
        journal: reader.bool(DEFAULT, "use_journal"),
        syslog,
        date_format: reader.text(DEFAULT, "log_date_format").unwrap_or_default(),
    }
}

fn agent(reader: &mut Reader<'_>, root: PathBuf) -> AgentSettings {
    let run_dir = reader.path(OWN, "run_dir").unwrap_or_default();
    let state_dir = reader.path(OWN, "state_dir").unwrap_or_default();
    if run_dir == state_dir {
        reader.error(
            OWN,
            "run_dir",
            "is the same folder as state_dir; what it holds may be lost in a reboot",
        );
    }
    AgentSettings {
        socket: reader.path(OWN, "socket").unwrap_or_default(),
        marker_dir: reader.path(OWN, "marker_dir").unwrap_or_default(),
        supervisor: match reader.text(OWN, "supervisor").as_deref() {
            Some("systemd") => Supervisor::Systemd,
            Some("supervised") => Supervisor::Supervised,
            _ => Supervisor::Auto,
        },
        run_dir,
        state_dir,
        root,
    }
}
