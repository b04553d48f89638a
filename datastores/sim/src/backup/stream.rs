//! The form of the stream: a line, made-up bytes, an end mark.

use super::{Head, failed};
use crate::options::BackupFault;
use datastore_api::{DriverError, ErrorKind};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// What a whole stream ends with.
const END: &[u8] = b"\nSIM-END\n";
/// Made-up bytes are written in pieces of this size; each begins with its number.
const PIECE: usize = 256 << 10;
/// Longest first line that is taken.
const LONGEST: u64 = 64 << 20;

/// What a test wants to go wrong, and after how many bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    /// What.
    pub kind: Option<BackupFault>,
    /// After this many bytes of the stream.
    pub at: u64,
}

/// Half noise, half text that compresses: about what tables are.
fn piece() -> Vec<u8> {
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(PIECE);
    while bytes.len() < PIECE {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        bytes.extend_from_slice(&noise.to_le_bytes());
        bytes.extend_from_slice(b"row data");
    }
    bytes
}

fn stamp(piece: &mut [u8], number: u64) {
    piece[..8].copy_from_slice(&number.to_le_bytes());
}

/// Counts what goes out, and ends it where the test wants.
struct Out<'o> {
    out: &'o mut (dyn AsyncWrite + Send + Unpin),
    sent: u64,
    fault: Fault,
}

impl Out<'_> {
    /// Writes; `false` if the stream ended here, as the test wants.
    async fn pass(&mut self, bytes: &[u8]) -> Result<bool, DriverError> {
        let left = match self.fault.kind {
            Some(_) => self.fault.at.saturating_sub(self.sent),
            None => u64::MAX,
        };
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let gone = |error| DriverError::caused(ErrorKind::Unavailable, "the receiver of the backup went away", error);
        self.out.write_all(&bytes[..n]).await.map_err(gone)?;
        self.sent += u64::try_from(bytes.len()).unwrap_or_default();
        if n == bytes.len() {
            return Ok(true);
        }
        match self.fault.kind {
            Some(BackupFault::Fail) => Err(failed("the backup tool failed (code 1), as the test wanted")),
            Some(BackupFault::Truncate) => Err(failed("the backup tool ended without a word of success, as the test wanted")),
            Some(BackupFault::Hang) => std::future::pending().await,
            Some(BackupFault::Swallow) | None => Ok(false),
        }
    }
}

/// Writes a whole stream and answers how many bytes it has; with a swallowed fault, how many it should have had.
pub(super) async fn write_stream(
    head: &Head,
    fault: Fault,
    out: &mut (dyn AsyncWrite + Send + Unpin),
) -> Result<u64, DriverError> {
    let mut line = serde_json::to_vec(head).map_err(|error| DriverError::caused(ErrorKind::Failed, "could not encode", error))?;
    line.push(b'\n');
    let whole = u64::try_from(line.len() + END.len()).unwrap_or_default() + head.filler;
    let mut out = Out { out, sent: 0, fault };
    let mut bytes = piece();
    let mut goes_on = out.pass(&line).await?;
    let (mut left, mut number) = (head.filler, 0);
    while goes_on && left > 0 {
        stamp(&mut bytes, number);
        let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        goes_on = out.pass(&bytes[..n]).await?;
        left -= u64::try_from(n).unwrap_or_default();
        number += 1;
    }
    if goes_on {
        out.pass(END).await?;
    }
    let gone = |error| DriverError::caused(ErrorKind::Unavailable, "the receiver of the backup went away", error);
    out.out.flush().await.map_err(gone)?;
    Ok(whole)
}

/// Reads a whole stream, each byte of it.
pub(super) async fn read_stream(from: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Head, DriverError> {
    let cut = |error| DriverError::caused(ErrorKind::Failed, "the backup's stream is damaged", error);
    let mut from = BufReader::with_capacity(PIECE, from);
    let mut line = Vec::new();
    (&mut from).take(LONGEST).read_until(b'\n', &mut line).await.map_err(cut)?;
    let head: Head =
        serde_json::from_slice(&line).map_err(|error| DriverError::caused(ErrorKind::Failed, "this is no backup", error))?;
    let (mut wanted, mut got) = (piece(), vec![0; PIECE]);
    let (mut left, mut number) = (head.filler, 0);
    while left > 0 {
        stamp(&mut wanted, number);
        let n = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        from.read_exact(&mut got[..n]).await.map_err(cut)?;
        if got[..n] != wanted[..n] {
            return Err(failed(format!("piece {number} of the backup's stream is damaged")));
        }
        left -= u64::try_from(n).unwrap_or_default();
        number += 1;
    }
    let mut end = Vec::new();
    from.read_to_end(&mut end).await.map_err(cut)?;
    if end != END {
        return Err(failed("the backup's stream does not end as it must"));
    }
    Ok(head)
}
