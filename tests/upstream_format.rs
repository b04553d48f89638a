//! Both directions with upstream's own backup code, a real Swift and a real MariaDB: what it took becomes the same stream with us, and
//! what we write in its format it restores.
//!
//! Runs where `tests/check.sh` tells the Swift (`TROVE_TEST_SWIFT`), an interpreter with upstream's packages
//! (`TROVE_TEST_UPSTREAM_PYTHON`) and the folder of upstream's source (`TROVE_TEST_UPSTREAM_SOURCE`).

#![cfg(feature = "swift")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use async_trait::async_trait;
use datastore_api::{DriverError, EngineFacts, ErrorKind, Secret};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trove_guestagent::backup::keys::Keys;
use trove_guestagent::backup::pipeline::{self, Draft, PipelineSettings, Progress, Source};
use trove_guestagent::backup::upstream::{self, Found};
use trove_guestagent::backup::{Format, Kind, Manifest, Parent};
use trove_guestagent::storage::{self, Access, Meta, Place, Settings, Store};

struct Peer {
    python: String,
    source: String,
    url: String,
    token: String,
    container: String,
}

impl Peer {
    fn find() -> Option<Self> {
        let url = std::env::var("TROVE_TEST_SWIFT").ok()?;
        let python = std::env::var("TROVE_TEST_UPSTREAM_PYTHON").ok()?;
        let source = std::env::var("TROVE_TEST_UPSTREAM_SOURCE").ok()?;
        let login =
            "import sys, swiftclient; print(swiftclient.get_auth(sys.argv[1] + '/auth/v1.0', 'trove:tester', 'testing')[1])";
        let token = run(&python, &["-c", login, &url]).trim().to_owned();
        let container = format!("format-{}", std::process::id());
        Some(Self {
            python,
            source,
            url: format!("{url}/v1/AUTH_trove"),
            token,
            container,
        })
    }

    fn access(&self) -> Access {
        Access {
            swift_url: Some(self.url.clone()),
            swift_container: Some(self.container.clone()),
            token: Some(Secret::from(self.token.clone())),
            ..Access::default()
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            place: Place::parse("swift").unwrap(),
            part_bytes: 64 << 10,
            ..Settings::default()
        }
    }

    /// What lies there, as a restore finds it.
    async fn look(&self, location: &str) -> Taken {
        let (store, name) = storage::open_at(&self.settings(), location, &self.access()).unwrap();
        let id = name.as_str().split('.').next().unwrap().parse().unwrap();
        let (manifest, found) = upstream::find(&store, &name, location, &id).await.unwrap().unwrap();
        Taken { store, manifest, found }
    }

    /// Upstream's code, as tests/lib/swift/upstream.py runs it.
    fn upstream(&self, folder: &Path, rest: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lib/swift/upstream.py");
        let mut arguments = vec![
            script,
            &self.source,
            folder.to_str().unwrap(),
            &self.url,
            &self.token,
            &self.container,
        ];
        arguments.extend(rest);
        run(&self.python, &arguments)
    }
}

/// Runs a program and answers what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "the peer is a program")]
    let done = Command::new(program)
        .args(arguments)
        .env("PYTHONWARNINGS", "ignore")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    String::from_utf8(done.stdout).unwrap()
}

/// A backup of upstream's.
struct Taken {
    store: Arc<dyn Store>,
    manifest: Manifest,
    found: Found,
}

/// Passes its stream on, as a driver would send it.
struct Again<'a>(&'a Taken);

#[async_trait]
impl Source for Again<'_> {
    type Facts = EngineFacts;

    async fn run(self, out: &mut (dyn AsyncWrite + Send + Unpin)) -> Result<(EngineFacts, u64), DriverError> {
        let failed = |e| DriverError::caused(ErrorKind::Failed, "could not pass the stream on", e);
        let (progress, _) = watch::channel(Progress::default());
        let mut stream = upstream::open(&self.0.store, &self.0.found, None, &progress).await.unwrap();
        let mut buffer = vec![0; 100_000];
        let mut bytes = 0;
        loop {
            let read = stream.read(&mut buffer).await.map_err(failed)?;
            if read == 0 {
                return Ok((self.0.manifest.engine.clone(), bytes));
            }
            out.write_all(&buffer[..read]).await.map_err(failed)?;
            bytes += read as u64;
        }
    }
}

async fn write(peer: &Peer, id: &str, taken: &Taken, parent: Option<Parent>) -> Manifest {
    let store = storage::open(&peer.settings(), &peer.access()).unwrap();
    let facts = |facts: &EngineFacts| {
        let mut meta = Meta::from([("lsn".to_owned(), facts.to_lsn.clone().unwrap())]);
        if let Some(parent) = &parent {
            meta.insert("parent_location".to_owned(), parent.location.clone());
            meta.insert("parent_checksum".to_owned(), parent.checksum.clone());
        }
        meta
    };
    let draft = Draft {
        id: id.parse().unwrap(),
        name: None,
        guest: "guest".to_owned(),
        kind: if parent.is_some() { Kind::Incremental } else { Kind::Full },
        parent: parent.clone(),
        format: Format::Upstream,
        extension: "xbstream",
        estimate: 0,
        meta: &facts,
        sealed: false,
    };
    let (progress, _) = watch::channel(Progress::default());
    let settings = PipelineSettings::default();
    pipeline::take(
        Again(taken),
        store.as_ref(),
        draft,
        &Keys::default(),
        &settings,
        &progress,
        &CancellationToken::new(),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_upstreams_is_read_and_written_again_and_upstream_restores_it() {
    let Some(peer) = Peer::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let id = |n: u32| format!("7b1e0c2a-9a7b-4f3d-8b11-6f8b5f0a1d{n:02}");
    let taken = peer.upstream(folder.path(), &["take", &id(1), &id(2)]);
    let mut lines = taken.lines().map(|line| line.split_once(' ').unwrap());
    let (full, increment) = (lines.next().unwrap(), lines.next().unwrap());

    let links = [peer.look(full.0).await, peer.look(increment.0).await];
    let found = links
        .each_ref()
        .map(|link| (link.manifest.kind, link.manifest.checksum.as_str()));
    assert_eq!(found, [(Kind::Full, full.1), (Kind::Incremental, increment.1)]);
    let parent = links[1].manifest.parent.as_ref().unwrap();
    assert_eq!((parent.location.as_str(), parent.checksum.as_str()), full);
    for link in &links {
        assert_eq!(
            (link.manifest.engine.engine.as_str(), link.manifest.engine.strategy.as_str()),
            ("mariadb", "mariabackup")
        );
    }
    let lsn = |link: &Taken| link.manifest.engine.to_lsn.as_ref().unwrap().parse::<u64>().unwrap();
    assert!(lsn(&links[0]) > 0 && lsn(&links[1]) > lsn(&links[0]));

    let base = write(&peer, &id(3), &links[0], None).await;
    let parent = Parent {
        id: Some(base.id.clone()),
        location: base.location.clone(),
        checksum: base.checksum.clone(),
    };
    let next = write(&peer, &id(4), &links[1], Some(parent)).await;
    assert!(next.location.ends_with(&format!("{}.xbstream.gz", id(4))));
    let restored = peer.upstream(folder.path(), &["restore", &next.location, &next.checksum]);
    assert_eq!(restored.trim(), "30000\t30000\t30000");
}
