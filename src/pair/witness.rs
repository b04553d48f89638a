//! The witness: what any third agent, or `trove-guestagent witness`, answers to the two of a pair. Also the words that source, replica
//! and witness exchange about the lease.

use super::lease::{Denied, Grants, Kept, Moment, Ping, Terms};
use crate::link::{Handler, KeyId, Peer};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tracing::{info, warn};

const FILE: &str = "witness.json";
/// Longest name of a pair, bytes.
const LONGEST_NAME: usize = 128;

/// What is asked about a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Question {
    /// Of a source, to its replica and to the witness.
    Ping {
        /// The pair.
        pair: String,
        /// The source's generation.
        generation: u64,
        /// See [`Ping`].
        seq: u64,
        /// See [`Ping`].
        #[serde(default)]
        arms: bool,
        /// See [`Ping`].
        #[serde(default)]
        ends_hold: Option<u64>,
        /// The pair's lease, if it is not the witness's.
        #[serde(default)]
        lease_ms: Option<u64>,
    },
    /// Of a replica, to the witness: see [`Grants::fence`].
    Fence {
        /// The pair.
        pair: String,
        /// The generation to let in no more.
        generation: u64,
        /// Number of the attempt to promote.
        attempt: u64,
        /// Even if the witness hears the source.
        #[serde(default)]
        insist: bool,
    },
    /// Of a replica, to the witness: see [`Grants::unfence`].
    Unfence {
        /// The pair.
        pair: String,
        /// The generation that may be let in again.
        generation: u64,
        /// Number of the attempt that was given up.
        attempt: u64,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// To a ping.
    Echo {
        /// Its number.
        echo: u64,
        /// The announced absence that the replica still reckons with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<u64>,
    },
    /// To a ping or a fence.
    Denied {
        /// For people.
        denied: String,
        /// For programs.
        reason: Reason,
        /// The generation it is about. With [`Reason::Newer`] the asker must step down.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// When to ask again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_ms: Option<u64>,
    },
    /// To a fence.
    Promised {
        /// The generation that is let in no more.
        promised: u64,
        /// For which attempt.
        attempt: u64,
        /// When it was let in last; `None`: not since this witness began.
        granted_ago_ms: Option<u64>,
    },
    /// To an unfence.
    Unfenced {
        /// The attempt that was given up.
        unfenced: u64,
        /// Another attempt that a promise still stands for.
        standing: Option<u64>,
    },
}

/// Why not, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// [`Denied::JustStarted`].
    JustStarted,
    /// [`Denied::Promised`].
    Promised,
    /// [`Denied::Newer`], or a replica that knows of a newer generation or has decided to begin one.
    Newer,
    /// [`Denied::LeaseRuns`].
    LeaseRuns,
    /// [`Denied::SourceLives`].
    SourceLives,
    /// [`Denied::Full`].
    Full,
}

impl Question {
    /// A ping as it goes out.
    #[must_use]
    pub fn ping(pair: &str, generation: u64, ping: Ping, terms: &Terms) -> Self {
        Self::Ping {
            pair: pair.to_owned(),
            generation,
            seq: ping.seq,
            arms: ping.arms,
            ends_hold: ping.ends_hold,
            lease_ms: Some(whole_ms(terms.lease)),
        }
    }

    /// Whose pair it is about.
    #[must_use]
    pub fn pair(&self) -> &str {
        match self {
            Self::Ping { pair, .. } | Self::Fence { pair, .. } | Self::Unfence { pair, .. } => pair,
        }
    }
}

impl Answer {
    /// What a replica says to a source that is no longer one.
    #[must_use]
    pub fn newer(generation: u64) -> Self {
        Self::from(Denied::Newer { generation })
    }
}

impl From<Denied> for Answer {
    fn from(denied: Denied) -> Self {
        let (reason, generation, retry) = match denied {
            Denied::JustStarted { retry } => (Reason::JustStarted, None, Some(retry)),
            Denied::Promised { generation } => (Reason::Promised, Some(generation), None),
            Denied::Newer { generation } => (Reason::Newer, Some(generation), None),
            Denied::LeaseRuns { generation, retry } => (Reason::LeaseRuns, Some(generation), Some(retry)),
            Denied::SourceLives { .. } => (Reason::SourceLives, None, None),
            Denied::Full => (Reason::Full, None, None),
        };
        Self::Denied {
            denied: denied.to_string(),
            reason,
            generation,
            retry_ms: retry.map(|retry| whole_ms(retry) + 1),
        }
    }
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is kept cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} what the witness keeps in {path}")]
pub struct WitnessError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A witness of any number of pairs. Each key sees its own pairs only.
pub struct Witness {
    terms: Terms,
    began: Instant,
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    grants: Grants<String>,
    written: BTreeMap<String, Kept>,
}

