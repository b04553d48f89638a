//! Configuration in layers: base text, user parameters, system parameters; and parameters of the running server.
//!
//! The base file includes the folder of layers in its last line; the layers apply in the order of their names, so that the system
//! layer wins. What is written is a function of the arguments and of what is stored in these files, of nothing else.

mod apply;
pub(crate) mod base;
pub(crate) mod option_file;
mod variables;

use crate::datastore::Server;
use crate::errors;
use async_trait::async_trait;
use aws_lc_rs::digest;
use datastore_api::{Change, ConfigEffect, ConfigOverrides, Configuration, DriverError, ErrorKind, FileMode};
use option_file::Parameters;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What the driver wants unless the user says otherwise.
const DEFAULT_LAYER: &str = "10-system-001-defaults.cnf";
/// The user layer.
const USER_LAYER: &str = "20-user-001-common.cnf";
/// The system layer.
const SYSTEM_LAYER: &str = "50-system-001-common.cnf";
/// How the server starts by itself: the present role of the instance.
const ROLE_LAYER: &str = "50-system-002-role.cnf";

#[async_trait]
impl Configuration for Server {
    async fn write_base(&self, contents: &str) -> Result<Change, DriverError> {
        base::check(contents)?;
        let change = self.write_system_layer().await?;
        Ok(change.or(self
            .write_config(&self.layout.base, &base::render(contents, &self.layout.layers))
            .await?))
    }

    async fn update_overrides(&self, wanted: &ConfigOverrides) -> Result<Change, DriverError> {
        let added = option_file::parameters(&wanted.values, self.flavour.live_only)?;
        match self.check_values(&wanted.values).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            checked => checked?,
        }
        let mut parameters = if wanted.remove {
            Parameters::new()
        } else {
            self.stored_overrides().await?
        };
        parameters.extend(added);
        self.write_user_layer(&parameters).await
    }

    async fn apply_overrides(&self, values: &Map<String, Value>) -> Result<ConfigEffect, DriverError> {
        option_file::parameters(values, self.flavour.live_only)?;
        self.apply_live(values).await
    }
}

impl Server {
    /// Writes all layers as a new instance has them, and removes layers of an earlier life.
    pub(crate) async fn write_all_config(
        &self,
        base: Option<&str>,
        overrides: &Map<String, Value>,
    ) -> Result<Change, DriverError> {
        let contents = base
            .filter(|text| !text.trim().is_empty())
            .unwrap_or(self.flavour.default_config);
        base::check(contents)?;
        let parameters = option_file::parameters(overrides, self.flavour.live_only)?;
        let mut change = self.remove_foreign_layers().await?;
        change = change.or(self.write_system_layer().await?);
        change = change.or(self.write_user_layer(&parameters).await?);
        Ok(change.or(self
            .write_config(&self.layout.base, &base::render(contents, &self.layout.layers))
            .await?))
    }

    fn layer(&self, name: &str) -> PathBuf {
        self.layout.layers.join(name)
    }

    async fn stored_overrides(&self) -> Result<Parameters, DriverError> {
        let path = self.layer(USER_LAYER);
        let bytes = self
            .context
            .host
            .read(&path)
            .await
            .map_err(|error| errors::file("read", &path, error))?;
        Ok(option_file::parse(&String::from_utf8_lossy(&bytes.unwrap_or_default())))
    }

    async fn write_user_layer(&self, parameters: &Parameters) -> Result<Change, DriverError> {
        self.write_layer(USER_LAYER, parameters).await
    }

    async fn write_layer(&self, name: &str, parameters: &Parameters) -> Result<Change, DriverError> {
        let path = self.layer(name);
        if parameters.is_empty() {
            return self
                .context
                .host
                .remove(&path)
                .await
                .map_err(|error| errors::file("remove", &path, error));
        }
        self.write_config(&path, &option_file::render("mysqld", parameters)).await
    }

    /// Writes the layer of the instance's role; an empty one is removed. A new preparation has none.
    pub(crate) async fn write_role_layer(&self, parameters: &Parameters) -> Result<Change, DriverError> {
        self.write_layer(ROLE_LAYER, parameters).await
    }

