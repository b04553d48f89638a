//! Cases of lists in pages.

use super::{Bench, Outcome, account, database, is_equal, user, words};
use crate::PageRequest;

const COUNT: usize = 25;

fn page(limit: u32, marker: Option<&str>, include_marker: bool) -> PageRequest {
    PageRequest {
        limit: Some(limit),
        marker: marker.map(str::to_owned),
        include_marker,
    }
}

/// Pages of every size up to the whole, of databases and users, in the order of their bytes.
pub(super) async fn pages(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    // Upper and lower case, so that an order without regard to case would lose entries between pages.
    let names: Vec<String> = (0..COUNT)
        .map(|i| format!("{}{:02}", if i % 2 == 0 { "Page_" } else { "page_" }, i / 2))
        .collect();
    let databases: Vec<_> = names.iter().map(|name| database(name)).collect();
    accounts.create_databases(&databases).await.map_err(words)?;
    let users: Vec<_> = names.iter().map(|name| user(name, "%", "page-pw", &[name])).collect();
    accounts.create_users(&users).await.map_err(words)?;
    let mut sorted = names.clone();
    sorted.sort();
    let keys: Vec<String> = sorted.iter().map(|name| format!("{name}@%")).collect();
    for limit in [1, 7, 24, 25, 26] {
        let (mut seen, mut marker) = (Vec::new(), None::<String>);
        loop {
            let part = accounts
                .list_databases(&page(limit, marker.as_deref(), false))
                .await
                .map_err(words)?;
            seen.extend(part.items.into_iter().map(|database| database.name));
            marker = part.next_marker;
            if marker.is_none() || seen.len() > COUNT {
                break;
            }
        }
        is_equal(&format!("databases by {limit}"), seen, sorted.clone())?;
        let (mut seen, mut marker) = (Vec::new(), None::<String>);
        loop {
            let part = accounts
                .list_users(&page(limit, marker.as_deref(), false))
                .await
                .map_err(words)?;
            for user in part.items {
                is_equal(
                    "databases of a listed user",
                    &user.databases,
                    &vec![user.account.name.clone()],
                )?;
                seen.push(if bench.setup.has_hosts {
                    format!("{}@{}", user.account.name, user.account.host)
                } else {
                    user.account.name + "@%"
                });
            }
            marker = part.next_marker;
            if marker.is_none() || seen.len() > COUNT {
                break;
            }
        }
        is_equal(&format!("users by {limit}"), seen, keys.clone())?;
    }
    let nothing = accounts.list_databases(&page(0, None, false)).await.map_err(words)?;
    is_equal("a page of nothing", nothing.items.len(), 0)?;
    for name in &names {
        accounts.delete_database(name).await.map_err(words)?;
        accounts.delete_user(&account(name, "%")).await.map_err(words)?;
    }
    Ok(())
}

/// One entry from the marker on, the marker included.
pub(super) async fn is_taken(bench: &Bench) -> Outcome {
    let accounts = bench.accounts()?;
    accounts
        .create_databases(&[database("taken"), database("taken2")])
        .await
        .map_err(words)?;
    accounts
        .create_users(&[user("taken", "%", "taken-pw", &[])])
        .await
        .map_err(words)?;
    let first = accounts.list_databases(&page(1, Some("taken"), true)).await.map_err(words)?;
    is_equal(
        "database",
        first.items.first().map(|database| database.name.as_str()),
        Some("taken"),
    )?;
    is_equal("more follow", first.next_marker.as_deref(), Some("taken"))?;
    let marker = if bench.setup.has_hosts { "taken@%" } else { "taken" };
    let first = accounts.list_users(&page(1, Some(marker), true)).await.map_err(words)?;
    is_equal(
        "user",
        first.items.first().map(|user| user.account.name.as_str()),
        Some("taken"),
    )?;
    let odd = accounts
        .list_users(&page(1, Some("zz' OR 1=1 -- "), true))
        .await
        .map_err(words)?;
    is_equal("a marker that is no name", odd.items.len(), 0)?;
    for name in ["taken", "taken2"] {
        accounts.delete_database(name).await.map_err(words)?;
    }
    accounts.delete_user(&account("taken", "%")).await.map_err(words).map(drop)
}
