//! Which names, hosts and passwords are taken: the control plane's own rules for what is created, and only what cannot be a name at
//! all is refused for what exists already.

use crate::datastore::Server;
use crate::errors::invalid;
use datastore_api::{Account, DriverError, ErrorKind, ExposeSecret, Secret};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name of a database, in characters.
const LONGEST_DATABASE: usize = 64;
/// Longest name of a user that exists, in characters.
const LONGEST_EXISTING: usize = 128;

impl Server {
    /// A database to create.
    pub(super) fn check_new_database(&self, name: &str) -> Result<(), DriverError> {
        self.check_database(name)?;
        if !is_new_database_name(name) {
            let text = format!("'{}' is not a valid database name", name.escape_debug());
            return Err(invalid(text));
        }
        Ok(())
    }

    /// A database that may exist: any name the engine could have, unless reserved.
    pub(super) fn check_database(&self, name: &str) -> Result<(), DriverError> {
        check_existing("database", name, LONGEST_DATABASE)?;
        let engine = self.flavour.reserved_databases.iter().copied();
        let configured = self.context.ignore_databases.iter().map(String::as_str);
        // The engine compares these names without regard to case.
        if engine.chain(configured).any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            return Err(DriverError::new(
                ErrorKind::Reserved,
                format!("database name '{name}' is reserved"),
            ));
        }
        Ok(())
    }

    /// A user to create. Answers it with the host as the server stores it.
    pub(super) fn check_new_user(&self, account: &Account) -> Result<Account, DriverError> {
        let account = self.check_user(account)?;
        check_word("user name", &account.name)?;
        if account.name.chars().count() > self.flavour.longest_user {
            let text = format!(
                "user name '{}' is longer than {} characters",
                account.name, self.flavour.longest_user
            );
            return Err(invalid(text));
        }
        self.check_host(&account.host)?;
        Ok(account)
    }

    /// A user that may exist: any name the engine could have, unless reserved. Answers it with the host as the server stores it.
    pub(super) fn check_user(&self, account: &Account) -> Result<Account, DriverError> {
        check_existing("user", &account.name, LONGEST_EXISTING)?;
        check_existing("host", &account.host, self.flavour.longest_host)?;
        if self.hidden_users().any(|reserved| reserved == account.name) {
            return Err(DriverError::new(
                ErrorKind::Reserved,
                format!("user name '{}' is reserved", account.name),
            ));
        }
        Ok(Account {
            name: account.name.clone(),
            host: account.host.to_lowercase(),
        })
    }

    /// Users that lists hide and that no request may touch.
    pub(super) fn hidden_users(&self) -> impl Iterator<Item = &str> {
        let engine = self.flavour.reserved_users.iter().copied();
        engine.chain(self.context.ignore_users.iter().map(String::as_str))
    }

    fn check_host(&self, host: &str) -> Result<(), DriverError> {
        if host == "%" {
            return Ok(());
        }
        if host == "localhost" {
            return Err(invalid("host 'localhost' is the agent's own: users come over the network"));
        }
        if self.context.hostname_require_valid_ip && !is_network(&host.replace('%', "1")) {
            return Err(invalid(format!(
                "'{host}' is not a valid host: an address, a network or a pattern of one is needed"
            )));
        }
        check_word("host", &host.replace('/', ""))
    }
}

/// A password of a user.
pub(super) fn check_password(account: &Account, password: &Secret) -> Result<(), DriverError> {
    check_word("password", password.expose_secret()).map_err(|_| {
        invalid(format!(
            "the password of user '{}' is empty or holds a character that is not allowed",
            account.name
        ))
    })
}

/// The control plane's rule for names and passwords: no quotes, separators, backslashes, control characters or blanks at the ends.
fn check_word(what: &str, word: &str) -> Result<(), DriverError> {
    let bad = |c: char| c.is_control() || "'\";`,/\\".contains(c) || (c.is_whitespace() && c != ' ');
    if word.is_empty() || word.contains(bad) || word.trim() != word {
        return Err(invalid(format!("'{}' is not a valid {what}", word.escape_debug())));
    }
    Ok(())
}

