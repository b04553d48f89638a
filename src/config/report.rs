//! What was found while loading: every problem, every value with its origin. Never holds a secret.

use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Text shown in place of a secret value.
pub const SECRET: &str = "[secret]";

/// Whether the agent can start with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The agent does not start.
    Error,
    /// It starts; somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// File it is in, if it is in one.
    pub file: Option<PathBuf>,
    /// Line of that file, counted from 1.
    pub line: Option<usize>,
    /// Section, without brackets.
    pub group: Option<String>,
    /// Option.
    pub option: Option<String>,
    /// What is wrong and, where it helps, what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": ")?;
        }
        match (&self.group, &self.option) {
            (Some(group), Some(option)) => write!(f, "[{group}] {option}: ")?,
            (Some(group), None) => write!(f, "[{group}]: ")?,
            (None, _) => {}
        }
        f.write_str(&self.text)
    }
}

/// A file that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRead {
    /// Which.
    pub path: PathBuf,
    /// `read`, or why not.
    pub status: String,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
    },
    /// This environment variable.
    Env(String),
    /// The command line.
    CommandLine,
    /// The query part of `transport_url`.
    TransportUrl,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::CommandLine => f.write_str("command line"),
            Origin::TransportUrl => f.write_str("transport_url"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// The value in force of an option the agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Section.
    pub group: String,
    /// Option.
    pub option: String,
    /// Value; [`SECRET`] for a secret that is set, `None` if it is unset.
    pub value: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// Files that also set it and lost, newest first.
    pub overridden: Vec<Origin>,
}

/// An option in a file that the agent does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ignored {
    /// File.
    pub file: PathBuf,
    /// Line, counted from 1.
    pub line: usize,
    /// Section.
    pub group: String,
    /// Option.
    pub option: String,
}

/// Everything found while loading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Errors and warnings, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// Files looked at, in the order they are applied: a later one wins.
    pub files: Vec<FileRead>,
    /// Every option the agent knows, with its value.
    pub values: Vec<Resolved>,
    /// Options of the control plane's files that are not for us.
    pub ignored: Vec<Ignored>,
}

impl Report {
    /// Whether the agent cannot start.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Puts problems in the order of the files and of their lines; those of no file come first.
    pub(super) fn sort(&mut self) {
        let files: Vec<PathBuf> = self.files.iter().map(|file| file.path.clone()).collect();
        let rank = |file: &PathBuf| files.iter().rposition(|known| known == file).unwrap_or(files.len());
        self.problems
            .sort_by_key(|problem| (problem.file.as_ref().map(rank), problem.line));
    }

    /// Adds a problem of a file.
    pub(super) fn in_file(&mut self, severity: Severity, file: impl Into<PathBuf>, line: Option<usize>, text: impl Into<String>) {
        let file = Some(file.into());
        self.problems.push(Problem {
            severity,
            file,
            line,
            group: None,
            option: None,
            text: text.into(),
        });
    }

    /// Adds a problem of an option, placed where its value comes from.
    pub(super) fn of_option(&mut self, severity: Severity, group: &str, option: &str, origin: &Origin, text: impl Into<String>) {
        let (file, line) = match origin {
            Origin::File { path, line } => (Some(path.clone()), Some(*line)),
            _ => (None, None),
        };
        let mut text = text.into();
        if matches!(origin, Origin::Env(_) | Origin::CommandLine | Origin::TransportUrl) {
            text = format!("{text} ({origin})");
        }
        let (group, option) = (Some(group.to_owned()), Some(option.to_owned()));
        self.problems.push(Problem {
            severity,
            file,
            line,
            group,
            option,
            text,
        });
    }
}
