//! Between the socket and the client crate: makes message headers harmless before the crate parses them.
//!
//! A sender can put into a message's properties what the broker passes on and the crate's parser cannot take: text that is
//! not UTF-8 or a header larger than a frame end the connection (and the message comes again on the next, for ever), deeply
//! nested tables overflow its stack and end the process. Here each header frame is looked at; one of these is replaced by
//! a header that says only that it was malformed, and the message is then rejected like any other that cannot be read.

use super::connect::FRAME_MAX;
use super::envelope::MALFORMED;
use async_compat::Compat;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::AsyncTcpStream;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Type, channel and size in front of a frame's payload.
const FRAME_HEAD: usize = 7;
const HEADER_FRAME: u8 = 2;
const FRAME_END: u8 = 0xce;
/// Class, weight and body size in front of a header's properties.
const HEADER_HEAD: usize = 12;
/// Largest header frame that is held to look at it. Brokers send at most 128 KiB.
const LARGEST: usize = 1 << 20;
/// Deepest nesting of tables and lists let through. Ordinary senders need three.
const MAX_DEPTH: usize = 16;
const CHUNK: usize = 16 * 1024;

/// A connection to a broker, plain or TLS.
pub type BrokerStream = AsyncTcpStream<Compat<TcpStream>>;

/// A stream whose header frames can all be parsed.
pub struct Sieve {
    inner: BrokerStream,
    /// Where it is read to. Kept, because making room in the buffer for each look at the socket costs more than all else.
    chunk: Box<[u8]>,
    buffer: Buffer,
}

impl Sieve {
    /// Around a stream.
    pub fn new(inner: BrokerStream) -> Self {
        Self {
            inner,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            buffer: Buffer::default(),
        }
    }
}

impl AsyncRead for Sieve {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        loop {
            let taken = this.buffer.take(out);
            if taken > 0 || out.is_empty() {
                return Poll::Ready(Ok(taken));
            }
            let got = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.chunk))?;
            if got == 0 {
                return Poll::Ready(Ok(0));
            }
            this.buffer.bytes.extend_from_slice(&this.chunk[..got]);
            this.buffer.look();
        }
    }
}

impl AsyncWrite for Sieve {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// What was read and not handed on yet.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    /// Up to here it was handed on.
    taken: usize,
    /// Up to here it was looked at.
    ready: usize,
    /// So much of a frame that needs no look is still to come.
    pass: usize,
}

impl Buffer {
    fn take(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.ready - self.taken);
        out[..count].copy_from_slice(&self.bytes[self.taken..self.taken + count]);
        self.taken += count;
        if self.taken == self.ready {
            self.bytes.drain(..self.taken);
            (self.taken, self.ready) = (0, 0);
        }
        count
    }

    /// Moves `ready` over all that can be handed on.
    fn look(&mut self) {
        loop {
            let here = &self.bytes[self.ready..];
            let passed = self.pass.min(here.len());
            self.pass -= passed;
            self.ready += passed;
            let here = &here[passed..];
            let Some((head, _)) = here.split_first_chunk::<FRAME_HEAD>() else {
                return;
            };
            let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let whole = FRAME_HEAD + size + 1;
            if head[0] != HEADER_FRAME || whole > LARGEST {
                self.pass = whole;
                continue;
            }
            if here.len() < whole {
                return;
            }
            let payload = &here[FRAME_HEAD..FRAME_HEAD + size];
            if whole <= FRAME_MAX as usize && is_harmless(payload) {
                self.ready += whole;
                continue;
            }
            let harmless = replacement([head[1], head[2]], payload);
            let start = self.ready;
            self.ready += harmless.len();
            self.bytes.splice(start..start + whole, harmless);
        }
    }
}

/// A header frame of the same channel, class and body size that says only that it was malformed.
fn replacement(channel: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut header = payload.get(..HEADER_HEAD).unwrap_or(&[0; HEADER_HEAD]).to_vec();
    header.extend([0x80, 0x00, MALFORMED.len() as u8]);
    header.extend(MALFORMED.as_bytes());
    let mut frame = vec![HEADER_FRAME, channel[0], channel[1]];
    frame.extend((header.len() as u32).to_be_bytes());
    frame.extend(header);
    frame.push(FRAME_END);
    frame
}

/// What kind of value each property is, from the highest flag down.
const PROPERTIES: &[u8; 14] = b"ssFBBssssTssss";

fn is_harmless(payload: &[u8]) -> bool {
    let mut rest = payload.get(HEADER_HEAD..).unwrap_or_default();
    let Some(flags) = chunk::<2>(&mut rest).map(u16::from_be_bytes) else {
        return false;
    };
    // The two lowest flags have no property.
    if flags & 0b11 != 0 {
        return false;
    }
    let set = PROPERTIES.iter().enumerate().filter(|(at, _)| flags & (0x8000 >> at) != 0);
    let mut kinds = set.map(|(_, kind)| *kind);
    kinds.all(|kind| match kind {
        b's' => short_text(&mut rest).is_some(),
        kind => value(kind, &mut rest, 0).is_some(),
    }) && rest.is_empty()
}

fn chunk<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*chunk)
}

fn skip<'a>(count: usize, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (skipped, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(skipped)
}

fn short_text(rest: &mut &[u8]) -> Option<()> {
    let [length] = chunk(rest)?;
    std::str::from_utf8(skip(length.into(), rest)?).ok().map(drop)
}

fn long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(chunk(rest)?);
    skip(length as usize, rest)
}

/// Passes over a value of a field table, if the crate can parse it.
fn value(kind: u8, rest: &mut &[u8], depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    match kind {
        b'V' => Some(()),
        b't' | b'b' | b'B' => skip(1, rest).map(drop),
        b's' | b'U' | b'u' => skip(2, rest).map(drop),
        b'I' | b'i' | b'f' => skip(4, rest).map(drop),
        b'D' => skip(5, rest).map(drop),
        b'L' | b'l' | b'd' | b'T' => skip(8, rest).map(drop),
        b'S' | b'x' => long(rest).map(drop),
        b'A' => {
            let mut inside = long(rest)?;
            while !inside.is_empty() {
                let [kind] = chunk(&mut inside)?;
                value(kind, &mut inside, depth + 1)?;
            }
            Some(())
        }
        b'F' => {
            let mut inside = long(rest)?;
            while !inside.is_empty() {
                short_text(&mut inside)?;
                let [kind] = chunk(&mut inside)?;
                value(kind, &mut inside, depth + 1)?;
            }
            Some(())
        }
        _ => None,
    }
}

/// The client crate's runtime, with our stream.
pub fn runtime() -> Runtime<RuntimeParts<Tokio, Sieved>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sieved(tokio)))
}

/// Tokio's reactor, but that its connections are sieved.
#[derive(Clone, Debug)]
pub struct Sieved(Tokio);

impl Reactor for Sieved {
    type TcpStream = Sieve;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, address: SocketAddr) -> impl Future<Output = io::Result<Sieve>> + Send + 'static {
        let connected = self.0.tcp_connect_addr(address);
        async move { Ok(Sieve::new(AsyncTcpStream::Plain(connected.await?))) }
    }
}

#[cfg(test)]
#[path = "sieve_tests.rs"]
mod tests;
