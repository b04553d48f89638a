//! Nobody waits for long because of the tool: neither the tool for others (who comes later waits behind it), nor others for the tool.
//! When somebody does, the copy is given up, never the work of others.

use crate::datastore::Server;
use datastore_api::{DriverError, ErrorKind};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);

/// Who may wait for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// User of the tool.
    pub user: &'static str,
    /// How long.
    pub limit: Duration,
}

/// A session that waits: its number, the number of its statement, its user.
type Waiting = (u64, u64, String);

impl Server {
    /// Resolves when somebody has waited too long.
    pub(super) async fn too_long_a_lock(&self, limit: Limit) -> DriverError {
        let mut since: HashMap<(u64, u64), Instant> = HashMap::new();
        loop {
            sleep(EVERY).await;
            // A server that cannot be asked now ends the tool by itself.
            let Ok(waiting) = self.waiting(limit.user).await else {
                continue;
            };
            since.retain(|key, _| waiting.iter().any(|(id, statement, _)| (*id, *statement) == *key));
            for (id, statement, user) in waiting {
                let begun = since.entry((id, statement)).or_insert_with(Instant::now);
                if begun.elapsed() >= limit.limit {
                    return gave_way(&user, limit);
                }
            }
        }
    }

    async fn waiting(&self, user: &str) -> Result<Vec<Waiting>, DriverError> {
        let query = format!(
            "SELECT ID, QUERY_ID, USER FROM information_schema.PROCESSLIST WHERE STATE = 'Waiting for backup lock' \
             OR (USER = '{user}' AND STATE LIKE 'Waiting for%')"
        );
        let mut session = self.role.session().await?;
        session.rows("see who waits for the backup", query, ()).await
    }
}

fn gave_way(user: &str, limit: Limit) -> DriverError {
    let text = if user == limit.user {
        "it waited for a lock that a statement of a client holds (a change of a table, or a long write to one that knows no transactions)"
    } else {
        "clients waited for the lock it held (large tables that know no transactions, or a receiver that is too slow)"
    };
    let text = format!("the copy was given up because {text} for more than {:?}", limit.limit);
    DriverError::new(ErrorKind::Timeout, text)
}
