//! Where everything lies. On a guest the paths are those the control plane's templates name; a `root` moves the system part.

use datastore_api::{DriverContext, DriverError, ErrorKind};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket in bytes (`sun_path` less its end).
const LONGEST_SOCKET: usize = 107;

/// All paths of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Whether the system part is moved, so that the server must be told its own paths.
    pub moved: bool,
    /// Folder of the base configuration.
    pub etc: PathBuf,
    /// The base configuration.
    pub base: PathBuf,
    /// Folder of the configuration layers.
    pub layers: PathBuf,
    /// Folder of socket and pid file.
    pub run: PathBuf,
    /// The server's socket.
    pub socket: PathBuf,
    /// The server's pid file.
    pub pid: PathBuf,
    /// Folder of the server's logs.
    pub logs: PathBuf,
    /// The server's error log.
    pub error_log: PathBuf,
    /// Temporary files, where the system part is moved.
    pub tmp: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Folder of the credentials, on the data volume.
    pub secrets: PathBuf,
    /// Folder of the certificates a replica needs.
    pub replica_tls: PathBuf,
    /// Says that a preparation is under way, and how far it is.
    pub marker: PathBuf,
    /// Identity of the data: see the facts of a backup.
    pub lineage: PathBuf,
    /// Folder beside the data where a restore grows.
    pub restore: PathBuf,
}

impl Layout {
    /// The paths for this context. `Invalid` if a path could not stand in an option file or be a socket's.
    pub fn new(context: &DriverContext) -> Result<Self, DriverError> {
        let (root, mount) = (&context.root, &context.mount_point);
        let etc = below(root, "etc/mysql");
        let run = below(root, "var/run/mysqld");
        let logs = below(root, "var/log/mysql");
        let secrets = mount.join("conf.d");
        let layout = Self {
            moved: !root.as_os_str().is_empty(),
            base: etc.join("my.cnf"),
            layers: etc.join("conf.d"),
            etc,
            socket: run.join("mysqld.sock"),
            pid: run.join("mysqld.pid"),
            run,
            error_log: logs.join("error.log"),
            logs,
            tmp: below(root, "var/tmp"),
            data: mount.join("data"),
            replica_tls: mount.join("replica-tls"),
            marker: secrets.join("preparing"),
            lineage: secrets.join("lineage"),
            restore: mount.join("restore"),
            secrets,
        };
        for path in [&layout.base, &layout.data] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:=,".contains(c);
            if !path.is_absolute() || !path.to_str().is_some_and(|text| text.chars().all(plain)) {
                let text = format!(
                    "path '{}' is not absolute or has characters an option file cannot hold",
                    path.display()
                );
                return Err(DriverError::new(ErrorKind::Invalid, text));
            }
        }
        if layout.socket.as_os_str().len() > LONGEST_SOCKET {
            let text = format!(
                "the socket's path {} is longer than {LONGEST_SOCKET} bytes",
                layout.socket.display()
            );
            return Err(DriverError::new(ErrorKind::Invalid, text));
        }
        Ok(layout)
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    if root.as_os_str().is_empty() {
        Path::new("/").join(path)
    } else {
        root.join(path)
    }
}
