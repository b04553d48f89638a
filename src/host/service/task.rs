//! The task that owns one service's process.

use super::process::{self, Seen, Watched};
use super::record::{Record, Run, Spec};
use super::spawn;
use super::supervised::load_or_forget;
use crate::host::{HostError, as_blocking};
use datastore_api::{Change, ServiceId, ServiceSpec, ServiceState, chain};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// First pause before a server that died is started again; doubled with each quick death.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that lived so long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// After so many quick deaths in a row it counts as failed (and is still tried).
const QUICK_DEATHS: u32 = 5;

type Answer = oneshot::Sender<Result<Change, HostError>>;

/// What a service is told to do.
pub(super) enum Order {
    Start(ServiceSpec, Answer),
    Stop(Duration, Answer),
}

/// One service.
pub(super) struct Service {
    id: ServiceId,
    path: PathBuf,
    record: Option<Record>,
    process: Option<Watched>,
    began: Instant,
    quick_deaths: u32,
    retry_at: Option<Instant>,
    state: watch::Sender<ServiceState>,
}

impl Service {
    /// Reads what is remembered and takes hold of the process if it runs. Starts nothing.
    pub(super) async fn open(id: ServiceId, path: PathBuf) -> Result<Self, HostError> {
        let load = path.clone();
        let record = as_blocking(move || load_or_forget(&load)).await?;
        let mut service = Self {
            id,
            path,
            record,
            process: None,
            began: Instant::now(),
            quick_deaths: 0,
            retry_at: None,
            state: watch::Sender::new(ServiceState::Stopped),
        };
        service.process = service.find().await?;
        let state = match (&service.process, service.wanted()) {
            (Some(process), _) => ServiceState::Running { pid: process.pid() },
            (None, true) => ServiceState::Failed {
                last_exit: "was not running when the agent started".to_owned(),
            },
            (None, false) => ServiceState::Stopped,
        };
        if let Some(process) = &service.process {
            tracing::info!(service = %service.id.0, pid = process.pid(), "running service adopted");
        }
        service.state.send_replace(state);
        Ok(service)
    }

    pub(super) fn watch(&self) -> watch::Receiver<ServiceState> {
        self.state.subscribe()
    }

