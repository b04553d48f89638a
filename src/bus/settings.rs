//! What the bus needs to know. Filled by `config` from `transport_url` and `[oslo_messaging_rabbit]`.

use datastore_api::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// One broker of the transport URL.
#[derive(Debug, Clone)]
pub struct Broker {
    /// Host name or address (IPv6 without brackets).
    pub host: String,
    /// Port; 5672 also with TLS when none is given.
    pub port: u16,
    /// User name, empty if none was given.
    pub user: String,
    /// Password, empty if none was given.
    pub password: Secret,
}

/// TLS towards the broker.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// PEM file of trusted certificates. Without it upstream checks nothing; we do the same and warn.
    pub ca_file: Option<PathBuf>,
    /// PEM file of our certificate chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file of our private key.
    pub key_file: Option<PathBuf>,
    /// Whether the certificate must be for the host we connect to (only with `ca_file`).
    pub verify_hostname: bool,
}

/// Queue arguments, contract section 1.2, symbols Q and T.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueueType {
    /// `x-queue-type: quorum`.
    pub quorum: bool,
    /// `x-delivery-limit`, 0 = absent.
    pub delivery_limit: u32,
    /// `x-max-in-memory-length`, 0 = absent.
    pub max_memory_length: u32,
    /// `x-max-in-memory-bytes`, 0 = absent.
    pub max_memory_bytes: u32,
    /// `x-ha-policy: all`.
    pub ha: bool,
}

/// Everything the bus room needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers in the order given; shuffled per connection.
    pub brokers: Vec<Broker>,
    /// Virtual host.
    pub vhost: String,
    /// TLS, if on.
    pub tls: Option<TlsSettings>,
    /// `AMQPLAIN` (upstream's default), `PLAIN` or `EXTERNAL`.
    pub login_method: String,
    /// Name of the control exchange.
    pub control_exchange: String,
    /// Topic and queue consumed: `guestagent.<id>`.
    pub topic: String,
    /// The instance id, by which the conductor finds the payload key.
    pub server: String,
    /// Topic of the conductor, `trove-conductor`.
    pub conductor_topic: String,
    /// Symbol D: exchange and topic queues are durable.
    pub durable: bool,
    /// Symbol A.
    pub auto_delete: bool,
    /// Symbol Q.
    pub queue: QueueType,
    /// AMQP heartbeat asked for; 0 = off. Ours is shorter than upstream's 60 s by default: 15 s.
    pub heartbeat: Duration,
    /// Prefetch limit, 0 = unlimited is not ours: default 256.
    pub prefetch: u16,
    /// Payload key, `instance_rpc_encr_key`. With it plain messages are refused.
    pub key: Option<Secret>,
    /// How long a reply to a queue that is not there is retried: `kombu_missing_consumer_retry_timeout`, 60 s.
    pub missing_reply_queue: Duration,
    /// How many messages may wait while the broker is away.
    pub outbox_limit: usize,
    /// How often a message through our own queue proves that we really consume; 0 = never.
    pub self_ping: Duration,
    /// Largest body accepted, bytes.
    pub max_body: usize,
    /// Name shown in the broker's list of connections.
    pub connection_name: String,
}
