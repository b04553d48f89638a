//! Sealing of the secret parts of an entry: AES-256-GCM with a key derived from the instance key.

use super::record::JournalError;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, rand};
use datastore_api::{ExposeSecret, Secret};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tracing::error;
use zeroize::{Zeroize, Zeroizing};

const KEY_FILE: &str = "journal.key";
const KEY_LEN: usize = 32;
const SALT: &[u8] = b"trove-guestagent journal";
const INFO: &[u8] = b"entries, AES-256-GCM, 1";
/// First byte of a sealed part: how it is sealed.
const FORM: u8 = 1;

/// The keys of the journal: the first seals, all of them open.
pub(super) struct Keys(Vec<RandomizedNonceKey>);

impl Keys {
    /// The key from the instance key; the key file, if there is one, opens what was sealed before there was an instance key.
    /// Without an instance key the key file is made if need be.
    pub(super) fn load(dir: &Path, instance_key: Option<&Secret>) -> Result<Self, JournalError> {
        let fail = |source: io::Error| JournalError::Open {
            path: dir.join(KEY_FILE),
            source: source.into(),
        };
        let mut keys = Vec::new();
        if let Some(key) = instance_key {
            keys.push(derive(key.expose_secret().as_bytes()).map_err(fail)?);
        }
        match read_key_file(dir).map_err(fail)? {
            Some(bytes) => keys.push(derive(bytes.as_slice()).map_err(fail)?),
            None if keys.is_empty() => keys.push(derive(make_key_file(dir).map_err(fail)?.as_slice()).map_err(fail)?),
            None => {}
        }
        Ok(Self(keys))
    }

    /// Seals `plain`; `name` binds it to its entry and part.
    pub(super) fn seal(&self, name: &str, mut plain: Vec<u8>) -> io::Result<Vec<u8>> {
        let nonce = match self.0[0].seal_in_place_append_tag(Aad::from(name), &mut plain) {
            Ok(nonce) => nonce,
            Err(_) => {
                plain.zeroize();
                return Err(io::Error::other("the cipher refused"));
            }
        };
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len());
        sealed.push(FORM);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&plain);
        Ok(sealed)
    }

    /// Opens what was sealed under `name`; `None` if none of our keys fits.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (form, rest) = sealed.split_first()?;
        if *form != FORM {
            return None;
        }
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut text = Zeroizing::new(body.to_vec());
            let length = key.open_in_place(nonce, Aad::from(name), &mut text).ok()?.len();
            text.truncate(length);
            Some(text)
        })
    }
}

fn derive(secret: &[u8]) -> io::Result<RandomizedNonceKey> {
    let failed = |_| io::Error::other("could not derive the key");
    let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
        .extract(secret)
        .expand(&[INFO], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(bytes.as_mut_slice()))
        .map_err(failed)?;
    RandomizedNonceKey::new(&AES_256_GCM, bytes.as_slice()).map_err(failed)
}

fn read_key_file(dir: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let path = dir.join(KEY_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if bytes.len() == KEY_LEN {
        return Ok(Some(bytes));
    }
    error!(path = %path.display(), length = bytes.len(), "the journal's key file is damaged, what it sealed is lost");
    fs::remove_file(&path)?;
    Ok(None)
}

fn make_key_file(dir: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0u8; KEY_LEN]);
    rand::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    let fresh = dir.join("journal.key.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(KEY_FILE))?;
    File::open(dir)?.sync_all()?;
    Ok(bytes)
}
