//! The real program as a witness, asked as the agents of a pair ask it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use datastore_api::ExposeSecret;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use trove_guestagent::link::{Limits, Link, LinkErrorKind, PairKey};

const SOON: Duration = Duration::from_secs(20);
const LEASE_MS: u64 = 200;

/// A witness process, and what it says on standard error.
struct Witness {
    process: Child,
    said: Receiver<String>,
    address: SocketAddr,
    log: Vec<String>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the program itself is what is tested")]
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trove-guestagent"));
    command.arg("witness").args(args).stdin(Stdio::null());
    command
}

impl Witness {
    fn start(keys: &[PathBuf], state: &Path) -> Self {
        let lease = LEASE_MS.to_string();
        let state = state.to_str().unwrap();
        let mut command = program(&["--listen", "127.0.0.1:0", "--state-dir", state, "--lease-ms", &lease]);
        for key in keys {
            command.arg("--key-file").arg(key);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, said) = channel();
        let lines = BufReader::new(process.stderr.take().unwrap());
        std::thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let mut log = Vec::new();
        let port = loop {
            let line = said.recv_timeout(SOON).unwrap();
            log.push(line.clone());
            if let Some((_, rest)) = line.split_once("address=127.0.0.1:") {
                break rest.split(' ').next().unwrap().parse().unwrap();
            }
        };
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            process,
            said,
            address,
            log,
        }
    }

    /// Stops it in order; all it said.
    fn stop(mut self) -> (ExitStatus, String) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < SOON, "the witness does not stop");
            std::thread::sleep(Duration::from_millis(20));
        };
        self.log.extend(self.said.try_iter());
        (status, self.log.join("\n"))
    }
}

fn key(folder: &Path, name: &str) -> (PairKey, PathBuf) {
    let (key, path) = (PairKey::generate(), folder.join(name));
    std::fs::write(&path, format!("{}\n", key.to_base64().expose_secret())).unwrap();
    (key, path)
}

async fn link(address: SocketAddr, key: &PairKey) -> Link {
    Link::connect(address, key.clone(), Limits::default()).await.unwrap()
}

/// Asks until it answers other than that it has just begun.
async fn ask(link: &Link, body: &Value) -> Value {
    let began = Instant::now();
    loop {
        let answer = link.ask(body, SOON).await.unwrap();
        if answer["reason"] != "just_started" {
            return answer;
        }
        assert!(began.elapsed() < SOON, "{answer}");
        let retry = answer["retry_ms"].as_u64().unwrap();
        tokio::time::sleep(Duration::from_millis(retry)).await;
    }
}

#[tokio::test]
async fn a_witness_serves_two_pairs_and_keeps_its_promise_over_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let ((one, one_file), (two, two_file)) = (key(folder.path(), "one.key"), key(folder.path(), "two.key"));
    let files = [one_file, two_file];
    let mut witness = Witness::start(&files, &state);
    let (of_one, of_two) = (link(witness.address, &one).await, link(witness.address, &two).await);
    let ping = json!({"verb": "ping", "pair": "p", "generation": 1, "seq": 4});
    assert_eq!(ask(&of_one, &ping).await, json!({"echo": 4}));
    assert_eq!(ask(&of_two, &ping).await, json!({"echo": 4}));
    tokio::time::sleep(Duration::from_millis(LEASE_MS)).await;
    let fence = json!({"verb": "fence", "pair": "p", "generation": 1, "attempt": 77});
    let promised = ask(&of_one, &fence).await;
    assert_eq!(promised["promised"], 1, "{promised}");
    assert_eq!(ask(&of_one, &ping).await["reason"], "promised");
    assert_eq!(
        ask(&of_two, &ping).await,
        json!({"echo": 4}),
        "the other pair is not concerned"
    );
    let stranger = Link::connect(witness.address, PairKey::generate(), Limits::default()).await;
    assert_eq!(stranger.err().unwrap().kind(), LinkErrorKind::WrongKey);

    witness.process.kill().unwrap();
    witness.process.wait().unwrap();
    assert_eq!(of_one.closed().await.kind(), LinkErrorKind::Broken);
    let refused = Link::connect(witness.address, one.clone(), Limits::default()).await;
    assert_eq!(refused.err().unwrap().kind(), LinkErrorKind::Refused);

    let witness = Witness::start(&files, &state);
    let of_one = link(witness.address, &one).await;
    assert_eq!(ask(&of_one, &ping).await["reason"], "promised");
    let newer = json!({"verb": "ping", "pair": "p", "generation": 2, "seq": 1});
    assert_eq!(ask(&of_one, &newer).await, json!({"echo": 1}));
    let (status, log) = witness.stop();
    assert!(status.success(), "{log}");
    for key in [one, two] {
        assert!(!log.contains(key.to_base64().expose_secret()), "{log}");
    }
}

#[test]
fn what_it_cannot_use_it_names_and_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let (_, good) = key(folder.path(), "good.key");
    let bad = folder.path().join("bad.key");
    std::fs::write(&bad, "c2VjcmV0 but no key").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["--listen", "127.0.0.1:0", "--key-file", bad], "bad.key holds no key"),
        (&["--listen", "127.0.0.1:0", "--key-file", "/nonexistent/k"], "/nonexistent/k"),
        (&["--listen", "nowhere", "--key-file", good], "nowhere"),
        (&["--listen", &taken, "--key-file", good], &taken),
        (&["--listen", "127.0.0.1:0"], "--key-file"),
        (
            &["--listen", "127.0.0.1:0", "--key-file", good, "--lease-ms", "5"],
            "--lease-ms",
        ),
    ];
    for (args, named) in cases {
        let output = program(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains(named), "{args:?}: {said}");
        assert!(!said.contains("c2VjcmV0") && output.stdout.is_empty(), "{said}");
    }
}
