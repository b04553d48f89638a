//! What the server says about its replication, in one round trip.

use super::gtid::Gtids;
use crate::conn::Session;
use crate::datastore::Server;
use datastore_api::{DriverError, ErrorKind, Position, ReplicationStatus, SemiSync, SourceEndpoint};
use mysql_async::Row;
use std::time::Duration;

/// How long a look may take. The server answers in a millisecond unless it starts or stops a receiver just now.
const LIMIT: Duration = Duration::from_secs(3);
/// Facts about the server itself, in the order of [`Look`]'s fields, and about the source it follows.
const QUERY: &str = "SELECT @@global.server_id, @@global.read_only, @@global.gtid_binlog_pos, @@global.gtid_slave_pos, \
    @@global.rpl_semi_sync_master_enabled, @@global.rpl_semi_sync_slave_enabled, \
    @@global.rpl_semi_sync_master_wait_no_slave; SHOW ALL SLAVES STATUS";
/// Facts about semi-synchronous replication as a source.
const SEMI_SYNC: &str = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master%'";

/// One look.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub server_id: u32,
    pub read_only: bool,
    /// Everything written or applied here.
    pub position: Gtids,
    /// What came from sources and was applied.
    pub applied: Gtids,
    pub semi_source: bool,
    pub semi_replica: bool,
    /// Commits wait even while no replica is there.
    pub semi_insists: bool,
    /// The source, if one is configured.
    pub source: Option<Source>,
}

/// The source of a replica, as the replica sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub endpoint: Endpoint,
    pub server_id: u32,
    /// `Yes`, `No`, `Connecting`, `Preparing`.
    pub receiver: String,
    pub applier: String,
    /// Everything received in whole transactions.
    pub received: Gtids,
    pub lag: Option<u64>,
    pub receiver_error: (u32, String),
    pub applier_error: (u32, String),
    /// Log coordinates of what was received last and applied last.
    pub coordinates: [(String, u64); 2],
}

/// Host and port.
pub(crate) type Endpoint = (String, u16);

impl Source {
    /// The receiver is connected.
    pub fn receives(&self) -> bool {
        self.receiver == "Yes"
    }

    /// The receiver runs or tries to.
    pub fn wants_to_receive(&self) -> bool {
        self.receiver != "No"
    }

    /// The applier runs.
    pub fn applies(&self) -> bool {
        self.applier == "Yes"
    }

    /// Something was received that the applier has not taken.
    pub fn has_unapplied(&self, applied: &Gtids) -> bool {
        let [received, taken] = &self.coordinates;
        !applied.covers(&self.received) || received > taken
    }

