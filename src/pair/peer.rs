//! Our side of the link with the other guest: kept connected over each path, asked over the best.

use super::spec::PairSpec;
use super::talk::{Ask, State};
use crate::link::{Limits, Link, LinkError, LinkErrorKind, PairKey, Stream};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::info;

/// Limit of one try to connect.
const CONNECT: Duration = Duration::from_millis(400);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How the peer was found at the last try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not tried yet.
    Never,
    /// Connected.
    Up,
    /// Its kernel says that no agent runs there.
    Refused {
        /// When the try that was refused began.
        since: Instant,
    },
    /// It says nothing.
    Silent,
    /// It has another key.
    WrongKey,
    /// It belongs to no pair.
    NoPair,
}

impl Reach {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Never => "none",
            Self::Up => "up",
            Self::Refused { .. } => "refused",
            Self::Silent => "silent",
            Self::WrongKey => "wrong_key",
            Self::NoPair => "no_pair",
        }
    }
}

/// One way to the peer.
struct Path {
    address: SocketAddr,
    link: Mutex<Option<Link>>,
    reach: watch::Sender<Reach>,
}

/// The other guest.
pub struct PeerLink {
    paths: Vec<Arc<Path>>,
    heard: Mutex<Option<(Instant, State)>>,
    _stop: DropGuard,
}

impl PeerLink {
    /// Connects, and connects again, until dropped.
    pub fn start(spec: &PairSpec, key: &PairKey, from: Option<IpAddr>) -> Arc<Self> {
        let stop = CancellationToken::new();
        let hosts = std::iter::once((spec.peer.host, from)).chain(spec.peer.management_host.map(|host| (host, None)));
        let paths = hosts.map(|(host, bind_from)| {
            let path = Arc::new(Path {
                address: SocketAddr::new(host, spec.peer.port),
                link: Mutex::new(None),
                reach: watch::channel(Reach::Never).0,
            });
            let limits = Limits {
                connect: CONNECT,
                unacknowledged: Duration::from_secs(1),
                bind_from: bind_from.filter(|own| own.is_ipv4() == host.is_ipv4()),
                ..Limits::default()
            };
            tokio::spawn(keep(path.clone(), key.clone(), limits, stop.clone()));
            path
        });
        Arc::new(Self {
            paths: paths.collect(),
            heard: Mutex::new(None),
            _stop: stop.drop_guard(),
        })
    }

    /// How it was found: the best of all paths.
    pub fn reach(&self) -> Reach {
        let all = || self.paths.iter().map(|path| *path.reach.borrow());
        all()
            .find(|reach| *reach == Reach::Up)
            .or_else(|| all().find(|reach| matches!(reach, Reach::Refused { .. })))
            .or_else(|| all().next())
            .unwrap_or(Reach::Never)
    }

    /// What it said of itself last, and when.
    pub fn heard(&self) -> Option<(Instant, State)> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn link(&self) -> Option<Link> {
        let open = |path: &Arc<Path>| path.link.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.paths.iter().find_map(|path| open(path).filter(|link| !link.is_closed()))
    }

    /// Waits until it is connected; `Err` with how it was found last.
    pub async fn connected(&self, limit: Duration) -> Result<(), Reach> {
        let up = async {
            let waits = self.paths.iter().map(|path| {
                let mut reach = path.reach.subscribe();
                Box::pin(async move {
                    let _ = reach.wait_for(|reach| *reach == Reach::Up).await;
                })
            });
            futures_util::future::select_all(waits).await;
        };
        tokio::time::timeout(limit, up).await.map_err(|_| self.reach())
    }

    /// Asks.
    pub async fn ask<T: DeserializeOwned>(&self, ask: &Ask, limit: Duration) -> Result<T, LinkError> {
        let body = serde_json::to_value(ask).unwrap_or(Value::Null);
        let Some(link) = self.link() else {
            let peer = self.paths[0].address;
            return Err(match self.reach() {
                Reach::Refused { .. } => LinkError::Refused { peer },
                Reach::WrongKey => LinkError::WrongKey { peer },
                Reach::NoPair => LinkError::NoPair { peer },
                _ => LinkError::Silent {
                    peer,
                    doing: "connect",
                    limit: CONNECT,
                },
            });
        };
        let answer = link.ask(&body, limit).await?;
        serde_json::from_value(answer).map_err(|error| LinkError::Told {
            peer: link.peer(),
            message: format!("something that is not an answer ({error})"),
        })
    }

    /// Asks who and how it is, and remembers it.
    pub async fn hello(&self, generation: u64, limit: Duration) -> Result<State, LinkError> {
        let state: State = self.ask(&Ask::Hello { generation }, limit).await?;
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), state.clone()));
        Ok(state)
    }

    /// Opens a byte stream.
    pub async fn stream(&self, open: &Value) -> Result<Stream, LinkError> {
        match self.link() {
            Some(link) => link.open_stream(open).await,
            None => Err(LinkError::Silent {
                peer: self.paths[0].address,
                doing: "connect",
                limit: CONNECT,
            }),
        }
    }
}

async fn keep(path: Arc<Path>, key: PairKey, limits: Limits, stop: CancellationToken) {
    loop {
        let began = Instant::now();
        let tried = tokio::select! {
            () = stop.cancelled() => return,
            tried = Link::connect(path.address, key.clone(), limits.clone()) => tried,
        };
        let reach = match tried {
            Ok(link) => {
                *path.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link.clone());
                tell(&path, Reach::Up);
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = link.closed() => {}
                }
                *path.link.lock().unwrap_or_else(PoisonError::into_inner) = None;
                // Why it ended tells nothing about the peer; the next try does, at once.
                path.reach.send_replace(Reach::Silent);
                continue;
            }
            Err(error) => match error.kind() {
                LinkErrorKind::Refused => Reach::Refused { since: began },
                LinkErrorKind::WrongKey => Reach::WrongKey,
                LinkErrorKind::NoPair => Reach::NoPair,
                _ => Reach::Silent,
            },
        };
        tell(&path, reach);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

fn tell(path: &Path, reach: Reach) {
    let before = path.reach.send_replace(reach);
    if before.word() != reach.word() {
        info!(peer = %path.address, from = before.word(), to = reach.word(), "the way to the peer changed");
    }
}
