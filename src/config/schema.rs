//! The list of options the agent knows: one line each. Everything else in a file is ignored and listed.

mod backup;

/// Section of our own options. In it an unknown key is an error.
pub const OWN: &str = "trove_guestagent";
/// Section of the driver's options. The agent hands it on as it is; the driver judges its keys.
pub const DRIVER: &str = "datastore";
/// Stands for the section named like the datastore manager (`[mariadb]`).
pub(super) const DATASTORE: &str = "<datastore>";
/// Section of the messaging options.
pub(super) const RABBIT: &str = "oslo_messaging_rabbit";
/// The section without a name of its own.
pub(super) const DEFAULT: &str = "DEFAULT";

/// How the text of an option is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Any text; empty counts as unset.
    Text,
    /// Text never shown.
    Secret,
    /// A boolean.
    Bool,
    /// A whole number within these bounds.
    Int(i64, i64),
    /// Seconds within these bounds, with fraction.
    Seconds(f64, f64),
    /// Commas between items.
    List,
    /// Commas between `name:value` pairs.
    Dict,
    /// An absolute path; empty counts as unset.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Accepted and without effect here; if it is set to something else than upstream's default, this says why.
    NoEffect(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt {
    pub group: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    /// Default as text; `None` is unset.
    pub default: Option<&'static str>,
    /// Older names, by section and name.
    pub old: &'static [(&'static str, &'static str)],
    /// Section whose value of the same name is the default.
    pub inherits: Option<&'static str>,
    /// Meaning, for the sample of our own options.
    pub help: &'static str,
}

const fn opt(group: &'static str, name: &'static str, kind: Kind, default: Option<&'static str>) -> Opt {
    Opt {
        group,
        name,
        kind,
        default,
        old: &[],
        inherits: None,
        help: "",
    }
}

impl Opt {
    const fn old(mut self, old: &'static [(&'static str, &'static str)]) -> Self {
        self.old = old;
        self
    }

    const fn inherits(mut self, section: &'static str) -> Self {
        self.inherits = Some(section);
        self
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }
}

use Kind::{Bool, Choice, Dict, Int, List, NoEffect, Path, Seconds, Secret, Text};

const YES: Option<&str> = Some("true");
const NO: Option<&str> = Some("false");
const COUNT: Kind = Int(0, 1_000_000_000);
/// Queue arguments and ports travel as 32-bit numbers; upstream sends a negative one as "not set".
const LIMIT: Kind = Int(-2_147_483_648, 2_147_483_647);
const DAY: f64 = 86_400.0;

/// What the control plane writes: `guest_info.conf` and `trove-guestagent.conf`.
const COMMON: &[Opt] = &[
    opt(DEFAULT, "guest_id", Text, None),
    opt(DEFAULT, "datastore_manager", Text, None),
    opt(DEFAULT, "datastore_version", Text, None),
    opt(DEFAULT, "datastore_registry_ext", Dict, None),
    opt(DEFAULT, "replication_strategy", Text, None),
    opt(DEFAULT, "ssl_mode", Text, None),
    opt(DEFAULT, "network_isolation", Bool, NO),
    opt(DEFAULT, "instance_rpc_encr_key", Secret, None),
    opt(DEFAULT, "transport_url", Secret, None),
    opt(DEFAULT, "control_exchange", Text, Some("openstack")),
    opt(DEFAULT, "conductor_queue", Text, Some("trove-conductor")),
    opt(DEFAULT, "report_interval", Int(1, 86_400), Some("30")),
    opt(DEFAULT, "state_change_wait_time", Int(1, 86_400), Some("180")),
    opt(DEFAULT, "command_process_timeout", Int(1, 86_400), Some("30")),
    opt(DEFAULT, "num_tries", Int(1, 1000), Some("3")),
    opt(DEFAULT, "volume_fstype", Choice(&["ext3", "ext4", "xfs"]), Some("ext4")),
    opt(DEFAULT, "format_options", Text, Some("-m 5")),
    opt(DEFAULT, "volume_format_timeout", Int(1, 86_400), Some("120")),
    opt(DEFAULT, "mount_options", Text, Some("defaults,noatime")),
    opt(DEFAULT, "root_grant", List, Some("ALL")),
    opt(DEFAULT, "root_grant_option", Bool, YES),
    opt(DEFAULT, "hostname_require_valid_ip", Bool, YES).old(&[(DEFAULT, "hostname_require_ipv4")]),
    opt(DEFAULT, "debug", Bool, NO),
    opt(DEFAULT, "log_file", Text, None).old(&[(DEFAULT, "logfile")]),
    opt(DEFAULT, "log_dir", Path, None).old(&[(DEFAULT, "logdir")]),
    opt(DEFAULT, "log_date_format", Text, Some("%Y-%m-%d %H:%M:%S")),
    opt(DEFAULT, "use_json", Bool, NO),
    opt(DEFAULT, "use_journal", Bool, NO),
    opt(DEFAULT, "use_syslog", Bool, NO),
    opt(DEFAULT, "syslog_log_facility", Text, Some("LOG_USER")),
    opt(
        DEFAULT,
        "log_config_append",
        NoEffect("a Python logging file means nothing to this agent"),
        None,
    )
    .old(&[(DEFAULT, "log_config")]),
    opt(DEFAULT, "rpc_backend", NoEffect("only RabbitMQ is supported"), Some("rabbit")),
];

/// The section named like the datastore manager. Defaults that differ by engine are in `build.rs`.
const ENGINE: &[Opt] = &[
    opt(DATASTORE, "mount_point", Path, None),
    opt(DATASTORE, "device_path", Path, Some("/dev/vdb")),
    opt(DATASTORE, "volume_support", Bool, YES),
    opt(DATASTORE, "ignore_users", List, None).old(&[(DEFAULT, "ignore_users")]),
    opt(DATASTORE, "ignore_dbs", List, None).old(&[(DEFAULT, "ignore_dbs")]),
    // Upstream's default for the other flavours of MySQL is [mysql]'s value.
    opt(DATASTORE, "default_password_length", Int(8, 1024), Some("36")).inherits("mysql"),
    opt(DATASTORE, "database_service_uname", Text, None),
];

const QUORUM: &str = "the fan-out and reply queues it is about are not used here";
const POOL: &str = "this agent has one connection";
const RETRY: &str = "this agent tries again every half second";

/// `[oslo_messaging_rabbit]`, all of upstream's names, because `transport_url` may carry each of them.
const MESSAGING: &[Opt] = &[
    opt(RABBIT, "amqp_durable_queues", Bool, NO).old(&[
        (RABBIT, "rabbit_durable_queues"),
        (DEFAULT, "amqp_durable_queues"),
        (DEFAULT, "rabbit_durable_queues"),
    ]),
    opt(RABBIT, "amqp_auto_delete", Bool, NO).old(&[(DEFAULT, "amqp_auto_delete")]),
    opt(RABBIT, "ssl", Bool, NO).old(&[(RABBIT, "rabbit_use_ssl"), (DEFAULT, "rabbit_use_ssl")]),
    opt(RABBIT, "ssl_version", NoEffect("TLS 1.2 or 1.3 is negotiated"), Some(""))
        .old(&[(RABBIT, "kombu_ssl_version"), (DEFAULT, "kombu_ssl_version")]),
    opt(RABBIT, "ssl_key_file", Path, None).old(&[(RABBIT, "kombu_ssl_keyfile"), (DEFAULT, "kombu_ssl_keyfile")]),
    opt(RABBIT, "ssl_cert_file", Path, None).old(&[(RABBIT, "kombu_ssl_certfile"), (DEFAULT, "kombu_ssl_certfile")]),
    opt(RABBIT, "ssl_ca_file", Path, None).old(&[(RABBIT, "kombu_ssl_ca_certs"), (DEFAULT, "kombu_ssl_ca_certs")]),
    opt(RABBIT, "ssl_enforce_hostname_verification", Bool, YES),
    opt(
        RABBIT,
        "ssl_enforce_fips_mode",
        NoEffect("it has none in upstream either"),
        NO,
    ),
    opt(
        RABBIT,
        "rabbit_login_method",
        Choice(&["AMQPLAIN", "PLAIN", "EXTERNAL", "RABBIT-CR-DEMO"]),
        Some("AMQPLAIN"),
    )
    .old(&[(DEFAULT, "rabbit_login_method")]),
    opt(RABBIT, "rabbit_ha_queues", Bool, NO).old(&[(DEFAULT, "rabbit_ha_queues")]),
    opt(RABBIT, "rabbit_quorum_queue", Bool, NO),
    opt(RABBIT, "rabbit_quorum_delivery_limit", LIMIT, Some("0")),
    opt(RABBIT, "rabbit_quorum_max_memory_length", LIMIT, Some("0")),
    opt(RABBIT, "rabbit_quorum_max_memory_bytes", LIMIT, Some("0")),
    opt(RABBIT, "rabbit_transient_quorum_queue", Bool, NO),
    opt(RABBIT, "rabbit_stream_fanout", Bool, NO),
    opt(RABBIT, "rabbit_transient_queues_ttl", NoEffect(QUORUM), Some("1800")),
    opt(RABBIT, "rabbit_qos_prefetch_count", COUNT, Some("0")),
    opt(RABBIT, "heartbeat_timeout_threshold", Int(0, 65_535), None),
    opt(
        RABBIT,
        "heartbeat_rate",
        NoEffect("the heartbeat is checked twice in its interval"),
        Some("3"),
    ),
    opt(RABBIT, "kombu_missing_consumer_retry_timeout", Int(0, 86_400), Some("60")).old(&[(RABBIT, "kombu_reconnect_timeout")]),
    opt(RABBIT, "kombu_reconnect_delay", NoEffect(RETRY), Some("1.0")).old(&[(DEFAULT, "kombu_reconnect_delay")]),
    opt(RABBIT, "kombu_reconnect_splay", NoEffect(RETRY), Some("0.0")),
    opt(RABBIT, "kombu_compression", NoEffect("this agent never compresses"), None),
    opt(
        RABBIT,
        "kombu_failover_strategy",
        NoEffect("the next broker is taken at random"),
        Some("round-robin"),
    ),
    opt(RABBIT, "rabbit_retry_interval", NoEffect(RETRY), Some("1")).old(&[(DEFAULT, "rabbit_retry_interval")]),
    opt(RABBIT, "rabbit_retry_backoff", NoEffect(RETRY), Some("2")).old(&[(DEFAULT, "rabbit_retry_backoff")]),
    opt(RABBIT, "rabbit_interval_max", NoEffect(RETRY), Some("30")),
    opt(RABBIT, "rabbit_max_retries", NoEffect("this agent tries for ever"), Some("0")).old(&[(DEFAULT, "rabbit_max_retries")]),
    opt(RABBIT, "rpc_conn_pool_size", NoEffect(POOL), Some("30")).old(&[(DEFAULT, "rpc_conn_pool_size")]),
    opt(RABBIT, "conn_pool_min_size", NoEffect(POOL), Some("2")),
    opt(RABBIT, "conn_pool_ttl", NoEffect(POOL), Some("1200")),
    opt(RABBIT, "direct_mandatory_flag", NoEffect("replies are always mandatory"), YES),
    opt(
        RABBIT,
        "enable_cancel_on_failover",
        NoEffect("a consumer that is gone is noticed without it"),
        NO,
    ),
    opt(RABBIT, "use_queue_manager", NoEffect(QUORUM), NO),
    opt(RABBIT, "hostname", NoEffect(QUORUM), None),
    opt(RABBIT, "processname", NoEffect(QUORUM), None),
];

/// Mitaka's way to name the broker, in force only while `transport_url` is unset.
pub(super) const MITAKA: &[Opt] = &[
    opt(RABBIT, "rabbit_host", Text, Some("localhost")).old(&[(DEFAULT, "rabbit_host")]),
    opt(RABBIT, "rabbit_port", Int(1, 65_535), Some("5672")).old(&[(DEFAULT, "rabbit_port")]),
    opt(RABBIT, "rabbit_hosts", List, None).old(&[(DEFAULT, "rabbit_hosts")]),
    opt(RABBIT, "rabbit_userid", Text, Some("guest")).old(&[(DEFAULT, "rabbit_userid")]),
    opt(RABBIT, "rabbit_password", Secret, Some("guest")).old(&[(DEFAULT, "rabbit_password")]),
    opt(RABBIT, "rabbit_virtual_host", Text, Some("/")).old(&[(DEFAULT, "rabbit_virtual_host")]),
];

/// Our own options. `packaging/config.d/trove-guestagent.conf.sample` lists the same; a test compares them.
pub(super) const OURS: &[Opt] = &[
    opt(OWN, "era", Choice(&["auto", "mitaka", "ocata", "ussuri", "victoria", "epoxy", "hibiscus"]), Some("auto")).help(
        "Which Trove we talk to: mitaka (5), ocata (7-12), ussuri (13), victoria (14-22), epoxy (23-25), hibiscus (26 and later). auto \
         derives it from guest_info.conf, and takes victoria when that does not tell.",
    ),
    opt(OWN, "root", Path, None)
        .help("Folder before every system path that is not set in full, so that several guests live on one machine. Empty on a real guest."),
    opt(OWN, "state_dir", Path, Some("/var/lib/trove-guestagent")).help("Folder of the journal and of what the agent must not forget."),
    opt(OWN, "run_dir", Path, Some("/run/trove-guestagent")).help("Folder of the socket and of what may be lost in a reboot."),
    opt(OWN, "socket", Path, Some("/run/trove-guestagent/agent.sock")).help("Socket of the command line. The default follows run_dir."),
    opt(OWN, "marker_dir", Path, Some("/opt/trove-guestagent")).help("Folder of the files that mark the beginning and end of prepare."),
    opt(OWN, "network_file", Path, Some("/etc/trove/eth1.json")).help("Description of the data network, written by the control plane."),
    opt(OWN, "supervisor", Choice(&["auto", "systemd", "supervised"]), Some("auto"))
        .help("Who runs the database server: systemd, or the agent itself (supervised). auto takes systemd where it runs."),
    opt(OWN, "heartbeat", Seconds(0.0, 65_535.0), None)
        .help("Seconds between AMQP heartbeats, 0 is off. Default: heartbeat_timeout_threshold if that is set, otherwise 15."),
    opt(OWN, "prefetch", Int(1, 65_535), None)
        .help("Messages taken from the broker before they are acknowledged. Default: rabbit_qos_prefetch_count if that is set, otherwise 256."),
    opt(OWN, "self_ping", Seconds(0.0, DAY), Some("30"))
        .help("Seconds between messages to ourselves that prove that the queue is really consumed, 0 is off."),
    opt(OWN, "outbox_limit", Int(1, 1_000_000), Some("1024")).help("Messages that may wait while the broker is away."),
    opt(OWN, "max_body", Int(65_536, 268_435_456), Some("16777216")).help("Largest message accepted, bytes."),
    opt(OWN, "data_interface", Text, None)
        .help("NIC of the data network: database, replication, service addresses. Default: the NIC whose hardware address is that of network_file."),
    opt(OWN, "management_interface", Text, None)
        .help("NIC of the management network: a second way for the heartbeats of a pair, and where no service address may be."),
    opt(OWN, "link_port", Int(1, 65_535), Some("4450")).help("TCP port on the data network that the agents of a pair talk over."),
    opt(OWN, "vip", List, None).help(
        "Service addresses, ADDR/PREFIX of both families, for an instance whose control plane knows nothing of pairs: held while it is \
         the source and writable. A pair brings its own.",
    ),
    opt(OWN, "vip_plane", Choice(&["arp", "keepalived"]), Some("arp"))
        .help("How these are held: by the agent itself (arp), or by keepalived, which the agent configures."),
    opt(OWN, "keepalived_program", Path, Some("/usr/sbin/keepalived")).help("The program, for the plane keepalived."),
];

/// All lists, in the order of the report.
pub(super) fn options() -> impl Iterator<Item = &'static Opt> {
    [COMMON, backup::UPSTREAM, MESSAGING, MITAKA, ENGINE, OURS, backup::OURS]
        .into_iter()
        .flatten()
}

