//! Cases of configuration.

use super::{Bench, Outcome, is_equal, is_error, words};
use crate::{Change, ConfigEffect, ConfigOverrides, Configuration, ErrorKind};
use serde_json::{Map, Value, json};

fn configuration(bench: &Bench) -> Result<&dyn Configuration, String> {
    bench
        .datastore
        .configuration()
        .ok_or_else(|| "the driver has no configuration".to_owned())
}

fn one(name: &str, value: &Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value.clone())])
}

/// Stored, applied, and in force again after a restart.
pub(super) async fn parameters(bench: &Bench) -> Outcome {
    let configuration = configuration(bench)?;
    let (name, first, second) = &bench.setup.live;
    let store = |remove, values| ConfigOverrides { remove, values };
    let stored = configuration.update_overrides(&store(true, one(name, first))).await;
    is_equal("store", stored.map_err(words)?, Change::Done)?;
    let stored = configuration.update_overrides(&store(false, one(name, first))).await;
    is_equal("store again", stored.map_err(words)?, Change::Unchanged)?;
    let applied = configuration.apply_overrides(&one(name, first)).await;
    is_equal("apply", applied.map_err(words)?, ConfigEffect::Live)?;
    let applied = configuration.apply_overrides(&one(name, first)).await;
    is_equal("apply again", applied.map_err(words)?, ConfigEffect::Unchanged)?;
    configuration.apply_overrides(&one(name, second)).await.map_err(words)?;
    bench.datastore.restart().await.map_err(words)?;
    let applied = configuration.apply_overrides(&one(name, first)).await;
    is_equal(
        "the stored value is in force after a restart",
        applied.map_err(words)?,
        ConfigEffect::Unchanged,
    )?;
    let (later, value) = &bench.setup.restart;
    configuration
        .update_overrides(&store(false, one(later, value)))
        .await
        .map_err(words)?;
    let applied = configuration.apply_overrides(&one(later, value)).await;
    is_equal(
        "a fixed parameter",
        applied.map_err(words)?,
        ConfigEffect::RestartRequired(vec![(*later).to_owned()]),
    )?;
    bench.datastore.restart().await.map_err(words)?;
    configuration
        .update_overrides(&store(true, Map::new()))
        .await
        .map_err(words)?;
    bench.datastore.restart().await.map_err(words)
}

/// Refused with the parameter's name, and nothing stored.
pub(super) async fn bad_parameters(bench: &Bench) -> Outcome {
    let configuration = configuration(bench)?;
    let (good, value, _) = &bench.setup.live;
    for (bad, wrong) in [
        ("no such\nthing", json!(1)),
        ("x; DROP", json!(1)),
        (good, json!(null)),
        (good, json!([1])),
        ("", json!(1)),
    ] {
        let mut values = one(bad, &wrong);
        values.entry("zz_innocent").or_insert(value.clone());
        let wanted = ConfigOverrides {
            remove: false,
            values: values.clone(),
        };
        is_error(
            &format!("store {bad:?}"),
            configuration.update_overrides(&wanted).await,
            ErrorKind::Invalid,
        )?;
        is_error(
            &format!("apply {bad:?}"),
            configuration.apply_overrides(&values).await,
            ErrorKind::Invalid,
        )?;
    }
    let removed = configuration
        .update_overrides(&ConfigOverrides {
            remove: true,
            values: Map::new(),
        })
        .await;
    is_equal("what was stored", removed.map_err(words)?, Change::Unchanged)
}
