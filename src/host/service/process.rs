//! One process, seen through its file descriptor and `/proc`: watched, signalled and collected without mistaking it for another.

use crate::host::HostError;
use crate::host::users::User;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long a process may take to vanish after it was killed; one stuck in the kernel takes longer.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// How much a program that gives way does so. The kernel derives its place at the disk from this, too.
const NICE: i32 = 10;

/// Lets everybody else go first. A program that was just started has one thread, of which the others inherit it.
pub(in crate::host) fn make_nice(pid: u32) {
    let set = number(pid).map(|pid| rustix::process::setpriority_process(Some(pid), NICE));
    if let Some(Err(error)) = set {
        tracing::warn!(pid, %error, "a program that should give way does not");
    }
}

/// A process held by its descriptor: the number may be given to another process, the descriptor not.
pub(in crate::host) struct Watched {
    pid: u32,
    fd: AsyncFd<OwnedFd>,
}

impl Watched {
    /// Takes hold of a process. The caller makes sure (start time, or being its parent) that the number is still the right one.
    pub(in crate::host) fn open(pid: u32) -> Result<Self, HostError> {
        let failed = |source| HostError::Process {
            doing: "watch",
            pid,
            source,
        };
        let number = number(pid).ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let fd = pidfd_open(number, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an OwnedFd cannot be closed behind it, which is what that is about"
        )]
        let fd = AsyncFd::new(fd).map_err(failed)?;
        Ok(Self { pid, fd })
    }

    /// Its number.
    pub(in crate::host) fn pid(&self) -> u32 {
        self.pid
    }

    /// Resolves when it has ended (it may still have to be collected).
    pub(in crate::host) async fn ended(&self) {
        if self.fd.readable().await.is_err() {
            // Only when the runtime shuts down; nobody is interested then.
            std::future::pending::<()>().await;
        }
    }

    /// Sends a signal; one that has ended is left alone.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), HostError> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(HostError::Process {
                doing: "signal",
                pid: self.pid,
                source: error.into(),
            }),
        }
    }

    /// Waits for the end of a process that was killed.
    pub(super) async fn killed(&self) -> Result<(), HostError> {
        let what = || format!("process {} did not end after it was killed", self.pid);
        let late = |_| HostError::Late {
            what: what(),
            limit: LAST_BREATH,
        };
        timeout(LAST_BREATH, self.ended()).await.map_err(late)
    }

    /// Collects an ended process if it is our child, and says how it ended. Does not wait.
    pub(super) fn collect(&self) -> String {
        match waitid(WaitId::PidFd(self.fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "ended".to_owned(),
            },
            // An adopted process is another's child: that one learns the code.
            Ok(None) | Err(_) => "ended (exit code unknown)".to_owned(),
        }
    }
}

/// How a program ended, for people.
pub(in crate::host) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Kills every process of a group. Only while its leader lives or is not collected: then the number is still its own.
pub(in crate::host) fn kill_group(pid: u32) {
    if let Some(group) = number(pid) {
        // ESRCH: nobody left, which is what is wanted.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether this is the user we run as.
pub(in crate::host) fn is_me(user: &User) -> bool {
    rustix::process::geteuid().as_raw() == user.uid
}

fn number(pid: u32) -> Option<Pid> {
    // 1 is init: never ours to signal.
    i32::try_from(pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw)
}

/// What `/proc/PID/stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct Seen {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub parent: u32,
    /// Start, in clock ticks after boot.
    pub start_time: u64,
}

/// Looks at a process; `None` if there is none, or only its uncollected rest.
pub(in crate::host) fn look(pid: u32) -> Option<Seen> {
    parse_stat(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(pid: u32, stat: &str) -> Option<Seen> {
    // The name is in brackets and may hold anything, brackets and blanks too: count from the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X" | "x") {
        return None;
    }
    Some(Seen {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Identity of this boot: start times are comparable only within one.
pub(super) fn boot_id() -> Result<String, HostError> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(PATH)
        .map_err(HostError::path("read", PATH))?
        .trim()
        .to_owned())
}

/// All living processes that have an environment variable whose value passes. Those we may not look into are not ours.
pub(in crate::host) fn marked(name: &str, is_wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Seen>, HostError> {
    let prefix = format!("{name}=").into_bytes();
    let entries = fs::read_dir("/proc").map_err(HostError::path("list", "/proc"))?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = pids.filter(|pid| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
            environ
                .split(|&byte| byte == 0)
                .any(|variable| variable.strip_prefix(prefix.as_slice()).is_some_and(&is_wanted))
        })
    });
    Ok(ours.filter_map(look).collect())
}

/// Kills what is left of something that is over, and waits until it is gone.
pub(in crate::host) async fn end(left: &[Seen]) -> Result<(), HostError> {
    for seen in left {
        // Held first, then looked at again: what is killed is what was seen.
        let Ok(process) = Watched::open(seen.pid) else { continue };
        if look(seen.pid).map(|now| now.start_time) != Some(seen.start_time) {
            continue;
        }
        tracing::warn!(pid = seen.pid, "process that was left behind is killed");
        process.signal(Signal::KILL)?;
        process.killed().await?;
        process.collect();
    }
    Ok(())
}

/// The one that was started first and by none of the others.
pub(super) fn leader(found: &[Seen]) -> Option<Seen> {
    let first = found.iter().filter(|seen| found.iter().all(|other| other.pid != seen.parent));
    first.min_by_key(|seen| (seen.start_time, seen.pid)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1 2";
        assert_eq!(
            parse_stat(7, stat),
            Some(Seen {
                pid: 7,
                parent: 1,
                start_time: 4242
            })
        );
        assert_eq!(parse_stat(7, &stat.replace(" S ", " Z ")), None);
        assert_eq!(parse_stat(7, "7 (a"), None);
        assert!(look(std::process::id()).is_some());
    }

    #[test]
    fn the_leader_is_nobodys_child() {
        let seen = |pid, parent, start_time| Seen { pid, parent, start_time };
        assert_eq!(
            leader(&[seen(12, 10, 5), seen(10, 1, 5), seen(11, 1, 9)]),
            Some(seen(10, 1, 5))
        );
        assert_eq!(leader(&[]), None);
    }
}
