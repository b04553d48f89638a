//! Printing that survives a closed pipe, and reading of JSON arguments.

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// Prints bytes on standard output. A reader that closed the pipe early is no error.
pub fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("could not print"),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// Prints a line on standard error; nothing can be done if that fails.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a value as JSON.
pub fn json(value: &Value, compact: bool) -> anyhow::Result<ExitCode> {
    let mut bytes = if compact {
        serde_json::to_vec(value)
    } else {
        serde_json::to_vec_pretty(value)
    }?;
    bytes.push(b'\n');
    print(&bytes)
}

/// The arguments of a call: a JSON object, or `-` for standard input.
pub fn arguments(text: &str) -> anyhow::Result<Map<String, Value>> {
    let mut input = String::new();
    let text = if text == "-" {
        io::stdin()
            .lock()
            .take(16 << 20)
            .read_to_string(&mut input)
            .context("could not read standard input")?;
        &input
    } else {
        text
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => bail!("--json must be a JSON object, for example '{{\"databases\": []}}'"),
        Err(error) => bail!("--json is not JSON (line {}, column {})", error.line(), error.column()),
    }
}

/// A table for people.
pub fn table<const N: usize>(header: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
