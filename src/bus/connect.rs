//! One AMQP connection, over a socket of ours, without the client crate's recovery.
//!
//! The crate runs a thread per connection. We keep a second handle of its socket and shut that down when the [`Link`] is
//! dropped or the handshake takes too long: the thread then sees the end of the stream and goes, whatever state it is in.

use super::sieve::{self, Sieve};
use super::{Broker, BusError, Settings, tls};
use async_compat::CompatExt;
use datastore_api::ExposeSecret;
use lapin::tcp::{AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

/// For name resolution, TCP and TLS together, per broker.
const REACH_LIMIT: Duration = Duration::from_secs(5);
/// For the AMQP handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// For a polite close.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// The crate keeps two buffers of 32 frames each: 16 KiB makes that 1 MiB, the broker's 128 KiB would make it 8.
pub const FRAME_MAX: u32 = 16 * 1024;

/// A live connection.
pub struct Link {
    /// The crate's connection.
    pub connection: Connection,
    /// `host:port`.
    pub broker: String,
    socket: Socket,
}

/// The second handle of a connection's socket; shuts it down when dropped.
struct Socket(std::net::TcpStream);

impl Socket {
    fn end(&self) {
        // Fails when the peer has closed already; then there is nothing left to do.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.end();
    }
}

impl Link {
    /// Closes in order if that works within a second, and for certain after that: whatever still waits on it fails.
    pub async fn close(&self) {
        let _ = timeout(CLOSE_LIMIT, self.connection.close(200, "bye".into())).await;
        self.socket.end();
    }
}

/// Connects to one of the brokers, tried in random order. The error is the last one's.
pub async fn connect(settings: &Settings) -> Result<Link, BusError> {
    let connector = match &settings.tls {
        Some(tls) => Some(tls::connector(tls.clone()).await?),
        None => None,
    };
    let mut order: Vec<&Broker> = settings.brokers.iter().collect();
    shuffle(&mut order);
    let mut last = BusError::Message("no broker is configured".into());
    for broker in order {
        match connect_to(settings, broker, connector.as_ref()).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shuffle<T>(items: &mut [T]) {
    for at in (1..items.len()).rev() {
        items.swap(at, (random() % (at as u64 + 1)) as usize);
    }
}

/// A random number, for order and jitter only.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("the random generator of the system works");
    u64::from_ne_bytes(bytes)
}

async fn connect_to(settings: &Settings, broker: &Broker, tls: Option<&RustlsConnector>) -> Result<Link, BusError> {
    let name = if broker.host.contains(':') {
        format!("[{}]:{}", broker.host, broker.port)
    } else {
        format!("{}:{}", broker.host, broker.port)
    };
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BusError::Amqp {
        doing: format!("connect to {name}"),
        source,
    };
    let reached = timeout(REACH_LIMIT, async {
        let tcp = dial(broker, settings.heartbeat).await?;
        let socket = Socket(std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?));
        let stream = AsyncTcpStream::Plain(tcp.compat());
        let stream = match tls {
            Some(connector) => stream.into_rustls(connector, &broker.host).await?,
            None => stream,
        };
        Ok::<_, io::Error>((stream, socket))
    });
    let (stream, socket) = match reached.await {
        Ok(reached) => reached.map_err(|e| failed(e.into()))?,
        Err(_) => return Err(failed(format!("no connection within {REACH_LIMIT:?}").into())),
    };
    let uri = AMQPUri {
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: broker.user.clone(),
                password: broker.password.expose_secret().to_owned(),
            },
            host: broker.host.clone(),
            port: broker.port,
        },
        vhost: settings.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_MAX),
            heartbeat: Some(u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX)),
            auth_mechanism: Some(mechanism(&settings.login_method)?),
            ..AMQPQueryString::default()
        },
    };
    let properties = ConnectionProperties::default().with_connection_name(settings.connection_name.clone().into());
    let slot = Mutex::new(Some(AsyncTcpStream::Plain(Sieve::new(stream))));
    let once = async move |_, _| {
        let taken = slot.lock().unwrap_or_else(|e| e.into_inner()).take();
        taken.ok_or_else(|| lapin::Error::from(io::Error::from(io::ErrorKind::NotConnected)))
    };
    // From here on the thread exists: any early return drops `socket` and so ends it.
    let connection = match timeout(
        HANDSHAKE_LIMIT,
        Connection::connector(uri, sieve::runtime(), once, properties),
    )
    .await
    {
        Ok(connected) => connected.map_err(|e| failed(e.into()))?,
        Err(_) => return Err(failed(format!("no AMQP handshake within {HANDSHAKE_LIMIT:?}").into())),
    };
    Ok(Link {
        connection,
        broker: name,
        socket,
    })
}

fn mechanism(name: &str) -> Result<SASLMechanism, BusError> {
    name.parse()
        .map_err(|_| BusError::Message(format!("login method {name} is not known")))
}

async fn dial(broker: &Broker, heartbeat: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in lookup_host((broker.host.as_str(), broker.port)).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_nodelay(true)?;
        socket.set_keepalive(true)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &30)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &10)?;
        setsockopt(&socket, sockopt::TcpKeepCount, &3)?;
        // Data that the peer does not take for this long ends the connection; the kernel alone would try for 15 minutes.
        let patience = if heartbeat.is_zero() {
            Duration::from_secs(60)
        } else {
            heartbeat * 2
        };
        setsockopt(
            &socket,
            sockopt::TcpUserTimeout,
            &u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        )?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
