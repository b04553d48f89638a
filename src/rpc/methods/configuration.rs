//! Stored and live configuration (contract section 5.4).

use crate::instance::gate::OpKind;
use crate::rpc::args::{Arg, Object, optional, required};
use crate::rpc::method::{Method, Mode};
use crate::rpc::{Ctx, Op, RpcError};
use datastore_api::{ConfigEffect, ConfigOverrides};
use serde::Deserialize;
use serde_json::{Map, Value};
use tracing::info;

/// `reset_configuration`: replaces the base text, leaves the server alone.
pub struct ResetConfiguration;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct ResetArgs {
    configuration: Object<Contents>,
}

#[derive(Debug, Deserialize)]
struct Contents {
    config_contents: String,
}

impl Method for ResetConfiguration {
    const NAME: &'static str = "reset_configuration";
    const MODE: Mode = Mode::Change(OpKind::Configure);
    const ARGS: &'static [Arg] = &[required("configuration")];
    type Args = ResetArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: ResetArgs) -> Result<(), RpcError> {
        ctx.configuration(Self::NAME)?
            .write_base(&args.configuration.0.config_contents)
            .await?;
        Ok(())
    }
}

/// `update_overrides`: changes the stored user parameters, leaves the server alone.
pub struct UpdateOverrides;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct UpdateArgs {
    #[serde(default)]
    overrides: Option<Map<String, Value>>,
    #[serde(default)]
    remove: Option<bool>,
}

impl Method for UpdateOverrides {
    const NAME: &'static str = "update_overrides";
    const MODE: Mode = Mode::Change(OpKind::Configure);
    const ARGS: &'static [Arg] = &[required("overrides"), optional("remove")];
    type Args = UpdateArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: UpdateArgs) -> Result<(), RpcError> {
        let wanted = ConfigOverrides {
            remove: args.remove.unwrap_or(false),
            values: args.overrides.unwrap_or_default(),
        };
        ctx.configuration(Self::NAME)?.update_overrides(&wanted).await?;
        Ok(())
    }
}

/// `apply_overrides`: sets parameters in the running server.
pub struct ApplyOverrides;

/// Its arguments.
#[derive(Debug, Deserialize)]
pub struct ApplyArgs {
    #[serde(default)]
    overrides: Option<Map<String, Value>>,
}

impl Method for ApplyOverrides {
    const NAME: &'static str = "apply_overrides";
    const MODE: Mode = Mode::Change(OpKind::Configure);
    const ARGS: &'static [Arg] = &[required("overrides")];
    type Args = ApplyArgs;
    type Reply = ();

    async fn run(ctx: &Ctx, _op: &Op, args: ApplyArgs) -> Result<(), RpcError> {
        let values = args.overrides.unwrap_or_default();
        match ctx.configuration(Self::NAME)?.apply_overrides(&values).await? {
            ConfigEffect::Unchanged | ConfigEffect::Live => {}
            // Upstream skips what it cannot set live; its caller knows from its own rules that a restart is due. Nothing is
            // reported as `restart required`: the conductor would drop every heartbeat after it.
            ConfigEffect::RestartRequired(names) => info!(?names, "parameters wait for a restart"),
        }
        Ok(())
    }
}
