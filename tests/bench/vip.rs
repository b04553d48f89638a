//! How long nobody answers when the VIP moves: the last answer of host A to the first of host B, as a gateway sees it that has
//! known A and asks each millisecond. See `README.md` beside this file; `vip.sh` starts it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people; what it cannot do ends it"
)]

#[path = "../vip_net/mod.rs"]
mod vip_net;
#[path = "../vip_support/mod.rs"]
mod vip_support;

use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use trove_guestagent::vip::{AddressPlane, ArpPlane, DataNic, HoldOptions, Mac, Vip};
use vip_net::{Host, Net, VIP4, VIP6, host};
use vip_support::{Namespace, alone, sh};

const PORT: u16 = 7;
/// Between two moves: neighbours and bridge come to rest.
const REST: Duration = Duration::from_millis(150);
/// The old host keeps the address for so long in a planned move.
const LINGER: Duration = Duration::from_millis(50);

fn open(ip: &str, prefix: u8) -> ArpPlane {
    let vip = Vip::parse(&[format!("{ip}/{prefix}")]).unwrap();
    ArpPlane::open(DataNic::by_name("data0").unwrap(), vip).unwrap()
}

fn open4() -> ArpPlane {
    open(VIP4, 24)
}

fn open6() -> ArpPlane {
    open(VIP6, 64)
}

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs on a thread in the namespace.
fn inside(namespace: Option<&Namespace>, work: impl FnOnce() + Send + 'static) {
    let there = namespace.map(|namespace| File::open(format!("/proc/{}/ns/net", namespace.pid())).unwrap());
    thread::spawn(move || {
        if let Some(there) = there {
            nix::sched::setns(there, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        }
        work();
    });
}

/// Answers with its name from the VIP itself, from before the VIP is there.
fn echo(namespace: Option<&Namespace>, ip: IpAddr, name: u8) {
    inside(namespace, move || {
        let socket = Socket::new(Domain::for_address((ip, PORT).into()), Type::DGRAM, None).unwrap();
        let free = if ip.is_ipv4() {
            socket.set_freebind_v4(true)
        } else {
            socket.set_freebind_v6(true)
        };
        free.unwrap();
        socket.bind(&SocketAddr::from((ip, PORT)).into()).unwrap();
        let socket = UdpSocket::from(socket);
        let mut question = [0; 16];
        loop {
            if let Ok((_, from)) = socket.recv_from(&mut question) {
                // The address may be gone by now.
                let _ = socket.send_to(&[name], from);
            }
        }
    });
}

/// When each host answered last, and first after the other.
#[derive(Clone, Copy)]
struct Seen {
    by: u8,
    first: Instant,
    last_of_other: Instant,
}

/// Asks each millisecond.
fn ask(gateway: &Namespace, ip: IpAddr) -> Arc<Mutex<Option<Seen>>> {
    let seen = Arc::new(Mutex::new(None));
    let answers = seen.clone();
    inside(Some(gateway), move || {
        let any: IpAddr = if ip.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap();
        let socket = UdpSocket::bind((any, 0)).unwrap();
        let asking = socket.try_clone().unwrap();
        thread::spawn(move || {
            let mut next = Instant::now();
            loop {
                // No neighbour, no route: that is what is measured.
                let _ = asking.send_to(&[0; 8], (ip, PORT));
                next = (next + Duration::from_millis(1)).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let (mut answer, mut last) = ([0; 16], [Instant::now(); 256]);
        loop {
            let Ok((1, _)) = socket.recv_from(&mut answer) else { continue };
            let (by, now) = (answer[0], Instant::now());
            let mut seen = answers.lock().unwrap();
            let before: Option<Seen> = *seen;
            // A late answer of the host that is leaving does not count as a move back; it moves the beginning of the gap.
            match before {
                Some(known) if known.by == by => {}
                Some(known) if now.duration_since(known.first) < LINGER * 2 => {}
                _ => {
                    let last_of_other = before.map_or(now, |known| last[usize::from(known.by)]);
                    *seen = Some(Seen {
                        by,
                        first: now,
                        last_of_other,
                    });
                }
            }
            last[usize::from(by)] = now;
        }
    });
    seen
}

/// Waits until that host answers; the gap in milliseconds.
async fn gap(seen: &Mutex<Option<Seen>>, by: u8, limit: Duration) -> f64 {
    let end = Instant::now() + limit;
    loop {
        let now = *seen.lock().unwrap();
        if let Some(known) = now.filter(|known| known.by == by) {
            return known.first.saturating_duration_since(known.last_of_other).as_secs_f64() * 1e3;
        }
        assert!(Instant::now() < end, "nobody answers");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

struct Bench {
    a: ArpPlane,
    b: Host,
    macs: [Mac; 2],
    seen: Arc<Mutex<Option<Seen>>>,
}

impl Bench {
    /// The new host first, the old one 50 ms later.
    async fn planned(&self, to_b: bool) -> f64 {
        let expected = HoldOptions {
            expected: vec![self.macs[usize::from(!to_b)]],
            ..HoldOptions::default()
        };
        if to_b {
            let hold = self.b.run(async move |b| {
                b.hold(&expected).await.unwrap();
            });
            let (released, ()) = tokio::join!(self.a.release(LINGER), hold);
            released.unwrap();
            return gap(&self.seen, b'B', Duration::from_secs(60)).await;
        }
        let release = self.b.run(async |b| {
            b.release(LINGER).await.unwrap();
        });
        let (held, ()) = tokio::join!(self.a.hold(&expected), release);
        held.unwrap();
        gap(&self.seen, b'A', Duration::from_secs(60)).await
    }

    /// The old one has gone before the new one comes.
    async fn unplanned(&self, to_b: bool) -> f64 {
        if to_b {
            self.a.release(Duration::ZERO).await.unwrap();
            self.b
                .run(async |b| {
                    b.hold(&HoldOptions::default()).await.unwrap();
                })
                .await;
            return gap(&self.seen, b'B', Duration::from_secs(60)).await;
        }
        self.b
            .run(async |b| {
                b.release(Duration::ZERO).await.unwrap();
            })
            .await;
        self.a.hold(&HoldOptions::default()).await.unwrap();
        gap(&self.seen, b'A', Duration::from_secs(60)).await
    }
}

/// One line of the table; `met` if there is a target.
fn line(what: &str, mut values: Vec<f64>, target: Option<f64>) -> bool {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[((values.len() as f64 * part).ceil() as usize).clamp(1, values.len()) - 1];
    let met = target.is_none_or(|target| at(0.99) <= target);
    let verdict = target.map_or(String::new(), |t| {
        format!("p99 <= {t} ms: {}", if met { "yes" } else { "NO" })
    });
    println!(
        "| {what} | {} | {:.1} | {:.1} | {:.1} | {verdict} |",
        values.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    met
}

fn family(net: &Net, ip: &'static str, open: fn() -> ArpPlane, target: f64) -> bool {
    let (moves, silent) = (count("TROVE_BENCH_MOVES", 200), count("TROVE_BENCH_SILENT", 2));
    let name = if ip == VIP4 { "IPv4" } else { "IPv6" };
    let address: IpAddr = ip.parse().unwrap();
    echo(None, address, b'A');
    echo(Some(&net.b), address, b'B');
    let bench = Bench {
        a: block_on(async { open() }),
        b: host(&net.b, open),
        macs: [net.mac_a(), net.mac_b()],
        seen: ask(&net.gateway, address),
    };
    block_on(async {
        bench.a.hold(&HoldOptions::default()).await.unwrap();
        gap(&bench.seen, b'A', Duration::from_secs(10)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (mut planned, mut unplanned) = (Vec::new(), Vec::new());
        for number in 0..moves * 2 {
            let to_b = number % 2 == 0;
            // Two of each in turn, so that both see the same machine.
            if number / 2 % 2 == 0 {
                planned.push(bench.planned(to_b).await);
            } else {
                unplanned.push(bench.unplanned(to_b).await);
            }
            tokio::time::sleep(REST).await;
        }
        let first = line(
            &format!("{name}, planned: added there, 50 ms later removed here"),
            planned,
            Some(target),
        );
        let second = line(
            &format!("{name}, unplanned: removed here, then added there"),
            unplanned,
            Some(target),
        );
        put_back(&bench, name, ip).await;
        let mut without = Vec::new();
        bench.a.release(Duration::ZERO).await.unwrap();
        let prefix = if ip == VIP4 { "/24" } else { "/64 nodad" };
        for _ in 0..silent {
            sh(&format!("ip addr add {ip}{prefix} dev data0"));
            bench.a.hold(&HoldOptions::default()).await.unwrap();
            gap(&bench.seen, b'A', Duration::from_secs(120)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            bench.a.release(Duration::ZERO).await.unwrap();
            net.b.sh(&format!("ip addr add {ip}{prefix} dev data0"));
            without.push(gap(&bench.seen, b'B', Duration::from_secs(120)).await);
            net.b.sh(&format!("ip addr del {ip}{} dev data0", &prefix[..3]));
        }
        if !without.is_empty() {
            line(&format!("{name}, without an announcement (ip address add)"), without, None);
        }
        first && second
    })
}

/// Somebody removes the address: from before he asks the kernel until it is on the NIC again.
async fn put_back(bench: &Bench, name: &str, ip: &str) {
    let (mut events, mut times) = (bench.a.events(), Vec::new());
    let prefix = if ip == VIP4 { "24" } else { "64" };
    bench
        .b
        .run(async |b| {
            b.release(Duration::ZERO).await.unwrap();
        })
        .await;
    bench.a.hold(&HoldOptions::default()).await.unwrap();
    for _ in 0..count("TROVE_BENCH_MOVES", 200).div_ceil(4) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        while events.try_recv().is_ok() {}
        let begin = Instant::now();
        let command = format!("ip addr del {ip}/{prefix} dev data0");
        // In the background, as the plane lives on this thread.
        let remover = tokio::task::spawn_blocking(move || sh(&command));
        vip_net::event(&mut events).await;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        remover.await.unwrap();
    }
    line(
        &format!("{name}, removed by `ip` (its start included), put back"),
        times,
        None,
    );
}

/// As the agent: one thread. The planes of host A live on it for the whole run.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    use std::cell::OnceCell;
    thread_local!(static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() });
    RUNTIME.with(|cell| {
        let make = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        cell.get_or_init(make).block_on(work)
    })
}

fn main() {
    if !alone("vip") {
        return;
    }
    let net = Net::new(true);
    println!("| gap of the answers | moves | p50 ms | p99 ms | max ms | target |");
    println!("|---|---|---|---|---|---|");
    let met = [family(&net, VIP4, open4, 30.0), family(&net, VIP6, open6, 50.0)];
    assert!(met.iter().all(|met| *met), "a target is missed");
}
