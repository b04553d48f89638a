//! The plane `keepalived` with the real program, two hosts in network namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on, or that is skipped, says so"
)]

mod vip_support;

use datastore_api::{Change, Host, ServiceState};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use trove_guestagent::host::{Machine, Settings, SupervisorKind};
use trove_guestagent::vip::{
    AddressPlane, DataNic, HoldOptions, KeepalivedPlane, KeepalivedSettings, Probe, ProbeOptions, Vip, VipEvent,
};
use vip_support::*;

const VIP4: &str = "10.9.0.9/24";
const VIP6: &str = "fd09::9/64";
const LINGER: Duration = Duration::from_millis(50);
const OTHER: &str = "TROVE_GUESTAGENT_TEST_OTHER";

/// A process-id namespace too: whatever the test started ends with it. The shell collects orphans, as an init does.
fn alone_with_processes(test: &str) -> bool {
    let way = [
        "unshare",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
        "-c",
        "\"$@\"; exit $?",
        "bash",
    ];
    alone_by(test, &way)
}

struct Guest {
    dir: tempfile::TempDir,
    host: Arc<Machine>,
    source: &'static str,
    peer: &'static str,
}

impl Guest {
    async fn new(source: &'static str, peer: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = machine(dir.path()).await;
        Guest { dir, host, source, peer }
    }

    fn settings(&self) -> KeepalivedSettings {
        let (run, state) = (self.dir.path().join("run"), self.dir.path().join("state"));
        let (source, peer) = (self.source.parse().unwrap(), self.peer.parse().unwrap());
        KeepalivedSettings::new(&run, &state, source, vec![peer], 51)
    }

    async fn open(&self, settings: KeepalivedSettings) -> KeepalivedPlane {
        let nic = DataNic::by_name("data0").unwrap();
        let host = Arc::clone(&self.host) as Arc<dyn Host>;
        KeepalivedPlane::open(&nic, vip(), settings, host).await.unwrap()
    }

