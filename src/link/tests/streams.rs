//! Byte streams: whole, cut, given up, refused.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_arrive_whole_in_bounded_memory() {
    let (server, link) = connected().await;
    let total: u64 = 200 << 20;
    let before = resident();
    let began = Instant::now();
    let mut stream = link.open_stream(&json!({"verb": "send", "bytes": total})).await.unwrap();
    let (mut count, mut block) = (0, vec![0; 64 * 1024]);
    loop {
        let size = stream.read(&mut block).await.unwrap();
        if size == 0 {
            break;
        }
        assert!(block[..size].iter().all(|byte| *byte == 7));
        count += size as u64;
    }
    println!("received {} MB/s", total as f64 / 1e6 / began.elapsed().as_secs_f64());
    assert_eq!(count, total);
    let began = Instant::now();
    let mut stream = link.open_stream(&json!({"verb": "take"})).await.unwrap();
    for _ in 0..total / block.len() as u64 {
        stream.write_all(&block).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    println!("sent {} MB/s", total as f64 / 1e6 / began.elapsed().as_secs_f64());
    assert_eq!(said, total.to_string());
    assert_eq!(server.echo.bytes.load(Ordering::Relaxed), total);
    assert!(resident() < before + (32 << 20), "{} then {}", before, resident());
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

async fn read_all(link: &Link, open: Value) -> (Vec<u8>, io::Result<usize>) {
    let mut stream = link.open_stream(&open).await.unwrap();
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap();
    (bytes, end)
}

#[tokio::test]
async fn a_stream_ends_well_only_if_its_sender_said_so() {
    let (_server, link) = connected().await;
    let (bytes, end) = read_all(&link, json!({"verb": "send", "bytes": 5})).await;
    assert_eq!((bytes.len(), end.unwrap()), (5, 5));
    let (bytes, end) = read_all(&link, json!({"verb": "send", "bytes": 0})).await;
    assert_eq!((bytes.len(), end.unwrap()), (0, 0));
    let (bytes, end) = read_all(&link, json!({"verb": "cut"})).await;
    let error = end.unwrap_err();
    assert_eq!(
        (bytes.as_slice(), error.kind()),
        (b"half".as_slice(), io::ErrorKind::UnexpectedEof),
        "{error}"
    );
    let (bytes, end) = read_all(&link, json!({"verb": "fail"})).await;
    assert_eq!(bytes, b"half");
    assert!(end.unwrap_err().to_string().contains("the disk is full"));
    let (_, end) = read_all(&link, json!({"verb": "unknown"})).await;
    assert!(end.unwrap_err().to_string().contains("no such stream"));
}

#[tokio::test]
async fn a_stream_whose_peer_stops_is_given_up() {
    let key = PairKey::generate();
    let server = server(vec![key.clone()]).await;
    let impatient = Limits {
        stream_idle: Duration::from_millis(300),
        ..limits()
    };
    let link = Link::connect(server.address, key, impatient).await.unwrap();
    let (_, end) = read_all(&link, json!({"verb": "sleep"})).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
    let mut stream = link.open_stream(&json!({"verb": "sleep"})).await.unwrap();
    let block = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = stream.write_all(&block).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    // A stop of the server cuts it for the receiver.
    let patient = Link::connect(server.address, link.0.key.clone(), limits()).await.unwrap();
    let mut stream = patient.open_stream(&json!({"verb": "sleep"})).await.unwrap();
    server.cancel.cancel();
    assert!(tokio::time::timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().is_err());
}

#[tokio::test]
async fn no_stream_without_the_key() {
    let (server, mut link) = connected().await;
    Arc::get_mut(&mut link.0).unwrap().key = PairKey::generate();
    let error = link.open_stream(&json!({"verb": "send", "bytes": 1})).await.err().unwrap();
    assert_eq!(error.kind(), LinkErrorKind::WrongKey, "{error}");
    server.cancel.cancel();
}
