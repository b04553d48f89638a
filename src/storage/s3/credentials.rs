//! The keys, from a file that nobody else may read.

use crate::storage::{StorageError, StorageErrorKind};
use datastore_api::Secret;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest file that is read.
const LONGEST: u64 = 64 << 10;

/// What a request is signed with.
pub(super) struct Keys {
    pub(super) access: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

/// Reads lines of `name = value`: `access_key`, `secret_key` and `session_token`, or the same under Amazon's names. Of a file
/// with sections only `[default]` counts.
pub(super) fn read(file: &Path) -> Result<Keys, StorageError> {
    const DOING: &str = "read backup_s3_credentials";
    let place = file.display();
    let found = std::fs::metadata(file).map_err(|error| StorageError::io(DOING, &place, error))?;
    let mode = found.mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("others may read it (mode {mode:03o}); it must have mode 600 or less");
        return Err(StorageError::new(StorageErrorKind::Refused, DOING, place, what));
    }
    if !found.is_file() || found.len() > LONGEST {
        return Err(StorageError::invalid(DOING, &place, "it is no file of two lines"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| StorageError::io(DOING, &place, error))?;
    parse(&text).map_err(|what| StorageError::invalid(DOING, &place, what))
}

/// The error names lines, never what is in them.
fn parse(text: &str) -> Result<Keys, String> {
    let (mut access, mut secret, mut token, mut ours) = (None, None, None, true);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            ours = line == "[default]";
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {} is not of the form name = value", number + 1));
        };
        let value = value.trim();
        let slot = match name.trim() {
            "access_key" | "aws_access_key_id" => &mut access,
            "secret_key" | "aws_secret_access_key" => &mut secret,
            "session_token" | "aws_session_token" => &mut token,
            _ => continue,
        };
        if ours && !value.is_empty() {
            *slot = Some(value.to_owned());
        }
    }
    Ok(Keys {
        access: access.ok_or("there is no access_key in it")?,
        secret: Secret::from(secret.ok_or("there is no secret_key in it")?),
        token: token.map(Secret::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datastore_api::ExposeSecret;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn both_forms_of_the_file_are_read() {
        for text in [
            "access_key = AK\n# c\nsecret_key = s=1/+\n",
            "[other]\naws_access_key_id=no\naws_secret_access_key=no\n[default]\nregion=x\naws_access_key_id=AK\naws_secret_access_key=s=1/+\n",
        ] {
            let keys = parse(text).map_err(|_| ()).unwrap();
            assert_eq!((keys.access.as_str(), keys.secret.expose_secret()), ("AK", "s=1/+"));
        }
        for bad in [
            "",
            "access_key = AK",
            "secret_key = s",
            "access_key = AK\nhush",
            "[x]\naccess_key=a\nsecret_key=hush",
        ] {
            let error = parse(bad).err().unwrap();
            assert!(!error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"access_key=a\nsecret_key=b\n").unwrap();
        assert!(read(file.path()).is_ok());
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o640))
            .unwrap();
        let error = read(file.path()).err().unwrap();
        assert_eq!(error.kind, StorageErrorKind::Refused);
        assert!(error.to_string().contains("640"), "{error}");
        assert_eq!(read(Path::new("/not/there")).err().unwrap().kind, StorageErrorKind::NotFound);
    }
}
