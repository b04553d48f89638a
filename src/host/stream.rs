//! Programs whose caller holds their pipes, for gigabytes: no deadline as long as something moves, killed with their group when it
//! does not, or when the caller goes away.

use super::exec::{self, End, Group, Judged, Kept, STDERR_KEPT, STDOUT_KEPT};
use super::orphans::Mark;
use datastore_api::{Cmd, ExecError, Output, PipeIn, PipeOut, Pipes, Running};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Wanted size of a pipe: the kernel's own 64 KiB make the two ends wake each other for every step.
const PIPE_SIZE: usize = 1 << 20;

/// Starts a program.
pub(super) fn spawn(cmd: Cmd, pipes: Pipes, mark: &Mark) -> Result<Running, ExecError> {
    let mut group = Group::spawn(&cmd, Some(mark), pipes.has_stdin()).map_err(|source| ExecError::Start {
        program: cmd.program.clone(),
        source,
    })?;
    let progress = Arc::new(Progress::default());
    let stdin = group.child.stdin.take().map(|pipe| Box::new(progress.watch(pipe)) as PipeIn);
    let stdout = group.child.stdout.take_if(|_| pipes.has_stdout());
    let stdout = stdout.map(|pipe| Box::new(progress.watch(pipe)) as PipeOut);

    let program = cmd.program.clone();
    let cancel = CancellationToken::new();
    let cancelled_with_the_caller = cancel.clone().drop_guard();
    let (answer, answered) = oneshot::channel();
    tokio::spawn(work(cmd, group, progress, cancel, answer));
    Ok(Running::new(stdin, stdout, async move {
        let result = answered.await.unwrap_or_else(|_| {
            Err(ExecError::Start {
                program,
                source: io::Error::other("the agent is shutting down"),
            })
        });
        drop(cancelled_with_the_caller);
        result
    }))
}

async fn work(
    cmd: Cmd,
    mut group: Group,
    progress: Arc<Progress>,
    cancel: CancellationToken,
    answer: oneshot::Sender<Result<Output, ExecError>>,
) {
    let (kept_out, kept_err) = (Kept::default(), Kept::default());
    let out = tokio::spawn(kept_out.clone().head(group.child.stdout.take(), STDOUT_KEPT));
    let said = Arc::clone(&progress);
    let said = move |bytes| said.said(bytes);
    let err = tokio::spawn(kept_err.clone().tail(group.child.stderr.take(), STDERR_KEPT, said));
    let end = tokio::select! {
        () = group.leader.ended() => End::Itself,
        () = progress.stalled(cmd.deadline) => End::Late,
        () = cancel.cancelled() => End::Cancelled,
    };
    group.kill();
    let status = group.collect([out, err]).await;
    let result = match exec::judge(&cmd.program, end, status, &kept_out, &kept_err) {
        Judged::Late(stderr_tail) => Err(ExecError::Stalled {
            program: cmd.program,
            limit: cmd.deadline,
            stderr_tail,
        }),
        Judged::Ended(result) => result,
    };
    // Nobody listens any more if the caller has gone.
    let _ = answer.send(result);
    group.bury().await;
}

/// What moved so far.
#[derive(Default)]
struct Progress {
    moved: AtomicU64,
    /// Pipes the caller still holds.
    open: AtomicU32,
}

impl Progress {
    fn watch<P: AsFd>(self: &Arc<Self>, pipe: P) -> Moving<P> {
        // A small pipe is only slower: the limits of the system or the user may not allow a large one.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_SIZE);
        self.open.fetch_add(1, Ordering::Relaxed);
        Moving {
            pipe: Some(pipe),
            progress: Arc::clone(self),
        }
    }

    fn add(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Words count only when there is nothing else: a program may well talk and not get on.
    fn said(&self, bytes: usize) {
        if self.open.load(Ordering::Relaxed) == 0 {
            self.add(bytes);
        }
    }

    /// Resolves when nothing has moved for `limit` (or up to an eighth longer).
    async fn stalled(&self, limit: Duration) {
        let (mut seen, mut since) = (self.moved.load(Ordering::Relaxed), Instant::now());
        while since.elapsed() < limit {
            sleep(limit / 8).await;
            let now = self.moved.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }
}

/// A pipe that tells what moves through it. Closed when it is shut down or dropped.
struct Moving<P> {
    pipe: Option<P>,
    progress: Arc<Progress>,
}

impl<P> Moving<P> {
    fn close(&mut self) {
        if self.pipe.take().is_some() {
            // The end is progress, too: the rest of the work gets its full time.
            self.progress.add(1);
            self.progress.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<P> Drop for Moving<P> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<P: AsyncRead + Unpin> AsyncRead for Moving<P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Ok(()));
        };
        let before = buf.filled().len();
        let polled = Pin::new(pipe).poll_read(cx, buf);
        self.progress.add(buf.filled().len() - before);
        if buf.remaining() > 0 && buf.filled().len() == before && matches!(polled, Poll::Ready(Ok(()))) {
            self.close();
        }
        polled
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Moving<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(pipe) = &mut self.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let polled = Pin::new(pipe).poll_write(cx, bytes);
        if let Poll::Ready(Ok(n)) = &polled {
            self.progress.add(*n);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe
            .as_mut()
            .map_or(Poll::Ready(Ok(())), |pipe| Pin::new(pipe).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A pipe has no other way to tell its reader.
        self.close();
        Poll::Ready(Ok(()))
    }
}
