//! Tries again what may work a moment later, with growing, jittered pauses and a limit over all.

use super::{StorageError, StorageErrorKind};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

/// First pause.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(15);

/// How long something is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    limit: Duration,
    first: Duration,
}

impl Retry {
    /// With this limit of all tries together. The one under way then is given up.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, first: FIRST }
    }

    /// Runs `attempt` until it works, fails for good ([`StorageError::is_transient`]), or the limit passes.
    ///
    /// # Errors
    /// The last error; `Unreachable` if the limit passed before any.
    pub async fn run<T, F>(
        &self,
        doing: &'static str,
        place: &str,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>> + Send,
    {
        let end = Instant::now() + self.limit;
        let (mut pause, mut last) = (self.first, None);
        loop {
            let error = match timeout_at(end, attempt()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) if !error.is_transient() => return Err(error),
                Ok(Err(error)) => error,
                Err(_) => return Err(last.unwrap_or_else(|| self.late(doing, place))),
            };
            // Between half of the pause and all of it: many uploads that failed at once do not come back at once.
            let wait = pause / 2 + (pause / 2).mul_f64((random() % 1000) as f64 / 1000.0);
            if Instant::now() + wait >= end {
                return Err(error);
            }
            warn!(doing, place, error = %error, wait_ms = wait.as_millis() as u64, "storage is tried again");
            last = Some(error);
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    fn late(&self, doing: &'static str, place: &str) -> StorageError {
        let what = format!("no answer within {:?}", self.limit);
        StorageError::new(StorageErrorKind::Unreachable, doing, place, what)
    }
}

/// A random number, for jitter and names of temporary files.
pub(super) fn random() -> u64 {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the random generator of the system works");
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn tries(kind: StorageErrorKind, fail: u32) -> (u32, Result<u32, StorageError>) {
        let count = AtomicU32::new(0);
        let retry = Retry {
            limit: Duration::from_millis(1500),
            first: Duration::from_millis(1),
        };
        let done = retry
            .run("write", "x", || async {
                let n = count.fetch_add(1, Ordering::Relaxed);
                if n < fail {
                    Err(StorageError::new(kind, "write", "x", "no"))
                } else {
                    Ok(n)
                }
            })
            .await;
        (count.into_inner(), done)
    }

    #[tokio::test]
    async fn only_what_may_work_later_is_tried_again_and_not_for_ever() {
        assert!(matches!(tries(StorageErrorKind::Unreachable, 3).await, (4, Ok(3))));
        assert!(matches!(tries(StorageErrorKind::Refused, 3).await, (1, Err(_))));
        assert!(matches!(tries(StorageErrorKind::Invalid, 3).await, (1, Err(_))));
        let (count, end) = tries(StorageErrorKind::Failed, u32::MAX).await;
        assert!(end.is_err() && (4..20).contains(&count), "{count}");
    }

    #[tokio::test]
    async fn a_store_that_never_answers_is_given_up() {
        let retry = Retry::new(Duration::from_millis(50));
        let error = retry.run::<(), _>("read", "x", std::future::pending).await.unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Unreachable);
    }
}
