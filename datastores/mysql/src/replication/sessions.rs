//! Sessions of clients: who they are, what they do, and ending them.

use crate::conn::Session;
use crate::credentials::ADMIN;
use datastore_api::DriverError;
use mysql_async::Row;
use std::collections::HashSet;
use std::time::Duration;

/// Sessions, sessions with an open transaction, and accounts that may write to a read-only server. The server renews what it says about
/// transactions only when nobody has asked for 100 ms: who asks more often sees what was true at first.
const QUERY: &str = "SELECT ID, USER, COMMAND, STATE, LEFT(INFO, 200), TIME_MS FROM information_schema.PROCESSLIST; \
    SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX; \
    SELECT GRANTEE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'READ_ONLY ADMIN'";
/// States of a commit that waits for a replica's acknowledgement, or for the commit before it that does.
const WAITS: [&str; 2] = ["Waiting for semi-sync ACK from slave", "Commit"];
/// First words of statements that write nothing.
const READS: [&str; 9] = [
    "SELECT", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "ANALYZE", "HELP", "USE", "WITH",
];

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing.
    Nothing,
    /// Nothing, inside a transaction.
    Dawdles,
    /// A statement that reads, outside a transaction.
    Reads,
    /// A statement that writes or may write, or any inside a transaction.
    Writes,
    /// A commit that waits for a replica.
    Waits,
}

/// One session.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub id: u64,
    /// One of the agent's own.
    pub is_agent: bool,
    /// May write to a read-only server.
    pub may_bypass: bool,
    pub doing: Doing,
    /// How long it has been doing that: of a session that does nothing, since its last statement.
    pub lasts: Duration,
}

/// All sessions but the server's own threads and those of replicas, and but this one.
pub(super) async fn list(session: &mut Session) -> Result<Vec<Client>, DriverError> {
    let own = u64::from(session.id());
    let sets = session.sets("list the sessions", QUERY).await?;
    let mut sets = sets.into_iter();
    let sessions = sets.next().unwrap_or_default();
    let in_transaction: HashSet<u64> = sets.next().unwrap_or_default().iter().map(|row| number(row, 0)).collect();
    let privileged: HashSet<String> = sets
        .next()
        .unwrap_or_default()
        .iter()
        .map(|row| user_of(&text(row, 0)))
        .collect();
    let clients = sessions.iter().filter_map(|row| {
        let (id, user, command) = (number(row, 0), text(row, 1), text(row, 2));
        let is_servers = ["system user", "event_scheduler"].contains(&user.as_str());
        let is_replica = command.starts_with("Binlog Dump") || command == "Daemon";
        (!is_servers && !is_replica && id != own).then(|| Client {
            id,
            is_agent: user == ADMIN,
            may_bypass: privileged.contains(&user),
            doing: doing(&command, &text(row, 3), &text(row, 4), in_transaction.contains(&id)),
            lasts: Duration::try_from_secs_f64(text(row, 5).parse().unwrap_or(0.0) / 1000.0).unwrap_or_default(),
        })
    });
    Ok(clients.collect())
}

fn doing(command: &str, state: &str, statement: &str, in_transaction: bool) -> Doing {
    match command {
        "Sleep" if in_transaction => Doing::Dawdles,
        "Sleep" | "Connect" | "Killed" => Doing::Nothing,
        _ if WAITS.contains(&state) => Doing::Waits,
        _ if in_transaction => Doing::Writes,
        _ if statement.is_empty() || reads(statement) => Doing::Reads,
        _ => Doing::Writes,
    }
}

/// Whether the statement's first word, after comments and brackets, is one that reads.
fn reads(statement: &str) -> bool {
    let mut rest = statement.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    while let Some(comment) = rest.strip_prefix("/*") {
        if comment.starts_with(['!', 'M']) {
            return false;
        }
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
    }
    let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
    READS.contains(&word.to_ascii_uppercase().as_str())
}

/// The user of `'user'@'host'`.
fn user_of(grantee: &str) -> String {
    let user = grantee.rsplit_once('@').map_or(grantee, |(user, _)| user);
    user.trim_matches('\'').to_owned()
}

/// Ends these sessions; one that has ended by itself is none of our business.
pub(super) async fn kill(session: &mut Session, ids: &[u64]) -> Result<(), DriverError> {
    if ids.is_empty() {
        return Ok(());
    }
    let kills: String = ids.iter().map(|id| format!("KILL {id}; ")).collect();
    let block = format!("BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; {kills}END");
    session.run("end sessions", block).await
}

/// Ends the statement a session runs, the session stays.
pub(super) async fn kill_statement(session: &mut Session, id: u32) -> Result<(), DriverError> {
    session.run("end a statement", format!("KILL QUERY {id}")).await
}

fn text(row: &Row, index: usize) -> String {
    row.get_opt::<Option<String>, _>(index)
        .and_then(Result::ok)
        .flatten()
        .unwrap_or_default()
}

fn number(row: &Row, index: usize) -> u64 {
    text(row, index).parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_does() {
        for (command, state, statement, in_transaction, wanted) in [
            ("Sleep", "", "", false, Doing::Nothing),
            ("Sleep", "", "", true, Doing::Dawdles),
            ("Query", "Sending data", "select 1", false, Doing::Reads),
            ("Query", "Sending data", " ( /* x */ SELECT 1)", false, Doing::Reads),
            ("Query", "Updating", "UPDATE t SET a=1", false, Doing::Writes),
            ("Query", "", "/*! UPDATE t SET a=1 */", false, Doing::Writes),
            ("Query", "User lock", "SELECT SLEEP(9)", true, Doing::Writes),
            ("Execute", "Commit", "INSERT INTO t VALUES (?)", true, Doing::Waits),
            ("Query", "Waiting for semi-sync ACK from slave", "COMMIT", false, Doing::Waits),
        ] {
            assert_eq!(
                doing(command, state, statement, in_transaction),
                wanted,
                "{command} {statement}"
            );
        }
        assert_eq!(user_of("'o@k'@'%'"), "o@k");
    }
}
