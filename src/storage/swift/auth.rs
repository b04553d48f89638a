//! Where the account is, and the token for it.

use super::client::{StoreClient, read_body};
use crate::storage::{Access, StorageError, StorageErrorKind, SwiftSettings};
use datastore_api::{ExposeSecret, Secret};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An account and the right to use it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// URL of the account, without a slash at its end.
    pub account: String,
    /// For `X-Auth-Token`.
    pub token: Secret,
}

/// How we come to a session.
#[derive(Debug)]
pub(super) enum Auth {
    /// Told by the request.
    Given(Session),
    /// The request's token is exchanged for one of the project, and the catalog of the answer tells the account.
    Rescope {
        /// The user's.
        token: Secret,
        /// Of the request.
        project: Option<String>,
    },
    /// By credentials of our own (`backup_swift_credentials`): for work that no request asks for.
    Own(BTreeMap<String, Secret>),
}

impl Auth {
    /// Upstream's order: the request's URL, the option and the project, the service catalog, Keystone.
    ///
    /// # Errors
    /// `Refused` without any token; `Invalid` for a URL that cannot be one.
    pub(super) fn find(settings: &SwiftSettings, place_account: Option<&str>, access: &Access) -> Result<Self, StorageError> {
        let Some(token) = access.token.clone() else {
            return match &settings.credentials {
                Some(path) => credentials(path).map(Self::Own),
                None => Err(refused(
                    "the request has no token, and backup_swift_credentials names no file with credentials of our own",
                )),
            };
        };
        let option = settings
            .url
            .as_ref()
            .zip(access.project_id.as_ref())
            .map(|(url, project)| format!("{url}{project}"));
        let catalog = access
            .service_catalog
            .as_ref()
            .and_then(|catalog| endpoint(catalog, &settings.region));
        let account = access.swift_url.clone().or(option).or(catalog);
        let known = account.or_else(|| place_account.map(str::to_owned));
        match known {
            Some(account) => Ok(Self::Given(Session {
                account: checked(&account)?,
                token,
            })),
            None => Ok(Self::Rescope {
                token,
                project: access.project_id.clone(),
            }),
        }
    }

    /// Whether a refused token can be replaced.
    pub(super) fn can_renew(&self) -> bool {
        !matches!(self, Self::Given(_))
    }

    /// Gets a session. Talks to Keystone, if it must.
    pub(super) async fn session(&self, client: &StoreClient, settings: &SwiftSettings) -> Result<Session, StorageError> {
        match self {
            Self::Given(session) => Ok(session.clone()),
            Self::Rescope { token, project } => {
                let Some(url) = &settings.auth_url else {
                    return Err(refused(
                        "the request names no swift_url, its catalog no object-store, and [service_credentials] auth_url is not set",
                    ));
                };
                let Some(project) = project else {
                    return Err(refused("the request names no project"));
                };
                let identity = json!({"methods": ["token"], "token": {"id": token.expose_secret()}});
                let body = json!({"auth": {"identity": identity, "scope": {"project": {"id": project}}}});
                keystone(client, url, &settings.region, body).await
            }
            Self::Own(found) => own(client, settings, found).await,
        }
    }
}

/// What the keys of the file of credentials may be. The first form is Keystone's, the second Swift's own.
const KEYS: &str = "auth_url, application_credential_id and application_credential_secret; or auth_url, user and key";

fn credentials(path: &std::path::Path) -> Result<BTreeMap<String, Secret>, StorageError> {
    let text = std::fs::read_to_string(path).map_err(|e| StorageError::io("read the Swift credentials of", path.display(), e))?;
    let mut found = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let Some((key, value)) = line.split_once('=') else {
            return Err(invalid_file(path));
        };
        found.insert(key.trim().to_owned(), Secret::from(value.trim().to_owned()));
    }
    let has = |keys: &[&str]| keys.iter().all(|key| found.contains_key(*key));
    if has(&["auth_url", "application_credential_id", "application_credential_secret"]) || has(&["auth_url", "user", "key"]) {
        Ok(found)
    } else {
        Err(invalid_file(path))
    }
}

fn invalid_file(path: &std::path::Path) -> StorageError {
    let what = format!("expected lines of the form key = value with {KEYS}");
    StorageError::invalid("read the Swift credentials of", path.display(), what)
}

async fn own(client: &StoreClient, settings: &SwiftSettings, found: &BTreeMap<String, Secret>) -> Result<Session, StorageError> {
    let get = |key: &str| found.get(key).map_or("", |value| value.expose_secret());
    let url = get("auth_url");
    if found.contains_key("key") {
        let ask = client
            .http
            .request(Method::GET, url)
            .header("X-Auth-User", get("user"))
            .header("X-Auth-Key", get("key"));
        let answer = client.plain("log in at", url, ask).await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let (Some(token), Some(account)) = (header("X-Auth-Token"), header("X-Storage-Url")) else {
            return Err(no_account(url));
        };
        return Ok(Session {
            account: checked(account)?,
            token: Secret::from(token.to_owned()),
        });
    }
    let identity = json!({"methods": ["application_credential"], "application_credential": {
        "id": get("application_credential_id"), "secret": get("application_credential_secret")}});
    keystone(client, url, &settings.region, json!({"auth": {"identity": identity}})).await
}