    /// Whether the role says that the server starts read-only.
    pub(crate) async fn starts_closed(&self) -> Result<bool, DriverError> {
        let path = self.layer(ROLE_LAYER);
        let read = self.context.host.read(&path).await;
        let bytes = read.map_err(|error| errors::file("read", &path, error))?.unwrap_or_default();
        let parameters = option_file::parse(&String::from_utf8_lossy(&bytes));
        Ok(parameters.get("read_only").is_some_and(|value| value == "1"))
    }

    /// What the server must have whatever the base and the user say: where its data, socket and logs are, and that it can become a
    /// source or a replica without a restart.
    pub(crate) async fn write_system_layer(&self) -> Result<Change, DriverError> {
        let layout = &self.layout;
        let mut server = Parameters::new();
        let mut set = |key: &str, value: String| server.insert(key.to_owned(), value);
        set("datadir", layout.data.display().to_string());
        set("socket", layout.socket.display().to_string());
        set("pid_file", layout.pid.display().to_string());
        set("log_error", layout.error_log.display().to_string());
        set("ignore_db_dirs", "lost+found".to_owned());
        set("server_id", server_id(&self.context.instance_id).to_string());
        for (key, value) in self.flavour.replication {
            set(key, (*value).to_owned());
        }
        if layout.moved {
            set("tmpdir", layout.tmp.display().to_string());
        }
        if let Some(port) = self.settings.port {
            set("port", port.to_string());
        }
        if let Some(address) = self.settings.bind_address {
            set("bind_address", address.to_string());
        }
        let mut text = option_file::render("mysqld", &server);
        if layout.moved {
            let client = Parameters::from([("socket".to_owned(), layout.socket.display().to_string())]);
            text.push_str(&option_file::render("client", &client));
        }
        let defaults = self.flavour.replication_defaults.iter();
        let defaults: Parameters = defaults
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let change = self.write_layer(DEFAULT_LAYER, &defaults).await?;
        Ok(change.or(self.write_config(&self.layer(SYSTEM_LAYER), &text).await?))
    }

    /// Removes layers that an earlier instance left on this root disk; files of other programs in the folder stay.
    async fn remove_foreign_layers(&self) -> Result<Change, DriverError> {
        let folder = &self.layout.layers;
        let names = self
            .context
            .host
            .list_dir(folder)
            .await
            .map_err(|error| errors::file("list", folder, error))?;
        let mut change = Change::Unchanged;
        for name in names.unwrap_or_default() {
            let ours = ["10-system-", "20-user-", "50-system-"]
                .iter()
                .any(|group| name.starts_with(group))
                && name.ends_with(".cnf");
            if ours && ![DEFAULT_LAYER, USER_LAYER, SYSTEM_LAYER].contains(&name.as_str()) {
                let path = self.layer(&name);
                let removed = self.context.host.remove(&path).await;
                change = change.or(removed.map_err(|error| errors::file("remove", &path, error))?);
            }
        }
        Ok(change)
    }

    async fn write_config(&self, path: &Path, text: &str) -> Result<Change, DriverError> {
        let mode = FileMode {
            mode: 0o644,
            owner: None,
        };
        self.context
            .host
            .write_atomic(path, text.as_bytes(), &mode)
            .await
            .map_err(|error| errors::file("write", path, error))
    }
}

/// The server's identity among its peers: the same for the same instance for ever, and none of the numbers people choose by hand.
fn server_id(instance: &str) -> u32 {
    let digest = digest::digest(&digest::SHA256, instance.as_bytes());
    let bytes = digest.as_ref().first_chunk().expect("a digest is longer than four bytes");
    u32::from_be_bytes(*bytes).max(1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_server_is_stable() {
        assert_eq!(
            server_id("6f3c0b0e-0000-4000-8000-000000000001"),
            server_id("6f3c0b0e-0000-4000-8000-000000000001")
        );
        let ids: std::collections::HashSet<u32> = (0..10_000).map(|n| server_id(&n.to_string())).collect();
        assert!(ids.len() > 9_990 && ids.iter().all(|id| *id > 65_535));
    }
}
