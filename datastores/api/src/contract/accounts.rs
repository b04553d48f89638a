//! Cases of databases, users, grants and root.

use super::{Bench, Outcome, account, database, is_equal, is_error, user, words};
use crate::{Accounts, Change, ErrorKind, ExposeSecret, PageRequest, PasswordChange, Secret, UserAttributes};

/// Names of all databases.
async fn database_names(accounts: &dyn Accounts) -> Result<Vec<String>, String> {
    let page = accounts.list_databases(&PageRequest::default()).await.map_err(words)?;
    Ok(page.items.into_iter().map(|database| database.name).collect())
}

/// `user@host` of all users.
async fn user_keys(accounts: &dyn Accounts) -> Result<Vec<String>, String> {
    let page = accounts.list_users(&PageRequest::default()).await.map_err(words)?;
    Ok(page
        .items
        .into_iter()
        .map(|user| format!("{}@{}", user.account.name, user.account.host))
        .collect())
}

pub(super) async fn databases(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let longest = "x".repeat(63);
    let names = ["plain", "with-dash", "with_under", "CamelCase", "two words", longest.as_str()];
    let wanted: Vec<_> = names.iter().map(|name| database(name)).collect();
    is_equal(
        "create",
        accounts.create_databases(&wanted).await.map_err(words)?,
        Change::Done,
    )?;
    is_equal(
        "create again",
        accounts.create_databases(&wanted).await.map_err(words)?,
        Change::Unchanged,
    )?;
    let listed = database_names(accounts).await?;
    for name in names {
        if !listed.iter().any(|entry| entry == name) {
            return Err(format!("'{name}' is not in the list {listed:?}"));
        }
        is_equal(name, accounts.delete_database(name).await.map_err(words)?, Change::Done)?;
        is_equal(name, accounts.delete_database(name).await.map_err(words)?, Change::Unchanged)?;
    }
    is_equal("what is left", database_names(accounts).await?, Vec::new())
}

pub(super) async fn bad_databases(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let long = "x".repeat(65);
    for bad in [
        "",
        long.as_str(),
        "a`; DROP DATABASE plain",
        "a'b",
        "a\"b",
        "a;b",
        "nul\0",
        "line\nbreak",
        " blank",
        "back\\slash",
    ] {
        let made = accounts.create_databases(&[database("innocent"), database(bad)]).await;
        is_error(&format!("create {bad:?}"), made, ErrorKind::Invalid)?;
    }
    is_equal("what was created", database_names(accounts).await?, Vec::new())
}

