//! What `openssl enc -aes-256-cbc -salt` wrote: in upstream's agents up to Ussuri.
//!
//! The file says how it begins (`Salted__` and eight bytes of salt), not how the key was made of the passphrase. There were three
//! ways in upstream's time; the right one is found by what comes out first.

use aws_lc_rs::cipher::{AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, pbkdf2};
use datastore_api::{ExposeSecret, Secret};
use md5::{Digest, Md5};
use std::io::{self, Read};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// How such a file begins.
const MAGIC: &[u8; 8] = b"Salted__";
/// Key and initialization vector of AES-256-CBC.
const KEY: usize = 32;
const BLOCK: usize = 16;
/// Encrypted bytes handled at once.
const STEP: usize = 64 << 10;
/// `-iter` of upstream.
const ROUNDS: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");

type KeyAndVector = Zeroizing<[u8; KEY + BLOCK]>;

/// Makes the key of passphrase and salt.
type Way = fn(&[u8], &[u8]) -> KeyAndVector;

/// How the key was made.
const WAYS: [Way; 3] = [
    // -md sha512 -pbkdf2 -iter 10000: upstream from Victoria on, which only reads.
    |passphrase, salt| {
        let mut out = Zeroizing::new([0; KEY + BLOCK]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, ROUNDS, salt, passphrase, &mut *out);
        out
    },
    // The default of OpenSSL 1.1 and newer, and that of 1.0.
    |passphrase, salt| {
        stretch(passphrase, salt, |text| {
            digest::digest(&digest::SHA256, text).as_ref().to_vec()
        })
    },
    |passphrase, salt| stretch(passphrase, salt, |text| Md5::digest(text).to_vec()),
];

/// `EVP_BytesToKey` with one round: digests over (the digest before, passphrase, salt), one after another.
fn stretch(passphrase: &[u8], salt: &[u8], hash: fn(&[u8]) -> Vec<u8>) -> KeyAndVector {
    let (mut all, mut last) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    while all.len() < KEY + BLOCK {
        let text = Zeroizing::new([last.as_slice(), passphrase, salt].concat());
        last = Zeroizing::new(hash(&text));
        all.extend_from_slice(&last);
    }
    let mut out = Zeroizing::new([0; KEY + BLOCK]);
    out.copy_from_slice(&all[..KEY + BLOCK]);
    out
}

/// What comes out of such a file.
pub(super) struct Decrypted<R> {
    from: R,
    key: Option<StreamingDecryptingKey>,
    input: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<R: Read> Decrypted<R> {
    /// `fits` says whether bytes can be the first of what was encrypted.
    ///
    /// # Errors
    /// `InvalidData` for something else than such a file, or a wrong passphrase; those of reading.
    pub(super) fn new(mut from: R, passphrase: &Secret, fits: fn(&[u8]) -> bool) -> io::Result<Self> {
        let mut head = [0; MAGIC.len() + 8 + BLOCK];
        from.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong("it is too short to be encrypted by openssl"),
            _ => error,
        })?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (salt, block) = rest.split_at(8);
        if magic != MAGIC {
            return Err(wrong("it is not encrypted by openssl, though its name says so"));
        }
        for way in WAYS {
            let secret = way(passphrase.expose_secret().as_bytes(), salt);
            // A block behind the first, so that the first comes out at once: it is not the last one.
            let mut probe = start(&secret)?;
            let mut out = [0; 4 * BLOCK];
            let shown = probe.update(&[block, block].concat(), &mut out).map_err(|_| failed())?;
            if !shown.written().get(..BLOCK).is_some_and(fits) {
                continue;
            }
            let mut key = start(&secret)?;
            let mut out = [0; 2 * BLOCK];
            let plain = key.update(block, &mut out).map_err(|_| failed())?.written().to_vec();
            return Ok(Self {
                from,
                key: Some(key),
                input: vec![0; STEP],
                plain,
                at: 0,
            });
        }
        Err(wrong("it cannot be decrypted with backup_aes_cbc_key"))
    }

    fn fill(&mut self) -> io::Result<()> {
        let read = self.from.read(&mut self.input)?;
        let Some(mut key) = self.key.take() else { return Ok(()) };
        self.at = 0;
        self.plain.resize(read + 2 * BLOCK, 0);
        let written = if read == 0 {
            let padding = |_| wrong("it is cut off, or it was encrypted with another key");
            key.finish(&mut self.plain).map_err(padding)?.written().len()
        } else {
            let written = key
                .update(&self.input[..read], &mut self.plain)
                .map_err(|_| failed())?
                .written()
                .len();
            self.key = Some(key);
            written
        };
        self.plain.truncate(written);
        Ok(())
    }
}

fn start(secret: &KeyAndVector) -> io::Result<StreamingDecryptingKey> {
    let (key, vector) = secret.split_at(KEY);
    let vector: [u8; BLOCK] = vector.try_into().expect("48 bytes less 32 are 16");
    let key = UnboundCipherKey::new(&AES_256, key).map_err(|_| failed())?;
    let context = DecryptionContext::Iv128(FixedLength::from(vector));
    StreamingDecryptingKey::cbc_pkcs7(key, context).map_err(|_| failed())
}

fn failed() -> io::Error {
    io::Error::other("AES-256-CBC cannot be used")
}

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() && self.key.is_some() {
            self.fill()?;
        }
        let now = buf.len().min(self.plain.len() - self.at);
        buf[..now].copy_from_slice(&self.plain[self.at..self.at + now]);
        self.at += now;
        Ok(now)
    }
}
