//! Cases of preparation, start, stop and restart.

use super::{Bench, Outcome, database, is_equal, is_error, user, words};
use crate::{Change, ErrorKind, Health, PageRequest, StopMode};
use std::time::Duration;

const STOP: StopMode = StopMode::Fast {
    limit: Duration::from_secs(60),
};

/// Wrong versions, garbage and foreign data.
pub(super) async fn refusals(bench: &Bench) -> Outcome {
    let mut plan = bench.setup.plan.clone();
    plan.version = Some(bench.setup.other_version.to_owned());
    is_error(
        "another version",
        bench.datastore.check_plan(&plan).await,
        ErrorKind::WrongData,
    )?;
    let mut plan = bench.setup.plan.clone();
    plan.config_contents = Some("[x]\na = \0\n".to_owned());
    is_error(
        "a NUL byte in the configuration",
        bench.datastore.check_plan(&plan).await,
        ErrorKind::Invalid,
    )?;
    let data = bench.datastore.paths().data_dir;
    if data.exists() {
        return Err(format!("{} was made by a mere look", data.display()));
    }
    is_equal("health before preparation", bench.datastore.health().await, Health::Stopped)
}

/// The main path.
pub(super) async fn preparation(bench: &Bench) -> Outcome {
    bench.prepare().await?;
    is_equal("health", bench.datastore.health().await, Health::Healthy)?;
    if bench.datastore.server_version().await.is_none() {
        return Err("the server tells no version".to_owned());
    }
    is_equal(
        "a second start",
        bench.datastore.start().await.map_err(words)?,
        Change::Unchanged,
    )
}

/// Not again, neither at once nor step by step.
pub(super) async fn prepared_twice(bench: &Bench) -> Outcome {
    is_error(
        "preparing again",
        bench.datastore.check_plan(&bench.setup.plan).await,
        ErrorKind::WrongData,
    )
}

/// Verbs and what health says after them.
pub(super) async fn stop_and_start(bench: &Bench) -> Outcome {
    is_equal("stop", bench.datastore.stop(STOP).await.map_err(words)?, Change::Done)?;
    is_equal("health after stop", bench.datastore.health().await, Health::Stopped)?;
    is_equal(
        "stop again",
        bench.datastore.stop(STOP).await.map_err(words)?,
        Change::Unchanged,
    )?;
    is_equal("start", bench.datastore.start().await.map_err(words)?, Change::Done)?;
    is_equal("health after start", bench.datastore.health().await, Health::Healthy)?;
    bench.datastore.restart().await.map_err(words)?;
    is_equal("health after restart", bench.datastore.health().await, Health::Healthy)
}

/// What was made is there for the next agent, and after the server's restart.
pub(super) async fn persistence(bench: &mut Bench) -> Outcome {
    bench
        .accounts()?
        .create_databases(&[database("keep_me")])
        .await
        .map_err(words)?;
    bench
        .accounts()?
        .create_users(&[user("keeper", "%", "keep-pw", &["keep_me"])])
        .await
        .map_err(words)?;
    bench.reopen()?;
    is_equal("health seen by a new agent", bench.datastore.health().await, Health::Healthy)?;
    bench.datastore.restart().await.map_err(words)?;
    bench.reopen()?;
    let found = bench
        .accounts()?
        .find_user(&super::account("keeper", "%"))
        .await
        .map_err(words)?;
    is_equal(
        "databases of the user",
        found.map(|user| user.databases),
        Some(vec!["keep_me".to_owned()]),
    )?;
    let again = bench
        .accounts()?
        .create_users(&[user("keeper", "%", "keep-pw", &["keep_me"])])
        .await;
    is_equal("creating the user again", again.map_err(words)?, Change::Unchanged)
}

/// Verbs on a stopped server come back at once with the right kind.
pub(super) async fn stopped(bench: &Bench) -> Outcome {
    bench.datastore.stop(STOP).await.map_err(words)?;
    let listed = bench.accounts()?.list_databases(&PageRequest::default()).await;
    is_error("a list while stopped", listed, ErrorKind::Unavailable)?;
    let made = bench.accounts()?.create_databases(&[database("too_late")]).await;
    is_error("a database while stopped", made, ErrorKind::Unavailable)
}

/// Each step is done by a new agent, and again by the next one.
pub(super) async fn killed_between_steps(bench: &mut Bench) -> Outcome {
    for index in 0..bench.datastore.prepare_steps().len() {
        for (round, step) in [index.saturating_sub(1), index, index].into_iter().enumerate() {
            bench.reopen()?;
            let step = bench.datastore.prepare_steps()[step];
            let is_last = step == *bench.datastore.prepare_steps().last().unwrap_or(&step);
            if !is_last {
                bench.datastore.check_plan(&bench.setup.plan).await.map_err(words)?;
            }
            let done = bench.datastore.prepare_step(step, &bench.setup.plan).await;
            done.map_err(|error| format!("step {} (repeat {round}): {}", step.0, words(error)))?;
        }
    }
    is_equal("health", bench.datastore.health().await, Health::Healthy)?;
    bench.datastore.stop(STOP).await.map_err(words).map(drop)
}

/// Each step is broken off after a while, a little later each time, until it is done.
pub(super) async fn killed_inside_steps(bench: &mut Bench) -> Outcome {
    for index in 0..bench.datastore.prepare_steps().len() {
        let mut patience = Duration::from_micros(500);
        loop {
            bench.reopen()?;
            let step = bench.datastore.prepare_steps()[index];
            let doing = bench.datastore.prepare_step(step, &bench.setup.plan);
            match tokio::time::timeout(patience, doing).await {
                Ok(done) => {
                    done.map_err(|error| format!("step {} with {patience:?}: {}", step.0, words(error)))?;
                    break;
                }
                Err(_) if patience > Duration::from_secs(120) => return Err(format!("step {} does not end", step.0)),
                Err(_) => patience = patience * 5 / 2,
            }
        }
    }
    is_equal("health", bench.datastore.health().await, Health::Healthy)?;
    let accounts = bench.accounts()?;
    is_equal(
        "a database",
        accounts.create_databases(&[database("after_all")]).await.map_err(words)?,
        Change::Done,
    )?;
    bench.datastore.stop(STOP).await.map_err(words).map(drop)
}
