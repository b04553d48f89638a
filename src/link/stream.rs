//! A byte stream between two agents, in sealed frames. Its end is a frame of its own, so a stream that was cut never looks like one
//! that ended well.

use super::seal::{self, HEAD, MAX_FRAME, Opener, Sealer};
use super::shake::Keys;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Bytes in a frame of data. Larger frames save nothing more.
const CHUNK: usize = 128 * 1024;
/// Longest error text, bytes.
const MAX_TEXT: usize = 4096;

const DATA: u8 = 1;
const END: u8 = 2;
const FAILED: u8 = 3;

/// What the sender said in place of a good end; the inner error of the [`io::Error`] a read gives.
#[derive(Debug, thiserror::Error)]
#[error("the sender gave up: {0}")]
struct GaveUp(String);

/// A stream in both directions, each with an end of its own. `shutdown` of the writer says that all was written; to drop it without is
/// to cut it.
pub struct Stream {
    tcp: TcpStream,
    sending: Sending,
    receiving: Receiving,
    idle: Duration,
}

struct Sending {
    sealer: Sealer,
    /// The frame being filled (its head, its kind, data), or being sent once it is sealed.
    frame: Vec<u8>,
    /// Bytes of the sealed frame that are sent; `None` while it is being filled.
    sent: Option<usize>,
    ended: bool,
    patience: Patience,
}

struct Receiving {
    opener: Opener,
    head: [u8; HEAD],
    body: Vec<u8>,
    /// Bytes of head and body that are there.
    have: usize,
    /// What is opened and not read yet.
    plain: std::ops::Range<usize>,
    end: Option<Result<(), String>>,
    patience: Patience,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, keys: Keys, idle: Duration) -> Self {
        Self {
            tcp,
            sending: Sending {
                sealer: keys.sealer,
                frame: fresh(DATA),
                sent: None,
                ended: false,
                patience: Patience::default(),
            },
            receiving: Receiving {
                opener: keys.opener,
                head: [0; HEAD],
                body: Vec::new(),
                have: 0,
                plain: 0..0,
                end: None,
                patience: Patience::default(),
            },
            idle,
        }
    }

    /// Ends our direction with an error that the peer's reads will give. What was written before is sent first, if it can be.
    pub async fn fail(mut self, why: &str) {
        let why = &why[..why.floor_char_boundary(MAX_TEXT)];
        let tell = async {
            self.flush().await?;
            self.sending.put(FAILED, why.as_bytes())?;
            self.shutdown().await
        };
        // The peer learns of it as a cut if not so.
        let _ = tell.await;
    }
}

fn fresh(kind: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + 1 + CHUNK + seal::TAG);
    frame.extend_from_slice(&[0; HEAD]);
    frame.push(kind);
    frame
}

impl Sending {
    fn filled(&self) -> usize {
        self.frame.len() - HEAD - 1
    }

    fn seal(&mut self) -> io::Result<()> {
        self.sealer.seal(&mut self.frame, 0)?;
        self.sent = Some(0);
        Ok(())
    }

    /// The last frame of this direction; what was before it must be sent.
    fn put(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        self.frame[HEAD] = kind;
        self.frame.extend_from_slice(content);
        self.ended = true;
        self.seal()
    }

    /// Sends the sealed frame, if there is one.
    fn poll_send(&mut self, tcp: &mut TcpStream, idle: Duration, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(sent) = self.sent {
            if sent == self.frame.len() {
                self.frame.truncate(HEAD + 1);
                self.frame[HEAD] = DATA;
                self.sent = None;
                break;
            }
            match Pin::new(&mut *tcp).poll_write(cx, &self.frame[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.patience.progress();
                    self.sent = Some(sent + count);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.patience.poll(idle, cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Self { tcp, sending, idle, .. } = self.get_mut();
        if sending.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(sending.poll_send(tcp, *idle, cx))?;
        let count = data.len().min(CHUNK - sending.filled());
        sending.frame.extend_from_slice(&data[..count]);
        if sending.filled() == CHUNK {
            sending.seal()?;
            // Starts it; what is left goes with the next call.
            if let Poll::Ready(Err(error)) = sending.poll_send(tcp, *idle, cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, sending, idle, .. } = self.get_mut();
        if sending.sent.is_none() && sending.filled() > 0 {
            sending.seal()?;
        }
        ready!(sending.poll_send(tcp, *idle, cx))?;
        Pin::new(tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        let Self { tcp, sending, idle, .. } = self.get_mut();
        if !sending.ended {
            sending.put(END, &[])?;
        }
        ready!(sending.poll_send(tcp, *idle, cx))?;
        Pin::new(tcp).poll_shutdown(cx)
    }
}

impl Receiving {
    /// Reads and opens the next frame.
    fn poll_frame(&mut self, tcp: &mut TcpStream, idle: Duration, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let wanted = if self.have < HEAD { 0 } else { seal::length(self.head)? };
            if self.have == HEAD && self.body.len() < wanted {
                // Grows to the largest frame seen, which is bounded, and stays.
                self.body.resize(wanted, 0);
            }
            if self.have >= HEAD && self.have == HEAD + wanted {
                return Poll::Ready(self.open(wanted));
            }
            let room = match self.have.checked_sub(HEAD) {
                None => &mut self.head[self.have..],
                Some(at) => &mut self.body[at..wanted],
            };
            let mut room = ReadBuf::new(room);
            match Pin::new(&mut *tcp).poll_read(cx, &mut room) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.patience.poll(idle, cx).map(Err),
                Poll::Ready(Ok(())) => match room.filled().len() {
                    0 => {
                        let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was cut before its end");
                        return Poll::Ready(Err(cut));
                    }
                    count => {
                        self.patience.progress();
                        self.have += count;
                    }
                },
            }
        }
    }

    fn open(&mut self, length: usize) -> io::Result<()> {
        self.have = 0;
        let content = self.opener.open(self.head, &mut self.body[..length])?;
        let size = content.len();
        match content.split_first() {
            Some((&DATA, _)) => self.plain = 1..size,
            Some((&END, _)) => self.end = Some(Ok(())),
            Some((&FAILED, text)) => self.end = Some(Err(String::from_utf8_lossy(text).into_owned())),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a frame that belongs to no stream",
                ));
            }
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self {
            tcp, receiving, idle, ..
        } = self.get_mut();
        loop {
            if !receiving.plain.is_empty() {
                let count = receiving.plain.len().min(out.remaining());
                let from = receiving.plain.start;
                out.put_slice(&receiving.body[from..from + count]);
                receiving.plain.start += count;
                return Poll::Ready(Ok(()));
            }
            match &receiving.end {
                Some(Ok(())) => return Poll::Ready(Ok(())),
                Some(Err(text)) => return Poll::Ready(Err(io::Error::other(GaveUp(text.clone())))),
                None => ready!(receiving.poll_frame(tcp, *idle, cx))?,
            }
        }
    }
}

/// How long no progress is borne.
#[derive(Default)]
struct Patience(Option<Pin<Box<Sleep>>>);

impl Patience {
    fn progress(&mut self) {
        self.0 = None;
    }

    fn poll(&mut self, idle: Duration, cx: &mut Context<'_>) -> Poll<io::Error> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        ready!(sleep.as_mut().poll(cx));
        let why = format!("the stream made no progress for {} s", idle.as_secs());
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why))
    }
}

const _: () = assert!(CHUNK < MAX_FRAME);
