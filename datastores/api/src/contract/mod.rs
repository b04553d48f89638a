//! The suite that every driver passes against its real server (feature `contract`).
//!
//! Owns: the cases, and [`TestHost`], a small machine for them. Uses: only the traits. Never does: know an engine.
//!
//! A driver's test builds a [`Setup`] per instance it is asked for and calls [`run`]; the [`Report`] prints a line per case.

mod accounts;
mod host;
mod life;
mod paging;
mod roles;
mod settings;

pub use host::TestHost;

use crate::{Account, Accounts, Datastore, DriverContext, DriverEntry, DriverError, ErrorKind, PreparePlan, Secret, User};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the suite needs for one fresh instance.
pub struct Setup {
    /// Context with its own directories, port and instance id.
    pub context: DriverContext,
    /// How to prepare it.
    pub plan: PreparePlan,
    /// A parameter that changes while the server runs, with two values.
    pub live: (&'static str, Value, Value),
    /// A parameter that changes by a restart only, with a value that is not its default.
    pub restart: (&'static str, Value),
    /// A version that is not installed.
    pub other_version: &'static str,
    /// Whether users have a host of their own.
    pub has_hosts: bool,
}

/// Outcome of a case: the sentence says what was wrong.
type Outcome = Result<(), String>;

/// What a run of the suite found.
pub struct Report {
    cases: Vec<(&'static str, Duration, Outcome)>,
}

impl Report {
    /// Fails the test if a case failed.
    ///
    /// # Panics
    /// If a case failed; the text is the whole table.
    pub fn assert_passed(&self) {
        assert!(self.cases.iter().all(|(_, _, outcome)| outcome.is_ok()), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, time, outcome) in &self.cases {
            match outcome {
                Ok(()) => writeln!(f, "ok     {:>7.3} s  {name}", time.as_secs_f64())?,
                Err(why) => writeln!(f, "FAILED {:>7.3} s  {name}: {why}", time.as_secs_f64())?,
            }
        }
        Ok(())
    }
}

/// One instance under test.
pub(crate) struct Bench {
    entry: &'static DriverEntry,
    name: &'static str,
    setup: Setup,
    datastore: Arc<dyn Datastore>,
}

impl Bench {
    fn new(entry: &'static DriverEntry, name: &'static str, setup: Setup) -> Result<Self, String> {
        let datastore = (entry.open)(setup.context.clone(), name).map_err(words)?;
        Ok(Self {
            entry,
            name,
            setup,
            datastore,
        })
    }

    /// The driver as a restarted agent would open it.
    fn reopen(&mut self) -> Outcome {
        self.datastore = (self.entry.open)(self.setup.context.clone(), self.name).map_err(words)?;
        Ok(())
    }

    fn accounts(&self) -> Result<&dyn Accounts, String> {
        self.datastore
            .accounts()
            .ok_or_else(|| "the driver has no accounts".to_owned())
    }

    async fn prepare(&self) -> Outcome {
        self.datastore.check_plan(&self.setup.plan).await.map_err(words)?;
        for step in self.datastore.prepare_steps() {
            self.datastore
                .prepare_step(*step, &self.setup.plan)
                .await
                .map_err(|error| format!("{}: {}", step.0, words(error)))?;
        }
        Ok(())
    }
}

/// Runs every case. `setup` is called once per instance; instances live one after the other.
pub async fn run(entry: &'static DriverEntry, name: &'static str, mut setup: impl FnMut() -> Setup) -> Report {
    let mut report = Report { cases: Vec::new() };
    let mut bench = match Bench::new(entry, name, setup()) {
        Ok(bench) => bench,
        Err(why) => {
            report.cases.push(("the driver opens", Duration::ZERO, Err(why)));
            return report;
        }
    };
    macro_rules! case {
        ($name:literal, $run:expr) => {{
            let start = Instant::now();
            let outcome = $run.await;
            report.cases.push(($name, start.elapsed(), outcome));
        }};
    }
    case!(
        "what cannot be prepared is refused before anything is touched",
        life::refusals(&bench)
    );
    case!("an empty volume becomes a healthy server", life::preparation(&bench));
    if report.cases.iter().all(|(_, _, outcome)| outcome.is_ok()) {
        case!("a prepared volume is not prepared again", life::prepared_twice(&bench));
        case!("stop and start may be repeated", life::stop_and_start(&bench));
        case!(
            "databases are created, listed and dropped, twice each",
            accounts::databases(&bench)
        );
        case!("bad database names change nothing", accounts::bad_databases(&bench));
        case!("users come, change and go, twice each", accounts::users(&bench));
        case!("bad users change nothing", accounts::bad_users(&bench));
        case!("users with odd names and hosts are served", accounts::odd_users(&bench));
        case!("what is reserved stays untouched", accounts::reserved(&bench));
        case!("a user that does not exist is named", accounts::missing_users(&bench));
        case!("root is enabled, disabled and never shown", accounts::root(&bench));
        case!("pages add up to the whole list", paging::pages(&bench));
        case!(
            "the control plane's question whether a name is taken",
            paging::is_taken(&bench)
        );
        case!(
            "parameters take effect, now or at the next start",
            settings::parameters(&bench)
        );
        case!("bad parameters change nothing", settings::bad_parameters(&bench));
        case!("writes are closed and opened again", roles::writes(&bench));
        case!("a server without peers can become a source", roles::alone(&bench));
        case!("everything outlives the agent and the server", life::persistence(&mut bench));
        case!("a stopped server is unavailable, not an obstacle", life::stopped(&bench));
    }
    let mut fresh = |case: &'static str, report: &mut Report| match Bench::new(entry, name, setup()) {
        Ok(bench) => Some(bench),
        Err(why) => {
            report.cases.push((case, Duration::ZERO, Err(why)));
            None
        }
    };
    if let Some(mut bench) = fresh("a preparation killed between steps is resumed", &mut report) {
        case!(
            "a preparation killed between steps is resumed",
            life::killed_between_steps(&mut bench)
        );
    }
    if let Some(mut bench) = fresh("a preparation killed inside a step is resumed", &mut report) {
        case!(
            "a preparation killed inside a step is resumed",
            life::killed_inside_steps(&mut bench)
        );
    }
    report
}

/// An error with its causes.
fn words(error: DriverError) -> String {
    format!("{:?}: {}", error.kind(), crate::chain(&error))
}

/// `Ok` if the result is an error of this kind.
fn is_error<T>(what: &str, result: Result<T, DriverError>, wanted: ErrorKind) -> Outcome {
    match result {
        Err(error) if error.kind() == wanted => Ok(()),
        Err(error) => Err(format!("{what}: wanted {wanted:?}, got {}", words(error))),
        Ok(_) => Err(format!("{what}: wanted {wanted:?}, but it was accepted")),
    }
}

/// `Ok` if both are equal.
fn is_equal<T: PartialEq + fmt::Debug>(what: &str, got: T, wanted: T) -> Outcome {
    if got == wanted {
        Ok(())
    } else {
        Err(format!("{what}: wanted {wanted:?}, got {got:?}"))
    }
}

fn account(name: &str, host: &str) -> Account {
    Account {
        name: name.to_owned(),
        host: host.to_owned(),
    }
}

fn user(name: &str, host: &str, password: &str, databases: &[&str]) -> User {
    User {
        account: account(name, host),
        password: Some(Secret::from(password)),
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn database(name: &str) -> crate::Database {
    crate::Database {
        name: name.to_owned(),
        character_set: None,
        collation: None,
    }
}
