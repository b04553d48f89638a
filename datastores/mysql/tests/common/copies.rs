//! Two guests and what is copied from one to the other.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "support code of tests, each of which uses its own part"
)]

use super::Machine;
use datastore_api::{Datastore, DriverError, Position, Replication};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

/// A guest.
pub async fn guest() -> (Machine, Arc<dyn Datastore>) {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    (machine, datastore)
}

/// The password of a user in a guest's credentials.
pub fn password(machine: &Machine, user: &str) -> String {
    let path = machine.folder.path().join(format!("volume/conf.d/{user}.cnf"));
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("password = "));
    line.unwrap().to_owned()
}

/// A session as root.
pub async fn root(machine: &Machine) -> Conn {
    let socket = machine.folder.path().join("root/var/run/mysqld/mysqld.sock");
    let opts = OptsBuilder::default()
        .socket(Some(socket.display().to_string()))
        .user(Some("root"))
        .pass(Some(password(machine, "root")));
    Conn::new(opts).await.unwrap()
}

/// The one value of a query.
pub async fn one<T: mysql_async::prelude::FromRow + Send + 'static>(conn: &mut Conn, query: &str) -> T {
    conn.query_first(query).await.unwrap().unwrap()
}

/// From one guest to the other; what the sender and the receiver answer.
pub async fn transfer(
    source: &dyn Replication,
    replica: &dyn Replication,
) -> (Result<Position, DriverError>, Result<Position, DriverError>) {
    let (mut near, mut far) = duplex(1 << 20);
    let sending = async move {
        let sent = source.send_clone(&mut near).await;
        let _ = near.shutdown().await;
        sent
    };
    // Who is through, or has failed, lets go of the stream.
    let receiving = async move { replica.receive_clone(&mut far).await };
    tokio::join!(sending, receiving)
}

/// A volume that is small. Gone when dropped.
pub struct SmallVolume(String);

impl SmallVolume {
    /// Instead of this folder.
    pub fn over(folder: &str, megabytes: u32) -> Self {
        run(
            "/bin/mount",
            &["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=755"), "tmpfs", folder],
        );
        Self(folder.to_owned())
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        run("/bin/umount", &["--lazy", &self.0]);
    }
}

/// Runs a program of the test's own.
#[expect(clippy::disallowed_methods, reason = "a test hurts its own programs")]
pub fn run(program: &str, args: &[&str]) {
    assert!(
        std::process::Command::new(program).args(args).status().unwrap().success(),
        "{program}"
    );
}

/// A stream that breaks with an error instead of ending.
pub struct Breaks<'a>(pub &'a [u8]);

impl AsyncRead for Breaks<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()));
        }
        let n = self.0.len().min(buf.remaining());
        let (now, later) = self.0.split_at(n);
        buf.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

/// A stream that comes in drops.
pub struct Slow(pub DuplexStream);

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        std::thread::sleep(Duration::from_millis(1));
        let mut small = buf.take(16 << 10);
        let polled = Pin::new(&mut self.0).poll_read(cx, &mut small);
        let n = small.filled().len();
        buf.advance(n);
        polled
    }
}
