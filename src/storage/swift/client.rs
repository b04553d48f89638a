//! Requests to one container: the token, its renewal, limits of time, and what an answer means.

use super::auth::{Auth, Session};
use super::layout::Limits;
use crate::storage::{Retry, StorageError, StorageErrorKind, SwiftSettings};
use bytes::{Bytes, BytesMut};
use datastore_api::ExposeSecret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

/// What stays as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');
/// So much of a server's explanation is shown, bytes.
const EXPLANATION: usize = 300;

/// A request within the account.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    pub method: Method,
    /// Name in the container; empty is the container itself.
    pub name: String,
    /// What follows the `?`.
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How long the beginning of the answer may take; `None` is the usual.
    pub wait: Option<Duration>,
}

impl Ask {
    pub(super) fn new(method: Method, name: impl Into<String>) -> Self {
        Self {
            method,
            name: name.into(),
            ..Self::default()
        }
    }

    #[must_use]
    pub(super) fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    /// A text that cannot be a header is left out.
    #[must_use]
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    #[must_use]
    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    #[must_use]
    pub(super) fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }
}

/// A client of one container.
#[derive(Debug)]
pub(super) struct StoreClient {
    pub http: reqwest::Client,
    pub container: String,
    /// How long a server may be silent.
    pub wait: Duration,
    pub retry: Retry,
    settings: SwiftSettings,
    auth: Auth,
    session: Mutex<Option<Session>>,
    limits: OnceCell<Limits>,
    /// Two of us that make the same object: one after the other, so that the second removes what the first one's was made of.
    pub finishing: Mutex<()>,
}

impl StoreClient {
    pub(super) fn new(
        settings: &SwiftSettings,
        auth: Auth,
        container: String,
        wait: Duration,
        retry: Retry,
    ) -> Result<Self, StorageError> {
        // The one provider of the whole program; it is there already in the running agent.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(20).min(wait))
            // A redirection would carry the token to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_keepalive(Duration::from_secs(30))
            .tls_danger_accept_invalid_certs(settings.insecure)
            .build()
            .map_err(|e| StorageError::new(StorageErrorKind::Failed, "open", "swift", "no HTTP client can be made").because(e))?;
        let session = match &auth {
            Auth::Given(session) => Some(session.clone()),
            _ => None,
        };
        Ok(Self {
            http,
            container,
            wait,
            retry,
            settings: settings.clone(),
            auth,
            session: Mutex::new(session),
            limits: OnceCell::new(),
            finishing: Mutex::new(()),
        })
    }

    /// URL of the container, for people and locations: without the account's while that is not known.
    pub(super) fn url(&self) -> String {
        match self.session.try_lock().ok().as_deref() {
            Some(Some(session)) => format!("{}/{}", session.account, self.container),
            _ => match &self.auth {
                Auth::Given(session) => format!("{}/{}", session.account, self.container),
                _ => format!("swift://{}", self.container),
            },
        }
    }

    /// Name of something in the container, for people.
    pub(super) fn place(&self, name: &str) -> String {
        match name {
            "" => self.url(),
            _ => format!("{}/{name}", self.url()),
        }
    }

    /// For `X-Copy-From`.
    pub(super) fn copy_source(&self, name: &str) -> String {
        let whole = format!("{}/{name}", self.container);
        utf8_percent_encode(&whole, PATH).to_string()
    }