pub(super) async fn users(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let bob = account("bob", "%");
    accounts
        .create_databases(&[database("shop"), database("sh_p")])
        .await
        .map_err(words)?;
    let wanted = [user("bob", "%", "first-pw", &["shop"])];
    is_equal("create", accounts.create_users(&wanted).await.map_err(words)?, Change::Done)?;
    is_equal(
        "create again",
        accounts.create_users(&wanted).await.map_err(words)?,
        Change::Unchanged,
    )?;
    let found = accounts.find_user(&bob).await.map_err(words)?.ok_or("bob is not found")?;
    is_equal("databases", found.databases, vec!["shop".to_owned()])?;
    if found.password.is_some() {
        return Err("a password was answered".to_owned());
    }
    is_equal("list", user_keys(accounts).await?, vec!["bob@%".to_owned()])?;
    let more = ["sh_p".to_owned()];
    is_equal("grant", accounts.grant(&bob, &more).await.map_err(words)?, Change::Done)?;
    is_equal(
        "grant again",
        accounts.grant(&bob, &more).await.map_err(words)?,
        Change::Unchanged,
    )?;
    let access = accounts.list_access(&bob).await.map_err(words)?;
    let names: Vec<_> = access.into_iter().map(|database| database.name).collect();
    is_equal("access", names, vec!["sh_p".to_owned(), "shop".to_owned()])?;
    is_equal("revoke", accounts.revoke(&bob, "sh_p").await.map_err(words)?, Change::Done)?;
    is_equal(
        "revoke again",
        accounts.revoke(&bob, "sh_p").await.map_err(words)?,
        Change::Unchanged,
    )?;
    let change = [PasswordChange {
        account: bob.clone(),
        password: Secret::from("second-pw"),
    }];
    is_equal(
        "password",
        accounts.change_passwords(&change).await.map_err(words)?,
        Change::Done,
    )?;
    is_equal(
        "password again",
        accounts.change_passwords(&change).await.map_err(words)?,
        Change::Unchanged,
    )?;
    accounts
        .create_users(&[user("alice", "%", "alice-pw", &[])])
        .await
        .map_err(words)?;
    let taken = UserAttributes {
        name: Some("alice".to_owned()),
        ..UserAttributes::default()
    };
    is_error(
        "rename to a taken name",
        accounts.update_user(&bob, &taken).await,
        ErrorKind::Exists,
    )?;
    let renamed = UserAttributes {
        name: Some("robert".to_owned()),
        password: Some(Secret::from("third-pw")),
        host: None,
    };
    is_equal(
        "rename",
        accounts.update_user(&bob, &renamed).await.map_err(words)?,
        Change::Done,
    )?;
    let robert = account("robert", "%");
    is_equal(
        "nothing to update",
        accounts
            .update_user(&robert, &UserAttributes::default())
            .await
            .map_err(words)?,
        Change::Unchanged,
    )?;
    let access = accounts.list_access(&robert).await.map_err(words)?;
    is_equal("access after the rename", access.len(), 1)?;
    for name in ["robert", "alice"] {
        let gone = account(name, "%");
        is_equal("delete", accounts.delete_user(&gone).await.map_err(words)?, Change::Done)?;
        is_equal(
            "delete again",
            accounts.delete_user(&gone).await.map_err(words)?,
            Change::Unchanged,
        )?;
    }
    for name in ["shop", "sh_p"] {
        accounts.delete_database(name).await.map_err(words)?;
    }
    is_equal("who is left", user_keys(accounts).await?, Vec::new())
}

pub(super) async fn bad_users(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let innocent = user("innocent", "%", "pw-innocent", &[]);
    let long = "x".repeat(200);
    for bad in [
        "",
        long.as_str(),
        "a'b",
        "a\"b",
        "a`b",
        "a;b",
        "a,b",
        "a\\b",
        " blank",
        "nul\0",
        "line\nbreak",
        "x'@'%' IDENTIFIED BY 'y",
    ] {
        let made = accounts.create_users(&[innocent.clone(), user(bad, "%", "pw", &[])]).await;
        is_error(&format!("create user {bad:?}"), made, ErrorKind::Invalid)?;
    }
    let mut without = user("nopass", "%", "", &[]);
    without.password = None;
    is_error(
        "no password",
        accounts.create_users(&[innocent.clone(), without]).await,
        ErrorKind::Invalid,
    )?;
    let wild = user("wild", "%", "pw-wild", &["a\0b"]);
    is_error(
        "a bad database",
        accounts.create_users(&[innocent, wild]).await,
        ErrorKind::Invalid,
    )?;
    is_equal("who was created", user_keys(accounts).await?, Vec::new())
}

pub(super) async fn odd_users(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let mut wanted = vec![
        ("ünïcödé", "%"),
        ("with space", "%"),
        ("at@sign", "%"),
        ("per%cent", "%"),
        ("-dash", "%"),
        ("select", "%"),
    ];
    if bench.setup.has_hosts {
        wanted.extend([
            ("net", "10.0.0.0/255.255.0.0"),
            ("net", "10.1.%"),
            ("net", "192.168.7.9"),
            ("net", "fe80::1"),
        ]);
    }
    for (name, host) in &wanted {
        let made = accounts.create_users(&[user(name, host, "odd pw#%$ü", &["odd"])]).await;
        is_equal(
            name,
            made.map_err(|error| format!("{name}@{host}: {}", words(error)))?,
            Change::Done,
        )?;
        let found = accounts.find_user(&account(name, host)).await.map_err(words)?;
        is_equal(name, found.map(|user| user.databases), Some(vec!["odd".to_owned()]))?;
    }
    let mut keys: Vec<String> = wanted.iter().map(|(name, host)| format!("{name}@{host}")).collect();
    keys.sort();
    is_equal("list", user_keys(accounts).await?, keys)?;
    for (name, host) in &wanted {
        is_equal(
            name,
            accounts.delete_user(&account(name, host)).await.map_err(words)?,
            Change::Done,
        )?;
    }
    is_equal("who is left", user_keys(accounts).await?, Vec::new())
}

