//! The bus's settings: `transport_url`, its query options, `[oslo_messaging_rabbit]`, and Mitaka's way to name a broker.

use super::files;
use super::reader::Reader;
use super::schema::{self, DEFAULT, MITAKA, OWN, RABBIT};
use crate::bus::{self, Broker, QueueType, TlsSettings};
use datastore_api::{ExposeSecret, Secret};
use std::time::Duration;

/// Heartbeat if nobody sets one: short, so that a dead broker is noticed soon.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Prefetch if nobody sets one.
const PREFETCH: u16 = 256;

/// Brokers and virtual host.
struct Peers {
    brokers: Vec<Broker>,
    vhost: String,
}

/// Builds the settings of the bus. Problems are in the reader's report; what is answered then is not to be used.
pub(super) fn build(reader: &mut Reader<'_>, guest_id: &str, program: &str) -> bus::Settings {
    // First, because the options in the URL win over all others.
    let peers = peers(reader);
    check_queues(reader);
    check_credentials(reader, &peers.brokers);
    bus::Settings {
        brokers: peers.brokers,
        vhost: peers.vhost,
        tls: tls(reader),
        login_method: login_method(reader),
        control_exchange: reader.text(DEFAULT, "control_exchange").unwrap_or_default(),
        topic: format!("guestagent.{guest_id}"),
        server: guest_id.to_owned(),
        conductor_topic: reader.text(DEFAULT, "conductor_queue").unwrap_or_default(),
        durable: reader.bool(RABBIT, "amqp_durable_queues") || reader.bool(RABBIT, "rabbit_quorum_queue"),
        auto_delete: reader.bool(RABBIT, "amqp_auto_delete"),
        queue: QueueType {
            quorum: reader.bool(RABBIT, "rabbit_quorum_queue"),
            delivery_limit: reader.count(RABBIT, "rabbit_quorum_delivery_limit"),
            max_memory_length: reader.count(RABBIT, "rabbit_quorum_max_memory_length"),
            max_memory_bytes: reader.count(RABBIT, "rabbit_quorum_max_memory_bytes"),
            ha: reader.bool(RABBIT, "rabbit_ha_queues"),
        },
        heartbeat: ours_or_theirs(reader, "heartbeat", "heartbeat_timeout_threshold")
            .and_then(|(group, name)| reader.seconds(group, name))
            .unwrap_or(HEARTBEAT),
        prefetch: ours_or_theirs(reader, "prefetch", "rabbit_qos_prefetch_count")
            .and_then(|(group, name)| reader.int(group, name))
            .filter(|count| *count > 0)
            .map_or(PREFETCH, |count| u16::try_from(count).unwrap_or(u16::MAX)),
        key: reader.secret(DEFAULT, "instance_rpc_encr_key"),
        missing_reply_queue: reader
            .seconds(RABBIT, "kombu_missing_consumer_retry_timeout")
            .unwrap_or_default(),
        outbox_limit: reader.count::<u32>(OWN, "outbox_limit") as usize,
        self_ping: reader.seconds(OWN, "self_ping").unwrap_or_default(),
        max_body: reader.count::<u32>(OWN, "max_body") as usize,
        connection_name: format!("{program}:{}:{guest_id}", std::process::id()),
    }
}

/// Our own option if somebody set it, else the control plane's if somebody set that.
fn ours_or_theirs(reader: &mut Reader<'_>, ours: &'static str, theirs: &'static str) -> Option<(&'static str, &'static str)> {
    match (reader.is_set(OWN, ours), reader.is_set(RABBIT, theirs)) {
        (true, true) => {
            reader.warning(RABBIT, theirs, format!("has no effect: [{OWN}] {ours} is set"));
            Some((OWN, ours))
        }
        (true, false) => Some((OWN, ours)),
        (false, true) => Some((RABBIT, theirs)),
        (false, false) => None,
    }
}

fn peers(reader: &mut Reader<'_>) -> Peers {
    let url = reader.secret(DEFAULT, "transport_url");
    let old: Vec<&'static str> = MITAKA
        .iter()
        .map(|opt| opt.name)
        .filter(|name| reader.is_set(RABBIT, name))
        .collect();
    let Some(url) = url else {
        if old.is_empty() && !reader.is_set(DEFAULT, "transport_url") {
            reader.warning(DEFAULT, "transport_url", "is not set: guest at localhost:5672 is taken");
        }
        return mitaka(reader);
    };
    for name in old {
        reader.warning(RABBIT, name, "has no effect: transport_url is set");
    }
    let parsed = match bus::url::parse(url.expose_secret()) {
        Ok(parsed) => parsed,
        Err(error) => {
            reader.error(DEFAULT, "transport_url", error.to_string());
            return Peers {
                brokers: Vec::new(),
                vhost: "/".to_owned(),
            };
        }
    };
    for (name, value) in parsed.options {
        if schema::is_messaging(&name) {
            reader.inputs.url.push((name, value));
        } else if value.contains('@') {
            // A ? in a password makes the rest of it a query; do not show it.
            reader.error(DEFAULT, "transport_url", "a ? in a password must be written %3F");
        } else {
            let text = format!("its query holds {name:?}, which is no option of [{RABBIT}]");
            reader.error(DEFAULT, "transport_url", text);
        }
    }
    Peers {
        brokers: parsed.brokers,
        vhost: parsed.vhost,
    }
}

