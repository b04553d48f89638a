//! Programs that run to their end: absolute path, argument vector, own process group, deadline, bounded output. Those whose caller
//! holds a pipe are in [`super::stream`], on the same ground.
//!
//! The work is done in a task of its own: when the caller goes away, or the deadline passes, the task kills the whole group
//! and collects the dead. The group is always killed after its leader ended, so that nothing is left behind.

use super::HostError;
use super::orphans::{self, Mark};
use super::service::process::{self, Watched};
use super::users::{self, User};
use datastore_api::{Cmd, ExecError, ExposeSecret, Output};
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Where programs look for others.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of standard output is kept.
pub(super) const STDOUT_KEPT: usize = 1 << 20;
/// How much of the end of standard error is kept.
pub(super) const STDERR_KEPT: usize = 8 << 10;
/// How long pipes may stay open after the program ended (a process that left the group can hold them).
const DRAIN: Duration = Duration::from_secs(1);
/// How long a killed program may take to go; one stuck in the kernel is collected later, the caller is told now.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// Runs a program to its end. With a mark it is found, and ended, should we die meanwhile; without one it goes on, which is
/// for what must not be cut off in the middle.
pub(super) async fn run(cmd: Cmd, mark: Option<&Mark>) -> Result<Output, ExecError> {
    let program = cmd.program.clone();
    let cancel = CancellationToken::new();
    let _cancelled_with_the_caller = cancel.clone().drop_guard();
    let (answer, answered) = oneshot::channel();
    tokio::spawn(work(cmd, mark.cloned(), cancel, answer));
    // The task always answers; it is gone without one only when the runtime shuts down.
    answered.await.unwrap_or_else(|_| {
        Err(ExecError::Start {
            program,
            source: io::Error::other("the agent is shutting down"),
        })
    })
}

/// What is known when the leader ended, or had to be.
#[derive(Clone, Copy)]
pub(super) enum End {
    Itself,
    /// Its limit was passed.
    Late,
    Cancelled,
}

async fn work(cmd: Cmd, mark: Option<Mark>, cancel: CancellationToken, answer: oneshot::Sender<Result<Output, ExecError>>) {
    let deadline = Instant::now() + cmd.deadline;
    let mut group = match Group::spawn(&cmd, mark.as_ref(), cmd.stdin.is_some()) {
        Ok(group) => group,
        Err(source) => {
            // Nobody listens any more if the caller has gone.
            let _ = answer.send(Err(ExecError::Start {
                program: cmd.program,
                source,
            }));
            return;
        }
    };
    let stdin = group.child.stdin.take();
    let stdout = group.child.stdout.take();
    let stderr = group.child.stderr.take();
    let secret = cmd.stdin.clone();
    let feeder = tokio::spawn(async move {
        if let (Some(mut pipe), Some(bytes)) = (stdin, secret) {
            // A program that does not read its input to the end is not an error; its exit code tells.
            let _ = pipe.write_all(bytes.expose_secret().as_bytes()).await;
            let _ = pipe.shutdown().await;
        }
    });
    let (kept_out, kept_err) = (Kept::default(), Kept::default());
    let out = tokio::spawn(kept_out.clone().head(stdout, STDOUT_KEPT));
    let err = tokio::spawn(kept_err.clone().tail(stderr, STDERR_KEPT, |_| {}));

    let end = tokio::select! {
        () = group.leader.ended() => End::Itself,
        () = tokio::time::sleep_until(deadline) => End::Late,
        () = cancel.cancelled() => End::Cancelled,
    };
    // The leader is not collected yet, so its group's number cannot belong to anybody else.
    group.kill();
    feeder.abort();
    let status = group.collect([out, err]).await;
    let result = match judge(&cmd.program, end, status, &kept_out, &kept_err) {
        Judged::Late(stderr_tail) => Err(ExecError::Deadline {
            program: cmd.program,
            limit: cmd.deadline,
            stderr_tail,
        }),
        Judged::Ended(result) => result,
    };
    let _ = answer.send(result);
    group.bury().await;
}

/// How it went, as far as it does not depend on the kind of limit.
pub(super) enum Judged {
    Ended(Result<Output, ExecError>),
    /// Killed; the last lines of standard error.
    Late(String),
}

/// Makes an answer of how a program ended and what it printed. `status` is `None` if its end was not seen.
pub(super) fn judge(program: &Path, end: End, status: Option<ExitStatus>, out: &Kept, err: &Kept) -> Judged {
    let (stdout, stderr_tail) = (out.take(), text_of(&err.take()));
    match (end, status) {
        (End::Itself, Some(status)) if status.success() => Judged::Ended(Ok(Output { stdout, stderr_tail })),
        (End::Itself, status) => Judged::Ended(Err(ExecError::Exit {
            program: program.to_owned(),
            status: status.map_or_else(|| "end not seen".to_owned(), process::describe),
            code: status.and_then(|status| status.code()),
            stderr_tail,
        })),
        (End::Late | End::Cancelled, _) => Judged::Late(stderr_tail),
    }
}

