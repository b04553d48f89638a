//! One client's connection: made when needed, dropped at the first error, each step with a limit.

use crate::record::now;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Duplicate key: an earlier try of this id was carried out.
const DUPLICATE: u16 = 1062;

/// Where to write, and how patiently.
pub struct Place {
    options: Opts,
    table: String,
    connect: Duration,
    statement: Duration,
    sticky: bool,
}

impl Place {
    pub fn new(
        (host, port): (IpAddr, u16),
        (user, password): (&str, &str),
        table: &str,
        limits: (u64, u64),
        sticky: bool,
    ) -> Self {
        let options = OptsBuilder::default()
            .ip_or_hostname(host.to_string())
            .tcp_port(port)
            .user(Some(user))
            .pass(Some(password))
            .prefer_socket(false)
            // Known values spare questions to the server at each connect.
            .max_allowed_packet(Some(16 << 20))
            .wait_timeout(Some(600))
            .stmt_cache_size(0)
            .into();
        Self {
            options,
            table: table.to_owned(),
            connect: Duration::from_millis(limits.0),
            statement: Duration::from_millis(limits.1),
            sticky,
        }
    }
}

/// A connection, or none yet.
#[derive(Default)]
pub struct Connection {
    conn: Option<Conn>,
}

impl Connection {
    /// Tries once: when the statement was sent, and the server that took it (none for a duplicate), or the kind of the error.
    pub async fn insert(&mut self, place: &Place, id: u64) -> (u64, Result<Option<u32>, String>) {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => match timeout(place.connect, Conn::new(place.options.clone())).await {
                Ok(Ok(conn)) => conn,
                Ok(Err(error)) => return (now(), Err(format!("connect-{}", kind(&error)))),
                Err(_) => return (now(), Err("connect-timeout".to_owned())),
            },
        };
        // The answer's last packet follows the commit: rows alone are no acknowledgement, so all of it is read.
        let sql = format!(
            "INSERT INTO {} (id, payload, server_id) VALUES ({id}, 'payload of {id}', @@server_id) RETURNING server_id",
            place.table
        );
        let sent = now();
        match timeout(place.statement, conn.query::<u32, _>(sql)).await {
            Ok(Ok(rows)) => {
                self.conn = Some(conn);
                (sent, Ok(rows.first().copied()))
            }
            Ok(Err(Error::Server(error))) if error.code == DUPLICATE => {
                self.conn = Some(conn);
                (sent, Ok(None))
            }
            Ok(Err(error)) => {
                if place.sticky && matches!(error, Error::Server(_)) && !error.is_fatal() {
                    self.conn = Some(conn);
                }
                (sent, Err(kind(&error)))
            }
            Err(_) => (sent, Err("statement-timeout".to_owned())),
        }
    }
}

/// A short word for an error: the server's number, or what became of the connection.
fn kind(error: &Error) -> String {
    match error {
        Error::Server(error) => error.code.to_string(),
        Error::Io(mysql_async::IoError::Io(error)) => format!("{:?}", error.kind()),
        Error::Driver(mysql_async::DriverError::ConnectionClosed) => "closed".to_owned(),
        Error::Driver(_) => "driver".to_owned(),
        _ => "other".to_owned(),
    }
}
