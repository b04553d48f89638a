//! Configuration in three steps: fragments (files as they are), merged inputs, validated settings.
//!
//! Owns: oslo.config's file format and precedence, our own sections, the list of all problems with file and line. Uses: each
//! room's own `Settings`. Never does: I/O beyond reading the files named.
//!
//! ```text
//! files ─► parser ─► fragments ─┐
//! command line, environment ────┴► merge ($name, old names) ─► reader (types) ─► build ─► Settings
//!                                     every step ─► Report: problems, files, values with origin, ignored options
//! ```
//!
//! Loading never stops at the first problem. Files of the control plane hold many options that are not ours: they are ignored
//! and listed. In our own section [`OWN`] an unknown option is an error.

mod backup;
mod build;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod ignored;
mod merge;
mod messaging;
mod network;
mod pair;
pub mod parser;
mod reader;
mod report;
mod schema;
mod settings;
pub mod types;

pub use files::MAX_FILE;
pub use network::{Addressing, DataNetwork, Route};
pub use report::{FileRead, Ignored, Origin, Problem, Report, Resolved, SECRET, Severity};
pub use schema::{DRIVER, OWN};
pub use settings::{AgentSettings, DataInterface, DatastoreSettings, LogSettings, PairSettings, Settings, SslMode, Supervisor};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `--config-file` or `--config-dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One file.
    File(PathBuf),
    /// All `*.conf` of a folder, sorted by name.
    Dir(PathBuf),
}

/// A value given on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Section, `DEFAULT` for the options of logging.
    pub group: String,
    /// Option, with underscores.
    pub option: String,
    /// Value.
    pub value: String,
}

/// Answers the value of an environment variable.
pub type Environment = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where settings come from.
pub struct Sources {
    /// Files and folders in the order of the command line. Without a file upstream's default files are read first.
    pub files: Vec<Source>,
    /// Values of the command line.
    pub overrides: Vec<Override>,
    /// The environment (`OS_<GROUP>__<OPTION>`).
    pub env: Environment,
    /// Name of the program, which default files and the log file are named by.
    pub program: String,
    /// Home folder of the user.
    pub home: PathBuf,
}

/// What loading answers.
#[derive(Debug)]
pub struct Loaded {
    /// The settings, if there is no error.
    pub settings: Option<Settings>,
    /// Everything that was found.
    pub report: Report,
}

/// Reads and checks everything. Blocks for the time of reading a few small files.
#[must_use]
pub fn load(sources: &Sources) -> Loaded {
    load_with(sources, Path::new("/etc"))
}

fn load_with(sources: &Sources, etc: &Path) -> Loaded {
    let mut report = Report::default();
    let fragments = files::read_all(sources, etc, &mut report);
    let inputs = merge::Inputs {
        fragments,
        overrides: &sources.overrides,
        env: &*sources.env,
        url: Vec::new(),
        datastore: String::new(),
        defaults: BTreeMap::new(),
    };
    let mut reader = reader::Reader::new(inputs, report);
    let settings = build::build(&mut reader, sources);
    let mut report = reader.finish();
    report.sort();
    Loaded {
        settings: (!report.has_errors()).then_some(settings),
        report,
    }
}
