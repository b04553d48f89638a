//! Bodies that cannot end early and cannot hang.

use super::{Body, StorageError, StorageErrorKind};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Makes a body of `inner` that has exactly `bytes` bytes: fewer are an error, more are an error, and so is a pause of `stall`.
pub fn exact(inner: impl AsyncRead + Send + 'static, bytes: u64, stall: Duration, place: String) -> Body {
    Box::pin(Exact {
        inner: Box::pin(inner),
        left: bytes,
        place,
        stall,
        alarm: Box::pin(sleep(stall)),
        armed: false,
    })
}

struct Exact {
    inner: Body,
    left: u64,
    place: String,
    stall: Duration,
    alarm: Pin<Box<Sleep>>,
    armed: bool,
}

impl Exact {
    fn fail(&self, kind: StorageErrorKind, what: &'static str) -> io::Error {
        StorageError::new(kind, "read", &self.place, what).into_io()
    }
}

impl AsyncRead for Exact {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match self.inner.as_mut().poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                if !self.armed {
                    let end = Instant::now() + self.stall;
                    self.alarm.as_mut().reset(end);
                    self.armed = true;
                }
                return match self.alarm.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Err(self.fail(StorageErrorKind::Unreachable, "nothing came for too long"))),
                    Poll::Pending => Poll::Pending,
                };
            }
        }
        self.armed = false;
        let read = (buf.filled().len() - before) as u64;
        match self.left.checked_sub(read) {
            Some(left) if read > 0 || left == 0 => {
                self.left = left;
                Poll::Ready(Ok(()))
            }
            Some(_) => Poll::Ready(Err(self.fail(StorageErrorKind::Corrupt, "it ends before its length"))),
            None => {
                buf.set_filled(before);
                Poll::Ready(Err(self.fail(StorageErrorKind::Corrupt, "it is longer than its length")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    async fn read(sent: &[u8], bytes: u64, hold: bool) -> io::Result<Vec<u8>> {
        let (mut tx, rx) = duplex(64);
        tx.write_all(sent).await.unwrap();
        let held = hold.then_some(tx);
        let mut all = Vec::new();
        let mut body = exact(rx, bytes, Duration::from_millis(100), "x".to_owned());
        let done = body.read_to_end(&mut all).await;
        drop(held);
        done.map(|_| all)
    }

    #[tokio::test]
    async fn a_body_has_its_length_or_an_error() {
        assert_eq!(read(b"abc", 3, false).await.unwrap(), b"abc");
        assert_eq!(read(b"", 0, false).await.unwrap(), b"");
        assert_eq!(read(b"ab", 3, false).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"abcd", 3, false).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"ab", 3, true).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
