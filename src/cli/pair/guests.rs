//! How the guests of a pair are asked: over the bus, or the one on this machine over its socket.

use super::args::ReachArgs;
use crate::bus::{BusError, Client, RpcVersion};
use crate::cli::bus;
use crate::config::Sources;
use crate::rpc::METHODS;
use crate::rpc::local::{Ask, Told, ask};
use anyhow::Context;
use datastore_api::Secret;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The bus knows no such guest.
    #[error("there is no guest {0} on the bus")]
    Unknown(String),
    /// It did not answer. What was asked may be done all the same.
    #[error("guest {guest} did not answer {method} within {limit:?}")]
    Silent {
        /// Whom.
        guest: String,
        /// What.
        method: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// It answered that it does not do it.
    #[error("guest {guest} refuses {method}: {text}")]
    Refused {
        /// Who.
        guest: String,
        /// What.
        method: &'static str,
        /// Why.
        text: String,
    },
    /// The way to it is broken.
    #[error("could not ask guest {guest} for {method}")]
    Way {
        /// Whom.
        guest: String,
        /// What.
        method: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AskError {
    /// Whether it is certain that nothing was done.
    pub fn nothing_done(&self) -> bool {
        matches!(self, AskError::Unknown(_) | AskError::Refused { .. })
    }
}

/// Answers of guests.
pub trait Guests {
    /// Asks a guest.
    async fn ask(&self, guest: &str, method: &'static str, args: Map<String, Value>, limit: Duration) -> Result<Value, AskError>;
    /// Whether guests other than the first can be asked.
    fn reaches_peers(&self) -> bool;
}

/// Over the bus.
pub struct OverBus {
    client: Client,
    /// The guest whose key is `key`; all others have `peer_key`.
    first: String,
    key: Option<Secret>,
    peer_key: Option<Secret>,
}

impl OverBus {
    /// Connects.
    pub async fn connect(reach: &ReachArgs, sources: Sources, first: &str) -> anyhow::Result<Self> {
        let (settings, key) = bus::settings(&reach.bus, sources)?;
        let peer_key = match &reach.peer_key_file {
            Some(path) => Some(bus::key(path)?),
            None => key.clone(),
        };
        let client = tokio::time::timeout(Duration::from_secs(15), Client::connect(&settings))
            .await
            .context("no broker answered within 15 s")??;
        Ok(Self {
            client,
            first: first.to_owned(),
            key,
            peer_key,
        })
    }
}

impl Guests for OverBus {
    async fn ask(&self, guest: &str, method: &'static str, args: Map<String, Value>, limit: Duration) -> Result<Value, AskError> {
        let entry = METHODS.iter().find(|entry| entry.name == method);
        let version = entry.map_or(RpcVersion { major: 1, minor: 0 }, |entry| entry.version);
        let key = if guest == self.first { &self.key } else { &self.peer_key };
        let answer = self
            .client
            .call(guest, key.as_ref(), method, version, args, Map::new(), limit);
        let owned = guest.to_owned();
        answer.await.map_err(|error| match error {
            BusError::NoGuest { .. } => AskError::Unknown(owned),
            BusError::Timeout(limit) => AskError::Silent {
                guest: owned,
                method,
                limit,
            },
            BusError::Remote(failure) => AskError::Refused {
                guest: owned,
                method,
                text: failure.message,
            },
            other => AskError::Way {
                guest: owned,
                method,
                source: other.into(),
            },
        })
    }

    fn reaches_peers(&self) -> bool {
        true
    }
}

/// The agent on this machine.
pub struct OverSocket(pub PathBuf);

impl Guests for OverSocket {
    async fn ask(&self, guest: &str, method: &'static str, args: Map<String, Value>, limit: Duration) -> Result<Value, AskError> {
        let question = Ask {
            method: method.to_owned(),
            args,
        };
        match ask(&self.0, &question, limit).await {
            Ok(Told::Result(value)) => Ok(value),
            Ok(Told::Failure(failure)) => Err(AskError::Refused {
                guest: guest.to_owned(),
                method,
                text: failure.message,
            }),
            Err(error) => Err(AskError::Way {
                guest: guest.to_owned(),
                method,
                source: error.into(),
            }),
        }
    }

    fn reaches_peers(&self) -> bool {
        false
    }
}
