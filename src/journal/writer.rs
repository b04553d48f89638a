//! The writer thread: takes what waits, writes it in one transaction, and answers when it is on disk.

use super::failpoint::failpoint;
use super::file::Fault;
use super::record::JournalError;
use super::store::{Fail, Store};
use super::write::{Reply, Tables, Write};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tracing::{error, info};

/// How many writes share a transaction.
const BATCH: usize = 128;

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

struct Asked {
    doing: &'static str,
    write: Write,
    answer: Answer<Reply>,
}

enum Job {
    Write(Asked),
    Read(Box<dyn FnOnce(&mut Store) + Send>),
}

/// The writer's handle. Dropping it writes what waits, and closes the file.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(store: Store) -> Result<Self, JournalError> {
        let (jobs, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(512 << 10)
            .spawn(move || run(store, &waiting))
            .map_err(|source| JournalError::Write {
                doing: "its thread does not start",
                source: source.into(),
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// The write has its place in the queue when this returns, before its answer is waited for.
    pub(super) fn write(
        &self,
        doing: &'static str,
        write: Write,
    ) -> impl Future<Output = Result<Reply, JournalError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Write(Asked { doing, write, answer }));
        async move { answered.await.unwrap_or_else(|_| Err(write_error(doing, &ended()))) }
    }

    pub(super) async fn read<T, F>(&self, doing: &'static str, read: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T, Fail> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.send(Job::Read(Box::new(move |store| {
            let result = match store.ready() {
                Ok(_) => guarded(|| read(store)),
                Err(fault) => Err(Fail::Fault(fault)),
            };
            let _ = answer.send(result.map_err(|fail| match fail {
                Fail::Denied(error) => error,
                Fail::Fault(fault) => {
                    store.give_up();
                    read_error(doing, &fault)
                }
            }));
        })));
        answered.await.unwrap_or_else(|_| Err(read_error(doing, &ended())))
    }

    /// Cannot fail while the thread lives; if it does not, the answer's other end is dropped with the job.
    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(mut store: Store, waiting: &Receiver<Job>) {
    let mut well = true;
    let mut next = waiting.recv().ok();
    while let Some(job) = next.take() {
        match job {
            Job::Read(read) => read(&mut store),
            Job::Write(first) => {
                let mut batch = VecDeque::from([first]);
                while batch.len() < BATCH {
                    match waiting.try_recv() {
                        Ok(Job::Write(asked)) => batch.push_back(asked),
                        Ok(read) => {
                            next = Some(read);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let fault = write_batch(&mut store, batch);
                report(&mut well, fault.as_ref());
            }
        }
        if next.is_none() {
            next = waiting.recv().ok();
        }
    }
}

/// Logs when writing stops to work and when it works again.
fn report(well: &mut bool, fault: Option<&Fault>) {
    match (fault, *well) {
        (Some(fault), true) => error!(error = %fault.cause(), "the journal cannot be written"),
        (None, false) => info!("the journal can be written again"),
        _ => {}
    }
    *well = fault.is_none();
}

/// Writes all, or, if that fails, each alone: one that finds no space must not take the small ones with it.
fn write_batch(store: &mut Store, mut batch: VecDeque<Asked>) -> Option<Fault> {
    if batch.len() > 1 {
        match transact(store, batch.make_contiguous()) {
            Ok(replies) => {
                for (asked, reply) in batch.into_iter().zip(replies) {
                    let _ = asked.answer.send(reply);
                }
                return None;
            }
            Err(_) => store.give_up(),
        }
    }
    let mut last = None;
    while let Some(asked) = batch.pop_front() {
        let reply = match transact(store, std::slice::from_ref(&asked)) {
            Ok(mut replies) => {
                last = None;
                replies.pop().unwrap_or(Ok(Reply::Done))
            }
            Err(fault) => {
                store.give_up();
                let error = write_error(asked.doing, &fault);
                last = Some(fault);
                Err(error)
            }
        };
        let _ = asked.answer.send(reply);
    }
    last
}

/// One transaction: all of these are on disk when it answers, or none.
fn transact(store: &mut Store, batch: &[Asked]) -> Result<Vec<Result<Reply, JournalError>>, Fault> {
    let transaction = store.ready()?.begin_write()?;
    let (site, index) = (&store.site, &mut store.index);
    let done = guarded(move || {
        let mut replies = Vec::with_capacity(batch.len());
        let mut tables = Tables::open(&transaction)?;
        let points = abort_points(&tables, batch);
        points.iter().for_each(|name| failpoint(&format!("{name}/before")));
        for asked in batch {
            replies.push(match tables.apply(&asked.write, index, site) {
                Ok(reply) => Ok(reply),
                Err(Fail::Denied(error)) => Err(error),
                Err(fault) => return Err(fault),
            });
        }
        let dirty = tables.dirty;
        drop(tables);
        if dirty {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        points.iter().for_each(|name| failpoint(&format!("{name}/after")));
        Ok(replies)
    });
    match done {
        Ok(replies) => {
            store.publish();
            Ok(replies)
        }
        Err(Fail::Fault(fault)) => Err(fault),
        Err(Fail::Denied(error)) => Err(Fault::Io(io::Error::other(error.to_string()))),
    }
}

/// Names of the abort points these writes pass; none unless the feature is on.
fn abort_points(tables: &Tables<'_>, batch: &[Asked]) -> Vec<String> {
    if !cfg!(feature = "failpoints") {
        return Vec::new();
    }
    let name = |asked: &Asked| {
        let (id, step) = asked.write.step()?;
        let method = match &asked.write {
            Write::Accept(record) => record.method.clone(),
            _ => tables.method(id)?,
        };
        Some(format!("{method}/{step}"))
    };
    batch.iter().filter_map(name).collect()
}

/// The store panics on some kinds of damage; the thread must live.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fail>) -> Result<T, Fail> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Fail::Fault(Fault::Damaged("the store panicked".to_owned()))))
}

fn ended() -> Fault {
    Fault::Io(io::Error::other("the journal is closed"))
}

fn write_error(doing: &'static str, fault: &Fault) -> JournalError {
    JournalError::Write {
        doing,
        source: fault.cause(),
    }
}

fn read_error(doing: &'static str, fault: &Fault) -> JournalError {
    JournalError::Read {
        doing,
        source: fault.cause(),
    }
}
