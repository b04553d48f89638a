//! The keys of encrypted backups.
//!
//! A key file has one key a line, `name key`, the key as 64 hex digits or 44 characters of base64 (32 bytes); empty lines and lines that
//! begin with `#` do not count. The **last** key seals new backups, all of them open old ones: to rotate, append a line. Names are in
//! the manifests, so a name must never get another key.

use super::manifest::{Digest, Encryption, Scheme};
use super::{BackupError, BackupId};
use aws_lc_rs::{hkdf, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datastore_api::{ExposeSecret, Secret};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_LEN: usize = 32;
/// Largest key file, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Bytes of a nonce that are not the STREAM construction's counter and flag.
pub(super) const PREFIX_LEN: usize = 7;
/// Bytes by which a key is recognised.
const CHECK_LEN: usize = 8;
/// Bytes sealed at once.
pub(super) const CHUNK: usize = 64 << 10;

/// One key.
pub struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_LEN]>,
}

/// What one backup is sealed with: derived from the key and a random salt, so no two backups share a nonce.
pub(super) struct Derived {
    /// The cipher's key.
    pub(super) key: Zeroizing<[u8; KEY_LEN]>,
    /// The nonces' common part.
    pub(super) prefix: [u8; PREFIX_LEN],
    check: [u8; CHECK_LEN],
}

