//! Writes log lines from a thread of its own: a log that nobody reads must not stop the agent.
//!
//! Lines wait in a bounded queue; when it is full they are dropped and counted, and the count is written when there is room.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait.
const QUEUE: usize = 4096;

enum Job {
    Line(Vec<u8>),
    Reopen,
    Flush(SyncSender<()>),
}

/// The queue's end that everybody writes to.
pub struct LogFile {
    jobs: SyncSender<Job>,
    dropped: &'static AtomicU64,
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

impl LogFile {
    /// Opens the file, or takes standard error, and starts the thread.
    pub fn start(path: Option<PathBuf>) -> io::Result<Self> {
        let file = path.as_deref().map(open).transpose()?;
        let (jobs, inbox) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("log".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || write_all(&inbox, file, path.as_deref()))?;
        Ok(Self { jobs, dropped: &DROPPED })
    }

    /// Hands over a line.
    pub fn line(&self, bytes: &[u8]) {
        if self.jobs.try_send(Job::Line(bytes.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again, after it was rotated.
    pub fn reopen(&self) {
        let _ = self.jobs.try_send(Job::Reopen);
    }

    /// Waits until everything handed over is written, at most `limit`.
    pub fn flush(&self, limit: Duration) {
        let (done, wait) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(limit);
        }
    }
}

/// Without a reader a FIFO is refused here, and does not hang the start.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    OpenOptions::new().append(true).create(true).custom_flags(flags).open(path)
}

fn write_all(inbox: &Receiver<Job>, mut file: Option<File>, path: Option<&Path>) {
    let write = |file: &mut Option<File>, bytes: &[u8]| match file {
        // What cannot be written is lost; there is nowhere to say so.
        Some(file) => drop(file.write_all(bytes)),
        None => drop(io::stderr().write_all(bytes)),
    };
    while let Ok(job) = inbox.recv() {
        match job {
            Job::Line(bytes) => {
                write(&mut file, &bytes);
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    write(
                        &mut file,
                        format!("{dropped} log lines were dropped: nobody took them in time\n").as_bytes(),
                    );
                }
            }
            Job::Reopen => {
                let Some(path) = path else { continue };
                match open(path) {
                    Ok(opened) => file = Some(opened),
                    Err(error) => {
                        let text = format!("could not open the log file {} again: {error}\n", path.display());
                        write(&mut file, text.as_bytes());
                    }
                }
            }
            Job::Flush(done) => drop(done.try_send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_order_and_go_on_in_a_file_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let log = LogFile::start(Some(path.clone())).unwrap();
        log.line(b"one\n");
        log.line(b"two\n");
        log.flush(Duration::from_secs(10));
        std::fs::rename(&path, dir.path().join("old.log")).unwrap();
        log.reopen();
        log.line(b"three\n");
        log.flush(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(dir.path().join("old.log")).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_refused_and_one_that_is_full_holds_nobody_up() {
        use std::os::unix::fs::FileTypeExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        assert!(LogFile::start(Some(path.clone())).is_err());
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let _reader = OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
        let log = LogFile::start(Some(path)).unwrap();
        let line = vec![b'x'; 1024];
        for _ in 0..3 * QUEUE {
            log.line(&line);
        }
    }
}
