//! What is shown: to people, to the control plane, to the tests.

use super::report::Report;
use super::{Pair, PairError, lock};
use crate::vip::door::DoorState;
use datastore_api::chain;
use serde_json::{Value, json};

impl Pair {
    /// Everything about the pair as this guest sees it. Never an error: what cannot be told is null.
    pub async fn status(&self) -> Value {
        let memory = self.memory();
        let spec = memory.spec();
        let wires = self.wires();
        let own = self.data_address();
        let link = lock(&self.0.peer).clone().map(|peer| {
            let heard = peer.heard();
            json!({
                "state": peer.reach().word(),
                "heard_ms_ago": heard.as_ref().map(|(at, _)| at.elapsed().as_millis() as u64),
                "role": heard.as_ref().map(|(_, state)| state.role),
                "generation": heard.as_ref().map(|(_, state)| state.generation),
                "writable": heard.as_ref().map(|(_, state)| state.writable),
                "position": heard.as_ref().and_then(|(_, state)| state.position.clone()),
            })
        });
        let running: Option<Report> = lock(&self.0.running).clone();
        json!({
            "guest_id": self.0.settings.guest_id,
            "data_address": own,
            "management_address": Value::Null,
            "link_port": self.0.settings.link_port,
            "database_port": self.0.datastore.replication().map(datastore_api::Replication::port),
            "role": memory.role.role,
            "writable": memory.role.writable,
            "generation": memory.role.generation,
            "superseded_by": memory.role.superseded_by,
            "switch": memory.role.switch,
            "vip": self.vip_status().await,
            "pair": spec.map(|spec| spec.to_shown()),
            "peer_link": link.unwrap_or_else(|| json!({"state": "none"})),
            "replication": self.replication_status().await.unwrap_or(Value::Null),
            "door": wires.door().map_or_else(|| json!({"state": "none"}), |door| match door.state() {
                Ok(DoorState::Open) => json!({"state": "open"}),
                Ok(DoorState::Closed) => json!({"state": "closed"}),
                Ok(DoorState::Leased(left)) => json!({"state": "leased", "left_ms": left.as_millis() as u64}),
                Err(failure) => json!({"state": "unknown", "reason": chain(&failure)}),
            }),
            "reseed": memory.reseed,
            "last_operation": running.or(memory.last),
            "promotions": memory.promotions,
        })
    }

    /// The service address as this guest sees it.
    pub async fn vip_status(&self) -> Value {
        let memory = self.memory();
        let wires = self.wires();
        let held = wires.holds().await;
        let detail = wires.plane().map(|plane| plane.state().borrow().clone());
        json!({
            "addresses": if memory.vip.is_empty() { &self.0.settings.vip } else { &memory.vip },
            "state": if held { crate::instance::role::VipState::Held } else { memory.role.vip },
            "plane": memory.plane,
            "reason": detail.as_ref().and_then(|detail| detail.reason.clone()),
            "detail": detail,
        })
    }

    /// Replication as the server tells it.
    ///
    /// # Errors
    /// The engine cannot replicate, or does not answer.
    pub async fn replication_status(&self) -> Result<Value, PairError> {
        let status = self.replication()?.status().await?;
        let lag_ms = status.lag.map(|lag| lag.as_millis() as u64);
        let mut value = serde_json::to_value(&status).map_err(|error| PairError::Failed(error.to_string()))?;
        value["lag_ms"] = json!(lag_ms);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("lag");
        }
        Ok(value)
    }
}
