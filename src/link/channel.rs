//! The asking side: many questions at once over one connection.

use super::seal::{self, FIELDS, HEAD, Opener, Sealer};
use super::shake::Kind;
use super::{Limits, LinkError, MAX_BODY, PairKey, Stream, socket};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// First byte of a frame: a question.
pub(super) const ASK: u8 = 1;
/// An answer.
pub(super) const ANSWER: u8 = 2;
/// An error in place of an answer; its text.
pub(super) const ERROR: u8 = 3;
/// What opens a byte stream.
pub(super) const OPEN: u8 = 4;
/// Frames that wait for the writer.
pub(super) const QUEUE: usize = 256;
/// The writer puts frames together up to this size.
const BATCH: usize = 64 * 1024;

/// A live channel to a peer. Clones share it; it is closed with the last of them.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Inner>);

pub(super) struct Inner {
    peer: SocketAddr,
    pub(super) key: PairKey,
    limits: Limits,
    out: mpsc::Sender<Vec<u8>>,
    state: Arc<State>,
    next: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.state.over.cancel();
    }
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Value, String>>>;

struct State {
    /// `None` once the channel is over: nobody will answer any more.
    waiting: Mutex<Option<Waiting>>,
    over: CancellationToken,
    why: OnceLock<LinkError>,
}

impl State {
    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn end(&self, why: LinkError) {
        let _ = self.why.set(why);
        // Dropping the senders wakes all who wait.
        self.waiting().take();
        self.over.cancel();
    }
}

impl Link {
    /// Connects to an agent and shakes hands, within `limits.connect`. Does not try again.
    pub async fn connect(peer: SocketAddr, key: PairKey, limits: Limits) -> Result<Self, LinkError> {
        let (stream, keys) = socket::dial(peer, &key, Kind::Channel, &limits).await?;
        let (read, write) = stream.into_split();
        let (out, queue) = mpsc::channel(QUEUE);
        let state = Arc::new(State {
            waiting: Mutex::new(Some(HashMap::new())),
            over: CancellationToken::new(),
            why: OnceLock::new(),
        });
        let mine = state.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                () = mine.over.cancelled() => ended("the link was closed here"),
                error = writer(write, keys.sealer, queue) => error,
            };
            mine.end(LinkError::broken(peer, "send", error));
        });
        let mine = state.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                () = mine.over.cancelled() => ended("the link was closed here"),
                error = answers(read, keys.opener, &mine) => error,
            };
            mine.end(LinkError::broken(peer, "receive", error));
        });
        Ok(Self(Arc::new(Inner {
            peer,
            key,
            limits,
            out,
            state,
            next: AtomicU64::new(0),
        })))
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Asks, and waits for the answer at most `limit`; others may ask at the same time. [`LinkError::Told`] is the peer's own
    /// error, [`LinkError::Silent`] that the limit passed: the question may then still be acted upon.
    pub async fn ask(&self, body: &Value, limit: Duration) -> Result<Value, LinkError> {
        let peer = self.0.peer;
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let frame = frame(ASK, id, body).map_err(|size| LinkError::TooLarge { peer, size })?;
        let (tell, told) = oneshot::channel();
        match self.0.state.waiting().as_mut() {
            Some(waiting) => waiting.insert(id, tell),
            None => return Err(self.why()),
        };
        let _gone = Forget(&self.0.state, id);
        let exchange = async {
            self.0.out.send(frame).await.map_err(|_| ())?;
            told.await.map_err(|_| ())
        };
        match timeout(limit, exchange).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(message))) => Err(LinkError::Told { peer, message }),
            Ok(Err(())) => Err(self.closed().await),
            Err(_) => Err(LinkError::Silent {
                peer,
                doing: "answer",
                limit,
            }),
        }
    }

    /// Opens a byte stream to the same agent, over a connection of its own.
    pub async fn open_stream(&self, open: &Value) -> Result<Stream, LinkError> {
        let peer = self.0.peer;
        let frame = frame(OPEN, 0, open).map_err(|size| LinkError::TooLarge { peer, size })?;
        let (mut stream, mut keys) = socket::dial(peer, &self.0.key, Kind::Stream, &self.0.limits).await?;
        let broken = |error| LinkError::broken(peer, "open a stream", error);
        let mut sealed = frame;
        keys.sealer.seal(&mut sealed, 0).map_err(broken)?;
        stream.write_all(&sealed).await.map_err(broken)?;
        Ok(Stream::new(stream, keys, self.0.limits.stream_idle))
    }

    /// Waits until the channel is over, and says why.
    pub async fn closed(&self) -> LinkError {
        self.0.state.over.cancelled().await;
        self.why()
    }

    /// Whether the channel is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.state.over.is_cancelled()
    }

    fn why(&self) -> LinkError {
        let closed = || LinkError::broken(self.0.peer, "ask", ended("the link is closed"));
        self.0.state.why.get().cloned().unwrap_or_else(closed)
    }
}

