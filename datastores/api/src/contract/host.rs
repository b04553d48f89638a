//! A small machine for tests: runs programs and keeps one process per service, without restarting it when it dies.

use crate::{
    Change, Cmd, DeadMan, ExecError, ExposeSecret, FileMode, Host, Output, Owner, PipeIn, PipeOut, Pipes, Running, ServiceError,
    ServiceId, ServiceSpec, ServiceState,
};
use async_trait::async_trait;
use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::watch;

/// The machine. Its processes are killed with the runtime that runs them.
#[derive(Default)]
pub struct TestHost {
    services: Mutex<HashMap<ServiceId, Service>>,
    free_space: Mutex<Option<u64>>,
}

struct Service {
    state: watch::Receiver<ServiceState>,
    stop: tokio::sync::mpsc::Sender<Duration>,
}

impl TestHost {
    /// What [`Host::free_space`] answers from now on.
    pub fn set_free_space(&self, bytes: u64) {
        *self.free_space.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    fn state(&self, id: &ServiceId) -> Option<watch::Receiver<ServiceState>> {
        self.services
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .map(|service| service.state.clone())
    }
}

#[async_trait]
impl Host for TestHost {
    async fn run(&self, cmd: Cmd) -> Result<Output, ExecError> {
        let program = cmd.program.clone();
        let start = |source| ExecError::Start {
            program: program.clone(),
            source,
        };
        let mut command = command(&program, &cmd.args, cmd.user.as_deref()).map_err(start)?;
        command.envs(cmd.env.iter().map(|var| (&var.name, var.value.expose_secret())));
        command.stdin(if cmd.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), &cmd.stdin) {
            pipe.write_all(text.expose_secret().as_bytes()).await.map_err(start)?;
        }
        let ended = tokio::time::timeout(cmd.deadline, child.wait_with_output()).await;
        let Ok(output) = ended else {
            return Err(ExecError::Deadline {
                program,
                limit: cmd.deadline,
                stderr_tail: String::new(),
            });
        };
        judged(program.clone(), output.map_err(start)?)
    }

    async fn spawn(&self, cmd: Cmd, pipes: Pipes) -> Result<Running, ExecError> {
        let program = cmd.program.clone();
        let start = |source| ExecError::Start {
            program: program.clone(),
            source,
        };
        let mut command = command(&program, &cmd.args, cmd.user.as_deref()).map_err(start)?;
        command.envs(cmd.env.iter().map(|var| (&var.name, var.value.expose_secret())));
        command.stdin(if pipes.has_stdin() { Stdio::piped() } else { Stdio::null() });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let stdin = child.stdin.take().map(|pipe| Box::new(pipe) as PipeIn);
        let stdout = child.stdout.take_if(|_| pipes.has_stdout());
        let stdout = stdout.map(|pipe| Box::new(pipe) as PipeOut);
        // Read from now on, or the program waits for us; the caller may be busy with its pipes for long.
        let ended = tokio::spawn(child.wait_with_output());
        let aborts = AbortOnDrop(ended.abort_handle());
        Ok(Running::new(stdin, stdout, async move {
            let output = ended.await.map_err(io::Error::other).flatten();
            drop(aborts);
            let start = |source| ExecError::Start {
                program: program.clone(),
                source,
            };
            judged(program.clone(), output.map_err(start)?)
        }))
    }

