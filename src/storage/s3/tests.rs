//! The suite against a real peer: `TROVE_TEST_S3` names a Swift with s3api and our faults in front (`tests/lib/swift.sh`).

use super::*;
use crate::storage::contract::{self, Proxy};
use object_store::signer::Signer;
use serde_json::{Value, json};
use std::io::Write;
use std::net::SocketAddr;
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;

/// A bucket of its own in the peer.
struct Peer {
    base: String,
    bucket: String,
    keys: NamedTempFile,
}

impl Peer {
    /// `None`, with a note, where there is no peer.
    async fn find() -> Option<Self> {
        let Ok(base) = std::env::var("TROVE_TEST_S3") else {
            eprintln!("skipped: TROVE_TEST_S3 is not set, so there is no S3 to test against");
            return None;
        };
        let peer = Self {
            base,
            bucket: format!("bucket-{:016x}", retry::random()),
            keys: keys("trove:tester", "testing"),
        };
        let store = peer.store(&peer.base, "", &peer.keys);
        let url = store
            .inner
            .s3
            .signed_url(reqwest::Method::PUT, &Path::default(), CONNECT)
            .await
            .unwrap();
        let made = store.inner.http.put(url).send().await.unwrap();
        assert!(made.status().is_success(), "{:?}", made.text().await);
        Some(peer)
    }

    fn store(&self, base: &str, prefix: &str, keys: &NamedTempFile) -> S3Store {
        let settings = settings(base, keys);
        let place = Place::parse(&format!("s3://{}/{prefix}", self.bucket)).unwrap();
        S3Store::open(&settings, &place).unwrap()
    }

    /// With parts that Amazon would refuse and the peer does not.
    fn small(&self, base: &str) -> S3Store {
        let mut store = self.store(base, "pre/fix", &self.keys);
        Arc::get_mut(&mut store.inner).unwrap().part_bytes = 128 << 10;
        store
    }

    fn usual(&self) -> S3Store {
        self.store(&self.base, "pre/fix", &self.keys)
    }

    /// Asks the peer for a fault, on requests to this bucket; answers its id.
    async fn fault(&self, mut rule: Value) -> String {
        let rest = rule["path"].as_str().unwrap_or_default();
        rule["path"] = json!(format!("/{}{rest}", self.bucket));
        let body = serde_json::to_vec(&rule).unwrap();
        let url = format!("{}/faults", self.base);
        let answer = reqwest::Client::new()
            .post(url)
            .body(body)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    async fn hits(&self, id: &str) -> u64 {
        let answer = reqwest::get(format!("{}/faults/{id}", self.base))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["hits"].as_u64().unwrap()
    }
}

fn keys(access: &str, secret: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "access_key = {access}\nsecret_key = {secret}").unwrap();
    file
}

