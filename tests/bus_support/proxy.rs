//! A TCP proxy that can be told to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Passes everything.
    Open,
    /// Keeps connections and passes nothing.
    Mute,
    /// Ends connections and takes no new ones.
    Cut,
}

pub struct Proxy {
    pub port: u16,
    link: watch::Sender<Link>,
    pub accepted: Arc<AtomicUsize>,
}

impl Proxy {
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let link = watch::Sender::new(Link::Open);
        let accepted = Arc::new(AtomicUsize::new(0));
        let (state, count) = (link.subscribe(), accepted.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                if *state.borrow() == Link::Cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(pump(client_in, server_out, state.clone()));
                tokio::spawn(pump(server_in, client_out, state.clone()));
            }
        });
        Self { port, link, accepted }
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn pump(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, state: watch::Receiver<Link>) {
    let mut cut = state.clone();
    let pass = async move {
        let (mut state, mut buffer) = (state, vec![0; 1 << 16]);
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let open = state.wait_for(|link| *link == Link::Open).await.is_ok();
            if !open || to.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = pass => {}
        _ = cut.wait_for(|link| *link == Link::Cut) => {}
    }
}
