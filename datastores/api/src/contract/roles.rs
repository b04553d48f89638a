//! Replication as far as one server can show it.

use super::{Bench, Outcome, database, is_equal, is_error, words};
use crate::{BlockLimits, Change, ErrorKind, Position, ReplicaLogin, Replication, Secret, ServerStart};
use std::time::Duration;

const LIMITS: BlockLimits = BlockLimits {
    grace: Duration::from_secs(1),
    limit: Duration::from_secs(30),
};

fn role(bench: &Bench) -> Option<&dyn Replication> {
    bench.datastore.replication()
}

/// Writes are closed and opened, and the position says whether anything was written.
pub(super) async fn writes(bench: &Bench) -> Outcome {
    let Some(role) = role(bench) else { return Ok(()) };
    let accounts = bench.accounts()?;
    let before = role.position().await.map_err(words)?;
    accounts.create_databases(&[database("closing")]).await.map_err(words)?;
    let blocked = role.block_writes(&LIMITS).await.map_err(words)?.position;
    is_equal(
        "the end covers the beginning",
        role.covers(&blocked, &before).map_err(words)?,
        true,
    )?;
    is_equal(
        "the beginning covers the end",
        role.covers(&before, &blocked).map_err(words)?,
        false,
    )?;
    let missing = role.missing(&before, &blocked).map_err(words)?;
    is_equal("something is missing at the beginning", missing > 0, true)?;
    let again = role.block_writes(&LIMITS).await.map_err(words)?;
    is_equal("blocking again", again.position, blocked.clone())?;
    let status = role.status().await.map_err(words)?;
    is_equal("read-only", status.read_only, true)?;
    is_equal("position while closed", status.position, blocked.clone())?;
    let late = accounts.create_databases(&[database("too_late")]).await;
    is_error("a database while writes are closed", late, ErrorKind::Failed)?;
    is_equal("open", role.open_writes().await.map_err(words)?, Change::Done)?;
    is_equal("open again", role.open_writes().await.map_err(words)?, Change::Unchanged)?;
    is_equal("nothing was written", role.position().await.map_err(words)?, blocked.clone())?;
    role.wait_for(&blocked, LIMITS.limit).await.map_err(words)?;
    is_equal(
        "the name of a database",
        role.user_databases().await.map_err(words)?.contains(&"closing".into()),
        true,
    )?;
    accounts.delete_database("closing").await.map_err(words)?;
    is_error(
        "no position",
        role.covers(&Position("x y".into()), &blocked),
        ErrorKind::Invalid,
    )
}

/// What a server that never followed anybody says of itself.
pub(super) async fn alone(bench: &Bench) -> Outcome {
    let Some(role) = role(bench) else { return Ok(()) };
    let status = role.status().await.map_err(words)?;
    is_equal("follows", status.following, None)?;
    is_equal(
        "leaving nobody",
        role.detach(LIMITS.limit).await.map_err(words)?,
        status.position,
    )?;
    let state = role.log_state().await.map_err(words)?;
    is_equal("errant to itself", role.errant(&state).await.map_err(words)?, Vec::new())?;
    is_equal("as a source", role.make_source(None).await.map_err(words)?, Change::Unchanged)?;
    is_equal(
        "start closed",
        role.set_start(ServerStart::closed(false)).await.map_err(words)?,
        Change::Done,
    )?;
    is_equal(
        "start closed again",
        role.set_start(ServerStart::closed(false)).await.map_err(words)?,
        Change::Unchanged,
    )?;
    bench.datastore.restart().await.map_err(words)?;
    is_equal("closed after a start", role.status().await.map_err(words)?.read_only, true)?;
    is_equal(
        "start open",
        role.set_start(ServerStart::default()).await.map_err(words)?,
        Change::Done,
    )?;
    role.open_writes().await.map_err(words)?;
    let login = ReplicaLogin {
        user: "follower".into(),
        password: Secret::from("follower-pw"),
    };
    is_equal("a login", role.ensure_login(&login).await.map_err(words)?, Change::Done)?;
    is_equal(
        "the login again",
        role.ensure_login(&login).await.map_err(words)?,
        Change::Unchanged,
    )?;
    is_equal("its end", role.drop_login("follower").await.map_err(words)?, Change::Done)?;
    is_equal(
        "its end again",
        role.drop_login("follower").await.map_err(words)?,
        Change::Unchanged,
    )
}
