//! What a caller says of a backup (contract section 6.5), of every era, and what is ours beside it.

use crate::backup::{BackupError, BackupId, Format, Order, ParentOf};
use crate::rpc::args::Object;
use crate::rpc::{Ctx, ErrorClass, Op, RpcError};
use crate::storage::{Access, Place};
use datastore_api::Secret;
use serde::Deserialize;
use serde_json::Value;

/// `backup_info` of `create_backup`, and `snapshot_info`.
#[derive(Debug, Clone, Deserialize)]
pub struct WireBackup {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    parent: Option<Object<WireParent>>,
    #[serde(default)]
    datastore: Option<String>,
    #[serde(default)]
    datastore_version: Option<String>,
    #[serde(default)]
    storage_driver: Option<String>,
    #[serde(default)]
    swift_container: Option<String>,
    #[serde(default)]
    swift_url: Option<String>,
    #[serde(default, rename = "trove_guestagent")]
    ours: Option<Object<WireOurs>>,
}

/// What an increment builds on.
#[derive(Debug, Clone, Deserialize)]
pub struct WireParent {
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    checksum: Option<String>,
}

/// What only our own callers say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireOurs {
    /// Another place than the configured one.
    #[serde(default)]
    pub storage: Option<String>,
    /// `native` or `upstream`.
    #[serde(default)]
    pub format: Option<String>,
    /// Id of the backup that an increment builds on, in the same storage; `last`: the newest one of this guest.
    #[serde(default)]
    pub parent: Option<String>,
    /// Name of the key that comes along.
    #[serde(default)]
    pub key_id: Option<String>,
    /// A key for this backup alone.
    #[serde(default)]
    pub key: Option<Secret>,
}

/// The id as it came, for the row that must not wait for ever.
pub fn raw_id(info: &WireBackup) -> &str {
    info.id.as_deref().unwrap_or_default()
}

impl WireBackup {
    /// The order of a backup.
    pub fn order(&self, ctx: &Ctx, op: &Op) -> Result<Order, RpcError> {
        let id: BackupId = match self.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.parse()?,
            None => return Err(RpcError::new(ErrorClass::BadRequest, "backup_info.id is missing")),
        };
        let ours = self.ours.clone().map(|Object(ours)| ours).unwrap_or_default();
        let parent = match (&self.parent, ours.parent) {
            (Some(Object(parent)), _) => {
                let location = filled(parent.location.as_deref());
                let location = location.ok_or_else(|| missing("backup_info.parent.location"))?;
                Some(ParentOf::Location {
                    location,
                    checksum: filled(parent.checksum.as_deref()),
                })
            }
            (None, Some(id)) if id == "last" => Some(ParentOf::Last),
            (None, Some(id)) => Some(ParentOf::Id(id.parse()?)),
            (None, None) => None,
        };
        let format = match ours.format.as_deref() {
            None => None,
            Some("native") => Some(Format::Native),
            Some("upstream") => Some(Format::Upstream),
            Some(_) => return Err(bad("backup_info.trove_guestagent.format is neither native nor upstream")),
        };
        let key = match (ours.key_id, ours.key) {
            (Some(id), Some(key)) => Some((id, key)),
            (None, None) => None,
            _ => return Err(bad("backup_info.trove_guestagent: key and key_id go together")),
        };
        let access = access(ctx, op, self.swift_url.as_deref(), self.swift_container.as_deref());
        Ok(Order {
            id,
            name: filled(self.name.as_deref()),
            parent,
            place: place(ctx, self.storage_driver.as_deref(), ours.storage.as_deref(), &access)?,
            access,
            format,
            key,
            datastore: filled(self.datastore.as_deref()),
            datastore_version: filled(self.datastore_version.as_deref()),
            context: op.context.clone(),
        })
    }
}

/// What the request adds to the settings of a store.
pub fn access(ctx: &Ctx, op: &Op, swift_url: Option<&str>, swift_container: Option<&str>) -> Access {
    let text = |key: &str| {
        op.context
            .get(key)
            .and_then(Value::as_str)
            .and_then(|text| filled(Some(text)))
    };
    Access {
        guest_id: ctx.settings.guest_id.clone(),
        swift_url: filled(swift_url),
        swift_container: filled(swift_container),
        token: text("auth_token").map(Secret::from),
        project_id: text("project_id").or_else(|| text("tenant")),
        service_catalog: op
            .context
            .get("service_catalog")
            .filter(|catalog| catalog.is_array())
            .cloned(),
    }
}

