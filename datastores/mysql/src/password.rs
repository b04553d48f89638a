//! Passwords: made, and turned into what the server stores, so that no clear password is ever in the text of a statement.

use aws_lc_rs::digest;
use datastore_api::{DriverError, ErrorKind, ExposeSecret, Secret};

/// Characters of generated passwords.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// How a server stores passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Plugin `mysql_native_password`: `*` and the hex of SHA-1 of SHA-1.
    DoubleSha1,
}

impl Scheme {
    /// The clause of `CREATE USER` and `ALTER USER`.
    pub fn clause(self, password: &Secret) -> String {
        match self {
            Scheme::DoubleSha1 => format!("IDENTIFIED VIA mysql_native_password USING '{}'", double_sha1(password)),
        }
    }

    /// Whether what the server stores is this password.
    pub fn matches(self, plugin: &str, stored: &str, password: &Secret) -> bool {
        match self {
            Scheme::DoubleSha1 => plugin == "mysql_native_password" && stored.eq_ignore_ascii_case(&double_sha1(password)),
        }
    }
}

fn double_sha1(password: &Secret) -> String {
    let algorithm = &digest::SHA1_FOR_LEGACY_USE_ONLY;
    let once = digest::digest(algorithm, password.expose_secret().as_bytes());
    format!("*{}", hex::encode_upper(digest::digest(algorithm, once.as_ref())))
}

/// A password of letters and digits, at least 16 of them.
pub(crate) fn generate(length: usize) -> Result<Secret, DriverError> {
    let length = length.max(16);
    let mut password = String::with_capacity(length);
    let mut bytes = [0u8; 64];
    while password.len() < length {
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|error| DriverError::caused(ErrorKind::Failed, "could not draw a random password", error))?;
        // Values of 248 and more are thrown away, so that each character is as likely as any other.
        let usable = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(ALPHABET[usize::from(*byte % 62)]));
        password.extend(usable.take(length - password.len()));
    }
    Ok(Secret::from(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_the_servers_own() {
        let stored = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"; // SELECT PASSWORD('password')
        let password = Secret::from("password");
        assert!(Scheme::DoubleSha1.matches("mysql_native_password", stored, &password));
        assert!(!Scheme::DoubleSha1.matches("unix_socket", stored, &password));
        assert!(Scheme::DoubleSha1.clause(&password).ends_with(&format!("USING '{stored}'")));
    }

    #[test]
    fn generated_passwords_have_the_wanted_length_and_differ() {
        let (first, second) = (generate(36).unwrap(), generate(36).unwrap());
        assert_eq!(first.expose_secret().len(), 36);
        assert!(first.expose_secret().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(first.expose_secret(), second.expose_secret());
        assert_eq!(generate(0).unwrap().expose_secret().len(), 16);
    }
}
