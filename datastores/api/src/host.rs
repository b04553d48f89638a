//! What a driver may ask of the machine. The agent's `host` room implements it; tests have a fake.

use crate::{Change, DeadMan, Pipes, Running, Secret};
use async_trait::async_trait;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An environment variable of a program.
#[derive(Debug, Clone)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value, never printed.
    pub value: Secret,
}

/// A program to run: absolute path, argument vector, deadline. Never a shell; never a secret in `args`.
#[derive(Debug, Clone)]
pub struct Cmd {
    /// Absolute path.
    pub program: PathBuf,
    /// Arguments, without the program's name.
    pub args: Vec<String>,
    /// Environment beside a minimal `PATH`, `LANG=C.UTF-8`.
    pub env: Vec<EnvVar>,
    /// Bytes for standard input; closed at once if `None`.
    pub stdin: Option<Secret>,
    /// Operating-system user to run as; the agent's own if `None`.
    pub user: Option<String>,
    /// After this the whole process group is killed and the answer is [`ExecError::Deadline`]. For [`Host::spawn`]: after this time
    /// without a byte that moved, [`ExecError::Stalled`].
    pub deadline: Duration,
    /// Whether everybody else goes first, to the processor and to the disk.
    pub gives_way: bool,
}

impl Cmd {
    /// A command with no arguments and a deadline of 30 s.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
            user: None,
            deadline: Duration::from_secs(30),
            gives_way: false,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Runs it as this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Lets everybody else go first.
    #[must_use]
    pub fn give_way(mut self) -> Self {
        self.gives_way = true;
        self
    }
}

/// What a program printed; only programs that exited with 0 have one.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Standard output, at most 1 MiB of it.
    pub stdout: Vec<u8>,
    /// The last lines of standard error, at most 8 KiB.
    pub stderr_tail: String,
}

/// Why a program did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started.
    #[error("could not start {program}")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It exited with another code than 0, or by a signal.
    #[error("{program} failed ({status}): {stderr_tail}")]
    Exit {
        /// Which.
        program: PathBuf,
        /// Code or signal, for people.
        status: String,
        /// The code, `None` for a signal.
        code: Option<i32>,
        /// The last lines of standard error.
        stderr_tail: String,
    },
    /// It was killed at its deadline.
    #[error("{program} was stopped after {limit:?}: {stderr_tail}")]
    Deadline {
        /// Which.
        program: PathBuf,
        /// The deadline.
        limit: Duration,
        /// The last lines of standard error.
        stderr_tail: String,
    },
    /// It was killed because nothing moved through its pipes any more.
    #[error("{program} moved nothing for {limit:?} and was stopped: {stderr_tail}")]
    Stalled {
        /// Which.
        program: PathBuf,
        /// How long it was waited for.
        limit: Duration,
        /// The last lines of standard error.
        stderr_tail: String,
    },
}

/// Owner of a file, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// User name; its primary group is taken.
    pub user: String,
}

/// Permissions and owner of a file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMode {
    /// Permission bits, e.g. `0o600`.
    pub mode: u32,
    /// Owner; the agent's own user if `None`.
    pub owner: Option<Owner>,
}

/// Name of a service: the systemd unit without suffix, and the folder name of the supervised form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceId(pub String);

/// A long-running server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its name.
    pub id: ServiceId,
    /// Absolute path of the program.
    pub program: PathBuf,
    /// Arguments. Never a secret.
    pub args: Vec<String>,
    /// Operating-system user it runs as.
    pub user: String,
    /// Where its standard output and error go (appended).
    pub log_file: PathBuf,
    /// Limit of open files.
    pub open_files: u64,
}

/// State of a service, as its supervisor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceState {
    /// The process lives.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// Being started again after it died; the next try is due.
    Restarting {
        /// How it ended last, for people.
        last_exit: String,
    },
    /// Not running, and not wanted to.
    Stopped,
    /// It is wanted to run and does not.
    Failed {
        /// How it ended last, for people.
        last_exit: String,
    },
}

