//! What an answer of S3 means.

use crate::storage::{StorageError, StorageErrorKind};
use object_store::Error;

/// Codes of errors of the client's kind (4xx) that are worth another try: the body was changed or cut on its way.
const AGAIN: &[&str] = &[
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "IncompleteBody",
    "RequestTimeout",
    "OperationAborted",
    "SlowDown",
];
/// Codes of a full store or a quota that is used up; the status differs between stores.
const FULL: &[&str] = &[
    "QuotaExceeded",
    "XMinioStorageFull",
    "InsufficientCapacity",
    "EntityTooLarge",
    "TooManyParts",
];

pub(super) fn of(doing: &'static str, place: &str, error: Error) -> StorageError {
    // The library keeps status and body as text only.
    let text = error.to_string();
    let (kind, what) = meaning(&error, &text);
    StorageError::new(kind, doing, place, what).because(error)
}

fn meaning(error: &Error, text: &str) -> (StorageErrorKind, String) {
    use StorageErrorKind::{Failed, Invalid, NoSpace, NotFound, Refused, Unreachable};
    let status = status(text);
    let code = between(text, "<Code>", "</Code>").unwrap_or_default();
    let said = match (status, code) {
        (Some(status), "") => format!("the store answers {status}"),
        (Some(status), code) => format!("the store answers {status} {code}"),
        (None, _) => String::new(),
    };
    let full = FULL.contains(&code);
    match (error, status) {
        _ if full => (NoSpace, said),
        (_, Some(507 | 413)) => (NoSpace, said),
        (Error::NotFound { .. }, _) if code == "NoSuchBucket" => (NotFound, "there is no such bucket".to_owned()),
        (Error::NotFound { .. }, _) => (NotFound, "it is not there".to_owned()),
        _ if AGAIN.contains(&code) => (Failed, said),
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) => (Refused, said),
        (_, Some(408 | 409 | 425 | 429 | 500..)) => (Failed, said),
        (_, Some(300..400)) => (Invalid, format!("{said}; is the region right?")),
        (_, Some(400..)) => (Invalid, said),
        (Error::NotSupported { .. } | Error::InvalidPath { .. } | Error::NotImplemented { .. }, None) => {
            (Invalid, "the request cannot be made".to_owned())
        }
        // A success whose body is an error or no XML.
        _ if text.contains("error response") || text.contains("multipart response") => {
            (Failed, "the store answers something else than S3 does".to_owned())
        }
        _ => (Unreachable, "it does not answer".to_owned()),
    }
}

fn status(text: &str) -> Option<u16> {
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The text between two marks.
pub(super) fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(from)?;
    after.split_once(to).map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> StorageErrorKind {
        let source = format!("Error performing PUT http://x/b/k in 1ms - Server returned non-2xx status code: {text}");
        of(
            "write",
            "s3://b/k",
            Error::Generic {
                store: "S3",
                source: source.into(),
            },
        )
        .kind
    }

    #[test]
    fn answers_have_their_meaning() {
        use StorageErrorKind::*;
        for (text, kind) in [
            ("503 Service Unavailable: <Error><Code>SlowDown</Code></Error>", Failed),
            ("500 Internal Server Error: ", Failed),
            ("400 Bad Request: <Error><Code>BadDigest</Code></Error>", Failed),
            ("400 Bad Request: <Error><Code>InvalidPart</Code></Error>", Invalid),
            ("416 Requested Range Not Satisfiable: ", Invalid),
            ("507 Insufficient Storage: ", NoSpace),
            ("403 Forbidden: <Error><Code>QuotaExceeded</Code></Error>", NoSpace),
            ("301 Moved Permanently: ", Invalid),
        ] {
            assert_eq!(generic(text), kind, "{text}");
        }
        let silent = Error::Generic {
            store: "S3",
            source: "Error performing PUT - HTTP error: error sending request".into(),
        };
        assert_eq!(of("write", "x", silent).kind, Unreachable);
    }
}
