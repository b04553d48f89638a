//! A way to the peer that breaks when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A TCP proxy on the loopback. It ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    plan: Arc<Plan>,
    task: JoinHandle<()>,
}

/// Bytes that pass in a direction before the connection breaks; negative: all.
struct Plan {
    to_peer: AtomicI64,
    from_peer: AtomicI64,
    /// How many more connections break.
    times: AtomicUsize,
    broken: AtomicUsize,
}

impl Proxy {
    /// Starts one to `target`. It passes everything until it is told otherwise.
    ///
    /// # Panics
    /// If the loopback has no free port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let plan = Arc::new(Plan {
            to_peer: AtomicI64::new(-1),
            from_peer: AtomicI64::new(-1),
            times: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
        });
        let shared = plan.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, target, shared.clone()));
            }
        });
        Self { address, plan, task }
    }

    /// Breaks connections after so many bytes towards the peer, the next `times` ones that come that far.
    pub fn break_sending(&self, after: usize, times: usize) {
        self.set(after as i64, -1, times);
    }

    /// The same for bytes from the peer.
    pub fn break_receiving(&self, after: usize, times: usize) {
        self.set(-1, after as i64, times);
    }

    /// How many connections were broken since it was told to last.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.plan.broken.load(Ordering::SeqCst)
    }

    fn set(&self, to_peer: i64, from_peer: i64, times: usize) {
        self.plan.times.store(0, Ordering::SeqCst);
        self.plan.to_peer.store(to_peer, Ordering::SeqCst);
        self.plan.from_peer.store(from_peer, Ordering::SeqCst);
        self.plan.broken.store(0, Ordering::SeqCst);
        self.plan.times.store(times, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, target: SocketAddr, plan: Arc<Plan>) {
    let Ok(peer) = TcpStream::connect(target).await else { return };
    let (client_in, client_out) = client.into_split();
    let (peer_in, peer_out) = peer.into_split();
    // Both ends are dropped, and so closed, as soon as one direction is over.
    tokio::select! {
        () = pump(client_in, peer_out, &plan.to_peer, &plan) => {}
        () = pump(peer_in, client_out, &plan.from_peer, &plan) => {}
    }
}

/// Counts the bytes of one direction of one connection; a connection that lives long may break late.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, after: &AtomicI64, plan: &Plan) {
    let (mut buffer, mut passed) = (vec![0; 1 << 14], 0i64);
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        passed += read as i64;
        let limit = after.load(Ordering::SeqCst);
        let due = limit >= 0 && passed > limit;
        let take = |n: usize| n.checked_sub(1);
        if due && plan.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            plan.broken.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
