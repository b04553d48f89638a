//! A stranger on the wire: changed, repeated, moved and reflected bytes, and connections that never prove anything.

use super::*;

/// What a proxy does with the bytes of the asking side, once it is told to.
#[derive(Clone, Copy, PartialEq)]
enum Harm {
    Flip,
    Repeat,
    Reflect,
    Cut,
}

/// A proxy before `to` that passes on everything until `armed`, and then does harm to one piece.
async fn proxy(to: SocketAddr, harm: Harm, armed: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (reflect, reflected) = tokio::sync::oneshot::channel::<Vec<u8>>();
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                bytes = reflected => match bytes {
                    Ok(bytes) => to_client.write_all(&bytes).await.unwrap(),
                    Err(_) => drop(tokio::io::copy(&mut from_server, &mut to_client).await),
                },
            }
        });
        let mut piece = vec![0; 65536];
        loop {
            let size = from_client.read(&mut piece).await.unwrap_or(0);
            if size == 0 {
                return;
            }
            if armed.is_cancelled() {
                match harm {
                    Harm::Flip => piece[size - 1] ^= 1,
                    Harm::Repeat => to_server.write_all(&piece[..size]).await.unwrap(),
                    Harm::Cut => {
                        to_server.write_all(&piece[..size - 1]).await.unwrap();
                        return;
                    }
                    Harm::Reflect => {
                        let _ = reflect.send(piece[..size].to_vec());
                        return tokio::time::sleep(SOON).await;
                    }
                }
            }
            if to_server.write_all(&piece[..size]).await.is_err() {
                return;
            }
        }
    });
    address
}

async fn harmed(harm: Harm) -> (Server, Result<Value, LinkError>, Link) {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    let armed = CancellationToken::new();
    let address = proxy(server.address, harm, armed.clone()).await;
    let link = Link::connect(address, key, limits()).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
    armed.cancel();
    let answer = link.ask(&json!(2), SOON).await;
    (server, answer, link)
}

#[tokio::test]
async fn a_changed_bit_breaks_the_link_and_reaches_nobody() {
    let (server, answer, _) = harmed(Harm::Flip).await;
    assert_eq!(answer.unwrap_err().kind(), LinkErrorKind::Broken);
    assert_eq!(server.echo.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_frame_that_is_cut_short_reaches_nobody() {
    let (server, answer, _) = harmed(Harm::Cut).await;
    assert_eq!(answer.unwrap_err().kind(), LinkErrorKind::Broken);
    assert_eq!(server.echo.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_repeated_frame_is_acted_upon_once_at_most() {
    let (server, _, link) = harmed(Harm::Repeat).await;
    let error = tokio::time::timeout(SOON, link.closed()).await.unwrap();
    assert_eq!(error.kind(), LinkErrorKind::Broken, "{error}");
    assert_eq!(server.echo.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn our_own_frame_sent_back_is_no_answer() {
    let (_server, answer, _) = harmed(Harm::Reflect).await;
    assert_eq!(answer.unwrap_err().kind(), LinkErrorKind::Broken);
}

#[tokio::test]
async fn frames_open_in_their_order_and_direction_only() {
    let (a, b) = tokio::io::duplex(4096);
    let (key, mut a, mut b) = (PairKey::generate(), a, b);
    let keys = vec![key.clone()];
    let lookup = move || keys.clone();
    let (ours, theirs) = tokio::join!(
        shake::client(&mut a, &key, shake::Kind::Channel),
        shake::server(&mut b, &lookup)
    );
    let (mut ours, (mut theirs, ..)) = (ours.unwrap(), theirs.unwrap());
    let mut frames = Vec::new();
    for text in ["one", "two"] {
        let mut frame = vec![0; seal::HEAD];
        frame.extend_from_slice(text.as_bytes());
        ours.sealer.seal(&mut frame, 0).unwrap();
        frames.push((
            <[u8; seal::HEAD]>::try_from(&frame[..seal::HEAD]).unwrap(),
            frame[seal::HEAD..].to_vec(),
        ));
    }
    let (head, body) = frames[0].clone();
    assert!(ours.opener.open(head, &mut body.clone()).is_err(), "sent back");
    assert_eq!(theirs.opener.open(head, &mut body.clone()).unwrap(), b"one");
    assert!(theirs.opener.open(head, &mut body.clone()).is_err(), "repeated");
    for length in [0, 15, u32::MAX, u32::try_from(seal::MAX_FRAME + seal::TAG + 1).unwrap()] {
        assert!(seal::length(length.to_be_bytes()).is_err(), "{length}");
    }
}

#[tokio::test]
async fn two_handshakes_never_give_the_same_keys_and_a_recorded_one_is_worth_nothing() {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    // What a client of the right key once sent, bit by bit, to the same server.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let to = server.address;
    let recorded = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let mut all = Vec::new();
        let mut piece = vec![0; 4096];
        loop {
            let size = from_client.read(&mut piece).await.unwrap();
            if size == 0 {
                return all;
            }
            all.extend_from_slice(&piece[..size]);
            to_server.write_all(&piece[..size]).await.unwrap();
        }
    });
    let link = Link::connect(address, key, limits()).await.unwrap();
    link.ask(&json!({"verb": "harm"}), SOON).await.unwrap();
    drop(link);
    let all = recorded.await.unwrap();
    let mut again = TcpStream::connect(server.address).await.unwrap();
    again.write_all(&all).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, again.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(server.echo.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn garbage_is_dropped_at_once_and_the_peer_still_gets_in() {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    for _ in 0..50 {
        let mut stranger = TcpStream::connect(server.address).await.unwrap();
        let _ = stranger.write_all(&[0x16; 4096]).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, stranger.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.is_empty());
    }
    let link = Link::connect(server.address, key, limits()).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
}

#[tokio::test]
async fn strangers_that_say_nothing_are_few_and_go_after_a_moment() {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(TcpStream::connect(server.address).await.unwrap());
    }
    // Of one address eight may try; the others are dropped unheard.
    let mut last = strangers.pop().unwrap();
    let began = Instant::now();
    let closed = tokio::time::timeout(Duration::from_secs(2), last.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{:?}", began.elapsed());
    // From another address the peer gets in while they still sit there.
    let from = Limits {
        bind_from: Some("127.0.0.2".parse().unwrap()),
        ..limits()
    };
    let link = Link::connect(server.address, key.clone(), from).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
    let first = strangers.first_mut().unwrap();
    let closed = tokio::time::timeout(SOON, first.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    let link = Link::connect(server.address, key, limits()).await.unwrap();
    link.ask(&json!(1), SOON).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_know_the_key_is_found_out() {
    // It says yes to everything, with a proof it made up.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut hello = [0; 41];
        client.read_exact(&mut hello).await.unwrap();
        hello[8] = 0;
        client.write_all(&hello).await.unwrap();
        let mut proof = [0; 33];
        client.read_exact(&mut proof[1..]).await.unwrap();
        // Sent back what the client proved: a proof of the client is none of the server.
        client.write_all(&proof).await.unwrap();
        tokio::time::sleep(SOON).await;
    });
    let error = Link::connect(address, PairKey::generate(), limits()).await.err().unwrap();
    assert_eq!(error.kind(), LinkErrorKind::WrongKey, "{error}");
}
