//! Following a source with TLS.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
#[path = "common/pair.rs"]
mod pair;

use datastore_api::{FollowPlan, ReplicaTls};
use mysql_async::prelude::Queryable;
use pair::{LONG, Node, plan};
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "a test makes its own certificates")]
fn openssl(folder: &std::path::Path, args: &str) {
    let mut command = std::process::Command::new("/usr/bin/openssl");
    let done = command.args(args.split(' ')).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn a_replica_follows_encrypted_and_stays_so() {
    let certificates = tempfile::tempdir().unwrap();
    let folder = certificates.path();
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(folder, mode(0o755)).unwrap();
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca",
    );
    openssl(
        folder,
        "req -newkey rsa:2048 -nodes -keyout key.pem -out cert.csr -subj /CN=127.0.0.1",
    );
    openssl(
        folder,
        "x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2",
    );
    std::fs::set_permissions(folder.join("key.pem"), mode(0o644)).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let a = Node::with(|overrides| {
        for (option, name) in [("ssl_ca", "ca.pem"), ("ssl_cert", "cert.pem"), ("ssl_key", "key.pem")] {
            overrides.insert(option.into(), folder.join(name).display().to_string().into());
        }
    })
    .await;
    let b = Node::new().await;
    a.make_shop().await;
    a.admin()
        .await
        .query_drop("SET sql_log_bin = 0; ALTER USER pair_login REQUIRE SSL")
        .await
        .unwrap();
    assert!(
        b.role().follow(&plan(&a), LONG).await.is_err(),
        "the source insists on encryption"
    );
    let encrypted = |ca: String, verify_name| FollowPlan {
        tls: Some(ReplicaTls {
            ca,
            certificate: None,
            private_key: None,
            verify_name,
        }),
        ..plan(&a)
    };
    b.role().follow(&encrypted(read("ca.pem"), true), LONG).await.unwrap();
    let at = a.role().position().await.unwrap();
    b.role().wait_for(&at, LONG).await.unwrap();
    assert_eq!(b.value::<u32>("SELECT COUNT(*) FROM shop.u").await, 2);
    // Again, with everything said anew; and signed by somebody else.
    b.role().follow(&encrypted(read("ca.pem"), false), LONG).await.unwrap();
    openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout x.key -out other.pem -days 2 -subj /CN=other-ca",
    );
    let other = b
        .role()
        .follow(&encrypted(read("other.pem"), true), Duration::from_secs(3))
        .await;
    assert!(other.is_err(), "a certificate of another authority");
}