    /// The session; a new one instead of `old`.
    async fn session(&self, old: Option<&Session>) -> Result<Session, StorageError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref()
            && old.is_none_or(|old| old.token.expose_secret() != session.token.expose_secret())
        {
            return Ok(session.clone());
        }
        let session = self.auth.session(self, &self.settings).await?;
        Ok(kept.insert(session).clone())
    }

    /// Asks until the answer is good, the failure final, or the time over.
    ///
    /// # Errors
    /// By status: 401 and 403 `Refused`, 404 `NotFound`, 413 and 507 `NoSpace`, 412 and 422 `Corrupt`, other 4xx `Invalid`; whatever
    /// may pass is tried again before.
    pub(super) async fn send(&self, doing: &'static str, ask: &Ask) -> Result<Response, StorageError> {
        self.retry.run(doing, &self.place(&ask.name), || self.once(doing, ask)).await
    }

    /// Asks once. A token that is refused is renewed, if we can.
    pub(super) async fn once(&self, doing: &'static str, ask: &Ask) -> Result<Response, StorageError> {
        let session = self.session(None).await?;
        match self.attempt(doing, ask, &session).await {
            Ok(answer) if answer.status() == 401 && self.auth.can_renew() => {
                let session = self.session(Some(&session)).await?;
                let answer = self.attempt(doing, ask, &session).await?;
                self.judge(doing, &ask.name, answer).await
            }
            Ok(answer) => self.judge(doing, &ask.name, answer).await,
            Err(error) => Err(error),
        }
    }

    async fn attempt(&self, doing: &'static str, ask: &Ask, session: &Session) -> Result<Response, StorageError> {
        let mut url = format!("{}/{}", session.account, utf8_percent_encode(&self.container, PATH));
        if !ask.name.is_empty() {
            url.push('/');
            url.extend(utf8_percent_encode(&ask.name, PATH));
        }
        if !ask.query.is_empty() {
            url = format!("{url}?{}", ask.query);
        }
        let mut token = HeaderValue::from_str(session.token.expose_secret())
            .map_err(|_| StorageError::invalid(doing, self.place(&ask.name), "the token has bytes that no token has"))?;
        token.set_sensitive(true);
        let request = self.http.request(ask.method.clone(), url).headers(ask.headers.clone());
        let mut request = request.header("X-Auth-Token", token);
        if !ask.body.is_empty() || matches!(ask.method, Method::PUT | Method::POST) {
            request = request.header("Content-Length", ask.body.len()).body(ask.body.clone());
        }
        let wait = ask.wait.unwrap_or(self.wait);
        match timeout(wait, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.broken(doing, &self.place(&ask.name), error)),
            Err(_) => Err(self.silent(doing, &self.place(&ask.name), wait)),
        }
    }

    /// A request outside of the account, without its token: logging in. Tried once.
    pub(super) async fn plain(
        &self,
        doing: &'static str,
        place: &str,
        request: RequestBuilder,
    ) -> Result<Response, StorageError> {
        match timeout(self.wait, request.send()).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(answer),
            // What it explains may repeat what it was sent.
            Ok(Ok(answer)) => Err(meaning(doing, place, answer.status().as_u16(), "")),
            Ok(Err(error)) => Err(self.broken(doing, place, error)),
            Err(_) => Err(self.silent(doing, place, self.wait)),
        }
    }

    async fn judge(&self, doing: &'static str, name: &str, answer: Response) -> Result<Response, StorageError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = read_body(answer, 64 << 10, self.wait).await.unwrap_or_default();
        Err(meaning(doing, &self.place(name), status.as_u16(), &explanation(&said)))
    }

    pub(super) fn broken(&self, doing: &'static str, place: &str, error: impl Into<Broken>) -> StorageError {
        let what = "the connection failed";
        StorageError::new(StorageErrorKind::Unreachable, doing, place, what).because(error.into().0)
    }

    fn silent(&self, doing: &'static str, place: &str, wait: Duration) -> StorageError {
        StorageError::new(
            StorageErrorKind::Unreachable,
            doing,
            place,
            format!("no answer within {wait:?}"),
        )
    }

    /// What this Swift takes: it says so to everybody. One that does not say it has the usual limits.
    pub(super) async fn limits(&self) -> Result<Limits, StorageError> {
        let account = self.session(None).await?.account;
        let asked = self.limits.get_or_try_init(|| async move {
            let mut url = reqwest::Url::parse(&account).map_err(|_| ())?;
            url.set_path("/info");
            let place = url.to_string();
            let answer = self.plain("ask", &place, self.http.get(url)).await.map_err(|_| ())?;
            let body = read_body(answer, 1 << 20, self.wait).await.map_err(|_| ())?;
            let info: serde_json::Value = serde_json::from_slice(&body).map_err(|_| ())?;
            let usual = Limits::default();
            let segments = info["slo"]["max_manifest_segments"].as_u64();
            Ok::<_, ()>(Limits {
                segments: segments
                    .map_or(usual.segments, |n| u32::try_from(n).unwrap_or(u32::MAX))
                    .clamp(2, 10_000),
                object: info["swift"]["max_file_size"].as_u64().unwrap_or(usual.object),
            })
        });
        Ok(asked.await.copied().unwrap_or_default())
    }

    /// For tests: as if the Swift had said so.
    #[cfg(test)]
    pub(super) fn pretend(&self, limits: Limits) {
        self.limits.set(limits).expect("nobody asked before");
    }
}

