//! Hosts on one bridge: A (this process), B and the gateway, each in its own namespace.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use crate::vip_support::{Ended, Namespace, sh};
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::pin::Pin;
use std::process::{ChildStdout, Stdio};
use std::thread;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use trove_guestagent::vip::{ArpPlane, Mac, VipEvent};

pub const VIP4: &str = "10.9.0.9";
pub const VIP6: &str = "fd09::9";

/// The gateway has the bridge `br0` (10.9.0.2, fd09::2) with the ports of A and B.
pub struct Net {
    pub gateway: Namespace,
    pub b: Namespace,
}

impl Net {
    /// `addressed`: A and B have addresses of their own on `data0`.
    pub fn new(addressed: bool) -> Self {
        let net = Net {
            gateway: Namespace::new(),
            b: Namespace::new(),
        };
        sh("ip link set lo up");
        net.gateway.sh("ip link add br0 up type bridge");
        net.gateway.sh("ip addr add 10.9.0.2/24 dev br0");
        net.gateway.sh("ip addr add fd09::2/64 dev br0 nodad");
        let b = net.b.pid();
        net.gateway
            .sh(&format!("ip link add port_b type veth peer name data0 netns {b}"));
        net.b.sh("ip link set data0 up");
        net.gateway.sh("ip link set port_b up master br0");
        if addressed {
            net.b.sh("ip addr add 10.9.0.3/24 dev data0");
            net.b.sh("ip addr add fd09::3/64 dev data0 nodad");
        }
        net.plug(addressed);
        net
    }

    /// Gives A its NIC.
    pub fn plug(&self, addressed: bool) {
        sh(&format!(
            "ip link add data0 type veth peer name port_a netns {}",
            self.gateway.pid()
        ));
        sh("ip link set data0 up");
        if addressed {
            sh("ip addr add 10.9.0.1/24 dev data0");
            sh("ip addr add fd09::1/64 dev data0 nodad");
        }
        self.gateway.sh("ip link set port_a up master br0");
    }

    pub fn mac_a(&self) -> Mac {
        mac(&sh("ip -o link show dev data0"))
    }

    pub fn mac_b(&self) -> Mac {
        mac(&self.b.sh("ip -o link show dev data0"))
    }

    /// The gateway learns who has the addresses, and is to believe it from now on without asking.
    pub fn prime(&self) {
        for ip in [VIP4, VIP6] {
            let end = std::time::Instant::now() + Duration::from_secs(30);
            while !self.answers(ip) {
                assert!(std::time::Instant::now() < end, "{ip} does not answer");
            }
        }
    }

    /// A refused connection is an answer.
    fn answers(&self, ip: &str) -> bool {
        let ask = "import socket, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.settimeout(1)
try: s.connect((sys.argv[1], 9))
except ConnectionRefusedError: sys.exit(0)
except OSError: pass
sys.exit(1)";
        let pid = self.gateway.pid().to_string();
        let mut python = crate::vip_support::program("nsenter");
        python.args(["-t", &pid, "-n", "python3", "-c", ask, ip]);
        python.status().unwrap().success()
    }

    /// Do both addresses answer the gateway?
    pub fn reachable(&self) -> bool {
        self.answers(VIP4) && self.answers(VIP6)
    }

    pub fn ask(&self) {
        assert!(self.reachable(), "{:?}", self.neighbours());
    }

    /// Listens for so many seconds from now on.
    pub fn claims(&self, seconds: f32) -> Claims {
        let mut python = crate::vip_support::program("nsenter");
        let pid = self.gateway.pid().to_string();
        python.args(["-t", &pid, "-n", "python3", "-c", LISTEN, &seconds.to_string(), VIP4]);
        let mut child = python.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        out.read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready");
        Claims(Ended(child), out)
    }

    /// What the gateway believes of [`VIP4`] and [`VIP6`]; asks nobody.
    pub fn neighbours(&self) -> Vec<Mac> {
        let known = [VIP4, VIP6].map(|ip| self.gateway.sh(&format!("ip neigh show {ip} dev br0")));
        known
            .iter()
            .filter(|line| line.contains("lladdr"))
            .map(|line| mac(line))
            .collect()
    }
}

const LISTEN: &str = "import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('br0', 0)); s.settimeout(0.05)
print('ready', flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    try: f = s.recv(2000)
    except OSError: continue
    arp = f[12:14] == bytes([8, 6]) and f[:6] == bytes([255] * 6) and f[28:32] == socket.inet_aton(sys.argv[2])
    na = f[12:14] == bytes([0x86, 0xdd]) and f[20] == 58 and f[54] == 136 and f[:2] == bytes([0x33, 0x33])
    if arp or na: print(f[6:12].hex(':'), flush=True)
";

/// Who announces addresses to everybody, as the gateway hears it.
pub struct Claims(Ended, BufReader<ChildStdout>);

impl Claims {
    /// Waits for the end.
    pub fn all(&mut self) -> Vec<Mac> {
        let lines = (&mut self.1).lines().map_while(Result::ok);
        lines.map(|line| line.parse().unwrap()).collect()
    }
}

/// The first hardware address in what `ip` says.
fn mac(text: &str) -> Mac {
    let mut words = text.split_whitespace();
    words.find(|word| *word == "link/ether" || *word == "lladdr").unwrap();
    words.next().unwrap().parse().unwrap()
}

/// Runs a test as the agent runs: on one thread.
pub fn block<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

type Job = Box<dyn for<'a> FnOnce(&'a ArpPlane) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// A plane that lives on a thread in another namespace.
pub struct Host(mpsc::UnboundedSender<Job>);

impl Host {
    /// Runs something with the plane over there.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: AsyncFnOnce(&ArpPlane) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |plane| {
            Box::pin(async move {
                let _ = reply.send(work(plane).await);
            })
        });
        self.0.send(job).ok().unwrap();
        answer.await.unwrap()
    }
}

/// Opens a plane in another namespace.
pub fn host(namespace: &Namespace, open: fn() -> ArpPlane) -> Host {
    let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
    let there = File::open(format!("/proc/{}/ns/net", namespace.pid())).unwrap();
    thread::spawn(move || {
        nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        block(async {
            let plane = open();
            while let Some(job) = inbox.recv().await {
                job(&plane).await;
            }
        });
    });
    Host(jobs)
}

/// The next event, within ten seconds.
pub async fn event(events: &mut broadcast::Receiver<VipEvent>) -> VipEvent {
    let next = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    next.expect("an event within ten seconds").unwrap()
}

/// Nothing has happened meanwhile.
pub fn no_event(events: &mut broadcast::Receiver<VipEvent>) {
    assert_eq!(events.try_recv().ok(), None);
}

/// Waits until `done`, and panics after 30 s.
pub async fn in_time(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(std::time::Instant::now() < end, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