impl Witness {
    /// Opens a witness for leases of up to `terms.lease`. With a `folder` it keeps its promises over a restart; without one it may let
    /// a source in again, after its own restart, that it had promised not to.
    pub fn open(terms: Terms, folder: Option<&Path>) -> Result<Self, WitnessError> {
        let written = match folder {
            Some(folder) => {
                let fail = |doing| {
                    move |source| WitnessError {
                        doing,
                        path: folder.to_owned(),
                        source,
                    }
                };
                fs::create_dir_all(folder).map_err(fail("make a folder for"))?;
                let kept = read(folder).map_err(fail("read"))?;
                // Better now than at the moment of a failover.
                write(folder, &kept).map_err(fail("write"))?;
                kept
            }
            None => BTreeMap::new(),
        };
        Ok(Self {
            terms,
            began: Instant::now(),
            folder: folder.map(Path::to_owned),
            state: Mutex::new(State {
                grants: Grants::new(terms, Moment::ZERO, written.clone()),
                written,
            }),
        })
    }

    /// Answers a question of whoever has this key. What must be kept is on disk before the answer is given.
    pub async fn answer(&self, key: KeyId, question: &Question) -> Result<Answer, String> {
        let pair = question.pair();
        if pair.is_empty() || pair.len() > LONGEST_NAME {
            return Err(format!("a pair's name has 1 to {LONGEST_NAME} bytes"));
        }
        let name = format!("{key}/{pair}");
        let mut state = self.state.lock().await;
        let now = self.began.elapsed();
        let answer = self.decide(&mut state.grants, &name, question, now)?;
        let kept = state.grants.kept(&name);
        if state.written.get(&name).copied().unwrap_or_default() != kept {
            info!(pair, question = ?question, answer = ?answer, "the witness's mind about a pair has changed");
            self.keep(&mut state, name, kept).await.map_err(|error| {
                warn!(%error, "the witness could not keep what it was about to say");
                "the witness cannot write its state; its log says more".to_owned()
            })?;
        }
        Ok(answer)
    }

    fn decide(&self, grants: &mut Grants<String>, name: &String, question: &Question, now: Moment) -> Result<Answer, String> {
        let answer = match *question {
            Question::Ping {
                generation,
                seq,
                lease_ms,
                ..
            } => {
                let most = whole_ms(self.terms.lease);
                if lease_ms.is_some_and(|lease| lease > most) {
                    return Err(format!(
                        "this witness serves leases of up to {most} ms; its --lease-ms says so"
                    ));
                }
                let granted = grants.ping(name, generation, now);
                granted.map(|()| Answer::Echo { echo: seq, hold: None })
            }
            Question::Fence {
                generation,
                attempt,
                insist,
                ..
            } => {
                let promised = grants.fence(name, generation, attempt, insist, now);
                promised.map(|ago| Answer::Promised {
                    promised: generation,
                    attempt,
                    granted_ago_ms: ago.map(whole_ms),
                })
            }
            Question::Unfence { generation, attempt, .. } => Ok(Answer::Unfenced {
                unfenced: attempt,
                standing: grants.unfence(name, generation, attempt),
            }),
        };
        Ok(answer.unwrap_or_else(Answer::from))
    }

    async fn keep(&self, state: &mut State, name: String, kept: Kept) -> io::Result<()> {
        let mut all = state.written.clone();
        all.insert(name, kept);
        if let Some(folder) = self.folder.clone() {
            let writing = all.clone();
            tokio::task::spawn_blocking(move || write(&folder, &writing))
                .await
                .map_err(io::Error::other)??;
        }
        state.written = all;
        Ok(())
    }
}

#[async_trait]
impl Handler for Witness {
    async fn request(&self, peer: Peer, body: Value) -> Result<Value, String> {
        let question = Question::deserialize(&body).map_err(|error| format!("this is no question for a witness: {error}"))?;
        let answer = self.answer(peer.key, &question).await?;
        serde_json::to_value(answer).map_err(|error| format!("the answer is no JSON: {error}"))
    }
}

fn read(folder: &Path) -> io::Result<BTreeMap<String, Kept>> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn write(folder: &Path, kept: &BTreeMap<String, Kept>) -> io::Result<()> {
    let fresh = folder.join("witness.json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(kept)?)?;
    file.sync_all()?;
    fs::rename(&fresh, folder.join(FILE))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
