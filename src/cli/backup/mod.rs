//! `backup`: what an operator does with backups, over the bus or on the guest's own machine.

mod args;
mod follow;
mod render;

pub use args::BackupCommand;

use super::pair::{Guests, Usage, Way, way};
use super::{bus, output};
use crate::backup::BackupId;
use crate::config::Sources;
use args::{CommonArgs, CreateArgs, FormatArg, WhichArgs};
use follow::Job;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Runs a command.
pub fn run(command: BackupCommand, sources: Sources) -> anyhow::Result<ExitCode> {
    let question = Question::of(command)?;
    bus::runtime()?.block_on(async {
        match way(&question.common.target, sources).await? {
            Way::Bus(guests, guest) => answer(&*guests, &guest, &question).await,
            Way::Socket(guests) => answer(&guests, "on this machine", &question).await,
        }
    })
}

/// What is asked, and how its answer is shown.
struct Question {
    method: &'static str,
    args: Map<String, Value>,
    /// Id, and word for what is done, of what takes long.
    job: Option<(String, &'static str)>,
    render: fn(&Value) -> String,
    common: CommonArgs,
}

impl Question {
    fn of(command: BackupCommand) -> anyhow::Result<Self> {
        Ok(match command {
            BackupCommand::Create(args) => Self::create(*args)?,
            BackupCommand::List { all, common } => Self::short(
                "list_backups",
                json!({"all": all, "storage": common.storage}),
                render::list,
                common,
            ),
            BackupCommand::Show { which, common } => {
                let args = one(&which, &common)?;
                Self::short("list_backups", args, render::show, common)
            }
            BackupCommand::Restore {
                force,
                to,
                id,
                location,
                common,
            } => {
                let which = WhichArgs { id, location };
                let mut args = one(&which, &common)?;
                if to.latest {
                    args["latest"] = json!(true);
                }
                args["force"] = json!(force);
                for (key, value) in [
                    ("to_time", to.to_time),
                    ("to_gtid", to.to_gtid),
                    ("before_gtid", to.before_gtid),
                ] {
                    if let Some(value) = value {
                        args[key] = json!(value);
                    }
                }
                Self::long("restore_backup", args, name(&which), "restore", render::restored, common)
            }
            BackupCommand::Verify { which, common } => {
                let args = one(&which, &common)?;
                Self::long("verify_backup", args, name(&which), "verify", render::verified, common)
            }
            BackupCommand::Cancel { id, common } => {
                let args = id.map_or_else(|| Ok(json!({})), |id| uuid(&id).map(|id| json!({"id": id})))?;
                Self::short("cancel_backup", args, render::cancelled, common)
            }
            BackupCommand::Prune { dry_run, common } => {
                let args = json!({"dry_run": dry_run, "storage": common.storage});
                Self::short("prune_backups", args, render::pruned, common)
            }
            BackupCommand::Window { common } => {
                let args = json!({"storage": common.storage});
                Self::short("get_recovery_window", args, render::window, common)
            }
        })
    }

    fn create(args: CreateArgs) -> anyhow::Result<Self> {
        let id = match &args.id {
            Some(id) => uuid(id)?,
            None => BackupId::random()?.to_string(),
        };
        let parent = match (args.incremental, &args.parent) {
            (true, _) => Some("last".to_owned()),
            (false, Some(parent)) => Some(uuid(parent)?),
            (false, None) => None,
        };
        let mut ours = Map::new();
        let mut put = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                ours.insert(key.to_owned(), Value::from(value));
            }
        };
        put("parent", parent);
        put("storage", args.common.storage.clone());
        put(
            "format",
            args.format
                .map(|format| if format == FormatArg::Upstream { "upstream" } else { "native" }.to_owned()),
        );
        let info = json!({"id": id, "name": args.name, "trove_guestagent": ours});
        Ok(Self::long(
            "create_backup",
            json!({"backup_info": info}),
            id,
            "backup",
            render::created,
            args.common,
        ))
    }

    fn short(method: &'static str, args: Value, render: fn(&Value) -> String, common: CommonArgs) -> Self {
        let args = if let Value::Object(args) = args { args } else { Map::new() };
        Self {
            method,
            args: args.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            job: None,
            render,
            common,
        }
    }

    fn long(
        method: &'static str,
        args: Value,
        id: String,
        doing: &'static str,
        render: fn(&Value) -> String,
        common: CommonArgs,
    ) -> Self {
        Self {
            job: Some((id, doing)),
            ..Self::short(method, args, render, common)
        }
    }
}

async fn answer(guests: &impl Guests, guest: &str, question: &Question) -> anyhow::Result<ExitCode> {
    let common = &question.common;
    let (method, args) = (question.method, question.args.clone());
    let answer = match &question.job {
        None => {
            // A storage may take longer than a guest.
            let limit = Duration::from_secs(common.target.reach.timeout.max(60));
            guests.ask(guest, method, args, limit).await?
        }
        Some((id, doing)) => {
            let job = Job {
                guests,
                guest,
                id,
                doing,
                quiet: common.json,
            };
            job.run(method, args).await?
        }
    };
    if common.json {
        output::json(&answer, false)?;
    } else {
        output::print((question.render)(&answer).as_bytes())?;
    }
    let is_bad = question.method == "verify_backup" && answer["verified"]["good"] != true;
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn uuid(text: &str) -> anyhow::Result<String> {
    match text.parse::<BackupId>() {
        Ok(id) => Ok(id.to_string()),
        Err(error) => Err(Usage(error.to_string()).into()),
    }
}

fn name(which: &WhichArgs) -> String {
    which.id.clone().or_else(|| which.location.clone()).unwrap_or_default()
}

fn one(which: &WhichArgs, common: &CommonArgs) -> anyhow::Result<Value> {
    let id = which.id.as_deref().map(uuid).transpose()?;
    Ok(json!({"id": id, "location": which.location, "storage": common.storage}))
}
