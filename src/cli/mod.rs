//! The command line: the daemon's options, and the tools for people and programs.
//!
//! Owns: parsing, tables, JSON output, exit codes. Uses: `app` (the daemon), `config`, `bus` (as a client), `rpc::local`, and what a pair is
//! made of: `link`'s keys, `vip`'s addresses. Never
//! does: change the machine itself.

mod args;
mod backup;
mod bus;
mod check;
mod local;
mod methods;
mod output;
mod pair;
mod witness;

pub use args::Cli;

use crate::config::{Loaded, Override, Source, Sources, load};
use anyhow::Context;
use args::{Command, ConductorCommand};
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // Not a command for people, and nothing that could fail may come before it.
    if let Some(code) = crate::host::guard(std::env::args_os()) {
        return code;
    }
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli, &matches) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("trove-guestagent: {error:#}"));
            if error.is::<pair::Usage>() {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let sources = sources(&cli, matches);
    match cli.command {
        None => daemon(load(&sources)),
        Some(Command::Check { json }) => check::run(&load(&sources), json),
        Some(Command::Methods { json, steps, replica }) => methods::run(json, steps.as_deref(), replica),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trove-guestagent", &mut text);
            output::print(&text)
        }
        Some(Command::Status { json, socket }) => local::status(&local::socket(&socket, &sources)?, json),
        Some(Command::Call {
            method,
            json,
            guest,
            timeout,
            compact,
            bus,
            socket,
        }) => {
            let args = output::arguments(&json)?;
            match guest {
                Some(guest) => bus::call(
                    &bus,
                    sources,
                    bus::Call {
                        guest: &guest,
                        method: &method,
                        args,
                        timeout,
                        compact,
                    },
                ),
                None => local::call(&local::socket(&socket, &sources)?, &method, args, timeout, compact),
            }
        }
        Some(Command::Witness(args)) => witness::run(args, cli.daemon.debug),
        Some(Command::Pair { command }) => pair::run(command, sources),
        Some(Command::Backup { command }) => backup::run(command, sources),
        Some(Command::Conductor {
            command:
                ConductorCommand::Watch {
                    json,
                    count,
                    seconds,
                    bus,
                },
        }) => bus::watch(&bus, sources, json, count, seconds),
    }
}

/// The configuration's sources in command-line order.
fn sources(cli: &Cli, matches: &ArgMatches) -> Sources {
    let args = &cli.daemon;
    let positions = |name: &str| matches.indices_of(name).into_iter().flatten().collect::<Vec<_>>();
    let files = positions("config_file")
        .into_iter()
        .zip(args.config_file.iter().cloned().map(Source::File));
    let dirs = positions("config_dir")
        .into_iter()
        .zip(args.config_dir.iter().cloned().map(Source::Dir));
    let mut ordered: Vec<_> = files.chain(dirs).collect();
    ordered.sort_by_key(|(position, _)| *position);
    let mut overrides = Vec::new();
    let mut set = |option: &str, value: String| {
        overrides.push(Override {
            group: "DEFAULT".to_owned(),
            option: option.to_owned(),
            value,
        })
    };
    if args.debug || args.nodebug {
        set("debug", args.debug.to_string());
    }
    if args.use_json || args.nouse_json {
        set("use_json", args.use_json.to_string());
    }
    if let Some(file) = &args.log_file {
        set("log_file", file.display().to_string());
    }
    if let Some(dir) = &args.log_dir {
        set("log_dir", dir.display().to_string());
    }
    Sources {
        files: ordered.into_iter().map(|(_, source)| source).collect(),
        overrides,
        env: Box::new(|name| std::env::var(name).ok()),
        program: "trove-guestagent".to_owned(),
        home: std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default(),
    }
}

fn daemon(loaded: Loaded) -> anyhow::Result<ExitCode> {
    check::complain(&loaded.report);
    let Some(settings) = loaded.settings else {
        anyhow::bail!("the configuration has errors; nothing was started");
    };
    crate::app::start(settings).context("the agent could not run")?;
    Ok(ExitCode::SUCCESS)
}