    async fn pid(&self) -> u32 {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.host.service_state(&self.settings().service).await.unwrap() {
                ServiceState::Running { pid } => return pid,
                other => assert!(Instant::now() < end, "keepalived does not run: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// keepalived's worker, and keepalived.
    async fn processes(&self) -> [u32; 2] {
        within("a worker of the keepalived that runs", async {
            loop {
                let keepalived = self.pid().await;
                let told = std::fs::read_to_string(self.settings().run_dir.join("vrrp.pid"));
                let worker = told.ok().and_then(|pid| pid.trim().parse().ok());
                if let Some(worker) = worker.filter(|worker| parent(*worker) == Some(keepalived)) {
                    return [worker, keepalived];
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }
}

/// The parent of a living process.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

async fn machine(dir: &Path) -> Arc<Machine> {
    let settings = Settings {
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        supervisor: SupervisorKind::Supervised,
    };
    let machine = Machine::new(settings).unwrap();
    machine.adopt().await.unwrap();
    Arc::new(machine)
}

fn vip() -> Vip {
    Vip::parse(&[VIP4, VIP6]).unwrap()
}

fn hold() -> HoldOptions {
    HoldOptions::default()
}

fn on_nic() -> usize {
    let shown = sh("ip -o addr show dev data0");
    shown.matches(VIP4).count() + shown.matches(VIP6).count()
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), signal).unwrap();
    }
}

async fn within<T>(what: &str, of: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(Duration::from_secs(15), of).await;
    limited.unwrap_or_else(|_| panic!("not within 15 s: {what}"))
}

/// The next event that is as wanted.
async fn event(events: &mut broadcast::Receiver<VipEvent>, what: &str, wanted: impl Fn(&VipEvent) -> bool) -> VipEvent {
    within(what, async {
        loop {
            let event = events.recv().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    within(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// The other host of the pair: this program once more, in the client's namespace, told what to do line by line.
struct Other {
    _child: Ended,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    fn new(there: &Namespace) -> Self {
        let mut child = program("nsenter")
            .args(["-t", &there.pid().to_string(), "-n"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "the_other_host", "--nocapture"])
            .env(OTHER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut other = Other {
            _child: Ended(child),
            to,
            from,
        };
        assert_eq!(other.answer(), "ready");
        other
    }

    fn tell(&mut self, verb: &str) {
        writeln!(self.to, "{verb}").unwrap();
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).unwrap() > 0, "the other host ended");
            if let Some((_, answer)) = line.split_once('@') {
                return answer.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, verb: &str) -> String {
        self.tell(verb);
        self.answer()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_host() {
    if std::env::var_os(OTHER).is_none() {
        return;
    }
    let guest = Guest::new(CLIENT4, GUEST4).await;
    let plane = guest.open(guest.settings()).await;
    println!("@ready");
    let lines = std::io::stdin().lines();
    for line in lines.map_while(Result::ok) {
        match line.as_str() {
            "hold" => println!("@{:?}", plane.hold(&hold()).await.unwrap()),
            "release" => println!("@{:?}", plane.release(Duration::ZERO).await.unwrap()),
            other => panic!("{other}"),
        }
    }
    plane.dismantle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_moves_between_two_hosts() {
    if !alone_with_processes("the_address_moves_between_two_hosts") {
        return;
    }
    let world = World::new();
    let guest = Guest::new(GUEST4, CLIENT4).await;
    let mut settings = guest.settings();
    settings.hold_limit = Duration::from_secs(4);
    let plane = guest.open(settings).await;
    let mut other = Other::new(&world.there);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(on_nic(), 0, "nobody was told to hold");

    let start = Instant::now();
    assert_eq!(plane.hold(&hold()).await.unwrap(), Change::Done);
    println!("held {:?} after it was told, with no other master", start.elapsed());
    assert_eq!((on_nic(), plane.holds().await.unwrap()), (2, true));
    assert_eq!(plane.hold(&hold()).await.unwrap(), Change::Unchanged);
    assert!(plane.state().borrow().held);

    for round in 0..10 {
        other.tell("hold");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(on_nic(), 2, "the other waits until this one releases");
        assert_eq!(plane.release(LINGER).await.unwrap(), Change::Done);
        let gone = Instant::now();
        assert_eq!(on_nic(), 0);
        assert_eq!(other.answer(), "Done");
        println!("the other host held {:?} after the release", gone.elapsed());
        if round == 0 {
            assert_eq!(plane.release(LINGER).await.unwrap(), Change::Unchanged);
            let probed = plane.probe(&ProbeOptions::default()).await.unwrap();
            assert!(matches!(probed, Probe::Taken { .. }), "{probed:?}");

            let failed = plane.hold(&hold()).await.unwrap_err().to_string();
            assert!(failed.contains("VRRP is BACKUP"), "{failed}");
            assert_eq!((on_nic(), plane.state().borrow().wanted), (0, false), "all or nothing");
            let taken = HoldOptions {
                probe: Some(ProbeOptions::default()),
                expected: vec![],
            };
            assert!(plane.hold(&taken).await.unwrap_err().to_string().contains("in use"));
        }
        assert_eq!(other.ask("release"), "Done");
        assert_eq!(plane.hold(&hold()).await.unwrap(), Change::Done);
    }
    plane.dismantle().await.unwrap();
    assert_eq!(on_nic(), 0);
    assert!(!guest.settings().config.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_takes_up_what_keepalived_holds() {
    if !alone_with_processes("a_restarted_agent_takes_up_what_keepalived_holds") {
        return;
    }
    let _world = World::new();
    let mut guest = Guest::new(GUEST4, CLIENT4).await;
    // A killed machine's leftover: nothing runs, the address is there.
    sh(&format!("ip addr add {VIP4} dev data0"));
    let plane = guest.open(guest.settings()).await;
    assert_eq!(on_nic(), 0, "what nobody may hold was removed");
    plane.hold(&hold()).await.unwrap();
    let pid = guest.pid().await;

    drop(plane);
    guest.host = Arc::new(
        Machine::new(Settings {
            run_dir: guest.dir.path().join("run2"),
            state_dir: guest.dir.path().join("state"),
            supervisor: SupervisorKind::Supervised,
        })
        .unwrap(),
    );
    guest.host.adopt().await.unwrap();
    let plane = guest.open(guest.settings()).await;
    assert_eq!((on_nic(), guest.pid().await), (2, pid));
    assert!(plane.state().borrow().held && plane.state().borrow().wanted);
    assert_eq!(plane.hold(&hold()).await.unwrap(), Change::Unchanged);

    drop(plane);
    let mut settings = guest.settings();
    settings.advert = Duration::from_millis(200);
    let plane = guest.open(settings.clone()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (on_nic(), guest.pid().await),
        (2, pid),
        "another configuration is read, nothing is restarted"
    );
    assert!(std::fs::read_to_string(&settings.config).unwrap().contains("advert_int 0.20"));
    // As a reboot leaves it: no file, no right.
    let right = settings.run_dir.join("may-hold");
    std::fs::remove_file(&right).unwrap();
    eventually("it gives up without the file", || on_nic() == 0).await;
    assert_eq!(plane.hold(&hold()).await.unwrap(), Change::Done);
    plane.release(Duration::ZERO).await.unwrap();
    assert_eq!(on_nic(), 0);

    // What keepalived's own check refuses changes nothing.
    drop(plane);
    let nic = DataNic::by_name("mgmt0").unwrap();
    sh("ip link del mgmt0");
    let host = Arc::clone(&guest.host) as Arc<dyn Host>;
    let refused = KeepalivedPlane::open(&nic, vip(), settings.clone(), host)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("check") && refused.contains("mgmt0"), "{refused}");
    assert!(std::fs::read_to_string(&settings.config).unwrap().contains("interface data0"));
    assert_eq!(guest.pid().await, pid);
    guest.open(settings).await.dismantle().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_or_frozen_keepalived_is_noticed_and_leaves_nothing_behind() {
    if !alone_with_processes("a_dead_or_frozen_keepalived_is_noticed_and_leaves_nothing_behind") {
        return;
    }
    let _world = World::new();
    let guest = Guest::new(GUEST4, CLIENT4).await;
    let plane = guest.open(guest.settings()).await;
    let mut events = plane.events();
    plane.hold(&hold()).await.unwrap();

    signal(&[guest.pid().await], Signal::KILL);
    event(
        &mut events,
        "its death is told",
        |e| matches!(e, VipEvent::Broken(why) if why.contains("died")),
    )
    .await;
    eventually("it holds again, started anew", || {
        on_nic() == 2 && plane.state().borrow().held
    })
    .await;

    // Its worker alone: keepalived starts it again by itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    signal(&guest.processes().await[..1], Signal::KILL);
    event(
        &mut events,
        "the worker's death is told",
        |e| matches!(e, VipEvent::Broken(why) if why.contains("VRRP process")),
    )
    .await;
    eventually("it holds again", || on_nic() == 2).await;

    // Frozen: it cannot take the address away.
    let frozen = guest.processes().await;
    signal(&frozen, Signal::STOP);
    let start = Instant::now();
    assert_eq!(plane.release(Duration::ZERO).await.unwrap(), Change::Done);
    println!("released {:?} after it was told, keepalived frozen", start.elapsed());
    assert_eq!(on_nic(), 0);
    signal(&frozen, Signal::CONT);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(on_nic(), 0, "thawed, it may not hold");

    // Killed, and somebody puts the address there: nobody else would take it off.
    plane.hold(&hold()).await.unwrap();
    signal(&guest.processes().await, Signal::KILL);
    plane.release(Duration::ZERO).await.unwrap();
    assert_eq!(on_nic(), 0);
    sh(&format!("ip addr add {VIP6} dev data0 nodad"));
    eventually("the address without right is removed", || on_nic() == 0).await;
    plane.dismantle().await.unwrap();
}