pub(super) async fn reserved(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    for name in &bench.setup.context.ignore_databases {
        is_error(name, accounts.create_databases(&[database(name)]).await, ErrorKind::Reserved)?;
        is_error(name, accounts.delete_database(name).await, ErrorKind::Reserved)?;
    }
    for name in &bench.setup.context.ignore_users {
        let reserved = account(name, "%");
        is_error(
            name,
            accounts.create_users(&[user(name, "%", "pw", &[])]).await,
            ErrorKind::Reserved,
        )?;
        is_error(name, accounts.delete_user(&reserved).await, ErrorKind::Reserved)?;
        is_error(name, accounts.find_user(&reserved).await, ErrorKind::Reserved)?;
        let change = [PasswordChange {
            account: reserved.clone(),
            password: Secret::from("mine-now"),
        }];
        is_error(name, accounts.change_passwords(&change).await, ErrorKind::Reserved)?;
        is_error(name, accounts.grant(&reserved, &["x1".to_owned()]).await, ErrorKind::Reserved)?;
    }
    Ok(())
}

pub(super) async fn missing_users(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    let nobody = account("nobody-here", "%");
    if accounts.find_user(&nobody).await.map_err(words)?.is_some() {
        return Err("a user that was never made is found".to_owned());
    }
    is_error(
        "grant",
        accounts.grant(&nobody, &["x1".to_owned()]).await,
        ErrorKind::NotFound,
    )?;
    is_error("revoke", accounts.revoke(&nobody, "x1").await, ErrorKind::NotFound)?;
    is_error("access", accounts.list_access(&nobody).await, ErrorKind::NotFound)?;
    is_error(
        "update",
        accounts.update_user(&nobody, &UserAttributes::default()).await,
        ErrorKind::NotFound,
    )?;
    accounts
        .create_users(&[user("somebody", "%", "some-pw", &[])])
        .await
        .map_err(words)?;
    let change = |name: &str| PasswordChange {
        account: account(name, "%"),
        password: Secret::from("other-pw"),
    };
    let both = [change("somebody"), change("nobody-here")];
    is_error("passwords", accounts.change_passwords(&both).await, ErrorKind::NotFound)?;
    let again = accounts.create_users(&[user("somebody", "%", "some-pw", &[])]).await;
    is_equal("the other password is as it was", again.map_err(words)?, Change::Unchanged)?;
    accounts.delete_user(&account("somebody", "%")).await.map_err(words).map(drop)
}

pub(super) async fn root(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    is_equal("at first", accounts.is_root_enabled().await.map_err(words)?, false)?;
    is_equal(
        "disable before",
        accounts.disable_root().await.map_err(words)?,
        Change::Unchanged,
    )?;
    let generated = accounts.enable_root(None).await.map_err(words)?;
    if generated
        .password
        .as_ref()
        .is_none_or(|password| password.expose_secret().len() < 12)
    {
        return Err("no good password was made".to_owned());
    }
    let given = accounts.enable_root(Some(Secret::from("chosen-pw"))).await.map_err(words)?;
    is_equal("name", given.account.name.as_str(), "root")?;
    is_equal(
        "password",
        given.password.map(|password| password.expose_secret().to_owned()),
        Some("chosen-pw".to_owned()),
    )?;
    is_equal("afterwards", accounts.is_root_enabled().await.map_err(words)?, true)?;
    is_equal("who is listed", user_keys(accounts).await?, Vec::new())?;
    is_equal("disable", accounts.disable_root().await.map_err(words)?, Change::Done)?;
    is_error(
        "a bad password",
        accounts.enable_root(Some(Secret::from("a'b"))).await,
        ErrorKind::Invalid,
    )
}
