//! What a backup is of, and whether another can be built upon it.

use crate::conn::Session;
use crate::datastore::Server;
use crate::{errors, password};
use datastore_api::{DriverError, EngineFacts, ErrorKind, ExposeSecret, FileMode, Position};
use mysql_async::Row;

/// Characters of a lineage.
const LINEAGE: usize = 32;

/// What the server says of itself.
type Described = (bool, String, u64, u32, String, u64);

fn wrong(text: impl Into<String>) -> DriverError {
    DriverError::new(ErrorKind::WrongData, text)
}

/// The binary log now written to, and its size; `None` if there is none.
pub(super) async fn read_log_place(session: &mut Session) -> Result<Option<(String, u64)>, DriverError> {
    let doing = "read the place in the binary log";
    let rows = session.try_text_rows::<Row>(doing, "SHOW MASTER STATUS").await?;
    let rows = rows.map_err(|error| errors::sql(doing, error))?;
    // Versions differ in how many columns follow.
    Ok(rows.first().and_then(|row| row.get(0).zip(row.get(1))))
}

impl Server {
    /// What a backup taken now would be of.
    pub(super) async fn read_facts(&self) -> Result<EngineFacts, DriverError> {
        let (mut facts, _) = self.read_facts_and_lsn().await?;
        facts.lineage = self.lineage().await?.unwrap_or_default();
        Ok(facts)
    }

    /// The same without the lineage, with the place in the redo log.
    pub(super) async fn read_facts_and_lsn(&self) -> Result<(EngineFacts, u64), DriverError> {
        let mut session = self.role.session().await?;
        let query = "SELECT @@log_bin, @@version, \
                     (SELECT CAST(COALESCE(SUM(ALLOCATED_SIZE), 0) AS UNSIGNED) FROM information_schema.INNODB_SYS_TABLESPACES), \
                     @@server_id, @@gtid_current_pos, \
                     (SELECT CAST(VARIABLE_VALUE AS UNSIGNED) FROM information_schema.GLOBAL_STATUS \
                      WHERE VARIABLE_NAME = 'INNODB_LSN_CURRENT')";
        let rows: Vec<Described> = session.rows("look at the data to back up", query, ()).await?;
        let (has_log, version, data_bytes, server_id, position, lsn) = rows
            .into_iter()
            .next()
            .ok_or_else(|| DriverError::new(ErrorKind::Failed, "the server did not describe its data"))?;
        let mut facts = EngineFacts {
            engine: self.flavour.info.name.to_owned(),
            strategy: self.flavour.backup_strategy.to_owned(),
            version,
            position: Position(position),
            data_bytes,
            server_id,
            ..EngineFacts::default()
        };
        if has_log {
            (facts.log_file, facts.log_offset) = read_log_place(&mut session).await?.unzip();
        }
        Ok((facts, lsn))
    }

    /// Where an increment to this parent begins. `WrongData` if it would not be one.
    pub(super) fn check_parent(&self, parent: &EngineFacts, lineage: Option<&str>, lsn: u64) -> Result<u64, DriverError> {
        if parent.engine != self.flavour.info.name {
            return Err(wrong(format!(
                "the parent is a backup of a {} server",
                parent.engine.escape_debug()
            )));
        }
        let since: u64 = parent
            .to_lsn
            .as_deref()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| wrong("the parent does not say where it ends in the redo log"))?;
        // Data that were replaced have another history behind the same numbers: an increment would look good and be wrong. A parent
        // of unknown data is another agent's, of before this one knew them.
        if lineage.unwrap_or_default() != parent.lineage {
            return Err(wrong(
                "the parent is a backup of other data: this server's were restored, copied or made anew since",
            ));
        }
        if since > lsn {
            return Err(wrong(format!(
                "the parent ends at {since} of the redo log, which this server has not reached ({lsn})"
            )));
        }
        Ok(since)
    }

    /// Identity of the data, `None` before their first backup.
    pub(super) async fn lineage(&self) -> Result<Option<String>, DriverError> {
        let path = &self.layout.lineage;
        let read = self.context.host.read(path).await;
        let bytes = read.map_err(|error| errors::file("read", path, error))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// The same, made if there is none.
    pub(super) async fn ensure_lineage(&self) -> Result<String, DriverError> {
        if let Some(lineage) = self.lineage().await? {
            return Ok(lineage);
        }
        // No secret, only unlike any other.
        let lineage = password::generate(LINEAGE)?.expose_secret().to_owned();
        let (path, mode) = (
            &self.layout.lineage,
            FileMode {
                mode: 0o600,
                owner: None,
            },
        );
        let written = self.context.host.write_atomic(path, lineage.as_bytes(), &mode).await;
        written.map_err(|error| errors::file("write", path, error))?;
        Ok(lineage)
    }
}
