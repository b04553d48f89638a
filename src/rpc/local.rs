//! The local socket: the command line's way in. One JSON line asks, one answers; root and the agent's own user only.

use super::dispatch::Dispatcher;
use crate::bus::{Answer, Failure, Request, RpcVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Largest line accepted, bytes.
const MAX_LINE: u64 = 16 << 20;
/// How long a client may take to send its line.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// A question.
#[derive(Serialize, Deserialize)]
pub struct Ask {
    /// Method.
    pub method: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Map<String, Value>,
}

/// Its answer.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The result.
    Result(Value),
    /// Why there is none.
    Failure(Failure),
}

/// Why the socket could not be served or used.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} the local socket {path}")]
pub struct LocalError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Binds the socket. A stale one of a dead agent is replaced; one that answers is `AddrInUse`.
pub fn bind(path: &Path) -> Result<UnixListener, LocalError> {
    let fail = |doing| {
        move |source| LocalError {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(fail("bind")(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent answers on it",
        )));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail("make the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("look at")(error)),
        // What is no socket was not left by an agent: a mistaken option must not delete a file.
        Ok(meta) if !meta.file_type().is_socket() => {
            let other = io::Error::new(io::ErrorKind::AlreadyExists, "there is something else in its place");
            return Err(fail("bind")(other));
        }
        Ok(_) => std::fs::remove_file(path).map_err(fail("replace"))?,
    }
    let listener = UnixListener::bind(path).map_err(fail("bind"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail("protect"))?;
    Ok(listener)
}

/// Serves until cancelled.
pub async fn serve(listener: UnixListener, dispatcher: Dispatcher, cancel: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = cancel.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "could not accept a local connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            },
        };
        let dispatcher = dispatcher.clone();
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                done = converse(stream, &dispatcher) => if let Err(error) = done {
                    debug!(%error, "a local conversation ended");
                },
            }
        });
    }
}

async fn converse(stream: UnixStream, dispatcher: &Dispatcher) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if peer != 0 && peer != own {
        warn!(uid = peer, "a local connection of another user was refused");
        return Ok(());
    }
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read.take(MAX_LINE));
    loop {
        let mut line = Vec::new();
        reader.get_mut().set_limit(MAX_LINE);
        let read = tokio::time::timeout(ASK_LIMIT, reader.read_until(b'\n', &mut line)).await;
        match read {
            Err(_) | Ok(Ok(0)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(_)) => {}
        }
        let told = match serde_json::from_slice::<Ask>(&line) {
            Ok(ask) => handle(ask, dispatcher).await,
            Err(error) => Told::Failure(Failure {
                class: "ValueError".to_owned(),
                module: "builtins".to_owned(),
                message: format!(
                    "the line is not a question (line {}, column {})",
                    error.line(),
                    error.column()
                ),
            }),
        };
        let mut bytes = serde_json::to_vec(&told).map_err(io::Error::other)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
    }
}

async fn handle(ask: Ask, dispatcher: &Dispatcher) -> Told {
    let request = Request {
        unique_id: format!("local-{}", fresh_id()),
        method: ask.method,
        version: RpcVersion { major: 1, minor: 0 },
        args: ask.args,
        context: Map::new(),
        reply: None,
        keep_alive: None,
        deadline: None,
    };
    match dispatcher.local(request).await {
        Ok(Answer::Result(value)) => Told::Result(value),
        Ok(Answer::Failure(failure)) => Told::Failure(failure),
        Err(_) => Told::Failure(Failure {
            class: "TroveError".to_owned(),
            module: "trove.common.exception".to_owned(),
            message: "the agent stopped before it answered".to_owned(),
        }),
    }
}

fn fresh_id() -> String {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers never fail");
    hex::encode(bytes)
}

/// Asks an agent over its socket and waits for the answer, at most `limit`.
pub async fn ask(path: &Path, ask: &Ask, limit: Duration) -> Result<Told, LocalError> {
    let fail = |doing| {
        move |source| LocalError {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let stream = UnixStream::connect(path).await.map_err(fail("connect to"))?;
    let (read, mut write) = stream.into_split();
    let talk = async {
        let mut bytes = serde_json::to_vec(ask).map_err(io::Error::other)?;
        bytes.push(b'\n');
        write.write_all(&bytes).await?;
        let mut line = Vec::new();
        BufReader::new(read).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the agent closed the connection (root and its own user only)",
            ));
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    };
    match tokio::time::timeout(limit, talk).await {
        Ok(told) => told.map_err(fail("talk over")),
        Err(_) => Err(fail("wait for an answer on")(io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        drop(bind(&path).unwrap());
        let living = bind(&path).unwrap();
        assert!(bind(&path).is_err(), "another agent answers");
        drop(living);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