/// What no engine of the family takes as a name: nothing, too much, control characters, characters beyond its own alphabet.
fn check_existing(what: &str, name: &str, longest: usize) -> Result<(), DriverError> {
    let bad = |c: char| c.is_control() || u32::from(c) > 0xFFFF;
    if name.is_empty() || name.chars().count() > longest || name.contains(bad) {
        let shown: String = name.chars().take(80).collect();
        return Err(invalid(format!("'{}' is not a valid {what} name", shown.escape_debug())));
    }
    Ok(())
}

/// The control plane's rule: letters, digits, `_` and `-`, with one run of blanks, `?`, `#` or `@` inside; two characters at least.
fn is_new_database_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let first = name.trim_start_matches(word);
    let last = first.trim_start_matches([' ', '?', '#', '@']);
    if first.is_empty() {
        return name.chars().count() >= 2;
    }
    first.len() < name.len() && first.len() > last.len() && !last.is_empty() && last.chars().all(word)
}

/// An address or network of either family; IPv4 addresses may be cut short (`10.1`), masks be a length or an address.
fn is_network(text: &str) -> bool {
    let (address, mask) = text
        .split_once('/')
        .map_or((text, None), |(address, mask)| (address, Some(mask)));
    let family = if is_short_v4(address) {
        32
    } else if address.parse::<Ipv6Addr>().is_ok() {
        128
    } else {
        return false;
    };
    match mask {
        None => true,
        Some(mask) => match mask.parse::<IpAddr>() {
            Ok(IpAddr::V4(mask)) => family == 32 && is_mask(mask),
            Ok(IpAddr::V6(_)) => false,
            Err(_) => mask.bytes().all(|b| b.is_ascii_digit()) && mask.parse::<u8>().is_ok_and(|length| length <= family),
        },
    }
}

fn is_short_v4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u8>().is_ok();
    (1..=4).contains(&parts.len()) && parts.iter().all(number)
}

/// A netmask: ones, then zeros.
fn is_mask(mask: Ipv4Addr) -> bool {
    let bits = u32::from(mask);
    bits.leading_ones() + bits.trailing_zeros() >= 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_names_follow_the_control_planes_rule() {
        for good in ["db", "my_db-1", "a b", "a?#@ b", "--", "12", &"x".repeat(64)] {
            assert!(is_new_database_name(good), "{good:?}");
        }
        for bad in [
            "a", "", " ab", "ab ", "a b c", "ü1", "a`b", "a'b", "a.b", "a/b", "@ab", "ab@", "a\nb",
        ] {
            assert!(!is_new_database_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn hosts_may_be_networks_with_masks_and_patterns() {
        for good in [
            "10.0.0.1",
            "10.0.0.0/255.255.0.0",
            "10.1.%",
            "10.%",
            "192.168.%.%",
            "10.0.0.0/16",
            "fe80::1",
            "fe80::/10",
            "1.2.3.%",
        ] {
            assert!(is_network(&good.replace('%', "1")), "{good}");
        }
        for bad in [
            "",
            "host.example",
            "10.0.0.256",
            "10.0.0.0/33",
            "10.0.0.0/255.0.255.0",
            "10.0.0.0.0",
            "10.0.0._",
            "a%",
            "1.2.3.4/x",
            "fe80::/129",
        ] {
            assert!(!is_network(&bad.replace('%', "1")), "{bad}");
        }
    }

    #[test]
    fn words_with_quotes_or_hidden_characters_are_refused() {
        for bad in [
            "",
            "a'b",
            "a\"b",
            "a`b",
            "a;b",
            "a,b",
            "a/b",
            "a\\b",
            " a",
            "a ",
            "a\tb",
            "a\u{0}b",
            "a\u{2003}b",
        ] {
            assert!(check_word("user name", bad).is_err(), "{bad:?}");
        }
        for good in ["bob", "ünï cödé", "a b", "a@b", "x%"] {
            assert!(check_word("user name", good).is_ok(), "{good:?}");
        }
    }
}