/// An error of the HTTP client without the URL in it.
pub(super) struct Broken(Box<dyn std::error::Error + Send + Sync>);

impl From<reqwest::Error> for Broken {
    fn from(error: reqwest::Error) -> Self {
        Self(error.without_url().into())
    }
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}

/// What a status that is no success means.
fn meaning(doing: &'static str, place: &str, status: u16, said: &str) -> StorageError {
    use StorageErrorKind::{Corrupt, Failed, Invalid, NoSpace, NotFound, Refused, Unreachable};
    let (kind, what) = match status {
        401 => (Refused, "the token is not valid, or has expired"),
        403 => (Refused, "it is not allowed to whom the token belongs"),
        404 => (NotFound, "it is not there"),
        412 => (Corrupt, "it was replaced meanwhile"),
        413 => (NoSpace, "a quota is used up, or the object is too large"),
        422 => (Corrupt, "other bytes arrived than were sent"),
        507 => (NoSpace, "the storage is full"),
        408 | 425 | 429 | 498 | 500..=599 => (Unreachable, "the server is not able to now"),
        409 => (Failed, "it is being changed by somebody else"),
        300..=399 => (Invalid, "the server sends us elsewhere, so this is not the right URL"),
        _ => (Invalid, "the server refuses it"),
    };
    let separator = if said.is_empty() { "" } else { ": " };
    StorageError::new(kind, doing, place, format!("{what} (status {status}{separator}{said})"))
}

/// The text of a small page, without its tags.
fn explanation(page: &[u8]) -> String {
    let (mut text, mut inside) = (String::new(), false);
    for c in String::from_utf8_lossy(page).chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            c if inside || c.is_control() => {}
            c => text.push(c),
        }
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let mut text = words.join(" ");
    let end = (0..=EXPLANATION.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// A whole body, of at most `most` bytes. Each piece of it must come within `wait`.
///
/// # Errors
/// The connection's; `InvalidData` for a longer one; `TimedOut`.
pub(super) async fn read_body(mut answer: Response, most: usize, wait: Duration) -> Result<Bytes, std::io::Error> {
    let mut all = BytesMut::new();
    loop {
        match timeout(wait, answer.chunk()).await {
            Ok(Ok(Some(piece))) if all.len() + piece.len() <= most => all.extend_from_slice(&piece),
            Ok(Ok(Some(_))) => {
                let what = format!("the answer is longer than {most} bytes");
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
            }
            Ok(Ok(None)) => return Ok(all.freeze()),
            Ok(Err(error)) => return Err(std::io::Error::other(error.without_url())),
            Err(_) => return Err(std::io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A header as text.
pub(super) fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// The ETag, lower case and without quotes.
pub(super) fn etag(answer: &Response) -> Option<String> {
    header(answer, "etag").map(|etag| etag.trim_matches('"').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_explains_is_shown_short_and_without_tags() {
        let page = b"<html><h1>Unprocessable Entity</h1><p>Unable\r\n to   process</p></html>";
        let error = meaning("write", "http://h/v1/a/c/x", 422, &explanation(page));
        let text = "could not write http://h/v1/a/c/x: other bytes arrived than were sent (status 422: Unprocessable Entity Unable to process)";
        assert_eq!(error.to_string(), text);
        assert!(explanation("é".repeat(1000).as_bytes()).len() <= EXPLANATION);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, again) in [
            (401, false),
            (403, false),
            (404, false),
            (413, false),
            (422, false),
            (400, false),
            (302, false),
        ] {
            assert_eq!(meaning("x", "y", status, "").is_transient(), again, "{status}");
        }
        for status in [500, 502, 503, 504, 429, 498, 408] {
            assert!(meaning("x", "y", status, "").is_transient(), "{status}");
        }
        assert_eq!(meaning("x", "y", 507, "").kind, StorageErrorKind::NoSpace);
    }
}
