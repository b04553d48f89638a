//! Programs whose input or output is a stream of any length.

use crate::{ExecError, Output};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a program reads from us.
pub type PipeIn = Box<dyn AsyncWrite + Send + Unpin>;
/// What a program writes to us.
pub type PipeOut = Box<dyn AsyncRead + Send + Unpin>;
/// The end of a program, still to come.
type End = Pin<Box<dyn Future<Output = Result<Output, ExecError>> + Send>>;

/// Which of a program's streams its caller holds. The others: nothing to read, and output of which the beginning is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipes {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Both. The caller must serve both at once, or they wait for each other.
    Both,
}

impl Pipes {
    /// Whether the caller writes the standard input.
    #[must_use]
    pub fn has_stdin(self) -> bool {
        matches!(self, Self::Stdin | Self::Both)
    }

    /// Whether the caller reads the standard output.
    #[must_use]
    pub fn has_stdout(self) -> bool {
        matches!(self, Self::Stdout | Self::Both)
    }
}

/// A program that runs, with the pipes its caller asked for. Dropped, it is killed with its process group.
///
/// The end of its output is not the end of its work: what was read is good only after [`Running::wait`] has answered `Ok`.
pub struct Running {
    /// Its standard input; it reads the end of it when this is shut down or dropped. A write fails with `BrokenPipe` when the program
    /// has ended: [`Running::wait`] knows why.
    pub stdin: Option<PipeIn>,
    /// Its standard output.
    pub stdout: Option<PipeOut>,
    end: End,
}

impl Running {
    /// For hosts: `end` resolves when the program has ended, and kills it when it is dropped before.
    pub fn new(
        stdin: Option<PipeIn>,
        stdout: Option<PipeOut>,
        end: impl Future<Output = Result<Output, ExecError>> + Send + 'static,
    ) -> Self {
        let end = Box::pin(end);
        Self { stdin, stdout, end }
    }

    /// Closes the pipes it still holds and waits for the end of the program. [`ExecError::Stalled`] if nothing moves any more.
    pub async fn wait(self) -> Result<Output, ExecError> {
        drop((self.stdin, self.stdout));
        self.end.await
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .finish_non_exhaustive()
    }
}

/// A guardian that waits ([`crate::Host::dead_man`]). Dropped, it does its work.
pub struct DeadMan {
    /// Dropped: the guardian's sign.
    sign: Option<PipeIn>,
    end: tokio::task::JoinHandle<Result<Output, ExecError>>,
}

impl DeadMan {
    /// For hosts: the guardian acts when `sign` is dropped, and `end` resolves when it has.
    pub fn new(sign: PipeIn, end: impl Future<Output = Result<Output, ExecError>> + Send + 'static) -> Self {
        Self {
            sign: Some(sign),
            end: tokio::spawn(end),
        }
    }

    /// Whether it has acted already.
    #[must_use]
    pub fn has_acted(&self) -> bool {
        self.end.is_finished()
    }

    /// Lets it act now and answers how its command went. Once: afterwards it has acted.
    ///
    /// # Errors
    /// [`ExecError`] of the command.
    pub async fn fire(&mut self) -> Result<Output, ExecError> {
        drop(self.sign.take());
        (&mut self.end).await.unwrap_or_else(|error| {
            Err(ExecError::Start {
                program: "guardian".into(),
                source: std::io::Error::other(error),
            })
        })
    }
}

impl fmt::Debug for DeadMan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadMan")
            .field("has_acted", &self.has_acted())
            .finish_non_exhaustive()
    }
}
