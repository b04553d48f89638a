//! A guardian: this very program, started once more, that waits for the end of a pipe and then becomes a command.
//!
//! It is no part of the daemon: it opens no file, keeps no log, and is not found by a later agent. Whoever holds the other end of its pipe
//! dies, hangs for longer than the limit, or is stopped in order: in each case it acts.

use super::exec::PATH;
use datastore_api::{Cmd, DeadMan, ExecError, Output};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

/// The word on the command line that makes this program a guardian.
pub(super) const WORD: &str = "dead-man";
/// This program, whatever it is called and even if its file was replaced.
const MYSELF: &str = "/proc/self/exe";

/// Starts a guardian.
#[expect(
    clippy::disallowed_methods,
    reason = "the guardian must outlive us, unlike every other program"
)]
pub(super) fn start(cmd: &Cmd, limit: Duration) -> Result<DeadMan, ExecError> {
    let program = cmd.program.clone();
    let failed = |source| ExecError::Start {
        program: program.clone(),
        source,
    };
    let mut command = tokio::process::Command::new(MYSELF);
    command
        .arg(WORD)
        .arg(limit.as_millis().to_string())
        .arg(&cmd.program)
        .args(&cmd.args)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let sign = child
        .stdin
        .take()
        .ok_or_else(|| failed(io::Error::other("it has no input")))?;
    let end = async move {
        let failed = |source| ExecError::Start {
            program: program.clone(),
            source,
        };
        let ended = child.wait_with_output().await.map_err(failed)?;
        let stderr_tail = String::from_utf8_lossy(&ended.stderr).trim_end().to_owned();
        if ended.status.success() {
            let stdout = Vec::new();
            return Ok(Output { stdout, stderr_tail });
        }
        Err(ExecError::Exit {
            status: super::service::process::describe(ended.status),
            code: ended.status.code(),
            program,
            stderr_tail,
        })
    };
    Ok(DeadMan::new(Box::new(sign), end))
}

/// For the program's entry: whether it was started as a guardian. If so this answers only when the command could not be run.
pub fn guard(args: impl IntoIterator<Item = OsString>) -> Option<std::process::ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != WORD {
        return None;
    }
    let failed = || Some(std::process::ExitCode::FAILURE);
    let limit = args
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .map(Duration::from_millis);
    let (Some(limit), Some(program)) = (limit, args.next()) else {
        return failed();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        runtime.block_on(wait(limit));
        runtime.shutdown_background();
    }
    // Whatever went wrong before: the command is what this is about. It replaces us.
    #[expect(clippy::disallowed_methods, reason = "this process becomes the command")]
    let _ = std::process::Command::new(program).args(args).stdin(Stdio::null()).exec();
    failed()
}

/// Until the input ends, the limit has passed, or somebody wants us to end.
async fn wait(limit: Duration) {
    let (gone, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
        // Nobody waits any more if something else came first.
        let _ = gone.send(());
    });
    let ended = async {
        let _ = ended.await;
    };
    let told = async {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
            signal(SignalKind::terminate()),
            signal(SignalKind::interrupt()),
            signal(SignalKind::hangup()),
        ) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    };
    tokio::select! {
        () = ended => {}
        () = told => {}
        () = tokio::time::sleep(limit) => {}
    }
}