/// `rabbit_hosts`, else `rabbit_host` and `rabbit_port`, one user for all.
fn mitaka(reader: &mut Reader<'_>) -> Peers {
    let port: u16 = reader.count(RABBIT, "rabbit_port");
    let mut hosts = reader.list(RABBIT, "rabbit_hosts").unwrap_or_default();
    let mut default_port = 5672;
    if hosts.is_empty() {
        default_port = port;
        hosts = reader.text(RABBIT, "rabbit_host").into_iter().collect();
    }
    let user = reader.text(RABBIT, "rabbit_userid").unwrap_or_default();
    let password = reader
        .secret(RABBIT, "rabbit_password")
        .unwrap_or_else(|| Secret::from(String::new()));
    let mut brokers = Vec::new();
    for host in hosts {
        let Some((host, port)) = host_port(&host, default_port) else {
            reader.error(RABBIT, "rabbit_hosts", format!("expected host:port, found {host:?}"));
            continue;
        };
        brokers.push(Broker {
            host,
            port,
            user: user.clone(),
            password: password.clone(),
        });
    }
    Peers {
        brokers,
        vhost: reader.text(RABBIT, "rabbit_virtual_host").unwrap_or_else(|| "/".to_owned()),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or a bare IPv6 address.
fn host_port(text: &str, default: u16) -> Option<(String, u16)> {
    let number = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (
            host,
            if rest.is_empty() {
                default
            } else {
                number(rest.strip_prefix(':')?)?
            },
        )
    } else if text.matches(':').count() == 1 {
        let (host, port) = text.split_once(':')?;
        (host, number(port)?)
    } else {
        (text, default)
    };
    (!host.is_empty() && !host.contains(char::is_whitespace)).then(|| (host.to_owned(), port))
}

fn check_queues(reader: &mut Reader<'_>) {
    if reader.bool(RABBIT, "rabbit_quorum_queue") && reader.bool(RABBIT, "rabbit_ha_queues") {
        reader.error(
            RABBIT,
            "rabbit_quorum_queue",
            "and rabbit_ha_queues are both on; a queue is of one kind",
        );
    }
    // No fan-out queue is used here, but upstream refuses these combinations, so nobody means them.
    if reader.bool(RABBIT, "rabbit_stream_fanout") {
        if !reader.bool(RABBIT, "rabbit_transient_quorum_queue") {
            reader.error(RABBIT, "rabbit_stream_fanout", "needs rabbit_transient_quorum_queue = true");
        }
        if reader.int(RABBIT, "rabbit_qos_prefetch_count").unwrap_or_default() <= 0 {
            reader.error(RABBIT, "rabbit_stream_fanout", "needs a rabbit_qos_prefetch_count above 0");
        }
    }
}

/// A host takes no credentials from another, in upstream neither.
fn check_credentials(reader: &mut Reader<'_>, brokers: &[Broker]) {
    let without = brokers.iter().filter(|broker| broker.user.is_empty()).count();
    if without > 0 && without < brokers.len() {
        reader.warning(
            DEFAULT,
            "transport_url",
            format!("{without} of {} hosts have no user; each host needs its own", brokers.len()),
        );
    }
}

fn login_method(reader: &mut Reader<'_>) -> String {
    let method = reader.text(RABBIT, "rabbit_login_method").unwrap_or_default();
    if method == "RABBIT-CR-DEMO" {
        reader.error(
            RABBIT,
            "rabbit_login_method",
            "RABBIT-CR-DEMO is not supported; use AMQPLAIN, PLAIN or EXTERNAL",
        );
    }
    method
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsSettings> {
    let files = ["ssl_ca_file", "ssl_cert_file", "ssl_key_file"];
    let [ca_file, cert_file, key_file] = files.map(|name| reader.path(RABBIT, name));
    if !reader.bool(RABBIT, "ssl") {
        for name in files {
            if reader.path(RABBIT, name).is_some() {
                reader.warning(RABBIT, name, "has no effect: ssl is off");
            }
        }
        return None;
    }
    for name in files {
        let Some(path) = reader.path(RABBIT, name) else { continue };
        match files::read(&path) {
            Err(text) => reader.error(RABBIT, name, format!("{}: {text}", path.display())),
            Ok((text, _)) if !text.contains("-----BEGIN ") => {
                reader.error(RABBIT, name, format!("{} is not a PEM file", path.display()));
            }
            Ok((_, mode)) if name == "ssl_key_file" && mode & 0o004 != 0 => {
                reader.warning(
                    RABBIT,
                    name,
                    format!("every user of this machine can read {} (chmod o-r)", path.display()),
                );
            }
            Ok(_) => {}
        }
    }
    // Upstream's key may stand in the certificate's file; a key alone proves nothing.
    if key_file.is_some() && cert_file.is_none() {
        reader.error(RABBIT, "ssl_key_file", "is set without ssl_cert_file");
    }
    if ca_file.is_none() {
        reader.warning(
            RABBIT,
            "ssl",
            "is on without ssl_ca_file: the broker's certificate is not checked",
        );
    }
    let verify_hostname = ca_file.is_some() && reader.bool(RABBIT, "ssl_enforce_hostname_verification");
    if ca_file.is_some() && !verify_hostname {
        reader.warning(
            RABBIT,
            "ssl_enforce_hostname_verification",
            "is off: any certificate of that authority is accepted",
        );
    }
    Some(TlsSettings {
        ca_file,
        cert_file,
        key_file,
        verify_hostname,
    })
}

/// Whether the broker is named in Mitaka's way only.
pub(super) fn is_mitaka_style(reader: &mut Reader<'_>) -> bool {
    !reader.is_set(DEFAULT, "transport_url") && MITAKA.iter().any(|opt| reader.is_set(RABBIT, opt.name))
}
