//! What differs between servers of this family, as data: programs, names, statements. Code elsewhere never asks which server it is.

use crate::password::Scheme;
use datastore_api::DriverInfo;

/// Writes a file system to its disk.
pub(crate) const SYNC: &str = "/usr/bin/sync";
/// Freezes and thaws a file system.
pub(crate) const FSFREEZE: &str = "/usr/sbin/fsfreeze";

/// One server of the family.
#[derive(Debug)]
pub(crate) struct Flavour {
    /// What the agent is told about the driver.
    pub info: DriverInfo,
    /// The server, for people.
    pub title: &'static str,
    /// The server program.
    pub server: &'static str,
    /// The program that fills an empty data directory.
    pub installer: &'static str,
    /// Arguments of the installer beside the paths: no test database, no accounts of this host's name, root with a password only
    /// (set by our own statements before the server ever listens), and no user parameter that could hinder it.
    pub installer_args: &'static [&'static str],
    /// Arguments of the server, beside the paths, when it only runs statements of ours and never listens.
    pub bootstrap_args: &'static [&'static str],
    /// The program that copies a running server's data, and makes a copy whole.
    pub backup_tool: &'static str,
    /// Upstream's word for how that program makes a backup.
    pub backup_strategy: &'static str,
    /// The words for ways to make a backup that can be restored.
    pub restores: &'static [&'static str],
    /// The program that unpacks what that one streams.
    pub unpack_tool: &'static str,
    /// The program that turns binary logs into statements.
    pub log_tool: &'static str,
    /// Name of the service.
    pub service: &'static str,
    /// Set in each of our sessions. Pins the SQL mode, so that strings are quoted one way, and bounds every statement.
    pub session_setup: &'static str,
    /// Set in each session for changes of role: nothing they do is a transaction of this server or stands in a log of statements
    /// (the statement that follows a source holds a password), and each wait is bounded by who waits.
    pub role_setup: &'static str,
    /// How passwords are stored.
    pub scheme: Scheme,
    /// A derived table of the real users with columns `user`, `host`, `plugin`, `hash`.
    pub users: &'static str,
    /// User names of the engine and the agent, beside the configured ones.
    pub reserved_users: &'static [&'static str],
    /// Database names of the engine, beside the configured ones.
    pub reserved_databases: &'static [&'static str],
    /// Longest user name a request may create, in characters.
    pub longest_user: usize,
    /// Longest host pattern, in characters.
    pub longest_host: usize,
    /// Parameters that the server knows while it runs but refuses in an option file.
    pub live_only: &'static [&'static str],
    /// Options that the server takes from a file though they are no variables (any more).
    pub file_only: &'static [&'static str],
    /// The privilege to write to a read-only server.
    pub bypass: &'static str,
    /// Parameters, beside the server's id, without which it cannot become source or replica while it runs. Logs lie in the data
    /// directory, under names that do not hold the host's.
    pub replication: &'static [(&'static str, &'static str)],
    /// Parameters of replication that a user may change.
    pub replication_defaults: &'static [(&'static str, &'static str)],
    /// Free bytes without which a preparation is not begun: system tables, redo log and temporary files.
    pub least_space: u64,
    /// Base configuration when the control plane sends none.
    pub default_config: &'static str,
}

/// MariaDB as Debian packages it.
pub(crate) static MARIADB: Flavour = Flavour {
    info: DriverInfo {
        name: "mariadb",
        default_port: 3306,
        programs: &["/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db", SYNC],
        config_file: "/etc/mysql/my.cnf",
    },
    title: "MariaDB",
    server: "/usr/sbin/mariadbd",
    installer: "/usr/bin/mariadb-install-db",
    installer_args: &[
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--cross-bootstrap",
        "--skip-log-bin",
        "--skip-log-error",
        "--max-statement-time=0",
        // What is in the directory counts only once the installer is through: it is synchronised then, as a whole.
        "--loose-debug-no-sync",
        "--loose-innodb-buffer-pool-load-at-startup=0",
        "--loose-innodb-buffer-pool-dump-at-shutdown=0",
    ],
    bootstrap_args: &[
        "--skip-log-bin",
        "--skip-log-error",
        "--skip-slave-start",
        "--max-statement-time=0",
        "--loose-innodb-buffer-pool-load-at-startup=0",
        "--loose-innodb-buffer-pool-dump-at-shutdown=0",
    ],
    backup_tool: "/usr/bin/mariadb-backup",
    backup_strategy: "mariabackup",
    restores: &["mariabackup", ""],
    unpack_tool: "/usr/bin/mbstream",
    log_tool: "/usr/bin/mariadb-binlog",
    service: "trove-mariadb",
    session_setup: "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES', \
                    max_statement_time = 30, lock_wait_timeout = 15, innodb_lock_wait_timeout = 15, wait_timeout = 900, \
                    slow_query_log = OFF",
    role_setup: "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION,NO_BACKSLASH_ESCAPES', \
                 sql_log_bin = 0, sql_log_off = 1, slow_query_log = OFF, max_statement_time = 0, lock_wait_timeout = 3600, \
                 innodb_lock_wait_timeout = 15, wait_timeout = 86400",
    scheme: Scheme::DoubleSha1,
    users: "(SELECT User AS user, Host AS host, JSON_VALUE(Priv, '$.plugin') AS plugin, \
            JSON_VALUE(Priv, '$.authentication_string') AS hash \
            FROM mysql.global_priv WHERE JSON_VALUE(Priv, '$.is_role') IS NULL) AS users",
    reserved_users: &["os_admin", "os_clone", "os_backup", "root", "mariadb.sys", "PUBLIC"],
    reserved_databases: &[
        "information_schema",
        "mysql",
        "performance_schema",
        "sys",
        "lost+found",
        "#mysql50#lost+found",
    ],
    longest_user: 16,
    longest_host: 255,
    live_only: &[
        "character_set_client",
        "character_set_connection",
        "character_set_database",
        "character_set_results",
        "collation_connection",
        "collation_database",
    ],
    file_only: &[
        "innodb_commit_concurrency",
        "innodb_concurrency_tickets",
        "innodb_file_format",
        "innodb_large_prefix",
        "innodb_log_files_in_group",
        "innodb_thread_concurrency",
        "innodb_thread_sleep",
        "skip_external_locking",
    ],
    bypass: "READ ONLY ADMIN",
    replication: &[
        ("log_bin", "binlog"),
        ("log_slave_updates", "1"),
        ("binlog_format", "ROW"),
        ("gtid_domain_id", "0"),
        ("gtid_strict_mode", "1"),
        ("relay_log", "relay"),
        // It never gives up a source that is gone for a while (days).
        ("master_retry_count", "4294967295"),
        ("rpl_semi_sync_master_wait_point", "AFTER_SYNC"),
        // A receiver that acknowledges says goodbye to its source by a second connection: a source that is gone must not hold it up.
        ("rpl_semi_sync_slave_kill_conn_timeout", "1"),
    ],
    replication_defaults: &[
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("binlog_expire_logs_seconds", "604800"),
        ("max_binlog_size", "268435456"),
    ],
    least_space: 192 << 20,
    default_config: "[mysqld]\n\
                     tmpdir = /var/tmp\n\
                     default_storage_engine = innodb\n\
                     local_infile = 0\n\
                     wait_timeout = 120\n",
};
