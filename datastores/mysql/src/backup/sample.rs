//! What is in some tables, to be compared when the backup is verified: only those that did not change while it was taken.

use crate::datastore::Server;
use crate::sql;
use datastore_api::{DriverError, TableSample};
use std::time::Duration;
use tokio::time::Instant;

/// Tables looked at.
const TABLES: u32 = 12;
/// Largest of them, in bytes.
const LARGEST: u64 = 16 << 20;
/// How long looking may take in all.
const BUDGET: Duration = Duration::from_secs(3);

/// A table and when it was changed last, as far as the server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    table: TableSample,
    changed: Option<String>,
}

impl Server {
    /// Looks at some tables. None at all is no error: a sample is a help, not the backup.
    pub(super) async fn sample_tables(&self) -> Vec<Seen> {
        self.look_at_tables().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the backup has no sample of its tables");
            Vec::new()
        })
    }

    async fn look_at_tables(&self) -> Result<Vec<Seen>, DriverError> {
        let end = Instant::now() + BUDGET;
        let mut session = self.role.session().await?;
        // Names that a file name must spell otherwise are left out: it is a sample.
        let query = format!(
            "SELECT SUBSTRING_INDEX(NAME, '/', 1), SUBSTRING_INDEX(NAME, '/', -1) FROM information_schema.INNODB_SYS_TABLESPACES \
             WHERE NAME REGEXP '^[a-zA-Z0-9_]+/[a-zA-Z0-9_]+$' AND NAME NOT LIKE 'mysql/%' AND NAME NOT LIKE 'sys/%' \
             AND FILE_SIZE <= {LARGEST} ORDER BY FILE_SIZE DESC LIMIT {TABLES}"
        );
        let names: Vec<(String, String)> = session.rows("choose tables for a sample", query, ()).await?;
        let mut seen = Vec::new();
        for (database, table) in names {
            if Instant::now() >= end {
                break;
            }
            let doing = "look at a table for the sample";
            let query =
                "SELECT CAST(UPDATE_TIME AS CHAR) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
            let changed: Vec<Option<String>> = session.rows(doing, query, (&database, &table)).await?;
            let Some(changed) = changed.into_iter().next() else { continue };
            if let Some(table) = read_table(&mut session, &database, &table).await? {
                seen.push(Seen { table, changed });
            }
        }
        Ok(seen)
    }
}

/// Rows and checksum of a table; `None` if it cannot be read.
pub(super) async fn read_table(
    session: &mut crate::conn::Session,
    database: &str,
    table: &str,
) -> Result<Option<TableSample>, DriverError> {
    let name = format!("{}.{}", sql::name(database), sql::name(table));
    let doing = "read a table of the sample";
    let sums = session
        .try_text_rows::<(String, Option<u64>)>(doing, format!("CHECKSUM TABLE {name}"))
        .await?;
    let counts = session
        .try_text_rows::<u64>(doing, format!("SELECT COUNT(*) FROM {name}"))
        .await?;
    let sum = sums.ok().and_then(|rows| rows.into_iter().next()?.1);
    let count = counts.ok().and_then(|rows| rows.into_iter().next());
    Ok(sum.zip(count).map(|(sum, rows)| TableSample {
        database: database.to_owned(),
        table: table.to_owned(),
        rows,
        checksum: sum.to_string(),
    }))
}

/// What was the same before and after.
pub(super) fn unchanged(before: Vec<Seen>, after: &[Seen]) -> Vec<TableSample> {
    let same = before.into_iter().filter(|seen| after.contains(seen));
    same.map(|seen| seen.table).collect()
}