    /// Why receiver or applier does not run.
    pub fn error(&self) -> Option<String> {
        let receiver = (!self.receives()).then_some(&self.receiver_error);
        let applier = (!self.applies()).then_some(&self.applier_error);
        let words: Vec<String> = [receiver, applier]
            .into_iter()
            .flatten()
            .filter(|(number, _)| *number != 0)
            .map(|(number, text)| format!("{text} ({number})"))
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// Looks at the server.
pub(crate) async fn look(session: &mut Session) -> Result<Look, DriverError> {
    let mut sets = session.sets("look at replication", QUERY).await?.into_iter();
    let server = sets.next().and_then(|rows| rows.into_iter().next());
    let Some(server) = server else {
        return Err(DriverError::new(
            ErrorKind::Failed,
            "could not look at replication: no answer",
        ));
    };
    let text = |index: usize| {
        server
            .get_opt::<Option<String>, _>(index)
            .and_then(Result::ok)
            .flatten()
            .unwrap_or_default()
    };
    let is_on = |index: usize| text(index) == "1";
    let (written, applied) = (Gtids::parse(&text(2))?, Gtids::parse(&text(3))?);
    let source = sets.next().unwrap_or_default();
    let source = source.iter().find(|row| word(row, "Connection_name").is_empty());
    Ok(Look {
        server_id: text(0).parse().unwrap_or_default(),
        read_only: is_on(1),
        position: written.and(&applied),
        applied,
        semi_source: is_on(4),
        semi_replica: is_on(5),
        semi_insists: is_on(6),
        source: source.map(source_of).transpose()?,
    })
}

fn source_of(row: &Row) -> Result<Source, DriverError> {
    let number = |name: &str| word(row, name).parse().unwrap_or_default();
    let coordinates = |file: &str, at: &str| (word(row, file), word(row, at).parse().unwrap_or_default());
    Ok(Source {
        endpoint: (word(row, "Master_Host"), word(row, "Master_Port").parse().unwrap_or_default()),
        server_id: number("Master_Server_Id"),
        receiver: word(row, "Slave_IO_Running"),
        applier: word(row, "Slave_SQL_Running"),
        received: Gtids::parse(&word(row, "Gtid_IO_Pos"))?,
        lag: word(row, "Seconds_Behind_Master").parse().ok(),
        receiver_error: (number("Last_IO_Errno"), word(row, "Last_IO_Error")),
        applier_error: (number("Last_SQL_Errno"), word(row, "Last_SQL_Error")),
        coordinates: [
            coordinates("Master_Log_File", "Read_Master_Log_Pos"),
            coordinates("Relay_Master_Log_File", "Exec_Master_Log_Pos"),
        ],
    })
}

/// A column of a row by its name; empty if there is none or it is null.
fn word(row: &Row, name: &str) -> String {
    row.get_opt::<Option<String>, _>(name)
        .and_then(Result::ok)
        .flatten()
        .unwrap_or_default()
}

impl Server {
    /// A session for changes of role.
    pub(super) async fn role_session(&self) -> Result<Session, DriverError> {
        self.role.session().await
    }

    pub(crate) async fn read_status(&self) -> Result<ReplicationStatus, DriverError> {
        let mut session = self.role_session().await?;
        session.set_limit(LIMIT);
        // Looked at first: while the server forgets a source it goes on naming it.
        let is_over = self.following.is_over();
        let look = look(&mut session).await?;
        let mut semi_sync = SemiSync {
            source_on: look.semi_source,
            replica_on: look.semi_replica,
            ..SemiSync::default()
        };
        if look.semi_source {
            let rows = session.sets("look at semi-synchronous replication", SEMI_SYNC).await?;
            let value = |name: &str| {
                rows.iter()
                    .flatten()
                    .find(|row| word(row, "Variable_name") == name)
                    .map(|row| word(row, "Value"))
            };
            let number = |name: &str| value(name).and_then(|value| value.parse().ok()).unwrap_or_default();
            semi_sync.replicas = u32::try_from(number("Rpl_semi_sync_master_clients")).unwrap_or(u32::MAX);
            semi_sync.waiting = number("Rpl_semi_sync_master_wait_sessions");
            let is_off = value("Rpl_semi_sync_master_status").as_deref() != Some("ON");
            semi_sync.degraded = is_off || (semi_sync.replicas == 0 && !look.semi_insists);
        }
        let source = look.source.as_ref().filter(|_| !is_over);
        let received = source.map_or_else(|| look.position.clone(), |source| look.position.clone().and(&source.received));
        Ok(ReplicationStatus {
            server_id: look.server_id,
            read_only: look.read_only,
            following: source.map(|source| SourceEndpoint {
                host: source.endpoint.0.clone(),
                port: source.endpoint.1,
            }),
            receiving: source.is_some_and(Source::receives),
            applying: source.is_some_and(Source::applies),
            lag: source.and_then(|source| source.lag).map(Duration::from_secs),
            received: received.position(),
            error: source.and_then(Source::error),
            position: look.position.position(),
            semi_sync,
        })
    }

    pub(super) async fn read_position(&self) -> Result<Position, DriverError> {
        let mut session = self.role_session().await?;
        Ok(position(&mut session).await?.position())
    }

    /// Whose transactions this server has ever had, also those before its present log began.
    pub(super) async fn read_log_state(&self) -> Result<(u32, Gtids), DriverError> {
        let mut session = self.role_session().await?;
        let query = "SELECT @@global.server_id, @@global.gtid_binlog_state, @@global.gtid_slave_pos";
        let rows: Vec<(u32, Option<String>, Option<String>)> = session.rows("read the state of the log", query, ()).await?;
        let (id, log, applied) = rows.into_iter().next().unwrap_or_default();
        Ok((
            id,
            Gtids::parse(&log.unwrap_or_default())?.and(&Gtids::parse(&applied.unwrap_or_default())?),
        ))
    }
}

/// Everything written or applied. The log is read before what was applied: what is between the two is counted.
pub(super) async fn position(session: &mut Session) -> Result<Gtids, DriverError> {
    let query = "SELECT @@global.gtid_binlog_pos, @@global.gtid_slave_pos";
    let rows: Vec<(Option<String>, Option<String>)> = session.rows("read the position", query, ()).await?;
    let (written, applied) = rows.into_iter().next().unwrap_or_default();
    Ok(Gtids::parse(&written.unwrap_or_default())?.and(&Gtids::parse(&applied.unwrap_or_default())?))
}
