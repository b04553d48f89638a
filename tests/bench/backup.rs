//! The backup pipeline by itself, without an agent around it: a stream into a folder, or a backup out of it. See `README.md` beside this
//! file; `backup.sh` starts it.
//!
//! ```text
//! backup send FROM DIR [sealed]     FROM: `-` standard input, `synthetic:BYTES`, or a file. Prints the figures as JSON
//! backup open DIR ID                the plain stream to standard output
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people; what it cannot do ends it"
)]

use async_trait::async_trait;
use datastore_api::{DriverError, EngineFacts, ErrorKind};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trove_guestagent::backup::keys::Keys;
use trove_guestagent::backup::pipeline::{Adaptive, Draft, PipelineSettings, Progress, ReadSettings, Source, open, take};
use trove_guestagent::backup::{BackupId, Format, Kind, Manifest};
use trove_guestagent::storage::{Access, Meta, ObjectName, Place, Settings, Store, open_place};

/// Bytes handed on at once.
const STEP: usize = 1 << 20;

/// A stream from outside.
struct Stream(Box<dyn AsyncRead + Send + Unpin>);

#[async_trait]
impl Source for Stream {
    type Facts = EngineFacts;

    async fn run(mut self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(EngineFacts, u64), DriverError> {
        let failed = |e| DriverError::caused(ErrorKind::Failed, "could not read the stream", e);
        let (mut buffer, mut bytes) = (vec![0; STEP], 0);
        loop {
            let read = self.0.read(&mut buffer).await.map_err(failed)?;
            if read == 0 {
                return Ok((EngineFacts::default(), bytes));
            }
            out.write_all(&buffer[..read]).await.map_err(failed)?;
            bytes += read as u64;
        }
    }
}

/// Something like pages of a table: half of it text with repetitions, half noise.
struct Synthetic(u64);

#[async_trait]
impl Source for Synthetic {
    type Facts = EngineFacts;

    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(EngineFacts, u64), DriverError> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut page = vec![b'-'; STEP];
        let mut left = self.0;
        while left > 0 {
            for word in page.chunks_exact_mut(16) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word[..8].copy_from_slice(&state.to_le_bytes());
            }
            let now = left.min(STEP as u64) as usize;
            out.write_all(&page[..now])
                .await
                .map_err(|e| DriverError::caused(ErrorKind::Failed, "could not hand the stream on", e))?;
            left -= now as u64;
        }
        Ok((EngineFacts::default(), self.0))
    }
}

fn store(dir: &str) -> Arc<dyn Store> {
    let place = Place {
        kind: "file".into(),
        rest: std::path::absolute(dir)
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .into(),
    };
    let mut settings = Settings::default();
    if let Some(mib) = number("PART_MIB") {
        settings.part_bytes = (mib as usize) << 20;
    }
    open_place(&settings, &place, &Access::default()).unwrap()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn keys() -> Keys {
    Keys::default().with_request("bench", &hex::encode([7; 32]).into()).unwrap()
}

/// A line of `/proc/self/status`, bytes.
fn memory(word: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(word)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Standard input as the agent has a tool's output: a pipe of a megabyte.
fn stdin() -> tokio::net::unix::pipe::Receiver {
    let pipe = std::fs::File::open("/dev/stdin").unwrap();
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, STEP);
    tokio::net::unix::pipe::Receiver::from_file(pipe).unwrap()
}

async fn send(from: &str, dir: &str, sealed: bool) {
    let mut settings = PipelineSettings::default();
    if let Some(level) = number("LEVEL") {
        settings.level = level as i32;
    }
    if let Some(threads) = number("THREADS") {
        settings.threads = threads as u32;
    }
    if let Some(parts) = number("IN_FLIGHT") {
        settings.parts_in_flight = parts as usize;
    }
    settings.rate = number("RATE");
    settings.adaptive = number("ADAPTIVE").map(|percent| Adaptive {
        limit: percent as f64 / 100.0,
        ..Adaptive::default()
    });
    let store = store(dir);
    let draft = Draft {
        id: BackupId::random().unwrap(),
        name: None,
        guest: "bench".into(),
        kind: Kind::Full,
        parent: None,
        format: if std::env::var_os("UPSTREAM").is_some() {
            Format::Upstream
        } else {
            Format::Native
        },
        extension: "stream",
        estimate: 0,
        meta: &|_| Meta::new(),
        sealed,
    };
    let progress = watch::Sender::new(Progress::default());
    let cancel = CancellationToken::new();
    let (idle, begun) = (memory("VmRSS"), Instant::now());
    let keys = keys();
    let taken = if let Some(bytes) = from.strip_prefix("synthetic:") {
        let source = Synthetic(bytes.parse().unwrap());
        take(source, store.as_ref(), draft, &keys, &settings, &progress, &cancel).await
    } else {
        let input: Box<dyn AsyncRead + Send + Unpin> = match from {
            "-" => Box::new(stdin()),
            path => Box::new(tokio::fs::File::open(path).await.unwrap()),
        };
        take(Stream(input), store.as_ref(), draft, &keys, &settings, &progress, &cancel).await
    };
    let manifest = taken.unwrap_or_else(|error| panic!("{}", datastore_api::chain(&error)));
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "id": manifest.id, "plain": manifest.plain_bytes, "stored": manifest.stored_bytes, "seconds": seconds,
            "mb_s": manifest.plain_bytes as f64 / seconds / 1e6, "idle_rss": idle, "peak_rss": memory("VmHWM"),
            "over_idle_mib": (memory("VmHWM") - idle) as f64 / f64::from(1 << 20),
        })
    );
}

async fn unpack(dir: &str, id: &str) {
    let store = store(dir);
    let id: BackupId = id.parse().unwrap();
    let path = Path::new(dir).join(id.manifest_name());
    let manifest = Manifest::decode_signed(&std::fs::read(path).unwrap(), &id, &keys()).unwrap();
    ObjectName::new(&*manifest.blob).unwrap();
    let progress = watch::Sender::new(Progress::default());
    let (idle, begun) = (memory("VmRSS"), Instant::now());
    let mut opened = open(&store, &manifest, &keys(), ReadSettings::default(), progress)
        .await
        .unwrap();
    let mut out = tokio::fs::File::from_std(std::fs::File::options().write(true).open("/dev/stdout").unwrap());
    let mut buffer = vec![0; STEP];
    loop {
        let read = opened.read(&mut buffer).await.unwrap();
        if read == 0 {
            break;
        }
        out.write_all(&buffer[..read]).await.unwrap();
    }
    out.flush().await.unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!(
        "{}",
        json!({
            "seconds": seconds, "mb_s": manifest.plain_bytes as f64 / seconds / 1e6,
            "over_idle_mib": (memory("VmHWM") - idle) as f64 / f64::from(1 << 20),
        })
    );
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // As the agent's: one thread for what waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match words[..] {
        ["send", from, dir] => runtime.block_on(send(from, dir, false)),
        ["send", from, dir, "sealed"] => runtime.block_on(send(from, dir, true)),
        ["open", dir, id] => runtime.block_on(unpack(dir, id)),
        _ => panic!("backup send FROM DIR [sealed] | backup open DIR ID"),
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
}
