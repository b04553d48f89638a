//! What a source tells about itself (contract sections 6.6 and 6.7), of every era, read and written.

use crate::host::FilesystemStats;
use crate::rpc::args::Object;
use crate::rpc::role::EXTRA;
use crate::rpc::{ErrorClass, RpcError};
use datastore_api::{ExposeSecret, Position, ReplicaLogin, ReplicaTls, Secret, SourceEndpoint};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Longest host name and user name.
const MAX_HOST: usize = 255;
const MAX_USER: usize = 80;

/// A snapshot (`prepare.snapshot`, `attach_replication_slave.snapshot`) or a context (`attach_replica.replica_info`).
#[derive(Debug, Deserialize)]
pub struct WireSource {
    #[serde(default)]
    master: Option<Object<WireMaster>>,
    #[serde(default)]
    replica_conf: Option<Object<WireConf>>,
    /// Of Mitaka: what `replica_conf` is today.
    #[serde(default)]
    log_position: Option<Object<WireConf>>,
    /// Class name of the source's strategy.
    #[serde(default)]
    pub replication_strategy: Option<String>,
    /// Of snapshots only.
    #[serde(default)]
    pub dataset: Option<Object<WireDataset>>,
    #[serde(default)]
    ssl_mode: Option<String>,
    #[serde(default)]
    cert_container: Option<Object<WireCertificates>>,
    /// Ours.
    #[serde(default, rename = "trove_guestagent")]
    extra: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct WireMaster {
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct WireConf {
    #[serde(default)]
    replication_user: Option<Object<WireLogin>>,
}

#[derive(Debug, Deserialize)]
struct WireLogin {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
}

/// What is known of the data a replica is made from.
#[derive(Debug, Deserialize)]
pub struct WireDataset {
    /// Gigabytes the source's data take.
    #[serde(default)]
    pub dataset_size: Option<f64>,
    /// Where the data end, if they are on the replica's volume already.
    #[serde(default)]
    pub log_executed_gtid_set: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireCertificates {
    #[serde(default)]
    private_key: Option<Secret>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    ca: Option<String>,
}

impl WireSource {
    /// Where the source is. `what` names the argument in errors, here and below.
    pub fn endpoint(&self, what: &str) -> Result<SourceEndpoint, RpcError> {
        let Some(Object(master)) = &self.master else {
            return Err(missing(what, "master"));
        };
        let host = master.host.as_deref().map(str::trim).filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| missing(what, "master.host"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.len() > MAX_HOST || !host.chars().all(fits) {
            return Err(wrong(what, "master.host", "is no address and no host name"));
        }
        let port = master.port.ok_or_else(|| missing(what, "master.port"))?;
        if port == 0 {
            return Err(wrong(what, "master.port", "is no port"));
        }
        let host = host.to_owned();
        Ok(SourceEndpoint { host, port })
    }

    /// How to log in there.
    pub fn login(&self, what: &str) -> Result<ReplicaLogin, RpcError> {
        let user_of = |conf: &Option<Object<WireConf>>| {
            let user = conf.as_ref()?.0.replication_user.as_ref()?;
            Some((user.0.name.clone(), user.0.password.clone()))
        };
        let Some((name, password)) = user_of(&self.replica_conf).or_else(|| user_of(&self.log_position)) else {
            return Err(missing(what, "replica_conf.replication_user"));
        };
        let user = name.filter(|name| !name.is_empty() && name.len() <= MAX_USER);
        Ok(ReplicaLogin {
            user: user.ok_or_else(|| missing(what, "replica_conf.replication_user.name"))?,
            password: password.ok_or_else(|| missing(what, "replica_conf.replication_user.password"))?,
        })
    }

    /// With which certificates, if the source has TLS.
    pub fn tls(&self, what: &str) -> Result<Option<ReplicaTls>, RpcError> {
        let (Some(_), Some(Object(certificates))) = (&self.ssl_mode, &self.cert_container) else {
            return Ok(None);
        };
        let ca = certificates.ca.clone().filter(|ca| !ca.trim().is_empty());
        Ok(Some(ReplicaTls {
            ca: ca.ok_or_else(|| missing(what, "cert_container.ca"))?,
            certificate: certificates.certificate.clone(),
            private_key: certificates.private_key.clone(),
            verify_name: true,
        }))
    }

    /// What only agents like this one tell each other; empty from any other.
    pub fn extra(&self) -> Map<String, Value> {
        self.extra.clone().unwrap_or_default()
    }
}

fn missing(what: &str, field: &str) -> RpcError {
    wrong(what, field, "is missing")
}

fn wrong(what: &str, field: &str, problem: &str) -> RpcError {
    RpcError::new(ErrorClass::BadRequest, format!("{what}.{field} {problem}"))
}

/// What a source answers: the parts that snapshot and context share, for callers of every era.
pub fn source(
    endpoint: &SourceEndpoint,
    login: &ReplicaLogin,
    position: &Position,
    extra: Map<String, Value>,
) -> Map<String, Value> {
    let user = json!({"name": login.user, "password": login.password.expose_secret()});
    let mut answer = Map::new();
    answer.insert("master".to_owned(), json!({"host": endpoint.host, "port": endpoint.port}));
    answer.insert(
        "replica_conf".to_owned(),
        json!({"log_position": {"gtid_pos": position.0}, "replication_user": user}),
    );
    answer.insert(
        "log_position".to_owned(),
        json!({"gtid_pos": position.0, "replication_user": user}),
    );
    answer.insert(EXTRA.to_owned(), Value::Object(extra));
    answer
}

/// What a snapshot says beside that.
pub fn dataset(manager: &str, snapshot_id: &str, stats: &FilesystemStats) -> Value {
    json!({
        "datastore_manager": manager,
        "dataset_size": stats.used(),
        "volume_size": stats.total(),
        "snapshot_id": snapshot_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> WireSource {
        serde_json::from_value(value).unwrap()
    }

    const WHAT: &str = "replica_info";

    #[test]
    fn every_era_is_read_and_written() {
        let user = json!({"name": "slave_1a2b3c4d", "password": "pw"});
        for conf in [
            json!({"replica_conf": {"log_position": {}, "replication_user": user}}),
            json!({"log_position": {"replication_user": user}}),
            json!({"replica_conf": {"replication_user": user}, "log_position": {}, "dataset": {}, "config": "x", "unknown": [1]}),
        ] {
            let mut value = conf;
            value["master"] = json!({"host": "10.1.2.7", "port": 3306, "id": "x"});
            let wire = read(value);
            assert_eq!(wire.endpoint(WHAT).unwrap().port, 3306);
            let login = wire.login(WHAT).unwrap();
            assert_eq!(
                (login.user.as_str(), login.password.expose_secret()),
                ("slave_1a2b3c4d", "pw")
            );
            assert!(!format!("{wire:?}").contains("pw"), "a password in debug output");
        }
        let endpoint = SourceEndpoint {
            host: "fd00::7".to_owned(),
            port: 1,
        };
        let login = ReplicaLogin {
            user: "u".to_owned(),
            password: "pw".to_owned().into(),
        };
        let written = Value::Object(source(&endpoint, &login, &Position("0-1-7".to_owned()), Map::new()));
        let wire = read(written.clone());
        assert_eq!(wire.endpoint(WHAT).unwrap(), endpoint);
        assert_eq!(wire.login(WHAT).unwrap().user, "u");
        assert_eq!(
            written["log_position"]["replication_user"],
            written["replica_conf"]["replication_user"]
        );
        assert_eq!(written["replica_conf"]["log_position"]["gtid_pos"], "0-1-7");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let good = json!({"host": "h", "port": 1});
        for (value, said) in [
            (json!({}), "replica_info.master is missing"),
            (json!({"master": {"port": 1}}), "replica_info.master.host is missing"),
            (
                json!({"master": {"host": " ", "port": 1}}),
                "replica_info.master.host is missing",
            ),
            (
                json!({"master": {"host": "a'; DROP", "port": 1}}),
                "replica_info.master.host is no address and no host name",
            ),
            (json!({"master": {"host": "h"}}), "replica_info.master.port is missing"),
            (
                json!({"master": {"host": "h", "port": 0}}),
                "replica_info.master.port is no port",
            ),
            (
                json!({"master": good}),
                "replica_info.replica_conf.replication_user is missing",
            ),
            (
                json!({"master": good, "replica_conf": {"replication_user": {"name": "u"}}}),
                "replica_info.replica_conf.replication_user.password is missing",
            ),
        ] {
            let wire = read(value);
            let error = wire.endpoint(WHAT).err().or_else(|| wire.login(WHAT).err()).unwrap();
            assert_eq!(error.chain(), said);
        }
    }
}
