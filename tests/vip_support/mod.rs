//! A small network of real namespaces: this process is the guest, a driven program in a second namespace is its client.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or that is skipped, says so"
)]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const INSIDE: &str = "TROVE_GUESTAGENT_TEST_INSIDE";
/// The guest's data addresses.
pub const GUEST4: &str = "10.9.0.1";
pub const GUEST6: &str = "fd09::1";
/// The guest's address on the management NIC.
pub const GUEST_MANAGEMENT: &str = "10.8.0.1";
/// The client's data addresses, and those of the other agent of the pair.
pub const CLIENT4: &str = "10.9.0.2";
pub const PEER4: &str = "10.9.0.3";
pub const PEER6: &str = "fd09::3";

/// A program the test needs.
#[expect(clippy::disallowed_methods, reason = "the test makes its world with the system's tools")]
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Runs a command line without quoting, and expects it to succeed.
pub fn sh(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = program(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `true`: this process has a network namespace of its own, go on. `false`: the test ran in a process that has one, or cannot run.
pub fn alone(test: &str) -> bool {
    alone_by(test, &["unshare", "--net"])
}

/// As [`alone`], with another way in, e.g. with fewer capabilities.
pub fn alone_by(test: &str, way: &[&str]) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if !program("unshare")
        .args(["--net", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        println!("SKIPPED: {test} needs the right to make network namespaces (root)");
        return false;
    }
    let status = program(way[0])
        .args(&way[1..])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

/// Waits until `done`, and panics after ten seconds.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Child that is ended with the test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A second network namespace, held by a process that sleeps.
pub struct Namespace(Ended);

impl Namespace {
    pub fn new() -> Self {
        let child = program("unshare").args(["--net", "sleep", "3600"]).spawn().unwrap();
        let namespace = Namespace(Ended(child));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        until("a second namespace", || {
            std::fs::read_link(format!("/proc/{}/ns/net", namespace.pid())).is_ok_and(|ns| ns != own)
        });
        namespace.sh("ip link set lo up");
        namespace
    }

    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }

    pub fn sh(&self, line: &str) -> String {
        sh(&format!("nsenter -t {} -n {line}", self.pid()))
    }
}

/// The guest's two NICs, `data0` and `mgmt0`, and the client at their other ends.
pub struct World {
    pub client: Client,
    pub there: Namespace,
}

impl World {
    pub fn new() -> Self {
        let there = Namespace::new();
        sh("ip link set lo up");
        for (nic, net) in [("data0", 9), ("mgmt0", 8)] {
            sh(&format!("ip link add {nic} type veth peer name {nic} netns {}", there.pid()));
            sh(&format!("ip addr add 10.{net}.0.1/24 dev {nic}"));
            sh(&format!("ip addr add fd0{net}::1/64 dev {nic} nodad"));
            sh(&format!("ip link set {nic} up"));
            there.sh(&format!("ip addr add 10.{net}.0.2/24 dev {nic}"));
            there.sh(&format!("ip addr add 10.{net}.0.3/24 dev {nic}"));
            there.sh(&format!("ip addr add fd0{net}::3/64 dev {nic} nodad"));
            there.sh(&format!("ip addr add fd0{net}::2/64 dev {nic} nodad"));
            there.sh(&format!("ip link set {nic} up"));
        }
        let client = Client::new(&there);
        World { client, there }
    }
}

const CLIENT: &str = r#"
import errno, socket, sys
open_ = {}
for line in sys.stdin:
    verb, name, *rest = line.split()
    try:
        if verb == "connect":
            to, port, source = rest
            s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
            s.settimeout(2)
            if source != "-": s.bind((source, 0))
            s.connect((to, int(port)))
            open_[name] = s
            answer = "ok"
        elif verb == "send":
            open_[name].sendall((" ".join(rest) + "\n").encode())
            answer = "ok"
        elif verb == "read":
            open_[name].settimeout(float(rest[0]))
            answer = open_[name].recv(1000).decode().strip() or "end"
    except socket.timeout:
        answer = "silence"
    except OSError as e:
        answer = errno.errorcode.get(e.errno, str(e))
    print(answer, flush=True)
"#;

/// A program with TCP connections, driven line by line.
pub struct Client {
    _child: Ended,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Client {
    pub fn new(there: &Namespace) -> Self {
        let mut child = program("nsenter")
            .args(["-t", &there.pid().to_string(), "-n", "python3", "-c", CLIENT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Client {
            _child: Ended(child),
            to,
            from,
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// `ok`, `silence` (2 s), or the error's name.
    pub fn connect(&mut self, name: &str, to: &str, port: u16) -> String {
        self.ask(&format!("connect {name} {to} {port} -"))
    }

    /// As [`Client::connect`] from this address.
    pub fn connect_from(&mut self, name: &str, to: &str, port: u16, from: &str) -> String {
        self.ask(&format!("connect {name} {to} {port} {from}"))
    }

    /// `ok` or the error's name.
    pub fn send(&mut self, name: &str, text: &str) -> String {
        self.ask(&format!("send {name} {text}"))
    }

    /// What came, `silence`, `end`, or the error's name.
    pub fn read(&mut self, name: &str, seconds: f32) -> String {
        self.ask(&format!("read {name} {seconds}"))
    }

    /// One question and its answer.
    pub fn echo(&mut self, name: &str, text: &str) -> String {
        match self.send(name, text).as_str() {
            "ok" => self.read(name, 2.0),
            error => error.to_owned(),
        }
    }
}

/// A server that keeps every line it got, and answers each with `got LINE`; to `wait N …` only after N milliseconds.
#[derive(Clone)]
pub struct Server {
    lines: Arc<Mutex<Vec<String>>>,
    pub port: u16,
}

impl Server {
    pub fn on(address: IpAddr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let server = Server {
            lines: Arc::default(),
            port: listener.local_addr().unwrap().port(),
        };
        let (answering, all) = (server.clone(), listener);
        thread::spawn(move || {
            for stream in all.incoming().map_while(Result::ok) {
                let server = answering.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        server
    }

    fn serve(&self, mut stream: TcpStream) {
        let input = BufReader::new(stream.try_clone().unwrap());
        for line in input.lines().map_while(Result::ok) {
            self.lines.lock().unwrap().push(line.clone());
            if let Some(pause) = line.strip_prefix("wait ").and_then(|l| l.split(' ').next()) {
                thread::sleep(Duration::from_millis(pause.parse().unwrap()));
            }
            let _ = stream.write_all(format!("got {line}\n").as_bytes());
        }
    }

    /// Has this line arrived?
    pub fn got(&self, line: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|l| l == line)
    }
}
