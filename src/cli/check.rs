//! `check`: the configuration's report.

use super::output;
use crate::config::{Loaded, Origin, Report, Severity};
use std::fmt::Write;
use std::process::ExitCode;

/// Prints every problem, which file won, and what was ignored. Exit code 1 if the agent would not start with it.
pub fn run(loaded: &Loaded, json: bool) -> anyhow::Result<ExitCode> {
    let report = &loaded.report;
    let mut failed = report.has_errors();
    let mut driver = None;
    if let Some(settings) = &loaded.settings
        && let Err(error) = crate::app::check_driver(settings)
    {
        failed = true;
        driver = Some(format!("{error:#}"));
    }
    if json {
        let value = serde_json::json!({"report": report, "driver": driver, "ok": !failed});
        output::json(&value, false)?;
    } else {
        output::print(render(report, driver.as_deref()).as_bytes())?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the problems on standard error, for commands that need the configuration.
pub fn complain(report: &Report) {
    for problem in &report.problems {
        output::complain(&format!("{}: {problem}", word(problem.severity)));
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn render(report: &Report, driver: Option<&str>) -> String {
    let mut out = String::new();
    for file in &report.files {
        let _ = writeln!(out, "file     {} ({})", file.path.display(), file.status);
    }
    for value in report.values.iter().filter(|value| value.origin != Origin::Default) {
        let shown = value.value.as_deref().unwrap_or("");
        let _ = write!(
            out,
            "value    [{}] {} = {shown}  from {}",
            value.group, value.option, value.origin
        );
        for lost in &value.overridden {
            let _ = write!(out, ", not {lost}");
        }
        out.push('\n');
    }
    for ignored in &report.ignored {
        let place = format!("{}:{}", ignored.file.display(), ignored.line);
        let _ = writeln!(out, "ignored  [{}] {}  in {place}", ignored.group, ignored.option);
    }
    for problem in &report.problems {
        let _ = writeln!(out, "{:<8} {problem}", word(problem.severity));
    }
    if let Some(error) = driver {
        let _ = writeln!(out, "error    {error}");
    }
    let errors = report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let errors = errors + usize::from(driver.is_some());
    let warnings = report.problems.len() + usize::from(driver.is_some()) - errors;
    let _ = writeln!(out, "{errors} errors, {warnings} warnings");
    out
}
