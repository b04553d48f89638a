//! The sockets of the link: options, connecting, and what a failed connect means.

use super::{Limits, LinkError, PairKey, shake};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// Seconds of silence after which the kernel looks whether the peer is still there, and between looks.
const KEEPALIVE: (u32, u32, u32) = (2, 1, 3);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// Sets what each connection needs. `unacknowledged` is how long the peer's kernel may leave bytes unacknowledged.
pub fn tune(socket: &impl AsFd, unacknowledged: Duration) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &KEEPALIVE.0)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &KEEPALIVE.1)?;
    setsockopt(socket, sockopt::TcpKeepCount, &KEEPALIVE.2)?;
    let patience = u32::try_from(unacknowledged.as_millis()).unwrap_or(u32::MAX);
    setsockopt(socket, sockopt::TcpUserTimeout, &patience)?;
    Ok(())
}

/// Listens on an address. A v6 socket takes v6 only, so that `0.0.0.0` and `[::]` may be listened on side by side.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address)?;
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

/// Connects and shakes hands within `limits.connect`.
pub async fn dial(
    peer: SocketAddr,
    key: &PairKey,
    kind: shake::Kind,
    limits: &Limits,
) -> Result<(TcpStream, shake::Keys), LinkError> {
    let unacknowledged = match kind {
        shake::Kind::Channel => limits.unacknowledged,
        shake::Kind::Stream => limits.stream_unacknowledged,
    };
    let silent = |doing| LinkError::Silent {
        peer,
        doing,
        limit: limits.connect,
    };
    let started = tokio::time::Instant::now();
    let connect = async {
        let socket = new_socket(peer)?;
        tune(&socket, unacknowledged)?;
        if let Some(from) = limits.bind_from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        socket.connect(peer).await
    };
    let mut stream = match timeout(limits.connect, connect).await {
        Err(_) => return Err(silent("accept a connection")),
        Ok(Err(error)) => return Err(meaning(peer, error)),
        Ok(Ok(stream)) => stream,
    };
    let left = limits.connect.saturating_sub(started.elapsed());
    match timeout(left, shake::client(&mut stream, key, kind)).await {
        Err(_) => Err(silent("answer the handshake")),
        Ok(Err(shake::ShakeError::WrongKey)) => Err(LinkError::WrongKey { peer }),
        Ok(Err(shake::ShakeError::NoPair)) => Err(LinkError::NoPair { peer }),
        Ok(Err(shake::ShakeError::Io(error))) => Err(LinkError::broken(peer, "shake hands", error)),
        Ok(Ok(keys)) => Ok((stream, keys)),
    }
}

/// Only a refusal by the peer's kernel proves anything about the peer.
fn meaning(peer: SocketAddr, error: io::Error) -> LinkError {
    use io::ErrorKind as Is;
    match error.kind() {
        Is::ConnectionRefused => LinkError::Refused { peer },
        Is::TimedOut | Is::HostUnreachable | Is::NetworkUnreachable | Is::NetworkDown => LinkError::Unreachable {
            peer,
            source: Arc::new(error),
        },
        _ => LinkError::broken(peer, "connect", error),
    }
}
