//! Starts a server so that it outlives us: own process group, no pipe to us, a mark by which it is found again.

use super::process;
use crate::host::{HostError, exec, users};
use datastore_api::ServiceSpec;
use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// The environment variable that marks a server and all it starts; its value is the path of the service's record.
pub(super) const MARK: &str = "TROVE_GUESTAGENT_SERVICE";

/// Starts the server and answers its process id. It is our child, to be collected by [`process::Watched::collect`].
#[expect(clippy::disallowed_methods, reason = "this is the one place where servers are started")]
pub(super) fn spawn(spec: &ServiceSpec, mark: &str) -> Result<u32, HostError> {
    let user = users::lookup(&spec.user)?;
    let failed = |source| HostError::Start {
        program: spec.program.clone(),
        source,
    };
    let (program, first) = exec::as_user(&spec.program, Some(&user)).map_err(failed)?;
    let log = open_log(spec, &user)?;
    let error_log = log.try_clone().map_err(HostError::path("open", &spec.log_file))?;
    let mut command = Command::new(program);
    command
        .args(first)
        .args(&spec.args)
        .env_clear()
        .env("PATH", exec::PATH)
        .env("LANG", "C.UTF-8")
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env(MARK, mark)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error_log)
        .current_dir("/")
        .process_group(0);
    if user.groups.is_empty() && !process::is_me(&user) {
        command.uid(user.uid).gid(user.gid);
    }
    let raised = OpenFiles::raise(spec.open_files);
    let child = command.spawn().map_err(failed);
    drop(raised);
    Ok(child?.id())
}

/// Opens the log for appending, never through a symbolic link that the server's user may have put there.
fn open_log(spec: &ServiceSpec, user: &users::User) -> Result<File, HostError> {
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY).bits();
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(&spec.log_file)
        .map_err(HostError::path("open", &spec.log_file))?;
    if !process::is_me(user) {
        fchown(&log, Some(user.uid), Some(user.gid)).map_err(HostError::path("change the owner of", &spec.log_file))?;
    }
    Ok(log)
}

/// Our own limit of open files, raised while a child is started: the child inherits it before its first instruction, which
/// setting it from outside afterwards cannot promise.
struct OpenFiles {
    before: Rlimit,
    _one_at_a_time: std::sync::MutexGuard<'static, ()>,
}

static RAISING: Mutex<()> = Mutex::new(());

impl OpenFiles {
    fn raise(wanted: u64) -> Option<Self> {
        let guard = RAISING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = getrlimit(Resource::Nofile);
        if before.current.is_none_or(|current| current >= wanted) {
            return None;
        }
        let both = Rlimit {
            current: Some(wanted),
            maximum: before.maximum.map(|maximum| maximum.max(wanted)),
        };
        if setrlimit(Resource::Nofile, both).is_err() {
            // Not allowed to go above the hard limit: take what there is, and say so.
            let most = Rlimit {
                current: before.maximum,
                maximum: before.maximum,
            };
            let reached = setrlimit(Resource::Nofile, most).is_ok();
            tracing::warn!(
                wanted,
                maximum = before.maximum,
                reached,
                "limit of open files cannot be raised as wanted"
            );
        }
        Some(Self {
            before,
            _one_at_a_time: guard,
        })
    }
}

impl Drop for OpenFiles {
    fn drop(&mut self) {
        // The hard limit may stay where it is: lowering it could not be undone without privilege.
        let now = getrlimit(Resource::Nofile);
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: self.before.current,
                maximum: now.maximum,
            },
        );
    }
}