/// Why a service verb failed.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} service {id}")]
pub struct ServiceError {
    /// start, stop, look at.
    pub doing: &'static str,
    /// Which.
    pub id: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// The machine, as far as a driver needs it.
#[async_trait]
pub trait Host: Send + Sync {
    /// Runs a program to its end.
    async fn run(&self, cmd: Cmd) -> Result<Output, ExecError>;

    /// Starts a program and hands out the pipes to stream through. It has no deadline as long as bytes move through these pipes, or,
    /// when they are closed, on standard error.
    async fn spawn(&self, cmd: Cmd, pipes: Pipes) -> Result<Running, ExecError>;

    /// Starts a service and keeps it running (restarted with back-off when it dies) until it is stopped. One that runs with the
    /// same spec is `Unchanged`; with another spec the new one is remembered for the next start.
    async fn start_service(&self, spec: &ServiceSpec) -> Result<Change, ServiceError>;

    /// Stops a service in order (TERM), kills it after `limit`, and keeps it down over a reboot.
    async fn stop_service(&self, id: &ServiceId, limit: Duration) -> Result<Change, ServiceError>;

    /// State of a service.
    async fn service_state(&self, id: &ServiceId) -> Result<ServiceState, ServiceError>;

    /// Resolves as soon as the state of the service differs from `seen`.
    async fn service_changed(&self, id: &ServiceId, seen: &ServiceState);

    /// Replaces a file in one step (temporary file, fsync, rename, fsync of the folder). Same content and mode: `Unchanged`.
    async fn write_atomic(&self, path: &Path, bytes: &[u8], mode: &FileMode) -> io::Result<Change>;

    /// Reads a whole file; `None` if it is not there.
    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;

    /// Removes a file; one that is not there is `Unchanged`.
    async fn remove(&self, path: &Path) -> io::Result<Change>;

    /// Makes a folder with its parents, and sets its mode and owner.
    async fn make_dir(&self, path: &Path, mode: &FileMode) -> io::Result<Change>;

    /// Names of the entries of a folder, sorted; `None` if it is not there.
    async fn list_dir(&self, path: &Path) -> io::Result<Option<Vec<String>>>;

    /// Removes everything inside a folder and keeps the folder (symbolic links are not followed, other file systems not entered).
    /// An empty or missing folder is `Unchanged`.
    async fn clear_dir(&self, path: &Path) -> io::Result<Change>;

    /// Gives a file or folder another name on the same file system, for good when this returns. Nothing may have that name.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it, as [`Host::clear_dir`] does; a missing one is `Unchanged`.
    async fn remove_tree(&self, path: &Path) -> io::Result<Change>;

    /// Starts a guardian, a process of its own: it runs `cmd` as soon as what is answered is fired or dropped, when `limit` has passed,
    /// or when this process is gone, whatever comes first; once. It needs neither memory of ours nor a file it can write.
    async fn dead_man(&self, cmd: Cmd, limit: Duration) -> Result<DeadMan, ExecError>;

    /// The last bytes of a file, at most `limit`; `None` if it is not there.
    async fn read_tail(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>>;

    /// The bytes of a file from `offset` on, at most `limit`, fewer only at its end; `None` if it is not there.
    async fn read_range(&self, path: &Path, offset: u64, limit: usize) -> io::Result<Option<Vec<u8>>>;

    /// Adds to the end of a file that is there, on disk when this returns. Answers the file's size.
    async fn append(&self, path: &Path, bytes: Vec<u8>) -> io::Result<u64>;

    /// Bytes that an ordinary user may still write on the file system of `path`.
    async fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// Gives a tree to a user (symbolic links are not followed).
    async fn chown_tree(&self, path: &Path, owner: &Owner) -> io::Result<Change>;
}
