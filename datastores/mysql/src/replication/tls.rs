//! Certificates for the connection to a source, as files only the server reads.

use crate::datastore::Server;
use crate::{errors, sql};
use datastore_api::{DriverError, ExposeSecret, FileMode, Owner, ReplicaTls};

impl Server {
    /// Writes the files and answers the rest of the statement: encryption on with these, or off. Nothing of an earlier one stays.
    pub(super) async fn write_tls(&self, tls: Option<&ReplicaTls>) -> Result<String, DriverError> {
        let folder = &self.layout.replica_tls;
        let host = &self.context.host;
        let owner = || {
            Some(Owner {
                user: self.context.service_user.clone(),
            })
        };
        let files = [
            ("MASTER_SSL_CA", "ca.pem", tls.map(|tls| tls.ca.as_str())),
            ("MASTER_SSL_CERT", "cert.pem", tls.and_then(|tls| tls.certificate.as_deref())),
            (
                "MASTER_SSL_KEY",
                "key.pem",
                tls.and_then(|tls| tls.private_key.as_ref()).map(ExposeSecret::expose_secret),
            ),
        ];
        if tls.is_some() {
            let mode = FileMode {
                mode: 0o700,
                owner: owner(),
            };
            host.make_dir(folder, &mode)
                .await
                .map_err(|error| errors::file("make", folder, error))?;
        }
        let is_on = u8::from(tls.is_some());
        let verify = u8::from(tls.is_some_and(|tls| tls.verify_name));
        let mut text = format!(
            ", MASTER_SSL = {is_on}, MASTER_SSL_VERIFY_SERVER_CERT = {verify}, MASTER_SSL_CAPATH = '', MASTER_SSL_CRL = '', \
             MASTER_SSL_CRLPATH = '', MASTER_SSL_CIPHER = ''"
        );
        for (option, name, content) in files {
            let path = folder.join(name);
            let value = match content {
                Some(content) => {
                    let mode = FileMode {
                        mode: 0o400,
                        owner: owner(),
                    };
                    let written = host.write_atomic(&path, content.as_bytes(), &mode).await;
                    written.map_err(|error| errors::file("write", &path, error))?;
                    path.display().to_string()
                }
                None => {
                    host.remove(&path)
                        .await
                        .map_err(|error| errors::file("remove", &path, error))?;
                    String::new()
                }
            };
            text.push_str(&format!(", {option} = {}", sql::text(&value)));
        }
        Ok(text)
    }
}
