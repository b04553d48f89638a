//! What the stores need to know: from the configuration, and from a request.

use super::PART_BYTES;
use datastore_api::Secret;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// From the configuration, section `[trove_guestagent]` unless said otherwise.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `backup_storage`: where backups go when a request names no other place.
    pub place: Place,
    /// `backup_part_mib`, in bytes: the least length of a part.
    pub part_bytes: usize,
    /// `backup_part_limit`: how long one part, or one other request, is tried before the upload fails.
    pub limit: Duration,
    /// `backup_folder_mounted`: the folder of a `file` storage must be on another file system than `/`.
    pub folder_mounted: bool,
    /// For `s3`.
    pub s3: S3Settings,
    /// For `swift`.
    pub swift: SwiftSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            place: Place::default(),
            part_bytes: PART_BYTES,
            limit: Duration::from_secs(300),
            folder_mounted: false,
            s3: S3Settings::default(),
            swift: SwiftSettings::default(),
        }
    }
}

/// For stores that speak S3.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// `backup_s3_endpoint`: URL of the service; `None` is Amazon's for the region.
    pub endpoint: Option<String>,
    /// `backup_s3_region`.
    pub region: String,
    /// `backup_s3_credentials`: file with the lines `access_key = …` and `secret_key = …`.
    pub credentials: Option<PathBuf>,
    /// `backup_s3_ca_file`: PEM file of certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for S3Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            credentials: None,
            ca_file: None,
        }
    }
}

/// For Swift, by upstream's options of section `[DEFAULT]`.
#[derive(Debug, Clone)]
pub struct SwiftSettings {
    /// `backup_swift_container`.
    pub container: String,
    /// `swift_url`: URL of the account where a request brings none.
    pub url: Option<String>,
    /// `swift_api_insecure`: certificates are not checked.
    pub insecure: bool,
    /// `[service_credentials] region_name`, for catalogs; empty takes the first endpoint.
    pub region: String,
    /// `[service_credentials] auth_url`: Keystone, for requests that bring neither a URL nor a catalog.
    pub auth_url: Option<String>,
    /// `backup_swift_credentials`: file for backups that no request asks for, with the lines `auth_url = …` and either
    /// `application_credential_id = …` and `application_credential_secret = …`, or `user = …` and `key = …` (Swift's own accounts).
    pub credentials: Option<PathBuf>,
    /// `backup_aes_cbc_key`: opens what upstream's older agents encrypted (`.enc`).
    pub upstream_key: Option<Secret>,
}

impl Default for SwiftSettings {
    fn default() -> Self {
        Self {
            container: "database_backups".to_owned(),
            url: None,
            insecure: false,
            region: "RegionOne".to_owned(),
            auth_url: None,
            credentials: None,
            upstream_key: None,
        }
    }
}

/// What a request, or the running agent, adds to the settings. Not every store needs each of it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Identity of the instance.
    pub guest_id: String,
    /// `backup_info.swift_url`.
    pub swift_url: Option<String>,
    /// `backup_info.swift_container`.
    pub swift_container: Option<String>,
    /// The token of the request.
    pub token: Option<Secret>,
    /// The project of the request.
    pub project_id: Option<String>,
    /// The catalog of the request's context, where older callers name the Swift account.
    pub service_catalog: Option<serde_json::Value>,
}

/// Where a store is: `file:///srv/backups`, `s3://bucket/prefix`, `swift`, `swift://container`, `conductor`. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The scheme: which store.
    pub kind: String,
    /// What follows `://`, without slashes at its end; empty if nothing does. For `file` an absolute path. For `swift` it is a
    /// container, or the URL of one (`https://host/v1/AUTH_x/container`).
    pub rest: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            kind: "swift".to_owned(),
            rest: String::new(),
        }
    }
}

impl Place {
    /// Reads a place as the configuration writes it.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once("://").unwrap_or((text, ""));
        if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err("expected file:///path, s3://bucket/prefix, swift or conductor".to_owned());
        }
        if rest.contains('@') || rest.contains('?') || rest.contains('#') || rest.chars().any(char::is_control) {
            return Err("expected no user, password, '?', '#' or control character in a place".to_owned());
        }
        if rest.split('/').any(|part| part == ".." || part == ".") {
            return Err("expected no '.' or '..' in a place".to_owned());
        }
        let rest = rest.trim_end_matches('/');
        match kind {
            "file" if !rest.starts_with('/') => Err("expected an absolute path: file:///srv/backups".to_owned()),
            "s3" if rest.is_empty() || rest.starts_with('/') => {
                Err("expected a bucket: s3://bucket or s3://bucket/prefix".to_owned())
            }
            _ => Ok(Self {
                kind: kind.to_owned(),
                rest: rest.to_owned(),
            }),
        }
    }

    /// The place an object lies in: its URL without the last segment. `http` and `https` are Swift.
    #[must_use]
    pub fn of_location(location: &str) -> Option<Self> {
        let (scheme, _) = location.split_once("://")?;
        let (folder, name) = location.rsplit_once('/')?;
        if name.is_empty() {
            return None;
        }
        match scheme {
            "http" | "https" => Some(Self {
                kind: "swift".to_owned(),
                rest: folder.to_owned(),
            }),
            _ => Self::parse(folder).ok(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rest.is_empty() {
            f.write_str(&self.kind)
        } else {
            write!(f, "{}://{}", self.kind, self.rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown_alike() {
        for text in [
            "file:///srv/backups",
            "s3://bucket/a/b",
            "swift",
            "swift://container",
            "conductor",
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Place::parse("file:///srv/").unwrap().rest, "/srv");
        for bad in [
            "",
            "://x",
            "file",
            "file://srv",
            "file:///a/../b",
            "file:///",
            "s3",
            "s3:///x",
            "s3://key:secret@bucket",
            "s3://b?x=1",
            "s 3://b",
            "s3://a\nb",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_location_names_its_place() {
        let of = |location| Place::of_location(location).map(|place| place.to_string());
        assert_eq!(of("file:///srv/b/x.json").as_deref(), Some("file:///srv/b"));
        assert_eq!(of("s3://bucket/p/x").as_deref(), Some("s3://bucket/p"));
        let swift = Place::of_location("https://swift:8080/v1/AUTH_1/c/x").unwrap();
        assert_eq!(
            (swift.kind.as_str(), swift.rest.as_str()),
            ("swift", "https://swift:8080/v1/AUTH_1/c")
        );
        for bad in ["", "x", "file:///srv/", "file:///../x", "s3://x"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