    /// Serves until the supervisor is dropped.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    // A caller that went away does not stop the work it ordered.
                    Some(Order::Start(spec, answer)) => { let _ = answer.send(self.start(&spec).await); }
                    Some(Order::Stop(limit, answer)) => { let _ = answer.send(self.stop(limit).await); }
                    None => return,
                },
                () = ended(self.process.as_ref()) => self.ended().await,
                () = due(self.retry_at) => self.retry().await,
            }
        }
    }

    fn wanted(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.wanted)
    }

    async fn start(&mut self, spec: &ServiceSpec) -> Result<Change, HostError> {
        let before = self.record.clone();
        let mut record = before.clone().unwrap_or_else(|| Record::new(spec));
        record.wanted = true;
        record.spec = Spec::from(spec);
        if let Some(pid) = self.process.as_ref().map(Watched::pid) {
            if Some(&record) == before.as_ref() {
                return Ok(Change::Unchanged);
            }
            self.remember_process(record, pid).await?;
            return Ok(Change::Done);
        }
        self.record = Some(record);
        self.retry_at = None;
        self.quick_deaths = 0;
        if let Err(error) = self.launch().await {
            self.state.send_replace(ServiceState::Failed {
                last_exit: chain(&error),
            });
            return Err(error);
        }
        Ok(Change::Done)
    }

    async fn stop(&mut self, limit: Duration) -> Result<Change, HostError> {
        let was_wanted = self.wanted();
        if let Some(record) = self.record.clone().filter(|record| record.wanted) {
            // First on disk: an agent that dies in the middle of this must not find a wanted service.
            self.remember(Record { wanted: false, ..record }).await?;
        }
        self.retry_at = None;
        let Some(process) = &self.process else {
            self.state.send_replace(ServiceState::Stopped);
            return Ok(if was_wanted { Change::Done } else { Change::Unchanged });
        };
        process.signal(Signal::TERM)?;
        if timeout(limit, process.ended()).await.is_err() {
            tracing::warn!(service = %self.id.0, pid = process.pid(), ?limit, "service did not stop in time and is killed");
            process.signal(Signal::KILL)?;
            process.killed().await?;
        }
        self.ended().await;
        self.end_leftovers().await?;
        Ok(Change::Done)
    }

    /// The process has ended: collects it, and decides what comes next.
    async fn ended(&mut self) {
        let Some(process) = self.process.take() else { return };
        let last_exit = process.collect();
        if self.began.elapsed() >= WELL_AFTER {
            self.quick_deaths = 0;
        }
        if self.wanted() {
            self.try_later(last_exit);
            return;
        }
        tracing::info!(service = %self.id.0, last_exit, "service stopped");
        self.state.send_replace(ServiceState::Stopped);
        if let Some(record) = self.record.clone()
            && let Err(error) = self
                .remember(Record {
                    run: Run::Down,
                    ..record
                })
                .await
        {
            // Harmless: the number on disk has a start time that no other process has.
            tracing::warn!(service = %self.id.0, error = chain(&error), "end of the service not recorded");
        }
    }

    fn try_later(&mut self, last_exit: String) {
        self.quick_deaths += 1;
        let pause = FIRST_PAUSE
            .saturating_mul(1 << (self.quick_deaths - 1).min(16))
            .min(LONGEST_PAUSE);
        self.retry_at = Some(Instant::now() + pause);
        tracing::warn!(service = %self.id.0, last_exit, deaths = self.quick_deaths, ?pause, "service died, will be started again");
        self.state.send_replace(if self.quick_deaths > QUICK_DEATHS {
            ServiceState::Failed { last_exit }
        } else {
            ServiceState::Restarting { last_exit }
        });
    }

    async fn retry(&mut self) {
        self.retry_at = None;
        if let Err(error) = self.launch().await {
            self.try_later(chain(&error));
        }
    }

    /// Starts the process: clears what an earlier one left, records the intent, starts, records the process.
    async fn launch(&mut self) -> Result<(), HostError> {
        let Some(record) = self.record.clone() else { return Ok(()) };
        let spec = record.spec.with_id(&self.id);
        self.end_leftovers().await?;
        self.remember(Record {
            run: Run::Starting,
            ..record.clone()
        })
        .await?;
        let mark = self.mark();
        let pid = as_blocking(move || spawn::spawn(&spec, &mark)).await?;
        // From here on it runs; it cannot be mistaken because nobody but us collects it.
        let process = Watched::open(pid)?;
        self.began = Instant::now();
        self.state.send_replace(ServiceState::Running { pid });
        self.process = Some(process);
        tracing::info!(service = %self.id.0, pid, "service started");
        if let Err(error) = self.remember_process(record, pid).await {
            // `Starting` is on disk: a restarted agent looks for the mark.
            tracing::warn!(service = %self.id.0, error = chain(&error), "process of the service not recorded");
        }
        Ok(())
    }

    async fn remember_process(&mut self, record: Record, pid: u32) -> Result<(), HostError> {
        // One that has ended already needs no record.
        let Some(Seen { start_time, .. }) = process::look(pid) else {
            return Ok(());
        };
        let run = Run::Up {
            pid,
            start_time,
            boot_id: process::boot_id()?,
        };
        self.remember(Record { run, ..record }).await
    }

    async fn remember(&mut self, record: Record) -> Result<(), HostError> {
        let (path, saved) = (self.path.clone(), record.clone());
        as_blocking(move || saved.save(&path)).await?;
        self.record = Some(record);
        Ok(())
    }

    /// The running process: by the number on record, or, if we may have died between starting and recording, by its mark.
    async fn find(&mut self) -> Result<Option<Watched>, HostError> {
        let run = self.record.as_ref().map(|record| record.run.clone());
        let seen = match &run {
            Some(Run::Down) => None,
            Some(Run::Up {
                pid,
                start_time,
                boot_id,
            }) => process::look(*pid)
                .filter(|seen| seen.start_time == *start_time)
                .filter(|_| process::boot_id().is_ok_and(|now| now == *boot_id)),
            Some(Run::Starting) | None => process::leader(&self.marked().await?),
        };
        let Some(seen) = seen else { return Ok(None) };
        let process = match Watched::open(seen.pid) {
            Ok(process) => process,
            // It ended just now.
            Err(HostError::Process { source, .. }) if source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Now that we hold it: still the same?
        if process::look(seen.pid) != Some(seen) && process::look(seen.pid).map(|now| now.start_time) != Some(seen.start_time) {
            return Ok(None);
        }
        if let (Some(Run::Starting), Some(record)) = (&run, self.record.clone()) {
            self.remember_process(record, seen.pid).await?;
        }
        Ok(Some(process))
    }

    fn mark(&self) -> String {
        self.path.display().to_string()
    }

    async fn marked(&self) -> Result<Vec<Seen>, HostError> {
        let mark = self.mark();
        as_blocking(move || process::marked(spawn::MARK, |value| value == mark.as_bytes())).await
    }

    /// Kills what a dead server left behind; a second server must not meet it on the same data.
    async fn end_leftovers(&self) -> Result<(), HostError> {
        process::end(&self.marked().await?).await
    }
}

async fn ended(process: Option<&Watched>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