/// Which store: what the caller names, else the configured one.
pub fn place(ctx: &Ctx, driver: Option<&str>, named: Option<&str>, access: &Access) -> Result<Place, RpcError> {
    if let Some(named) = named {
        return Place::parse(named).map_err(|why| bad(&format!("backup_info.trove_guestagent.storage: {why}")));
    }
    let configured = ctx.backups.place();
    let swift = || Place {
        kind: "swift".to_owned(),
        rest: String::new(),
    };
    match driver.filter(|driver| !driver.is_empty()) {
        None if access.swift_url.is_some() => Ok(swift()),
        None => Ok(configured.clone()),
        Some(driver) if driver == configured.kind => Ok(configured.clone()),
        Some("swift") => Ok(swift()),
        Some("cinder") => Err(bad(
            "storage_driver cinder: a snapshot of the volume is not taken by the guest",
        )),
        Some(driver @ ("file" | "s3" | "conductor")) => Err(bad(&format!(
            "storage_driver {driver}: this guest is configured for {configured}"
        ))),
        Some(driver) => Err(bad(&format!(
            "storage_driver {:?} is unknown; there are swift, s3, file and conductor",
            driver.chars().take(64).collect::<String>()
        ))),
    }
}

fn filled(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

fn missing(what: &str) -> RpcError {
    bad(&format!("{what} is missing"))
}

fn bad(text: &str) -> RpcError {
    RpcError::new(ErrorClass::BadRequest, text)
}

/// `prepare.backup_info`: what is restored on a new guest.
#[derive(Debug, Clone, Deserialize)]
pub struct WireRestore {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    location: Option<String>,
    #[serde(default)]
    checksum: Option<String>,
    #[serde(default)]
    storage_driver: Option<String>,
    #[serde(default)]
    swift_url: Option<String>,
    #[serde(default, rename = "trove_guestagent")]
    ours: Option<Object<WireOurs>>,
}

impl WireRestore {
    /// Reads it from an argument that may be anything.
    pub fn read(info: &Value) -> Result<Self, RpcError> {
        let Value::Object(_) = info else {
            return Err(bad("backup_info is no object"));
        };
        Self::deserialize(info).map_err(|_| bad("backup_info has a field of a wrong type"))
    }

    /// Whether the data come with the volume.
    pub fn is_snapshot(&self) -> bool {
        let location = self.location.as_deref().unwrap_or_default();
        self.storage_driver.as_deref() == Some("cinder") || location.starts_with("cinder://")
    }

    /// What is to be restored.
    pub fn wanted(&self, ctx: &Ctx, op: &Op) -> Result<crate::backup::Wanted, RpcError> {
        let ours = self.ours.clone().map(|Object(ours)| ours).unwrap_or_default();
        let key = match (ours.key_id, ours.key) {
            (Some(id), Some(key)) => Some((id, key)),
            _ => None,
        };
        let location = filled(self.location.as_deref()).ok_or_else(|| missing("backup_info.location"))?;
        Ok(crate::backup::Wanted {
            id: self.id.as_deref().and_then(|id| id.parse().ok()),
            location: Some(location),
            checksum: filled(self.checksum.as_deref()),
            place: None,
            access: access(ctx, op, self.swift_url.as_deref(), None),
            key,
        })
    }
}

impl From<BackupError> for RpcError {
    fn from(error: BackupError) -> Self {
        use datastore_api::ErrorKind;
        let class = match &error {
            BackupError::Invalid(_) => ErrorClass::BadRequest,
            BackupError::Missing { .. } => ErrorClass::NotFound,
            BackupError::Engine(source) if source.kind() == ErrorKind::NotSupported => ErrorClass::NotSupported,
            _ => ErrorClass::Trove,
        };
        RpcError::caused_by(class, error.to_string(), &error)
    }
}