fn settings(base: &str, keys: &NamedTempFile) -> Settings {
    let mut settings = Settings {
        part_bytes: 1,
        limit: Duration::from_secs(60),
        ..Settings::default()
    };
    settings.s3.endpoint = Some(base.to_owned());
    settings.s3.credentials = Some(keys.path().to_owned());
    settings
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

async fn read(store: &S3Store, name: &ObjectName) -> Vec<u8> {
    let mut all = Vec::new();
    let (_, mut body) = store.get(name).await.unwrap();
    body.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_passes_the_suite() {
    let Some(peer) = Peer::find().await else { return };
    contract::run(Arc::new(peer.small(&peer.base))).await;
    // Without a prefix too, as far as names go.
    let whole = peer.store(&peer.base, "", &peer.keys);
    whole.put(&name("a/b"), Bytes::from_static(b"x"), &Meta::new()).await.unwrap();
    assert_eq!(whole.list("a/").await.unwrap().len(), 1);
    assert_eq!(peer.usual().list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_survives_a_network_that_breaks() {
    let Some(peer) = Peer::find().await else { return };
    let target: SocketAddr = peer.base.trim_start_matches("http://").parse().unwrap();
    let proxy = Proxy::start(target).await;
    let through = peer.small(&format!("http://{}", proxy.address));
    contract::faults(&through, &peer.small(&peer.base), &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_tries_again_what_the_store_refuses_for_now() {
    let Some(peer) = Peer::find().await else { return };
    let store = peer.usual();
    let whole = Bytes::from(vec![0x41; LEAST_PART + 100]);
    for (index, rule) in [
        json!({"method": "PUT", "path": ".*partNumber=1", "do": "status", "status": 503, "times": 2}),
        json!({"method": "PUT", "path": ".*partNumber=2", "do": "drop", "after": 10, "times": 2}),
        // A byte changed on the way is refused for its signature, and sent again.
        json!({"method": "PUT", "path": ".*partNumber=1", "do": "flip", "after": 1000}),
        json!({"method": "POST", "path": ".*uploadId=", "do": "status", "status": 500}),
        // Done, and the answer lost.
        json!({"method": "POST", "path": ".*uploadId=", "do": "lose"}),
        json!({"method": "PUT", "path": ".*partNumber=2", "do": "lose"}),
    ]
    .into_iter()
    .enumerate()
    {
        let (said, name) = (rule.to_string(), name(&format!("again-{index}")));
        let fault = peer.fault(rule).await;
        let upload = store.begin(&name, None).await.unwrap();
        upload.part(1, whole.slice(LEAST_PART..)).await.unwrap();
        upload.part(0, whole.slice(..LEAST_PART)).await.unwrap();
        let receipt = upload.finish(&Meta::new()).await;
        assert!(receipt.is_ok(), "{said}: {receipt:?}");
        assert!(peer.hits(&fault).await > 0, "{said}");
        assert!(read(&store, &name).await == whole, "{said}");
    }
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_gives_up_what_cannot_work_and_leaves_nothing() {
    let Some(peer) = Peer::find().await else { return };
    let store = peer.usual();
    for (status, kind) in [(403, StorageErrorKind::Refused), (507, StorageErrorKind::NoSpace)] {
        let name = name(&format!("given-up-{status}"));
        let path = format!(".*{name}.*partNumber=1");
        let rule = json!({"method": "PUT", "path": path, "do": "status", "status": status, "times": 0});
        let fault = peer.fault(rule).await;
        let upload = store.begin(&name, None).await.unwrap();
        let error = upload.part(0, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(peer.hits(&fault).await, 1, "it was not tried again");
        upload.abort().await;
        assert!(upload.finish(&Meta::new()).await.is_err());
        assert_eq!(store.stat(&name).await.unwrap(), None);
    }
    assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 0);
    // Bad keys, and a bucket that is not there.
    let wrong = peer.store(&peer.base, "", &keys("trove:tester", "wrong"));
    assert_eq!(wrong.check().await.unwrap_err().kind, StorageErrorKind::Refused);
    let nowhere = Place::parse("s3://no-such-bucket-0").unwrap();
    let nowhere = S3Store::open(&settings(&peer.base, &peer.keys), &nowhere).unwrap();
    assert_eq!(nowhere.check().await.unwrap_err().kind, StorageErrorKind::NotFound);
}

#[tokio::test]
async fn a_store_that_nobody_runs_is_unreachable_within_the_limit() {
    let keys = keys("a", "b");
    let mut settings = settings("http://127.0.0.1:1", &keys);
    settings.limit = Duration::from_secs(2);
    let store = S3Store::open(&settings, &Place::parse("s3://bucket/x").unwrap()).unwrap();
    let error = store.check().await.unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Unreachable, "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let keys = keys("a", "b");
    let open = |settings: &Settings, place: &str| {
        S3Store::open(settings, &Place::parse(place).unwrap())
            .err()
            .unwrap()
            .to_string()
    };
    let good = settings("http://127.0.0.1:1", &keys);
    assert!(open(&good, "s3://b").contains("name of a bucket"));
    assert!(open(&good, "s3://bucket/a b").contains("only letters"));
    let mut bad = good.clone();
    bad.s3.endpoint = Some("127.0.0.1:1".to_owned());
    assert!(open(&bad, "s3://bucket").contains("backup_s3_endpoint"));
    bad.s3.credentials = None;
    assert!(open(&bad, "s3://bucket").contains("backup_s3_credentials"));
    bad.s3.credentials = Some("/not/there".into());
    assert!(open(&bad, "s3://bucket").contains("backup_s3_credentials"));
}
