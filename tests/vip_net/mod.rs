//! Hosts on one bridge: A (this process), B and the gateway, each in its own namespace.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use crate::vip_support::{Namespace, sh};
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
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
            let end = std::time::Instant::now() + Duration::from_secs(10);
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

/// Waits until `done`, and panics after ten seconds.
pub async fn in_time(what: &str, mut done: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < end, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
