//! Quoting, in this one place. Values are bound wherever the server allows it; names and account statements cannot be.
//!
//! Strings rely on the SQL mode `NO_BACKSLASH_ESCAPES`, which every session of ours sets: there a backslash is a plain character, and
//! doubling the quote is all that is needed.

use datastore_api::Account;

/// A string literal.
pub(crate) fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name of a database or variable.
pub(crate) fn name(value: &str) -> String {
    format!("`{}`", value.replace('`', "``"))
}

/// A user and its host.
pub(crate) fn account(account: &Account) -> String {
    format!("{}@{}", text(&account.name), text(&account.host))
}

/// A database in a grant. There `_` and `%` are wildcards: unescaped, a grant on `a_b` would reach `axb` as well.
pub(crate) fn grant_target(database: &str) -> String {
    let mut escaped = String::with_capacity(database.len() + 4);
    for c in database.chars() {
        if matches!(c, '_' | '%' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    format!("{}.*", name(&escaped))
}

/// The database that a stored grant means: the inverse of [`grant_target`]. Grants made without escapes come back as they are.
pub(crate) fn granted_database(stored: &str) -> String {
    let mut plain = String::with_capacity(stored.len());
    let mut chars = stored.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some('_' | '%' | '\\')) => plain.extend(chars.next()),
            _ => plain.push(c),
        }
    }
    plain
}

/// `?, ?, ?` for `count` bound values.
pub(crate) fn marks(count: usize) -> String {
    vec!["?"; count].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a quoted token as the server does (`NO_BACKSLASH_ESCAPES`): its content and what follows it.
    fn unquote(quoted: &str, quote: char) -> Option<(String, &str)> {
        let mut rest = quoted.strip_prefix(quote)?;
        let mut content = String::new();
        loop {
            let end = rest.find(quote)?;
            content.push_str(&rest[..end]);
            rest = &rest[end + quote.len_utf8()..];
            match rest.strip_prefix(quote) {
                Some(more) => {
                    content.push(quote);
                    rest = more;
                }
                None => return Some((content, rest)),
            }
        }
    }

    proptest! {
        #[test]
        fn a_quoted_string_is_one_token_with_the_same_content(value in "[\\PC\\\\'\"`;\n\0-]{0,40}") {
            let quoted = text(&value);
            prop_assert_eq!(unquote(&quoted, '\''), Some((value, "")));
        }

        #[test]
        fn a_quoted_name_is_one_token_with_the_same_content(value in "[\\PC\\\\'\"`;-]{0,40}") {
            let quoted = name(&value);
            prop_assert_eq!(unquote(&quoted, '`'), Some((value, "")));
        }

        #[test]
        fn an_account_is_two_tokens(user in "[\\PC\\\\'@]{0,20}", host in "[\\PC\\\\'@]{0,20}") {
            let quoted = account(&Account { name: user.clone(), host: host.clone() });
            let (first, rest) = unquote(&quoted, '\'').unwrap();
            let (second, rest) = unquote(rest.strip_prefix('@').unwrap(), '\'').unwrap();
            prop_assert_eq!((first, second, rest), (user, host, ""));
        }

        #[test]
        fn a_grant_means_its_database_and_has_no_open_wildcard(value in "[a-z_%\\\\`]{1,20}") {
            let quoted = grant_target(&value);
            let (stored, rest) = unquote(&quoted, '`').unwrap();
            prop_assert_eq!(rest, ".*");
            prop_assert_eq!(granted_database(&stored), value);
        }
    }
}