/// Takes a question off the list when its asker no longer waits.
struct Forget<'a>(&'a State, u64);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.waiting().as_mut() {
            waiting.remove(&self.1);
        }
    }
}

fn ended(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, why)
}

/// A frame that is not sealed yet, with room for its length; the error is the size of a body that is too large.
pub(super) fn frame(kind: u8, id: u64, body: &Value) -> Result<Vec<u8>, usize> {
    let mut frame = vec![0; HEAD + FIELDS];
    frame[HEAD] = kind;
    frame[HEAD + 8..].copy_from_slice(&id.to_be_bytes());
    serde_json::to_writer(&mut frame, body).expect("a JSON value can be written to memory");
    match frame.len() - HEAD - FIELDS {
        size if size > MAX_BODY => Err(size),
        _ => Ok(frame),
    }
}

/// The parts of an opened frame.
pub(super) fn parts(content: &[u8]) -> io::Result<(u8, u64, &[u8])> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a frame without its fields");
    let (fields, body) = content.split_at_checked(FIELDS).ok_or_else(wrong)?;
    let id = u64::from_be_bytes(fields[8..].try_into().map_err(|_| wrong())?);
    Ok((fields[0], id, body))
}

/// Seals and sends what is queued until the connection fails or nobody can queue any more.
pub(super) async fn writer(mut to: impl AsyncWrite + Unpin, mut sealer: Sealer, mut queue: mpsc::Receiver<Vec<u8>>) -> io::Error {
    let mut batch = Vec::new();
    while let Some(frame) = queue.recv().await {
        batch.clear();
        let mut next = Some(frame);
        while let Some(frame) = next {
            let at = batch.len();
            batch.extend_from_slice(&frame);
            if let Err(error) = sealer.seal(&mut batch, at) {
                return error;
            }
            next = if batch.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        if let Err(error) = to.write_all(&batch).await {
            return error;
        }
    }
    ended("nobody uses the link any more")
}

async fn answers(from: impl AsyncRead + Unpin, mut opener: Opener, state: &State) -> io::Error {
    let mut from = BufReader::with_capacity(BATCH, from);
    let mut buffer = Vec::new();
    loop {
        let content = match seal::read(&mut from, &mut opener, &mut buffer).await {
            Ok(content) => content,
            Err(error) => return error,
        };
        let (kind, id, body) = match parts(content) {
            Ok(parts) => parts,
            Err(error) => return error,
        };
        let answer = match kind {
            ANSWER => serde_json::from_slice(body).map_err(|error| format!("an answer that is not JSON: {error}")),
            ERROR => Err(serde_json::from_slice(body).unwrap_or_else(|_| "an error without its text".to_owned())),
            _ => return io::Error::new(io::ErrorKind::InvalidData, "a frame that is no answer"),
        };
        // Nobody waits: the asker's limit passed.
        if let Some(tell) = state.waiting().as_mut().and_then(|waiting| waiting.remove(&id)) {
            let _ = tell.send(answer);
        }
    }
}

/// The first frame of a byte stream: what it is to be.
pub(super) async fn opened(from: &mut TcpStream, opener: &mut Opener) -> io::Result<Value> {
    let mut buffer = Vec::new();
    let content = seal::read(from, opener, &mut buffer).await?;
    match parts(content)? {
        (OPEN, _, body) => serde_json::from_slice(body).map_err(io::Error::other),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a stream that does not say what it is",
        )),
    }
}
