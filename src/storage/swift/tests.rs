//! On the real Swift (`tests/lib/swift.sh`), in a container of each test's own.

use super::client::{etag, header};
use super::layout::{Limits, md5_of};
use super::*;
use crate::storage::{SwiftSettings, contract};
use datastore_api::Secret;
use serde_json::{Value, json};
use std::io::Write as _;
use tokio::io::AsyncReadExt;

mod faults;
mod formats;
mod uploads;

const ID: &str = "7b1e0c2a-9a7b-4f3d-8b11-6f8b5f0a1d22";

/// The running Swift, and a container.
struct Peer {
    http: reqwest::Client,
    url: String,
    token: String,
    container: String,
}

impl Peer {
    /// `None` where no Swift runs: `tests/check.sh` starts one.
    async fn find(container: &str) -> Option<Self> {
        let url = std::env::var("TROVE_TEST_SWIFT").ok()?;
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::new();
        let login = http
            .get(format!("{url}/auth/v1.0"))
            .header("X-Auth-User", "trove:tester")
            .header("X-Auth-Key", "testing");
        let answer = login.send().await.unwrap();
        let token = answer.headers()["x-auth-token"].to_str().unwrap().to_owned();
        let container = format!("{container}-{:08x}", random() as u32);
        Some(Self {
            http,
            url,
            token,
            container,
        })
    }

    fn account(&self) -> String {
        format!("{}/v1/AUTH_trove", self.url)
    }

    fn access(&self) -> Access {
        Access {
            swift_url: Some(self.account()),
            swift_container: Some(self.container.clone()),
            token: Some(Secret::from(self.token.clone())),
            ..Access::default()
        }
    }

    /// Parts of ten bytes, at most eight segments in a manifest.
    async fn store(&self) -> Swift {
        let store = self.with(&Settings {
            part_bytes: 10,
            ..Settings::default()
        });
        store.client.pretend(Limits {
            segments: 8,
            object: 5 << 30,
        });
        store.check().await.unwrap();
        store
    }

    fn with(&self, settings: &Settings) -> Swift {
        let settings = Settings {
            limit: Duration::from_secs(60).min(settings.limit),
            ..settings.clone()
        };
        Swift::new(&settings, &Place::parse("swift").unwrap(), &self.access()).unwrap()
    }

    /// A request of somebody else's.
    async fn ask(
        &self,
        method: Method,
        name: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Response {
        let url = format!("{}/{}/{name}", self.account(), self.container);
        let body = body.into();
        let length = body.as_bytes().map_or(0, <[u8]>::len);
        let mut request = self
            .http
            .request(method.clone(), url)
            .header("X-Auth-Token", &self.token)
            .body(body);
        if !matches!(method, Method::GET | Method::HEAD) {
            request = request.header("Content-Length", length);
        }
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        request.send().await.unwrap()
    }

    /// Names of everything in the container.
    async fn names(&self) -> Vec<String> {
        let text = self.ask(Method::GET, "", &[], "").await.text().await.unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Asks the Swift to fail (tests/lib/swift/faults.py); `rule` without the path, which is `name` in our container.
    async fn fault(&self, name: &str, mut rule: Value) -> String {
        rule["path"] = json!(format!("/v1/AUTH_trove/{}/{name}", self.container));
        let answer = self
            .http
            .post(format!("{}/faults", self.url))
            .json(&rule)
            .send()
            .await
            .unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["id"].as_str().unwrap().to_owned()
    }

    async fn end(&self, fault: &str) {
        let url = format!("{}/faults/{fault}", self.url);
        self.http.delete(url).send().await.unwrap();
    }

    async fn hits(&self, fault: &str) -> u64 {
        let answer = self.http.get(format!("{}/faults/{fault}", self.url)).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["hits"].as_u64().unwrap()
    }
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// `count` bytes that differ everywhere.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32)
        .flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..1].to_vec())
        .collect()
}

/// Sends a body in the store's parts, the parts in an order of their own.
async fn upload(store: &Swift, object: &str, body: &[u8], meta: &Meta) -> Result<Receipt, StorageError> {
    let upload = store.begin(&name(object), None).await?;
    let mut parts: Vec<_> = body.chunks(upload.part_bytes(0)).enumerate().collect();
    for pair in parts.chunks_mut(2) {
        pair.reverse();
    }
    for (index, part) in parts {
        if let Err(error) = upload.part(index as u32, Bytes::copy_from_slice(part)).await {
            upload.abort().await;
            return Err(error);
        }
    }
    match upload.finish(meta).await {
        Ok(receipt) => Ok(receipt),
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

async fn read(store: &Swift, object: &str) -> std::io::Result<Vec<u8>> {
    let (_, mut body) = store.get(&name(object)).await.map_err(StorageError::into_io)?;
    let mut all = Vec::new();
    body.read_to_end(&mut all).await?;
    Ok(all)
}

#[tokio::test]
async fn the_suite_for_all_stores_passes_and_so_it_does_over_a_way_that_breaks() {
    let Some(peer) = Peer::find("suite").await else { return };
    let settings = Settings {
        part_bytes: 64 << 10,
        ..Settings::default()
    };
    contract::run(Arc::new(peer.with(&settings))).await;
    let target = peer.url.strip_prefix("http://").unwrap().parse().unwrap();
    let proxy = contract::Proxy::start(target).await;
    let mut access = peer.access();
    access.swift_url = Some(format!("http://{}/v1/AUTH_trove", proxy.address));
    let broken = Swift::new(&settings, &Place::parse("swift").unwrap(), &access).unwrap();
    // A location has the URL of the account in it, so both go the same way.
    contract::faults(&broken, &broken, &proxy).await;
}