/// Asks Keystone v3 for a token, and finds the account in the catalog that comes with it.
async fn keystone(client: &StoreClient, url: &str, region: &str, body: Value) -> Result<Session, StorageError> {
    let url = url.trim_end_matches('/');
    let version = if url.ends_with("/v3") { "" } else { "/v3" };
    let ask = client.http.request(Method::POST, format!("{url}{version}/auth/tokens"));
    let answer = client.plain("get a token from", url, ask.json(&body)).await?;
    let token = answer.headers().get("X-Subject-Token").and_then(|value| value.to_str().ok());
    let token = token.map(|token| Secret::from(token.to_owned()));
    let text = read_body(answer, 8 << 20, client.wait)
        .await
        .map_err(|e| client.broken("get a token from", url, e))?;
    let parsed: Value = serde_json::from_slice(&text).unwrap_or_default();
    let (Some(token), Some(account)) = (token, endpoint(&parsed["token"]["catalog"], region)) else {
        return Err(no_account(url));
    };
    Ok(Session {
        account: checked(&account)?,
        token,
    })
}

fn no_account(url: &str) -> StorageError {
    let what = "the answer has no token, or its catalog no public object-store of the region";
    StorageError::new(StorageErrorKind::Refused, "get a token from", url, what)
}

fn refused(what: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Refused, "open", "swift", what)
}

/// The public URL of the account: from the catalog of a request's context (`publicURL` per endpoint) or of Keystone v3 (`interface`
/// and `url`).
fn endpoint(catalog: &Value, region: &str) -> Option<String> {
    let services = catalog.as_array()?;
    let stores = services.iter().filter(|service| service["type"] == "object-store");
    let mut endpoints = stores.filter_map(|service| service["endpoints"].as_array()).flatten();
    endpoints.find_map(|endpoint| {
        let at = endpoint["region"].as_str().or(endpoint["region_id"].as_str());
        if !region.is_empty() && at.is_some_and(|at| at != region) {
            return None;
        }
        let public = endpoint["interface"] == "public" || endpoint["interface"] == "publicURL";
        let url = endpoint["publicURL"].as_str().or(endpoint["url"].as_str().filter(|_| public));
        url.map(str::to_owned)
    })
}

/// URL of an account: http or https, without user, query or fragment.
pub(super) fn checked(account: &str) -> Result<String, StorageError> {
    let bad = |what| Err(StorageError::invalid("use the Swift account", shown(account), what));
    let Ok(url) = reqwest::Url::parse(account) else {
        return bad("it is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return bad("expected http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return bad("expected no user, password, '?' or '#'");
    }
    Ok(account.trim_end_matches('/').to_owned())
}

/// Without what might be a password.
fn shown(account: &str) -> String {
    let account = &account[..account.find(['?', '#']).unwrap_or(account.len())];
    let scheme = account.find("://").map_or(0, |at| at + 3);
    match account.rfind('@') {
        Some(at) if at >= scheme => format!("{}…{}", &account[..scheme], &account[at..]),
        _ => account.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(swift_url: Option<&str>, catalog: Option<Value>) -> Access {
        Access {
            swift_url: swift_url.map(str::to_owned),
            token: Some(Secret::from("gAAAA-token".to_owned())),
            project_id: Some("p1".to_owned()),
            service_catalog: catalog,
            ..Access::default()
        }
    }

    #[test]
    fn the_account_is_found_in_upstreams_order() {
        let context = json!([{"type": "compute", "endpoints": [{"region": "R", "publicURL": "http://nova"}]},
            {"type": "object-store", "endpoints": [{"region": "other", "publicURL": "http://no/v1"}, {"region": "R", "publicURL": "http://cat/v1/AUTH_p1/"}]}]);
        let option = SwiftSettings {
            url: Some("http://option/v1/AUTH_".to_owned()),
            region: "R".to_owned(),
            ..SwiftSettings::default()
        };
        let plain = SwiftSettings {
            region: "R".to_owned(),
            ..SwiftSettings::default()
        };
        let of = |settings: &SwiftSettings, place: Option<&str>, access: &Access| match Auth::find(settings, place, access) {
            Ok(Auth::Given(session)) => session.account,
            Ok(Auth::Rescope { .. }) => "keystone".to_owned(),
            other => panic!("{other:?}"),
        };
        let request = access(Some("http://request/v1/AUTH_p1"), Some(context.clone()));
        assert_eq!(of(&option, None, &request), "http://request/v1/AUTH_p1");
        let older = access(None, Some(context));
        assert_eq!(of(&option, None, &older), "http://option/v1/AUTH_p1");
        assert_eq!(of(&plain, Some("http://place/v1/x"), &older), "http://cat/v1/AUTH_p1");
        assert_eq!(
            of(&plain, Some("http://place/v1/x"), &access(None, None)),
            "http://place/v1/x"
        );
        assert_eq!(of(&plain, None, &access(None, None)), "keystone");
    }

    #[test]
    fn no_token_and_a_url_with_a_password_are_refused_without_saying_it() {
        let error = Auth::find(&SwiftSettings::default(), None, &Access::default()).unwrap_err();
        assert_eq!(error.kind, StorageErrorKind::Refused);
        for bad in [
            "ftp://x/y",
            "http://user:secret@host/v1",
            "host/v1",
            "http://h/v1?token=secret",
            "http://",
        ] {
            let error = checked(bad).unwrap_err();
            assert_eq!(error.kind, StorageErrorKind::Invalid);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn keystones_catalog_is_read_as_well() {
        let catalog = json!([{"type": "object-store", "name": "swift", "endpoints": [
            {"interface": "admin", "region_id": "R", "url": "http://admin"},
            {"interface": "public", "region_id": "R", "region": "R", "url": "http://public/v1/AUTH_1"}]}]);
        assert_eq!(endpoint(&catalog, "R").as_deref(), Some("http://public/v1/AUTH_1"));
        assert_eq!(endpoint(&catalog, "S"), None);
        assert_eq!(endpoint(&Value::Null, "R"), None);
    }
}
