//! Pretended servers follow each other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use datastore_api::contract::TestHost;
use datastore_api::{
    BlockLimits, Change, Database, Datastore, DriverContext, ErrorKind, FollowPlan, PreparePlan, ReplicaLogin, Secret,
    SourceEndpoint, Start,
};
use serde_json::Map;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

async fn server(folder: &Path, port: u16, more: &[(&str, &str)]) -> Arc<dyn Datastore> {
    let mut options = vec![("port".to_owned(), port.to_string())];
    options.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let context = DriverContext {
        host: Arc::new(TestHost::default()),
        mount_point: folder.join(port.to_string()),
        instance_id: format!("instance-{port}"),
        service_user: "nobody".into(),
        ignore_users: vec![],
        ignore_databases: vec![],
        hostname_require_valid_ip: true,
        root_grant: vec!["ALL".into()],
        root_grant_option: true,
        password_length: 36,
        state_change_limit: LONG,
        root: folder.join("root"),
        options: options.into_iter().collect(),
    };
    let plan = PreparePlan {
        config_contents: None,
        overrides: Map::new(),
        memory_mb: 512,
        version: None,
    };
    let server = (datastore_sim::ENTRY.open)(context, "sim").unwrap();
    for step in server.prepare_steps() {
        server.prepare_step(*step, &plan).await.unwrap();
    }
    server
}

async fn write(server: &Arc<dyn Datastore>, name: &str) -> Result<Change, datastore_api::DriverError> {
    let database = Database {
        name: name.into(),
        character_set: None,
        collation: None,
    };
    server.accounts().unwrap().create_databases(&[database]).await
}

fn plan(port: u16) -> FollowPlan {
    FollowPlan {
        source: SourceEndpoint {
            host: "127.0.0.1".into(),
            port,
        },
        login: ReplicaLogin {
            user: "r".into(),
            password: Secret::from("secret"),
        },
        start: Start::Current,
        tls: None,
    }
}

#[tokio::test]
async fn roles_are_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (server(folder.path(), 1, &[]).await, server(folder.path(), 2, &[]).await);
    let (source, replica) = (a.replication().unwrap(), b.replication().unwrap());
    write(&a, "one").await.unwrap();
    replica.follow(&plan(1), LONG).await.unwrap();
    write(&a, "two").await.unwrap();
    let limits = BlockLimits {
        grace: LONG,
        limit: LONG,
    };
    let at = source.block_writes(&limits).await.unwrap().position;
    assert!(write(&a, "three").await.is_err());
    replica.wait_for(&at, LONG).await.unwrap();
    assert_eq!(replica.detach(LONG).await.unwrap(), at);
    replica.open_writes().await.unwrap();
    write(&b, "three").await.unwrap();
    assert!(source.errant(&replica.log_state().await.unwrap()).await.unwrap().is_empty());
    source.follow(&plan(2), LONG).await.unwrap();
    assert_eq!(source.position().await.unwrap(), replica.position().await.unwrap());
    // One more on the wrong side is found, and refused.
    source.detach(LONG).await.unwrap();
    source.open_writes().await.unwrap();
    write(&a, "four").await.unwrap();
    let theirs = replica.log_state().await.unwrap();
    assert_eq!(source.errant(&theirs).await.unwrap().len(), 1);
    assert_eq!(source.follow(&plan(2), LONG).await.unwrap_err().kind(), ErrorKind::WrongData);
    assert_eq!(
        source
            .save_errant(&theirs, folder.path())
            .await
            .unwrap()
            .unwrap()
            .transactions,
        1
    );
    let mut copy = Vec::new();
    replica.send_clone(&mut copy).await.unwrap();
    source.receive_clone(&mut copy.as_slice()).await.unwrap();
    source.follow(&plan(2), LONG).await.unwrap();
    assert!(source.status().await.unwrap().read_only);
}

#[tokio::test]
async fn verbs_fail_as_a_test_wants() {
    let folder = tempfile::tempdir().unwrap();
    let a = server(folder.path(), 3, &[("fail_verb", "block_writes"), ("hang_verb", "detach")]).await;
    let role = a.replication().unwrap();
    let limits = BlockLimits {
        grace: LONG,
        limit: LONG,
    };
    assert!(role.block_writes(&limits).await.is_err());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), role.detach(LONG))
            .await
            .is_err()
    );
    role.open_writes().await.unwrap();
}
