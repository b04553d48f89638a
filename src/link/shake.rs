//! The handshake: both prove that they have the key, and both get fresh keys for the frames, from the pair's key and both nonces.

use super::PairKey;
use super::seal::{Opener, Sealer};
use aws_lc_rs::{constant_time, hkdf, rand};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// What we are, and the version of all that follows.
const MAGIC: [u8; 8] = *b"TGLINK\x00\x01";
const NONCE: usize = 32;
const PROOF: usize = 32;

const GO_ON: u8 = 0;
const NO_PAIR: u8 = 1;
const WRONG_KEY: u8 = 2;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Questions and answers.
    Channel = 1,
    /// One byte stream.
    Stream = 2,
}

/// Why there was no handshake.
#[derive(Debug)]
pub enum ShakeError {
    /// The keys differ.
    WrongKey,
    /// The server has no key.
    NoPair,
    /// The connection ended, or the other side is no agent.
    Io(io::Error),
}

impl From<io::Error> for ShakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The keys of a connection.
pub struct Keys {
    pub sealer: Sealer,
    pub opener: Opener,
}

/// The client's part.
pub async fn client<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, key: &PairKey, kind: Kind) -> Result<Keys, ShakeError> {
    let ours = nonce();
    let mut hello = [0; 8 + 1 + NONCE];
    hello[..8].copy_from_slice(&MAGIC);
    hello[8] = kind as u8;
    hello[9..].copy_from_slice(&ours);
    io.write_all(&hello).await?;
    let mut answer = [0; 8 + 1 + NONCE];
    io.read_exact(&mut answer).await?;
    if answer[..8] != MAGIC {
        return Err(stranger("what answers is no agent of our version").into());
    }
    match answer[8] {
        GO_ON => {}
        NO_PAIR => return Err(ShakeError::NoPair),
        _ => return Err(stranger("the peer's greeting is not understood").into()),
    }
    let theirs: [u8; NONCE] = answer[9..].try_into().expect("the greeting ends with a nonce");
    let secrets = Secrets::derive(key, kind, &ours, &theirs);
    io.write_all(secrets.proof("client").as_slice()).await?;
    let mut verdict = [0; 1 + PROOF];
    io.read_exact(&mut verdict).await?;
    if verdict[0] != GO_ON || !secrets.is_proof("server", &verdict[1..]) {
        return Err(ShakeError::WrongKey);
    }
    Ok(Keys {
        sealer: Sealer::new(&secrets.expand("client to server")),
        opener: Opener::new(&secrets.expand("server to client")),
    })
}

/// The server's part: any of `keys` will do. Also tells which it was.
pub async fn server<S: AsyncRead + AsyncWrite + Unpin>(
    io: &mut S,
    keys: &(dyn Fn() -> Vec<PairKey> + Send + Sync),
) -> Result<(Keys, Kind, PairKey), ShakeError> {
    let mut hello = [0; 8 + 1 + NONCE];
    io.read_exact(&mut hello).await?;
    if hello[..8] != MAGIC {
        return Err(stranger("what connected is no agent of our version").into());
    }
    let kind = match hello[8] {
        1 => Kind::Channel,
        2 => Kind::Stream,
        _ => return Err(stranger("the greeting is not understood").into()),
    };
    let keys = keys();
    let ours = nonce();
    let mut answer = [0; 8 + 1 + NONCE];
    answer[..8].copy_from_slice(&MAGIC);
    answer[8] = if keys.is_empty() { NO_PAIR } else { GO_ON };
    answer[9..].copy_from_slice(&ours);
    io.write_all(&answer).await?;
    if keys.is_empty() {
        return Err(ShakeError::NoPair);
    }
    let theirs: [u8; NONCE] = hello[9..].try_into().expect("the greeting ends with a nonce");
    let mut proof = [0; PROOF];
    io.read_exact(&mut proof).await?;
    let fits = keys.into_iter().find_map(|key| {
        let secrets = Secrets::derive(&key, kind, &theirs, &ours);
        secrets.is_proof("client", &proof).then_some((key, secrets))
    });
    let Some((key, secrets)) = fits else {
        let mut verdict = [0; 1 + PROOF];
        verdict[0] = WRONG_KEY;
        io.write_all(&verdict).await?;
        return Err(ShakeError::WrongKey);
    };
    let mut verdict = [0; 1 + PROOF];
    verdict[0] = GO_ON;
    verdict[1..].copy_from_slice(secrets.proof("server").as_slice());
    io.write_all(&verdict).await?;
    let keys = Keys {
        sealer: Sealer::new(&secrets.expand("server to client")),
        opener: Opener::new(&secrets.expand("client to server")),
    };
    Ok((keys, kind, key))
}

fn stranger(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn nonce() -> [u8; NONCE] {
    let mut nonce = [0; NONCE];
    rand::fill(&mut nonce).expect("the random generator of the system works");
    nonce
}

/// What both sides derive from the key and the two nonces.
struct Secrets {
    prk: hkdf::Prk,
    kind: Kind,
}

impl Secrets {
    fn derive(key: &PairKey, kind: Kind, client: &[u8; NONCE], server: &[u8; NONCE]) -> Self {
        let mut salt = [0; 2 * NONCE];
        salt[..NONCE].copy_from_slice(client);
        salt[NONCE..].copy_from_slice(server);
        Self {
            prk: hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(key.bytes()),
            kind,
        }
    }

    fn expand(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.prk
            .expand(&[&MAGIC, &[self.kind as u8], purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .expect("32 bytes are no more than HKDF gives");
        bytes
    }

    /// Says nothing about the keys of the frames: each is a separate output of HKDF.
    fn proof(&self, of: &str) -> Zeroizing<[u8; PROOF]> {
        self.expand(&format!("proof of the {of}"))
    }

    fn is_proof(&self, of: &str, given: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.proof(of).as_slice(), given).is_ok()
    }
}
