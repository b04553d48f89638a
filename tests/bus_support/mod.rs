//! For tests of the bus against a real broker.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several tests, each uses a part")]

pub mod proxy;

use datastore_api::Secret;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trove_guestagent::bus::{Answer, Broker, Bus, BusState, Client, Delivery, QueueType, RpcVersion, Settings, TlsSettings, url};

pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lib/broker.sh");
/// Generous: a loaded machine, a broker that starts.
pub const SOON: Duration = Duration::from_secs(30);

/// A name that no other test uses.
pub fn fresh(prefix: &str) -> String {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!("{prefix}-{}-{nanos}", std::process::id())
}

/// Runs the broker script.
pub fn script(args: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests start their broker themselves")]
    let mut command = std::process::Command::new(SCRIPT);
    let out = command.args(args).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{args:?}: {text}{errors}");
    text.into_owned()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A broker of this test's own; ends with it.
pub struct OwnBroker {
    pub port: u16,
    pub tls_port: u16,
    pub dir: tempfile::TempDir,
}

impl OwnBroker {
    pub fn start() -> Self {
        let own = Self::prepare();
        script(&["start", own.path(), &own.port.to_string()]);
        own
    }

    pub fn start_with_tls() -> Self {
        let own = Self::prepare();
        script(&["certs", &own.certs()]);
        script(&[
            "start",
            own.path(),
            &own.port.to_string(),
            &own.tls_port.to_string(),
            &own.certs(),
        ]);
        own
    }

    fn prepare() -> Self {
        Self {
            port: free_port(),
            tls_port: free_port(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub fn certs(&self) -> String {
        format!("{}-certs", self.path())
    }

    pub fn cert(&self, name: &str) -> PathBuf {
        Path::new(&self.certs()).join(name)
    }

    pub fn run(&self, verb: &str) {
        script(&[verb, self.path()]);
    }

    pub fn ctl(&self, args: &[&str]) -> String {
        let mut all = vec!["ctl", self.path()];
        all.extend(args);
        script(&all)
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "tests end their broker themselves")]
        let _ = std::process::Command::new(SCRIPT).args(["kill", self.path()]).output();
        let _ = std::fs::remove_dir_all(self.certs());
    }
}

/// The broker of the whole suite, or one of this test's own if none is given.
pub struct SomeBroker {
    pub port: u16,
    _own: Option<OwnBroker>,
}

pub fn broker() -> SomeBroker {
    match std::env::var("TROVE_TEST_AMQP") {
        Ok(url) => SomeBroker {
            port: url::parse(&url).unwrap().brokers[0].port,
            _own: None,
        },
        Err(_) => {
            let own = OwnBroker::start();
            SomeBroker {
                port: own.port,
                _own: Some(own),
            }
        }
    }
}

/// Settings for a guest and an exchange that no other test uses.
pub fn settings(port: u16) -> Settings {
    let server = fresh("guest");
    Settings {
        brokers: vec![Broker {
            host: "127.0.0.1".into(),
            port,
            user: "guest".into(),
            password: Secret::from("guest".to_owned()),
        }],
        vhost: "/".into(),
        tls: None,
        login_method: "AMQPLAIN".into(),
        control_exchange: fresh("exchange"),
        topic: format!("guestagent.{server}"),
        server,
        conductor_topic: "trove-conductor".into(),
        durable: false,
        auto_delete: false,
        queue: QueueType::default(),
        heartbeat: Duration::from_secs(15),
        prefetch: 256,
        key: None,
        missing_reply_queue: Duration::from_secs(2),
        outbox_limit: 1000,
        self_ping: Duration::from_secs(30),
        max_body: 1 << 20,
        connection_name: "test".into(),
    }
}

pub fn tls(own: &OwnBroker) -> TlsSettings {
    TlsSettings {
        ca_file: Some(own.cert("ca.pem")),
        cert_file: Some(own.cert("client.pem")),
        key_file: Some(own.cert("client.key")),
        verify_hostname: true,
    }
}

/// A running bus. Ends when dropped.
pub struct Guest {
    pub bus: Bus,
    pub deliveries: mpsc::Receiver<Delivery>,
    pub state: watch::Receiver<BusState>,
    pub settings: Settings,
    pub cancel: CancellationToken,
    _end: tokio_util::sync::DropGuard,
}

impl Guest {
    pub fn start(settings: Settings) -> Self {
        let cancel = CancellationToken::new();
        let (bus, deliveries) = Bus::start(settings.clone(), cancel.clone());
        Self {
            state: bus.state(),
            bus,
            deliveries,
            settings,
            _end: cancel.clone().drop_guard(),
            cancel,
        }
    }

    pub async fn up(settings: Settings) -> Self {
        let mut guest = Self::start(settings);
        guest.wait_up().await;
        guest
    }

    pub async fn wait_up(&mut self) {
        let up = self.state.wait_for(|state| matches!(state, BusState::Up { .. }));
        timeout(SOON, up).await.expect("the bus comes up").unwrap();
    }

    pub async fn wait_down(&mut self) {
        let down = self.state.wait_for(|state| matches!(state, BusState::Down(_)));
        timeout(SOON, down).await.expect("the bus goes down").unwrap();
    }

    pub async fn next(&mut self) -> Delivery {
        timeout(SOON, self.deliveries.recv()).await.expect("a request comes").unwrap()
    }

    /// Nothing comes for a while.
    pub async fn quiet(&mut self) {
        if let Ok(Some(delivery)) = timeout(Duration::from_millis(700), self.deliveries.recv()).await {
            panic!("unexpected {delivery:?}");
        }
    }

    /// Answers everything with its arguments, in the background, until the sender of the result is dropped.
    pub fn echo(&mut self) {
        let (_, empty) = mpsc::channel(1);
        let mut deliveries = std::mem::replace(&mut self.deliveries, empty);
        let bus = self.bus.clone();
        tokio::spawn(async move {
            while let Some(Delivery { request, ack, .. }) = deliveries.recv().await {
                let bus = bus.clone();
                tokio::spawn(async move {
                    if let Some(to) = request.reply {
                        let _ = bus.answer(&to, Answer::Result(request.args.into())).await;
                    }
                    ack.ack().await;
                });
            }
        });
    }
}

pub fn v1() -> RpcVersion {
    RpcVersion { major: 1, minor: 0 }
}

/// Calls `echo` until it works; how long that took.
pub async fn call_until_it_works(client: &Client, guest: &str) -> Duration {
    let started = Instant::now();
    loop {
        let limit = Duration::from_secs(2);
        let call = client.call(
            guest,
            None,
            "echo",
            v1(),
            serde_json::Map::new(),
            serde_json::Map::new(),
            limit,
        );
        match call.await {
            Ok(_) => return started.elapsed(),
            Err(error) => assert!(started.elapsed() < SOON, "{error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A client without anything of ours, as another program would be.
pub struct Raw {
    pub connection: Connection,
    pub channel: Channel,
}

pub fn json_properties() -> BasicProperties {
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(2)
}

impl Raw {
    pub async fn connect(port: u16) -> Self {
        let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel }
    }

    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let sent = self
            .channel
            .basic_publish(exchange.into(), key.into(), options, body, properties);
        sent.await.unwrap().await.unwrap();
    }

    pub async fn queue(&self, name: &str, options: QueueDeclareOptions) {
        self.channel
            .queue_declare(name.into(), options, FieldTable::default())
            .await
            .unwrap();
    }

    pub async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consume = self
            .channel
            .basic_consume(queue.into(), "raw".into(), options, FieldTable::default());
        consume.await.unwrap()
    }
}

/// An envelope around an inner message.
pub fn wrap(inner: &serde_json::Value) -> Vec<u8> {
    serde_json::json!({"oslo.version": "2.0", "oslo.message": inner.to_string()})
        .to_string()
        .into_bytes()
}

/// The inner message of a body.
pub fn unwrap(body: &[u8]) -> serde_json::Value {
    let outer: serde_json::Value = serde_json::from_slice(body).unwrap();
    serde_json::from_str(outer["oslo.message"].as_str().unwrap()).unwrap()
}

/// Publishes a message whose properties are these very bytes, as no decent client would.
pub fn publish_bytes(port: u16, exchange: &str, key: &str, flags: u16, properties: &[u8]) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let short = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let long = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
    let method = |class: u16, id: u16| [class.to_be_bytes(), id.to_be_bytes()].concat();
    fn send(socket: &mut std::net::TcpStream, kind: u8, channel: u16, payload: &[u8]) {
        let head = [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes()].concat();
        socket.write_all(&[&head[..], payload, b"\xce"].concat()).unwrap();
    }
    fn read(socket: &mut std::net::TcpStream) -> Vec<u8> {
        let mut head = [0; 7];
        socket.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize + 1];
        socket.read_exact(&mut payload).unwrap();
        payload
    }
    socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
    read(&mut socket);
    let login = [
        method(10, 11),
        long(b""),
        short("PLAIN"),
        long(b"\0guest\0guest"),
        short("en_US"),
    ]
    .concat();
    send(&mut socket, 1, 0, &login);
    let tune = read(&mut socket);
    send(&mut socket, 1, 0, &[&method(10, 31)[..], &tune[4..12]].concat());
    send(&mut socket, 1, 0, &[method(10, 40), short("/"), short(""), vec![0]].concat());
    read(&mut socket);
    send(&mut socket, 1, 1, &[method(20, 10), short("")].concat());
    read(&mut socket);
    send(
        &mut socket,
        1,
        1,
        &[method(60, 40), vec![0, 0], short(exchange), short(key), vec![0]].concat(),
    );
    let head = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2][..], &flags.to_be_bytes(), properties].concat();
    send(&mut socket, 2, 1, &head);
    send(&mut socket, 3, 1, b"{}");
    send(
        &mut socket,
        1,
        1,
        &[&method(20, 40)[..], &[0, 200], &short(""), &[0; 4]].concat(),
    );
    assert_eq!(read(&mut socket)[..4], method(20, 41), "the broker took the message");
}