/// A length, for the key derivation.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Key {
    /// A key from its text (64 hex digits or base64 of 32 bytes).
    fn parse(id: &str, text: &str) -> Result<Self, String> {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if id.is_empty() || id.len() > 64 || !id.chars().all(good) {
            return Err(format!(
                "a key's name has 1 to 64 letters, digits, dots, dashes and underscores, this has not: {id:?}"
            ));
        }
        let wrong = || format!("the key {id:?} is neither 64 hex digits nor 32 bytes in base64");
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        if hex::decode_to_slice(text, bytes.as_mut_slice()).is_err() {
            let decoded = Zeroizing::new(STANDARD.decode(text).map_err(|_| wrong())?);
            if decoded.len() != KEY_LEN {
                return Err(wrong());
            }
            bytes.copy_from_slice(&decoded);
        }
        Ok(Self {
            id: id.to_owned(),
            bytes,
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What a new backup is sealed with, and what its manifest says of it.
    pub(super) fn begin(&self, backup: &BackupId, scheme: Scheme) -> Result<(Encryption, Derived), BackupError> {
        let mut salt = [0; KEY_LEN];
        rand::fill(&mut salt).map_err(|_| BackupError::Random)?;
        let derived = self.derive(backup, scheme, &salt)?;
        let said = Encryption {
            scheme,
            key_id: self.id.clone(),
            salt: hex::encode(salt),
            check: hex::encode(derived.check),
            chunk_bytes: CHUNK as u32,
        };
        Ok((said, derived))
    }

    /// What a backup was sealed with. `WrongKey` if it was not this key.
    pub(super) fn open(&self, backup: &BackupId, said: &Encryption) -> Result<Derived, BackupError> {
        let invalid = |what: &str| BackupError::Invalid(format!("backup {backup}: the manifest's {what} is not one"));
        let mut salt = [0; KEY_LEN];
        hex::decode_to_slice(&said.salt, &mut salt).map_err(|_| invalid("salt"))?;
        if said.chunk_bytes as usize != CHUNK {
            return Err(invalid("size of a sealed chunk"));
        }
        let derived = self.derive(backup, said.scheme, &salt)?;
        if hex::encode(derived.check) != said.check {
            let key_id = self.id.clone();
            return Err(BackupError::WrongKey { key_id });
        }
        Ok(derived)
    }

    /// Whether a backup was sealed with this key: `WrongKey` if not.
    pub fn check(&self, backup: &BackupId, said: &Encryption) -> Result<(), BackupError> {
        self.open(backup, said).map(|_| ())
    }

    /// The signature of a manifest.
    pub(super) fn mac(&self, backup: &BackupId, bytes: &[u8]) -> Result<Digest, BackupError> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        self.expand(
            b"manifest",
            &[b"manifest, 1, ", backup.as_str().as_bytes()],
            key.as_mut_slice(),
        )?;
        Ok(blake3::keyed_hash(&key, bytes).into())
    }

    fn derive(&self, backup: &BackupId, scheme: Scheme, salt: &[u8]) -> Result<Derived, BackupError> {
        let mut out = Zeroizing::new([0; KEY_LEN + PREFIX_LEN + CHECK_LEN]);
        let info = [
            b"blob, 1, ".as_slice(),
            scheme.word().as_bytes(),
            b", ",
            backup.as_str().as_bytes(),
        ];
        self.expand(salt, &info, out.as_mut_slice())?;
        let mut derived = Derived {
            key: Zeroizing::new([0; KEY_LEN]),
            prefix: [0; PREFIX_LEN],
            check: [0; CHECK_LEN],
        };
        let (key, rest) = out.split_at(KEY_LEN);
        let (prefix, check) = rest.split_at(PREFIX_LEN);
        derived.key.copy_from_slice(key);
        derived.prefix.copy_from_slice(prefix);
        derived.check.copy_from_slice(check);
        Ok(derived)
    }

    fn expand(&self, salt: &[u8], info: &[&[u8]], out: &mut [u8]) -> Result<(), BackupError> {
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(self.bytes.as_slice())
            .expand(info, Length(out.len()))
            .and_then(|okm| okm.fill(out))
            .map_err(|_| BackupError::Random)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Scheme {
    /// The name in manifests.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm-stream-be32",
            Self::ChaCha20Poly1305 => "chacha20-poly1305-stream-be32",
        }
    }
}

/// All keys we have, oldest first. Empty: nothing is encrypted, and nothing encrypted can be read.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Reads a key file. It must belong to us or root, and nobody else may read it.
    pub fn load(path: &Path) -> Result<Self, BackupError> {
        let fail = |why: String| BackupError::KeyFile {
            path: path.to_owned(),
            why,
        };
        let mut file = File::open(path).map_err(|e| fail(e.to_string()))?;
        let meta = file.metadata().map_err(|e| fail(e.to_string()))?;
        let ours = [0, rustix::process::geteuid().as_raw()];
        if !ours.contains(&meta.uid()) {
            return Err(fail(format!(
                "it belongs to the user {}, not to the agent or root",
                meta.uid()
            )));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(fail(format!(
                "its mode is {:04o}: others than its owner may use it; make it 0600",
                meta.mode() & 0o7777
            )));
        }
        if meta.len() > MAX_FILE {
            return Err(fail(format!("it has {} bytes", meta.len())));
        }
        let mut text = Zeroizing::new(String::with_capacity(meta.len() as usize + 1));
        file.read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(id), Some(key), None) = (words.next(), words.next(), words.next()) else {
                return Err(format!("line {number} is not a name and a key"));
            };
            let key = Key::parse(id, key).map_err(|why| format!("line {number}: {why}"))?;
            if keys.iter().any(|known: &Key| known.id == key.id) {
                return Err(format!("line {number}: there is already a key {id:?}"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err("there is no key in it".into());
        }
        Ok(Self(keys))
    }

    /// A key that came with a request goes before those of the file: it seals, and it opens what bears its name.
    pub fn with_request(mut self, id: &str, text: &Secret) -> Result<Self, BackupError> {
        let key = Key::parse(id, text.expose_secret().trim()).map_err(BackupError::Invalid)?;
        self.0.retain(|known| known.id != key.id);
        self.0.push(key);
        Ok(self)
    }

    /// The one that seals new backups.
    #[must_use]
    pub fn newest(&self) -> Option<&Key> {
        self.0.last()
    }

    /// The one of this name; `NoKey` says which we have.
    pub fn find(&self, id: &str) -> Result<&Key, BackupError> {
        self.0.iter().find(|key| key.id == id).ok_or_else(|| BackupError::NoKey {
            key_id: id.to_owned(),
            have: if self.0.is_empty() {
                "we have none".into()
            } else {
                self.0.iter().map(Key::id).collect::<Vec<_>>().join(", ")
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn line(id: &str, byte: u8) -> String {
        format!("{id} {}\n", hex::encode([byte; KEY_LEN]))
    }

    #[test]
    fn the_last_key_seals_and_all_open() {
        let keys = Keys::parse(&format!("# ours\n\n{}{}", line("a", 1), line("b", 2))).unwrap();
        assert_eq!(keys.newest().unwrap().id(), "b");
        keys.find("a").unwrap();
        let keys = keys.with_request("r", &STANDARD.encode([3; KEY_LEN]).into()).unwrap();
        assert_eq!(keys.newest().unwrap().id(), "r");
        let text = keys.find("c").unwrap_err().to_string();
        assert!(text.contains("\"c\"") && text.contains("a, b, r"), "{text}");
        assert!(!format!("{keys:?}").contains('3'), "{keys:?}");
    }

    #[test]
    fn a_bad_key_file_is_refused_without_showing_the_key() {
        let secret = hex::encode([0xab; KEY_LEN]);
        for bad in [
            String::new(),
            "# nothing\n".into(),
            secret.clone(),
            format!("a {secret} more"),
            format!("a/b {secret}"),
            format!("a {}", &secret[..62]),
            format!("{}{}", line("a", 1), line("a", 2)),
        ] {
            let why = Keys::parse(&bad).unwrap_err();
            assert!(!why.contains("abababab"), "{why}");
        }
    }

    #[test]
    fn others_may_not_read_the_key_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), line("a", 1)).unwrap();
        Keys::load(file.path()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let why = Keys::load(file.path()).unwrap_err().to_string();
        assert!(why.contains("0640"), "{why}");
        Keys::load(Path::new("/nonexistent/key")).unwrap_err();
    }

    #[test]
    fn a_wrong_key_of_the_right_name_is_found_at_once() {
        let id = BackupId::random().unwrap();
        let right = Key::parse("k", &hex::encode([1; KEY_LEN])).unwrap();
        let wrong = Key::parse("k", &hex::encode([2; KEY_LEN])).unwrap();
        let (said, one) = right.begin(&id, Scheme::Aes256Gcm).unwrap();
        assert_eq!(*right.open(&id, &said).unwrap().key, *one.key);
        assert!(matches!(wrong.check(&id, &said), Err(BackupError::WrongKey { key_id }) if key_id == "k"));
        let other = BackupId::random().unwrap();
        right.check(&other, &said).unwrap_err();
        let (again, two) = right.begin(&id, Scheme::Aes256Gcm).unwrap();
        assert!(again.salt != said.salt && two.key != one.key, "each backup has its own key");
    }
}
