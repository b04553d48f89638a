//! Uploads that nobody finished. They are no objects and cost space until they are aborted.

use super::error::{self, between};
use super::{S3Store, Store};
use crate::storage::{Retry, StorageError, StorageErrorKind};
use chrono::{DateTime, Utc};
use object_store::MultipartId;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use std::time::Duration;

/// How long a signed request is valid.
const VALID: Duration = Duration::from_secs(300);
/// Longest answer that is read: a page has 1,000 entries.
const LONGEST: usize = 4 << 20;

struct Unfinished {
    key: String,
    id: MultipartId,
    begun: DateTime<Utc>,
}

/// Where a page of the list begins: key and upload id.
type Marker = (String, String);

/// Aborts those that began `older` ago.
pub(super) async fn sweep(store: &S3Store, older: Duration) -> Result<u64, StorageError> {
    let (mut removed, mut after) = (0, None);
    let place = store.place();
    loop {
        let attempt = || page(store, &place, after.as_ref());
        let page = Retry::new(store.inner.limit).run("sweep", &place, attempt).await?;
        let (found, next) = parse(&page).ok_or_else(|| {
            let what = "the store answers something else than S3 does";
            StorageError::new(StorageErrorKind::Failed, "sweep", &place, what)
        })?;
        for one in found {
            let age = Utc::now().signed_duration_since(one.begun).to_std().unwrap_or_default();
            if age < older || !one.key.starts_with(&store.inner.prefix) {
                continue;
            }
            let Ok(path) = Path::parse(&one.key) else { continue };
            let abort = || store.inner.s3.abort_multipart(&path, &one.id);
            match store.tried("sweep", &place, abort).await {
                Ok(()) => removed += 1,
                Err(error) if error.kind == StorageErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        match next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            _ => return Ok(removed),
        }
    }
}

/// A page of the list, as XML. `object_store` knows no such list; it signs the request for it.
async fn page(store: &S3Store, place: &str, after: Option<&Marker>) -> Result<String, StorageError> {
    let mut query = vec![("uploads", String::new()), ("prefix", store.inner.prefix.clone())];
    if let Some((key, id)) = after {
        query.push(("key-marker", key.clone()));
        query.push(("upload-id-marker", id.clone()));
    }
    let options = SignedUrlOptions::default().with_query(query);
    let url = store
        .inner
        .s3
        .signed_url_opts(reqwest::Method::GET, &Path::default(), VALID, &options)
        .await;
    let url = url.map_err(|error| error::of("sweep", place, error))?;
    let silent = |error: reqwest::Error| {
        StorageError::new(StorageErrorKind::Unreachable, "sweep", place, "it does not answer").because(error.without_url())
    };
    let answer = store.inner.http.get(url).send().await.map_err(silent)?;
    let status = answer.status();
    let text = answer.text().await.map_err(silent)?;
    if status.is_success() && text.len() <= LONGEST {
        return Ok(text);
    }
    let kind = match status.as_u16() {
        401 | 403 => StorageErrorKind::Refused,
        404 => StorageErrorKind::NotFound,
        408 | 409 | 429 | 500.. => StorageErrorKind::Failed,
        _ => StorageErrorKind::Invalid,
    };
    let code = between(&text, "<Code>", "</Code>").unwrap_or_default();
    Err(StorageError::new(
        kind,
        "sweep",
        place,
        format!("the store answers {} {code}", status.as_u16()),
    ))
}

/// The uploads of a page, and where the next one begins.
fn parse(xml: &str) -> Option<(Vec<Unfinished>, Option<Marker>)> {
    let whole = between(xml, "<ListMultipartUploadsResult", "</ListMultipartUploadsResult>")?;
    let field = |text: &str, name: &str| between(text, &format!("<{name}>"), &format!("</{name}>")).map(unescape);
    let mut found = Vec::new();
    for upload in whole.split("<Upload>").skip(1) {
        found.push(Unfinished {
            key: field(upload, "Key")?,
            id: field(upload, "UploadId")?,
            begun: DateTime::parse_from_rfc3339(&field(upload, "Initiated")?).ok()?.to_utc(),
        });
    }
    let more = field(whole, "IsTruncated").is_some_and(|text| text == "true");
    let next = more.then(|| Some((field(whole, "NextKeyMarker")?, field(whole, "NextUploadIdMarker")?)));
    Some((found, next.flatten()))
}

fn unescape(text: &str) -> String {
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'");
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let xml = "<?xml version=\"1.0\"?><ListMultipartUploadsResult xmlns=\"x\"><Bucket>b</Bucket><NextKeyMarker>p/a&amp;b</NextKeyMarker>\
                   <NextUploadIdMarker>I2</NextUploadIdMarker><IsTruncated>true</IsTruncated><Upload><Key>p/a</Key><UploadId>I1</UploadId>\
                   <Owner><ID>o</ID></Owner><Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload></ListMultipartUploadsResult>";
        let (found, next) = parse(xml).unwrap();
        assert_eq!((found.len(), found[0].key.as_str(), found[0].id.as_str()), (1, "p/a", "I1"));
        assert_eq!(next, Some(("p/a&b".to_owned(), "I2".to_owned())));
        assert!(parse("<html/>").is_none() && parse(&xml.replace("I1</UploadId>", "")).is_none());
        let empty = parse("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>");
        assert!(empty.is_some_and(|(found, next)| found.is_empty() && next.is_none()));
    }
}