/// A program and what it started, as one process group.
pub(super) struct Group {
    pub(super) child: Child,
    pub(super) leader: Watched,
}

impl Group {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where programs are started")]
    pub(super) fn spawn(cmd: &Cmd, mark: Option<&Mark>, has_stdin: bool) -> io::Result<Self> {
        let user = cmd
            .user
            .as_deref()
            .map(users::lookup)
            .transpose()
            .map_err(super::error::as_io)?;
        let (program, first) = as_user(&cmd.program, user.as_ref())?;
        let mut command = Command::new(program);
        command
            .args(first)
            .args(&cmd.args)
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8");
        if let Some(mark) = mark {
            command.env(orphans::VARIABLE, mark.value());
        }
        for var in &cmd.env {
            command.env(&var.name, var.value.expose_secret());
        }
        command
            .stdin(if has_stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        if let Some(user) = user.filter(|user| user.groups.is_empty() && !process::is_me(user)) {
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("ended before it was seen"))?;
        if cmd.gives_way {
            process::make_nice(pid);
        }
        match Watched::open(pid) {
            Ok(leader) => Ok(Self { child, leader }),
            Err(error) => {
                // Without a way to see its end it must not live.
                process::kill_group(pid);
                let _ = child.start_kill();
                Err(super::error::as_io(error))
            }
        }
    }

    pub(super) fn kill(&self) {
        process::kill_group(self.leader.pid());
    }

    /// The exit status of the killed or ended leader, `None` if it does not come in time; gives the pipes' readers a moment to end.
    pub(super) async fn collect<const N: usize>(&mut self, readers: [JoinHandle<()>; N]) -> Option<ExitStatus> {
        let status = timeout(LAST_BREATH, self.child.wait()).await;
        let drained = Instant::now() + DRAIN;
        for mut reader in readers {
            if timeout_at(drained, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        status.ok().and_then(Result::ok)
    }

    /// Collects one that was killed and that the kernel does not let go of, whenever that happens.
    pub(super) async fn bury(mut self) {
        if self.child.id().is_some() {
            let _ = self.child.wait().await;
        }
    }
}

impl Drop for Group {
    /// The runtime drops the task at shutdown: the group must not outlive it.
    fn drop(&mut self) {
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

/// The program to start, and arguments to put before its own, so that it runs as `user` with all of the user's groups. The
/// standard library sets user and group but not further groups; for users that have some, `setpriv` does and becomes the program.
pub(super) fn as_user(program: &Path, user: Option<&User>) -> io::Result<(std::path::PathBuf, Vec<String>)> {
    if !program.is_absolute() {
        return Err(super::error::as_io(HostError::Invalid(format!(
            "{} is not an absolute path",
            program.display()
        ))));
    }
    match user {
        Some(user) if !user.groups.is_empty() && !process::is_me(user) => {
            // setpriv would start first and fail late and in its own words.
            std::fs::metadata(program)?;
            let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
            let program = program
                .to_str()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path is not UTF-8"))?;
            let args = vec![
                format!("--reuid={}", user.uid),
                format!("--regid={}", user.gid),
                format!("--groups={}", groups.join(",")),
                "--".to_owned(),
                program.to_owned(),
            ];
            Ok(("/usr/bin/setpriv".into(), args))
        }
        _ => Ok((program.to_path_buf(), Vec::new())),
    }
}

/// What was read of a pipe so far; shared, so that it is not lost when the pipe never ends.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.lock())
    }

    /// Reads to the end and keeps the first `limit` bytes.
    pub(super) async fn head<R: AsyncRead + Unpin>(self, pipe: Option<R>, limit: usize) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 16 << 10];
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            let mut kept = self.lock();
            let room = limit.saturating_sub(kept.len());
            kept.extend_from_slice(&buffer[..n.min(room)]);
        }
    }

    /// Reads to the end and keeps at least the last `limit` bytes, at most twice as many; tells `moved` how many came.
    pub(super) async fn tail<R: AsyncRead + Unpin>(self, pipe: Option<R>, limit: usize, moved: impl Fn(usize)) {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 4 << 10];
        while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
            moved(n);
            let mut kept = self.lock();
            kept.extend_from_slice(&buffer[..n]);
            if kept.len() > 2 * limit {
                let surplus = kept.len() - limit;
                kept.drain(..surplus);
            }
        }
    }
}

/// The last [`STDERR_KEPT`] bytes as text, without half characters.
fn text_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    let mut from = text.len().saturating_sub(STDERR_KEPT);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}