    async fn start_service(&self, spec: &ServiceSpec) -> Result<Change, ServiceError> {
        if self
            .state(&spec.id)
            .is_some_and(|state| matches!(*state.borrow(), ServiceState::Running { .. }))
        {
            return Ok(Change::Unchanged);
        }
        let failed = |source: io::Error| ServiceError {
            doing: "start",
            id: spec.id.0.clone(),
            source: source.into(),
        };
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&spec.log_file)
            .map_err(failed)?;
        set_owner(&spec.log_file, Some(&Owner { user: spec.user.clone() })).map_err(failed)?;
        let mut command = command(&spec.program, &spec.args, Some(&spec.user)).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let (said, state) = watch::channel(ServiceState::Running { pid });
        let (stop, mut stopping) = tokio::sync::mpsc::channel::<Duration>(1);
        tokio::spawn(async move {
            tokio::select! {
                ended = child.wait() => {
                    let last_exit = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    said.send_replace(ServiceState::Failed { last_exit });
                }
                limit = stopping.recv() => {
                    let _ = terminate(pid).await;
                    if tokio::time::timeout(limit.unwrap_or_default(), child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    said.send_replace(ServiceState::Stopped);
                }
            }
        });
        let service = Service { state, stop };
        self.services
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.id.clone(), service);
        Ok(Change::Done)
    }

    async fn stop_service(&self, id: &ServiceId, limit: Duration) -> Result<Change, ServiceError> {
        let service = self.services.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let Some(mut service) = service else {
            return Ok(Change::Unchanged);
        };
        let was = service.state.borrow().clone();
        if !matches!(was, ServiceState::Running { .. }) {
            return Ok(Change::Done);
        }
        let _ = service.stop.send(limit).await;
        let _ = service
            .state
            .wait_for(|state| !matches!(state, ServiceState::Running { .. }))
            .await;
        Ok(Change::Done)
    }

    async fn service_state(&self, id: &ServiceId) -> Result<ServiceState, ServiceError> {
        Ok(self.state(id).map_or(ServiceState::Stopped, |state| state.borrow().clone()))
    }

    async fn service_changed(&self, id: &ServiceId, seen: &ServiceState) {
        match self.state(id) {
            Some(mut state) => {
                let _ = state.wait_for(|now| now != seen).await;
            }
            None => std::future::pending().await,
        }
    }

    async fn write_atomic(&self, path: &Path, bytes: &[u8], mode: &FileMode) -> io::Result<Change> {
        let same = fs::read(path).is_ok_and(|now| now == bytes) && fs::metadata(path)?.mode() & 0o7777 == mode.mode;
        if same {
            return Ok(Change::Unchanged);
        }
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode.mode))?;
        set_owner(&temporary, mode.owner.as_ref())?;
        fs::rename(&temporary, path)?;
        Ok(Change::Done)
    }

    async fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        found(fs::read(path))
    }

    async fn remove(&self, path: &Path) -> io::Result<Change> {
        Ok(found(fs::remove_file(path))?.map_or(Change::Unchanged, |()| Change::Done))
    }

    async fn make_dir(&self, path: &Path, mode: &FileMode) -> io::Result<Change> {
        let change = if path.is_dir() { Change::Unchanged } else { Change::Done };
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode.mode))?;
        set_owner(path, mode.owner.as_ref())?;
        Ok(change)
    }

    async fn list_dir(&self, path: &Path) -> io::Result<Option<Vec<String>>> {
        let Some(entries) = found(fs::read_dir(path))? else {
            return Ok(None);
        };
        let mut names: Vec<String> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(Some(names))
    }

    async fn clear_dir(&self, path: &Path) -> io::Result<Change> {
        let mut change = Change::Unchanged;
        for entry in found(fs::read_dir(path))?.into_iter().flatten() {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?
            } else {
                fs::remove_file(entry.path())?
            }
            change = Change::Done;
        }
        Ok(change)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    async fn remove_tree(&self, path: &Path) -> io::Result<Change> {
        Ok(found(fs::remove_dir_all(path))?.map_or(Change::Unchanged, |()| Change::Done))
    }

    /// `xargs` runs a command at the end of its input; the limit is only ours.
    async fn dead_man(&self, cmd: Cmd, limit: Duration) -> Result<DeadMan, ExecError> {
        let program = cmd.program.clone();
        let start = |source| ExecError::Start {
            program: program.clone(),
            source,
        };
        let args: Vec<String> = [program.display().to_string()].into_iter().chain(cmd.args).collect();
        let mut command = command(Path::new("/usr/bin/xargs"), &args, None).map_err(start)?;
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(start)?;
        let (near, mut far) = tokio::io::duplex(1);
        let pipe = child.stdin.take();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(limit, far.read_u8()).await;
            drop(pipe);
        });
        let end = async move {
            let ended = child.wait_with_output().await;
            judged(program.clone(), ended.map_err(|source| ExecError::Start { program, source })?)
        };
        Ok(DeadMan::new(Box::new(near), end))
    }

    async fn read_tail(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        Ok(found(fs::read(path))?.map(|bytes| bytes[bytes.len().saturating_sub(limit)..].to_vec()))
    }

    async fn read_range(&self, path: &Path, offset: u64, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(mut file) = found(fs::File::open(path))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.seek(io::SeekFrom::Start(offset))?;
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    async fn append(&self, path: &Path, bytes: Vec<u8>) -> io::Result<u64> {
        fs::OpenOptions::new().append(true).open(path)?.write_all(&bytes)?;
        Ok(fs::metadata(path)?.len())
    }

    async fn free_space(&self, _path: &Path) -> io::Result<u64> {
        Ok(self
            .free_space
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or(u64::MAX))
    }

    async fn chown_tree(&self, path: &Path, owner: &Owner) -> io::Result<Change> {
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            if !path.is_symlink() && path.is_dir() {
                todo.extend(fs::read_dir(&path)?.flatten().map(|entry| entry.path()));
            }
            let (uid, gid) = ids(&owner.user)?;
            lchown(&path, Some(uid), Some(gid))?;
        }
        Ok(Change::Done)
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn judged(program: PathBuf, output: std::process::Output) -> Result<Output, ExecError> {
    let stderr_tail = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(ExecError::Exit {
            program,
            status: output.status.to_string(),
            code: output.status.code(),
            stderr_tail,
        });
    }
    Ok(Output {
        stdout: output.stdout,
        stderr_tail,
    })
}

/// A command in its own process group, as `user` if the test may choose one.
fn command(program: &Path, args: &[String], user: Option<&str>) -> io::Result<Command> {
    #[expect(clippy::disallowed_methods, reason = "this is the host of tests")]
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .process_group(0);
    if let Some(user) = user.filter(|_| is_root()) {
        let (uid, gid) = ids(user)?;
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

async fn terminate(pid: u32) -> io::Result<()> {
    let mut kill = command(Path::new("/bin/kill"), &["-TERM".to_owned(), pid.to_string()], None)?;
    kill.status().await.map(drop)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn set_owner(path: &Path, owner: Option<&Owner>) -> io::Result<()> {
    let Some(owner) = owner.filter(|_| is_root()) else {
        return Ok(());
    };
    let (uid, gid) = ids(&owner.user)?;
    chown(path, Some(uid), Some(gid))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// User and group id from the system's own list.
fn ids(user: &str) -> io::Result<(u32, u32)> {
    let list = fs::read_to_string("/etc/passwd")?;
    let line = list.lines().find_map(|line| line.strip_prefix(user)?.strip_prefix(':'));
    let mut fields = line.unwrap_or_default().split(':').skip(1).map(|field| field.parse().ok());
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("there is no user {user}"));
    Ok((
        fields.next().flatten().ok_or_else(unknown)?,
        fields.next().flatten().ok_or_else(unknown)?,
    ))
}
