//! One connection of a peer: handshake, then its questions or its stream.

use super::channel::{ANSWER, ASK, ERROR, QUEUE, frame, opened, parts, writer};
use super::listen::Place;
use super::seal;
use super::shake::{self, Kind, ShakeError};
use super::{Handler, KeyLookup, Limits, Peer, Stream, socket};
use futures_util::FutureExt;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

/// For a handshake, and for the first frame of a stream.
const SHAKE_LIMIT: Duration = Duration::from_secs(3);
/// Questions of one connection that are being worked on at the same time.
const AT_ONCE: usize = 2048;

/// What connections are served with.
pub struct Server {
    pub keys: KeyLookup,
    pub handler: Arc<dyn Handler>,
    pub limits: Limits,
    pub cancel: CancellationToken,
}

/// Serves a connection to its end.
pub async fn connection(server: &Server, mut stream: TcpStream, address: SocketAddr, place: Place) {
    let (mut keys, kind, key) = match timeout(SHAKE_LIMIT, shake::server(&mut stream, &*server.keys)).await {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(ShakeError::WrongKey)) => return warn!(%address, "a peer has another pair key than we have"),
        Ok(Err(ShakeError::NoPair)) => return debug!(%address, "a peer connected, and we belong to no pair"),
        Ok(Err(ShakeError::Io(error))) => return debug!(%address, %error, "a connection is not of a peer"),
        Err(_) => return debug!(%address, "a connection did not finish the handshake"),
    };
    drop(place);
    let peer = Peer { address, key: key.id() };
    let patience = match kind {
        Kind::Channel => server.limits.unacknowledged,
        Kind::Stream => server.limits.stream_unacknowledged,
    };
    let tuned = socket::tune(&stream, patience);
    let ended = match kind {
        _ if tuned.is_err() => tuned,
        Kind::Channel => questions(server, stream, keys, peer).await,
        Kind::Stream => match timeout(SHAKE_LIMIT, opened(&mut stream, &mut keys.opener)).await {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(open)) => {
                let io = Stream::new(stream, keys, server.limits.stream_idle);
                server.handler.stream(peer, open, io).await;
                Ok(())
            }
        },
    };
    if let Err(error) = ended {
        debug!(%address, %error, "a peer's connection ended");
    }
}

async fn questions(server: &Server, stream: TcpStream, keys: shake::Keys, peer: Peer) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let (out, queue) = mpsc::channel(QUEUE);
    // Ends with this connection, whatever is still being worked on.
    let mut writing = AbortOnDropHandle::new(tokio::spawn(writer(write, keys.sealer, queue)));
    let reading = listen(server, BufReader::with_capacity(64 * 1024, read), keys.opener, peer, out);
    tokio::select! {
        ended = reading => ended,
        ended = &mut writing => Err(ended.unwrap_or_else(io::Error::other)),
    }
}

async fn listen(
    server: &Server,
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut opener: seal::Opener,
    peer: Peer,
    out: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = Vec::new();
    loop {
        let content = seal::read(&mut from, &mut opener, &mut buffer).await?;
        let (kind, id, body) = parts(content)?;
        if kind != ASK {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is no question"));
        }
        if !(server.keys)().iter().any(|key| key.id() == peer.key) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the key of this link is no longer the pair's",
            ));
        }
        let reply = Reply { out: out.clone(), id };
        let body: Value = match serde_json::from_slice(body) {
            Ok(body) => body,
            Err(error) => {
                reply.send(Err(format!("the question is not JSON: {error}"))).await;
                continue;
            }
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(answer(server.handler.clone(), peer, body, reply, place))),
            Err(_) => reply.send(Err("too many questions at once".to_owned())).await,
        }
    }
}

async fn answer(handler: Arc<dyn Handler>, peer: Peer, body: Value, reply: Reply, place: OwnedSemaphorePermit) {
    let answer = AssertUnwindSafe(handler.request(peer, body)).catch_unwind().await;
    let answer = answer.unwrap_or_else(|_| {
        error!(address = %peer.address, "answering a peer's question failed by a fault of the agent");
        Err("the agent failed while it worked on the question; its log says more".to_owned())
    });
    reply.send(answer).await;
    drop(place);
}

struct Reply {
    out: mpsc::Sender<Vec<u8>>,
    id: u64,
}

impl Reply {
    async fn send(self, answer: Result<Value, String>) {
        let framed = match answer {
            Ok(value) => frame(ANSWER, self.id, &value),
            Err(text) => frame(ERROR, self.id, &Value::String(text)),
        };
        let framed = framed.or_else(|size| {
            let text = format!("the answer has {size} bytes, more than a frame takes");
            frame(ERROR, self.id, &Value::String(text))
        });
        if let Ok(framed) = framed {
            // Nobody is there any more if this fails.
            let _ = self.out.send(framed).await;
        }
    }
}
