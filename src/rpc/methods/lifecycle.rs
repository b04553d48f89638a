//! Starting and stopping the database (contract section 5.3).

use crate::conductor::Status;
use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, optional, required};
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::{Health, StopMode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::future::Future;

/// `restart`.
pub struct Restart;

impl Method for Restart {
    const NAME: &'static str = "restart";
    const MODE: Mode = Mode::Change(OpKind::Lifecycle);
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<(), RpcError> {
        planned(ctx, async { ctx.datastore.restart().await.map_err(RpcError::from) }).await
    }
}

/// `stop_db`. The database stays down over a reboot, as upstream's container does.
pub struct StopDb;

/// Arguments of `stop_db`.
#[derive(Debug, Deserialize)]
pub struct StopArgs {
    /// Sent by callers of version 1.0; what it asks for is what happens anyway.
    #[serde(default, rename = "do_not_start_on_reboot")]
    _do_not_start_on_reboot: Option<IgnoredAny>,
}

impl Method for StopDb {
    const NAME: &'static str = "stop_db";
    const MODE: Mode = Mode::Change(OpKind::Stop);
    const ARGS: &'static [Arg] = &[optional("do_not_start_on_reboot")];
    type Args = StopArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, _args: StopArgs) -> Result<(), RpcError> {
        ctx.datastore
            .stop(StopMode::Fast {
                limit: ctx.settings.stop_limit,
            })
            .await?;
        ctx.look().await;
        Ok(())
    }
}

/// `start_db_with_conf_changes`, after a flavor change: new base configuration, overrides stay.
pub struct StartDbWithConfChanges;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct StartArgs {
    #[serde(default)]
    config_contents: Option<String>,
    #[serde(default, rename = "ds_version")]
    _ds_version: Option<IgnoredAny>,
}

impl Method for StartDbWithConfChanges {
    const NAME: &'static str = "start_db_with_conf_changes";
    const MODE: Mode = Mode::Change(OpKind::Lifecycle);
    const ARGS: &'static [Arg] = &[required("config_contents"), optional("ds_version")];
    type Args = StartArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: StartArgs) -> Result<(), RpcError> {
        let configuration = ctx.configuration(Self::NAME)?;
        planned(ctx, async {
            ctx.datastore
                .stop(StopMode::Fast {
                    limit: ctx.settings.stop_limit,
                })
                .await?;
            if let Some(contents) = args.config_contents.filter(|text| !text.trim().is_empty()) {
                configuration.write_base(&contents).await?;
            }
            ctx.datastore.start().await?;
            Ok(())
        })
        .await
    }
}

/// Does something that takes the server down and up again, and reports it when it is healthy. Meanwhile a look at the
/// server's health is nobody's alarm.
async fn planned(ctx: &Ctx, work: impl Future<Output = Result<(), RpcError>>) -> Result<(), RpcError> {
    ctx.publisher.update(|view| view.planned = true);
    let result = work.await;
    ctx.publisher.update(|view| {
        view.planned = false;
        view.restart_required &= result.is_err();
    });
    let health = ctx.look().await;
    result?;
    match health {
        Health::Healthy => {
            ctx.conductor.report_now(Status::Healthy).await;
            Ok(())
        }
        Health::Crashed { reason } | Health::Unknown { reason } => Err(RpcError::new(
            ErrorClass::Trove,
            format!("the database does not run: {reason}"),
        )),
        Health::Starting | Health::Stopped => Err(RpcError::new(ErrorClass::Trove, "the database does not answer")),
    }
}
