//! What the pair must not forget: kept in the journal, sealed, and changed by one writer at a time.

use super::report::Report;
use super::spec::{PairSpec, Plane};
use crate::instance::role::{Refused, RoleState};
use crate::journal::{Journal, JournalError};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use tracing::{info, warn};

/// Key of the fact.
const KEY: &str = "pair";
/// How many promotions are remembered.
const PROMOTIONS: usize = 32;

/// A promotion of this guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// The generation it began.
    pub generation: u64,
    /// When, in seconds since 1970; for people.
    pub at: u64,
    /// Identity of the database server among its peers.
    pub server_id: u32,
    /// `configured`, `switchover`, `failover`, `upstream`.
    pub why: String,
    /// The operation that did it.
    #[serde(default)]
    pub operation: Option<String>,
}

/// All of it.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The role.
    pub role: RoleState,
    /// The pair, as [`PairSpec::to_sealed`] writes it.
    pub pair: Option<serde_json::Value>,
    /// Service addresses, also without a pair.
    pub vip: Vec<String>,
    /// How they are held.
    pub plane: Plane,
    /// The newest operation.
    pub last: Option<Report>,
    /// Promotions, the newest last.
    pub promotions: Vec<Promotion>,
    /// The data here must be replaced before this guest may follow: a seeding was asked for or begun and has not succeeded.
    pub reseed: bool,
    /// The newest switchover that began here as its candidate.
    pub begun: Option<String>,
    /// The newest switchover in which this guest released.
    pub left: Option<String>,
    /// This source's generation is new, and no replica has been armed in it: it needs nobody to vouch for it.
    pub alone: bool,
    /// This source's database was started anew since it was last open: what it acknowledged may be at its replica only.
    pub unproven: bool,
    /// The control plane is changing roles call by call: the guard keeps its hands off until it opens or follows again.
    pub by_hand: bool,
    /// The address was given up by hand and is not taken again by itself.
    pub vip_off: bool,
}

impl Memory {
    /// The pair.
    pub fn spec(&self) -> Option<PairSpec> {
        self.pair.clone().and_then(|value| serde_json::from_value(value).ok())
    }

    /// Remembers a promotion.
    pub fn promoted(&mut self, server_id: u32, why: &str, operation: Option<&str>) {
        let at = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let (generation, why, operation) = (self.role.generation, why.to_owned(), operation.map(str::to_owned));
        self.promotions.push(Promotion {
            generation,
            at,
            server_id,
            why,
            operation,
        });
        let extra = self.promotions.len().saturating_sub(PROMOTIONS);
        self.promotions.drain(..extra);
    }
}

/// Why a change of what is remembered did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The role machine forbids it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be made durable; nothing was changed.
    #[error("could not record the role")]
    Journal(#[from] JournalError),
}

/// The one writer.
pub struct Store {
    journal: Journal,
    now: Mutex<Memory>,
    turn: tokio::sync::Mutex<()>,
}

impl Store {
    /// Reads what is remembered.
    pub async fn open(journal: Journal) -> Result<Self, JournalError> {
        let bytes = journal.get_sealed(KEY).await?;
        let memory = match bytes.map(|bytes| serde_json::from_slice::<Memory>(&bytes)) {
            None => Memory::default(),
            Some(Ok(memory)) => memory,
            Some(Err(error)) => {
                warn!(%error, "what was remembered of the pair cannot be read; this guest counts as unconfigured");
                Memory::default()
            }
        };
        Ok(Self {
            journal,
            now: Mutex::new(memory),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// What is remembered now.
    pub fn now(&self) -> Memory {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The role now.
    pub fn role(&self) -> RoleState {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).role.clone()
    }

    /// Changes it; it is on disk when this answers.
    pub async fn change<T>(&self, change: impl FnOnce(&mut Memory) -> Result<T, Refused>) -> Result<T, MemoryError> {
        let _turn = self.turn.lock().await;
        let mut next = self.now();
        let answer = change(&mut next)?;
        let bytes = serde_json::to_vec(&next).map_err(|error| JournalError::Write {
            doing: "the pair as JSON",
            source: Box::new(std::io::Error::from(error)),
        })?;
        self.journal.put_sealed(KEY, bytes).await?;
        self.set(next);
        Ok(answer)
    }

    /// The same for what makes this guest less than it was, or as it was: that must not wait for a disk that is full.
    pub async fn change_or_live(&self, change: impl Fn(&mut Memory) -> Result<(), Refused>) -> Result<(), MemoryError> {
        match self.change(&change).await {
            Err(MemoryError::Journal(failure)) => {
                warn!(error = datastore_api::chain(&failure), "a change of role is not on disk");
                Ok(self.live(change).await?)
            }
            done => done,
        }
    }

    /// Changes what is only true while this process lives (open or closed, held or not): not on disk, so also with a full one.
    pub async fn live<T>(&self, change: impl FnOnce(&mut Memory) -> Result<T, Refused>) -> Result<T, Refused> {
        let _turn = self.turn.lock().await;
        let mut next = self.now();
        let answer = change(&mut next)?;
        self.set(next);
        Ok(answer)
    }

    fn set(&self, next: Memory) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (&now.role, &next.role);
        if old != new {
            info!(role = ?new.role, generation = new.generation, writable = new.writable, vip = ?new.vip, switch = ?new.switch, "role changed");
        }
        *now = next;
    }
}