/// Option by its section (with [`DATASTORE`] for the engine's) and present name.
pub(super) fn find(group: &str, name: &str) -> Option<&'static Opt> {
    options().find(|opt| opt.group == group && opt.name == name)
}

/// Whether upstream's driver has such an option, so that the query of a `transport_url` may hold it.
pub(super) fn is_messaging(name: &str) -> bool {
    MESSAGING.iter().any(|opt| opt.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::reader::convert;
    use super::*;

    /// What the sample of our own options must be.
    fn sample() -> String {
        let mut text = String::from(
            "# The agent's own options. Each is shown with its default; a default that depends on others is told in words.\n\
             # Copy this file to /etc/trove/conf.d/ under a name that ends in .conf; of several files the last by name wins.\n\
             # In this section an unknown option is an error. `trove-guestagent check` says what is in force, and why.\n\n",
        );
        text.push_str(&format!("[{OWN}]\n"));
        for opt in OURS.iter().chain(backup::OURS) {
            text.push('\n');
            let mut line = String::from("#");
            for word in opt.help.split_whitespace() {
                if line.len() + word.len() > 110 {
                    text.push_str(&format!("{line}\n"));
                    line = String::from("#");
                }
                line.push_str(&format!(" {word}"));
            }
            text.push_str(&format!("{line}\n"));
            if let Choice(words) = opt.kind {
                text.push_str(&format!("# One of: {}\n", words.join(", ")));
            }
            let line = format!("#{} = {}", opt.name, opt.default.unwrap_or_default());
            text.push_str(&format!("{}\n", line.trim_end()));
        }
        text.push_str(
            "\n# Options of the database driver. They win over those of the section named like the datastore ([mariadb]).\n\
             # Which there are, the driver knows.\n",
        );
        text.push_str(&format!("[{DRIVER}]\n"));
        text
    }

    #[test]
    fn the_sample_lists_our_options_as_they_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/config.d/trove-guestagent.conf.sample");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let wanted = sample();
        assert!(found == wanted, "{path} should be:\n{wanted}");
    }

    #[test]
    fn every_name_is_there_once_and_every_default_is_of_its_type() {
        let mut names = Vec::new();
        for opt in options() {
            for name in std::iter::once((opt.group, opt.name)).chain(opt.old.iter().copied()) {
                assert!(!names.contains(&name), "{name:?} is listed twice");
                names.push(name);
            }
            assert!(!opt.help.is_empty() || opt.group != OWN, "{} needs words", opt.name);
            assert!(
                opt.default.is_none_or(|text| convert(opt.kind, text).is_ok()),
                "the default of {}",
                opt.name
            );
        }
    }
}
