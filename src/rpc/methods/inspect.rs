//! Quick looks: ping, hardware, the agent's own figures and status.

use crate::bus::BusState;
use crate::host;
use crate::instance::{Operation, Phase};
use crate::rpc::args::Arg;
use crate::rpc::method::{Method, Mode, NoArgs};
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use datastore_api::Health;
use serde_json::{Value, json};

/// `rpc_ping`.
pub struct RpcPing;

impl Method for RpcPing {
    const NAME: &'static str = "rpc_ping";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = bool;

    async fn run(_ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<bool, RpcError> {
        Ok(true)
    }
}

/// `get_hwinfo` (contract section 6.9; upstream's agent has no such method, its API shows the answer).
pub struct GetHwinfo;

impl Method for GetHwinfo {
    const NAME: &'static str = "get_hwinfo";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(_ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        let hardware =
            host::hardware().map_err(|error| RpcError::caused(ErrorClass::Trove, "could not look at the machine", error))?;
        Ok(json!({"mem_total": hardware.mem_total, "num_cpus": hardware.num_cpus}))
    }
}

/// `get_diagnostics` (contract section 6.9).
pub struct GetDiagnostics;

impl Method for GetDiagnostics {
    const NAME: &'static str = "get_diagnostics";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(_ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        let figures = host::process_figures()
            .map_err(|error| RpcError::caused(ErrorClass::Trove, "could not read the agent's own figures", error))?;
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "fd_size": figures.fd_size,
            "vm_size": figures.vm_size,
            "vm_peak": figures.vm_peak,
            "vm_rss": figures.vm_rss,
            "vm_hwm": figures.vm_hwm,
            "threads": figures.threads,
        }))
    }
}

/// `get_status`, ours: what the `status` command shows.
pub struct GetStatus;

impl Method for GetStatus {
    const NAME: &'static str = "get_status";
    const MODE: Mode = Mode::Query;
    const ARGS: &'static [Arg] = &[];
    type Args = NoArgs;
    type Reply = Value;

    async fn run(ctx: &Ctx, _op: &Op, _args: NoArgs) -> Result<Value, RpcError> {
        if ctx.publisher.now().phase == Phase::Ready {
            ctx.look().await;
        }
        let view = ctx.publisher.now();
        let (health, reason) = match &view.health {
            None => ("not looked at", None),
            Some(Health::Healthy) => ("healthy", None),
            Some(Health::Starting) => ("starting", None),
            Some(Health::Stopped) => ("stopped", None),
            Some(Health::Crashed { reason }) => ("crashed", Some(reason.clone())),
            Some(Health::Unknown { reason }) => ("unknown", Some(reason.clone())),
        };
        let recent = ctx.journal.recent(5).await.unwrap_or_default();
        let recent: Vec<_> = recent
            .iter()
            .map(|record| {
                let state = match (&record.outcome, record.answered) {
                    (None, _) => "running",
                    (Some(crate::journal::Outcome::Done(_)), _) => "done",
                    (Some(crate::journal::Outcome::Failed(_)), _) => "failed",
                };
                json!({"id": record.id.0, "method": record.method, "state": state, "accepted": record.accepted, "steps": record.steps})
            })
            .collect();
        let bus = match &*ctx.bus_state.borrow() {
            BusState::Up { broker } => format!("up ({broker})"),
            BusState::Down(reason) => format!("down ({reason})"),
        };
        let version = ctx.datastore.server_version().await;
        Ok(json!({
            "guest_id": ctx.settings.guest_id,
            "datastore": ctx.settings.manager,
            "server_version": version,
            "agent_version": env!("CARGO_PKG_VERSION"),
            "bus": bus,
            "phase": view.phase,
            "health": health,
            "reason": reason,
            "operation": view.operation.map(shown),
            "role_operation": view.role_operation.map(shown),
            "backup_operation": view.backup_operation.map(shown),
            "waiting": view.waiting,
            "restart_required": view.restart_required,
            "unfinished": ctx.journal.depth(),
            "recent": recent,
        }))
    }
}

fn shown(op: Operation) -> Value {
    json!({"id": op.id, "method": op.method, "step": op.step})
}
