//! The recording client of the proving ground: writes a sequence at a steady pace and notes what was acknowledged, when and by whom.
//!
//! An id is tried until it is acknowledged, over new connections after any error; a duplicate key then means that an earlier try
//! was carried out. One line a fact goes to the record (times are microseconds of the monotonic clock, so that they compare with
//! every other process of this machine):
//! ```text
//!   A id server sent acked first tries [dup]     acknowledged: by which server, the good try sent and answered, the first try sent
//!   E time connection kind                       an error
//! ```
//! Ends at the end of its standard input, at SIGTERM or after `--seconds`, and prints a summary as one line of JSON.
#![allow(missing_docs, clippy::unwrap_used, reason = "a measuring tool: what fails ends it")]
#![allow(clippy::print_stdout, reason = "its output is its result")]

mod connection;
mod record;

use clap::Parser;
use connection::{Connection, Place};
use record::{Record, now};
use std::cell::{Cell, RefCell};
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::sleep;

#[derive(Debug, Parser)]
struct Options {
    /// Address to connect to.
    #[arg(long)]
    host: IpAddr,
    #[arg(long, default_value_t = 3306)]
    port: u16,
    #[arg(long)]
    user: String,
    /// File with the password.
    #[arg(long)]
    password_file: PathBuf,
    /// Table with the columns id, payload, server_id.
    #[arg(long, default_value = "lab.seq")]
    table: String,
    /// Where the record goes.
    #[arg(long)]
    record: PathBuf,
    #[arg(long, default_value_t = 1)]
    first_id: u64,
    /// Writes a second, over all connections.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Milliseconds that a connection may take until it can be used.
    #[arg(long, default_value_t = 250)]
    connect_ms: u64,
    /// Milliseconds that a statement may take.
    #[arg(long, default_value_t = 500)]
    statement_ms: u64,
    /// Milliseconds between two tries of one connection.
    #[arg(long, default_value_t = 4)]
    retry_ms: u64,
    /// Try an id only once: what is not acknowledged is left out.
    #[arg(long)]
    once: bool,
    /// Keep a connection through errors of the server, as a client does that holds on to it; only a broken one is replaced.
    #[arg(long)]
    sticky: bool,
    #[arg(long)]
    seconds: Option<u64>,
}

/// What the connections share.
struct Work {
    options: Options,
    place: Place,
    record: RefCell<Record>,
    next_id: Cell<u64>,
    /// When the next write is due.
    due: Cell<u64>,
    ending: Cell<bool>,
}

impl Work {
    /// Waits for the next turn and answers its id; none if it ends. Turns that nobody could take are not made up for.
    async fn turn(&self) -> Option<u64> {
        let interval = 1_000_000 / u64::from(self.options.rate.max(1));
        let due = self.due.get().max(now());
        self.due.set(due + interval);
        let wait = due.saturating_sub(now());
        if wait > 0 {
            sleep(Duration::from_micros(wait)).await;
        }
        if self.ending.get() {
            return None;
        }
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        Some(id)
    }

    async fn run(self: Rc<Self>, number: usize) {
        let mut connection = Connection::default();
        while let Some(id) = self.turn().await {
            let (first, mut tries) = (now(), 0);
            loop {
                tries += 1;
                let (sent, outcome) = connection.insert(&self.place, id).await;
                match outcome {
                    Ok(server) => {
                        let mut record = self.record.borrow_mut();
                        record.acknowledged(id, server, sent, first, tries);
                        break;
                    }
                    Err(kind) => self.record.borrow_mut().failed(number, &kind),
                }
                if self.ending.get() || self.options.once {
                    break;
                }
                sleep(Duration::from_millis(self.options.retry_ms)).await;
            }
        }
    }
}

/// Ends at the end of standard input (the one who started us is gone) or by signal.
async fn told_to_end(seconds: Option<u64>) {
    let (tx, rx) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().lock().read_to_end(&mut rest);
        let _ = tx.send(());
    });
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let limit = sleep(Duration::from_secs(seconds.unwrap_or(u64::from(u32::MAX))));
    tokio::select! {
        _ = rx => {}
        _ = term.recv() => {}
        () = limit => {}
    }
}

async fn run(options: Options) {
    let password = std::fs::read_to_string(&options.password_file).unwrap();
    let place = Place::new(
        (options.host, options.port),
        (&options.user, password.trim()),
        &options.table,
        (options.connect_ms, options.statement_ms),
        options.sticky,
    );
    let work = Rc::new(Work {
        record: RefCell::new(Record::open(&options.record)),
        place,
        next_id: Cell::new(options.first_id),
        due: Cell::new(0),
        ending: Cell::new(false),
        options,
    });
    let mut connections = tokio::task::JoinSet::new();
    for number in 0..work.options.connections {
        connections.spawn_local(Rc::clone(&work).run(number));
    }
    let flusher = Rc::clone(&work);
    tokio::task::spawn_local(async move {
        loop {
            sleep(Duration::from_millis(20)).await;
            flusher.record.borrow_mut().flush();
        }
    });
    told_to_end(work.options.seconds).await;
    work.ending.set(true);
    let limit = work.options.statement_ms + work.options.connect_ms + 500;
    let _ = tokio::time::timeout(Duration::from_millis(limit), connections.join_all()).await;
    println!("{}", work.record.borrow_mut().summary());
}

fn main() {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run(options));
    // The thread on standard input and abandoned connections do not matter any more.
    std::process::exit(0);
}
