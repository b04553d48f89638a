//! Copies of this guest's data that were promised to new replicas: each snapshot carries a key of its own, with which the replica
//! fetches the copy straight from here over the link, and nothing else.
//!
//! A key is good for as long as the control plane waits for a replica, not for one use: several replicas are made from one snapshot,
//! and a copy that broke is fetched again. Keys are kept over a restart of the agent, sealed.

use super::failure::{ErrorClass, RpcError};
use crate::journal::Journal;
use crate::link::{Handler, KeyId, KeyLookup, Limits, Link, PairKey, Peer, Stream};
use async_trait::async_trait;
use datastore_api::{Datastore, ExposeSecret, Position, Replication, Secret, chain};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

/// How long a key is good, and how many there may be; the oldest goes first.
const GOOD_FOR: Duration = Duration::from_secs(2 * 3600);
const MOST: usize = 16;
/// The sealed fact they are kept in.
const FACT: &str = "copies";
/// How often a copy is tried, and the pause before the next time.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

/// One promise, as it is kept.
#[derive(Serialize, Deserialize)]
struct Promise {
    key: String,
    until: u64,
}

struct Open {
    key: PairKey,
    until: u64,
}

/// The promises.
pub struct Copies {
    journal: Journal,
    open: Mutex<Vec<Open>>,
    port: AtomicU16,
}

impl Copies {
    /// Reads those that were made before. What cannot be read is lost with a warning: its replicas fail, and are made again.
    pub async fn load(journal: Journal) -> Arc<Self> {
        let kept = match journal.get_sealed(FACT).await {
            Ok(kept) => kept.and_then(|bytes| serde_json::from_slice::<Vec<Promise>>(&bytes).ok()),
            Err(error) => {
                warn!(error = chain(&error), "the keys of promised copies are lost");
                None
            }
        };
        let open = kept.unwrap_or_default().into_iter().filter_map(|promise| {
            let key = PairKey::from_base64(&Secret::from(promise.key)).ok()?;
            Some(Open {
                key,
                until: promise.until,
            })
        });
        Arc::new(Self {
            journal,
            open: Mutex::new(open.collect()),
            port: AtomicU16::new(0),
        })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Open>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        open.retain(|promise| promise.until > now);
        open
    }

    /// The keys that are good now.
    #[must_use]
    pub fn keys(&self) -> Vec<PairKey> {
        self.open().iter().map(|promise| promise.key.clone()).collect()
    }

    /// Whether a copy was promised to the holder of this key.
    #[must_use]
    pub fn knows(&self, id: KeyId) -> bool {
        self.open().iter().any(|promise| promise.key.id() == id)
    }

    /// The port the link is served on.
    pub fn served_on(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// Promises a copy; answers what the replica needs to fetch it.
    pub async fn offer(&self, host: &str) -> Result<Value, RpcError> {
        let port = self.port.load(Ordering::Relaxed);
        if port == 0 {
            return Err(RpcError::new(
                ErrorClass::Trove,
                "this agent serves no copies: its link does not listen",
            ));
        }
        let key = PairKey::generate();
        let kept = {
            let mut open = self.open();
            if open.len() >= MOST {
                open.remove(0);
            }
            open.push(Open {
                key: key.clone(),
                until: now() + GOOD_FOR.as_secs(),
            });
            let promises: Vec<_> = open
                .iter()
                .map(|promise| Promise {
                    key: promise.key.to_base64().expose_secret().to_owned(),
                    until: promise.until,
                })
                .collect();
            serde_json::to_vec(&promises).expect("texts and numbers always encode")
        };
        if let Err(error) = self.journal.put_sealed(FACT, kept).await {
            warn!(error = chain(&error), "the key of a promised copy is not kept over a restart");
        }
        Ok(json!({"host": host, "port": port, "key": key.to_base64().expose_secret()}))
    }

    /// Who may fetch copies and what serves them, for the listener of the link, which listens on `port`.
    pub fn serve(self: &Arc<Self>, datastore: Arc<dyn Datastore>, port: u16) -> (KeyLookup, Arc<dyn Handler>) {
        self.served_on(port);
        let keys = self.clone();
        (Arc::new(move || keys.keys()), Arc::new(Door(self.clone(), datastore)))
    }
}

struct Door(Arc<Copies>, Arc<dyn Datastore>);

#[async_trait]
impl Handler for Door {
    async fn request(&self, _peer: Peer, _body: Value) -> Result<Value, String> {
        Err("this key is good for a copy only".to_owned())
    }

    async fn stream(&self, peer: Peer, open: Value, io: Stream) {
        match self.1.replication() {
            Some(replication) if open["verb"] == "clone" && self.0.knows(peer.key) => send(replication, peer, io).await,
            _ => io.fail("there is no such stream").await,
        }
    }
}

/// Streams a copy of this guest's data.
async fn send(replication: &dyn Replication, peer: Peer, mut io: Stream) {
    info!(peer = %peer.address, "a copy of the data is sent");
    match replication.send_clone(&mut io).await {
        Ok(position) => match io.shutdown().await {
            Ok(()) => info!(%position, "a copy of the data was sent"),
            Err(error) => warn!(%error, "the end of a copy of the data could not be sent"),
        },
        Err(error) => {
            warn!(error = chain(&error), "a copy of the data could not be made");
            io.fail(&chain(&error)).await;
        }
    }
}

/// A copy that another guest promised.
#[derive(Debug)]
pub struct Offer {
    host: String,
    port: u16,
    key: PairKey,
}

impl Offer {
    /// Reads it. `what` names the argument in errors.
    pub fn read(value: &Value, what: &str) -> Result<Self, RpcError> {
        let wrong = |field: &str| {
            let text = format!("{what}.trove_guestagent.clone.{field} is missing or wrong");
            RpcError::new(ErrorClass::BadRequest, text)
        };
        let text = |field: &str| value[field].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
        let port = value["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let key = text("key").and_then(|key| PairKey::from_base64(&Secret::from(key)).ok());
        Ok(Self {
            host: text("host").ok_or_else(|| wrong("host"))?,
            port: port.filter(|port| *port > 0).ok_or_else(|| wrong("port"))?,
            key: key.ok_or_else(|| wrong("key"))?,
        })
    }

    /// Replaces this server's data by the copy. One that breaks is begun again, a few times.
    pub async fn fetch(&self, replication: &dyn Replication) -> Result<Position, RpcError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.connect().await {
                Ok(mut io) => match replication.receive_clone(&mut io).await {
                    Ok(position) => return Ok(position),
                    Err(error) => RpcError::from(error),
                },
                Err(error) => error,
            };
            if tries == TRIES {
                return Err(error);
            }
            warn!(
                error = error.chain(),
                tries, "the source's data could not be copied; trying again"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn connect(&self) -> Result<Stream, RpcError> {
        let place = format!("{}:{}", self.host, self.port);
        let fail = |error: Box<dyn std::error::Error + Send + Sync>| {
            let text = format!("could not open a copy of the source's data at {place}");
            RpcError::caused(ErrorClass::Trove, text, error)
        };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let address = found.map_err(|error| fail(error.into()))?.next();
        let address = address.ok_or_else(|| fail("the name has no address".into()))?;
        let limits = Limits {
            connect: Duration::from_secs(5),
            ..Limits::default()
        };
        let link = Link::connect(address, self.key.clone(), limits).await;
        let link = link.map_err(|error| fail(error.into()))?;
        link.open_stream(&json!({"verb": "clone"}))
            .await
            .map_err(|error| fail(error.into()))
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
