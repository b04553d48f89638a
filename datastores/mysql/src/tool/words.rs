//! What the tools say: whether they are through, and why not.

use crate::errors;
use datastore_api::{DriverError, ErrorKind, ExecError};

/// What the backup tool says when it is through.
const COMPLETED: &str = "completed OK!";

/// `Failed` unless the tool's last word is that it is through.
pub(crate) fn check_completed(words: &str) -> Result<(), DriverError> {
    if words.trim_end().lines().last().is_some_and(|line| line.ends_with(COMPLETED)) {
        return Ok(());
    }
    let text = format!("the backup tool ended without a word of success: {}", last_lines(words));
    Err(DriverError::new(ErrorKind::Failed, text))
}

/// An error of a tool: of all that it said, what people need.
pub(crate) fn failed(doing: &'static str) -> impl Fn(ExecError) -> DriverError {
    move |mut error| {
        let words = match &mut error {
            ExecError::Exit { stderr_tail, .. }
            | ExecError::Deadline { stderr_tail, .. }
            | ExecError::Stalled { stderr_tail, .. } => stderr_tail,
            ExecError::Start { .. } => return errors::program(doing, error),
        };
        *words = last_lines(words);
        errors::program(doing, error)
    }
}

/// The last errors in what a program said, or its last line, in one line for people.
pub(crate) fn last_lines(words: &str) -> String {
    let is_error =
        |line: &&str| ["rror", "ERROR", "ailed", "denied"].iter().any(|sign| line.contains(sign)) && !line.contains("setrlimit");
    let mut lines: Vec<&str> = words.lines().filter(is_error).collect();
    if lines.is_empty() {
        lines = words.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(1));
    }
    lines[lines.len().saturating_sub(3)..].join("; ").chars().take(600).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_last_word_decides() {
        check_completed("[00] x Executing BACKUP STAGE END\n[00] x completed OK!\n").unwrap();
        let error = check_completed("[00] completed OK!\n[00] FATAL ERROR: it broke\n").unwrap_err();
        assert!(error.to_string().contains("it broke"), "{error}");
        assert!(check_completed("").is_err());
    }
}
