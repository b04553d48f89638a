//! What a fresh MariaDB lets in, and what it never gets to see in clear.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::Machine;
use datastore_api::{Account, Change, ExposeSecret, PasswordChange, Secret, User, UserAttributes};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Logs in over the network as a client would.
async fn over_network(machine: &Machine, user: &str, password: &str) -> Result<Conn, Error> {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(machine.port)
        .prefer_socket(false);
    Conn::new(opts.user(Some(user)).pass(Some(password))).await
}

/// Logs in over the socket.
async fn over_socket(machine: &Machine, user: &str, password: Option<&str>) -> Result<Conn, Error> {
    let socket = machine.folder.path().join("root/var/run/mysqld/mysqld.sock");
    Conn::new(
        OptsBuilder::default()
            .socket(Some(socket.display().to_string()))
            .user(Some(user))
            .pass(password),
    )
    .await
}

fn stored_password(machine: &Machine, user: &str) -> String {
    let path = machine.folder.path().join(format!("volume/conf.d/{user}.cnf"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix("password = "))
        .unwrap()
        .to_owned()
}

fn code(result: Result<Conn, Error>) -> u16 {
    match result {
        Err(Error::Server(error)) => error.code,
        Err(error) => panic!("{error}"),
        Ok(_) => 0,
    }
}

fn account(name: &str) -> Account {
    Account {
        name: name.into(),
        host: "%".into(),
    }
}

#[tokio::test]
async fn only_the_agent_and_local_root_get_in_and_nothing_is_left_over() {
    let mut machine = Machine::new();
    machine.overrides.insert("skip_name_resolve".into(), true.into());
    let _datastore = machine.prepared().await;
    for user in ["root", "os_admin"] {
        let password = stored_password(&machine, user);
        assert!(password.len() == 36 && password.bytes().all(|b| b.is_ascii_alphanumeric()));
        let mut conn = over_socket(&machine, user, Some(&password)).await.unwrap();
        let grants: Vec<String> = conn.query("SHOW GRANTS").await.unwrap();
        assert!(
            grants[0].starts_with("GRANT ALL PRIVILEGES ON *.*") && grants[0].ends_with("WITH GRANT OPTION"),
            "{grants:?}"
        );
    }
    for user in ["root", "os_admin", "mysql", "", "mariadb.sys", "anybody"] {
        assert_ne!(
            code(over_socket(&machine, user, None).await),
            0,
            "{user:?} without a password"
        );
    }
    let root = stored_password(&machine, "root");
    assert_ne!(
        code(over_network(&machine, "root", &root).await),
        0,
        "root does not come over the network"
    );
    let mut conn = over_socket(&machine, "root", Some(&root)).await.unwrap();
    let users: Vec<(String, String)> = conn
        .query("SELECT User, Host FROM mysql.global_priv ORDER BY 1")
        .await
        .unwrap();
    let local = |user: &str| (user.to_owned(), "localhost".to_owned());
    assert_eq!(users, [local("mariadb.sys"), local("os_admin"), local("root")]);
    let databases: Vec<String> = conn.query("SHOW DATABASES").await.unwrap();
    assert_eq!(databases, ["information_schema", "mysql", "performance_schema", "sys"]);
    let left: Vec<_> = fs::read_dir(machine.folder.path().join("volume/conf.d"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(!machine.folder.path().join("root/var/run/mysqld/accounts.sql").exists());
}

#[tokio::test]
async fn a_grant_reaches_its_database_and_no_lookalike() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let accounts = datastore.accounts().unwrap();
    let database = |name: &str| datastore_api::Database {
        name: name.into(),
        character_set: Some("utf8mb4".into()),
        collation: None,
    };
    accounts.create_databases(&[database("a_b"), database("axb")]).await.unwrap();
    let bob = User {
        account: account("bob"),
        password: Some(Secret::from("bob's not")),
        databases: vec!["a_b".into()],
    };
    assert!(
        accounts.create_users(&[bob]).await.is_err(),
        "a quote in a password is refused as upstream does"
    );
    let bob = User {
        account: account("bob"),
        password: Some(Secret::from("bob ünd $%&()")),
        databases: vec!["a_b".into()],
    };
    accounts.create_users(&[bob]).await.unwrap();
    let mut conn = over_network(&machine, "bob", "bob ünd $%&()").await.unwrap();
    conn.query_drop("CREATE TABLE a_b.t (n INT); INSERT INTO a_b.t VALUES (1)")
        .await
        .unwrap();
    assert!(conn.query_drop("CREATE TABLE axb.t (n INT)").await.is_err());
    // A grant of the control plane's own agent has no escapes; it is listed and revoked all the same.
    let root = stored_password(&machine, "root");
    let mut admin = over_socket(&machine, "root", Some(&root)).await.unwrap();
    admin
        .query_drop("REVOKE ALL PRIVILEGES, GRANT OPTION FROM bob; GRANT ALL ON a_b.* TO bob")
        .await
        .unwrap();
    assert_eq!(accounts.list_access(&account("bob")).await.unwrap()[0].name, "a_b");
    assert_eq!(accounts.revoke(&account("bob"), "a_b").await.unwrap(), Change::Done);
    assert_eq!(accounts.list_access(&account("bob")).await.unwrap(), []);
}

#[tokio::test]
async fn databases_have_the_wanted_alphabet_and_unknown_ones_are_refused() {
    let machine = Machine::new();
    let datastore = machine.prepared().await;
    let accounts = datastore.accounts().unwrap();
    let make = |name: &str, set: &str, collation: &str| datastore_api::Database {
        name: name.into(),
        character_set: (set != "-").then(|| set.into()),
        collation: (collation != "-").then(|| collation.into()),
    };
    let good = [
        (make("d1", "-", "-"), "utf8mb3", "utf8mb3_general_ci"),
        (make("d2", "", ""), "utf8mb3", "utf8mb3_general_ci"),
        (make("d3", "utf8mb4", "-"), "utf8mb4", "utf8mb4_general_ci"),
        (make("d4", "-", "latin2_czech_cs"), "latin2", "latin2_czech_cs"),
        (make("d5", "utf8", "utf8_bin"), "utf8mb3", "utf8mb3_bin"),
        (
            make("d6", "utf8mb4", "utf8mb4_uca1400_ai_ci"),
            "utf8mb4",
            "utf8mb4_uca1400_ai_ci",
        ),
    ];
    let all: Vec<_> = good.iter().map(|(database, _, _)| database.clone()).collect();
    accounts.create_databases(&all).await.unwrap();
    let listed = accounts.list_databases(&Default::default()).await.unwrap().items;
    for (listed, (wanted, set, collation)) in listed.iter().zip(&good) {
        assert_eq!(
            (&listed.name, listed.character_set.as_deref(), listed.collation.as_deref()),
            (&wanted.name, Some(*set), Some(*collation))
        );
    }
    for bad in [
        make("e1", "klingon", "-"),
        make("e1", "-", "utf8mb4_klingon_ci"),
        make("e1", "latin1", "utf8mb4_bin"),
        make("e1", "x' --", "-"),
    ] {
        let error = accounts.create_databases(&[make("e0", "-", "-"), bad]).await.unwrap_err();
        assert_eq!(error.kind(), datastore_api::ErrorKind::Invalid, "{error}");
    }
    assert_eq!(
        accounts.list_databases(&Default::default()).await.unwrap().items.len(),
        good.len()
    );
}

#[tokio::test]
async fn no_password_is_ever_in_the_text_of_a_statement() {
    let mut machine = Machine::new();
    // Without it the server takes our own address for "localhost", and root@localhost comes before root@%.
    machine.overrides.insert("skip_name_resolve".into(), true.into());
    let datastore = machine.prepared().await;
    let log = machine.folder.path().join("root/var/log/mysql/general.log");
    let root = stored_password(&machine, "root");
    let mut admin = over_socket(&machine, "root", Some(&root)).await.unwrap();
    admin
        .query_drop(format!(
            "SET GLOBAL general_log_file = '{}', GLOBAL general_log = 1",
            log.display()
        ))
        .await
        .unwrap();
    let accounts = datastore.accounts().unwrap();
    let secret = |n: u32| Secret::from(format!("TopSecret{n}"));
    accounts
        .create_users(&[User {
            account: account("eve"),
            password: Some(secret(1)),
            databases: vec![],
        }])
        .await
        .unwrap();
    accounts
        .change_passwords(&[PasswordChange {
            account: account("eve"),
            password: secret(2),
        }])
        .await
        .unwrap();
    let wanted = UserAttributes {
        password: Some(secret(3)),
        name: Some("eva".into()),
        host: None,
    };
    accounts.update_user(&account("eve"), &wanted).await.unwrap();
    accounts.enable_root(Some(secret(4))).await.unwrap();
    assert!(over_network(&machine, "root", "TopSecret4").await.is_ok());
    let made = accounts.enable_root(None).await.unwrap().password.unwrap();
    assert!(over_network(&machine, "root", made.expose_secret()).await.is_ok());
    assert_eq!(accounts.disable_root().await.unwrap(), Change::Done);
    assert_eq!(code(over_network(&machine, "root", made.expose_secret()).await), 1045);
    assert!(over_network(&machine, "eva", "TopSecret3").await.is_ok());
    let text = fs::read_to_string(log).unwrap();
    assert!(text.contains("CREATE USER") && text.contains("ALTER USER"), "{text}");
    assert!(!text.contains("TopSecret") && !text.contains(made.expose_secret()), "{text}");
    assert!(
        !fs::read_to_string(machine.folder.path().join("root/var/log/mysql/error.log"))
            .unwrap()
            .contains("TopSecret")
    );
}
