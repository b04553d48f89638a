//! The options of backups.

use super::Kind::{Bool, Choice, Int, Path, Seconds, Secret, Text};
use super::{DAY, DEFAULT, NO, OWN, Opt, opt};

/// Upstream's options of the store.
pub(super) const UPSTREAM: &[Opt] = &[
    opt(DEFAULT, "backup_swift_container", Text, Some("database_backups")),
    opt(DEFAULT, "swift_url", Text, None),
    opt(DEFAULT, "swift_api_insecure", Bool, NO),
    opt(DEFAULT, "backup_aes_cbc_key", Secret, None),
    opt(SERVICE, "auth_url", Text, None),
    opt(SERVICE, "region_name", Text, Some("RegionOne")),
];

/// Section of upstream's options of Keystone.
const SERVICE: &str = "service_credentials";

/// Ours.
pub(super) const OURS: &[Opt] = &[
    opt(OWN, "backup_storage", Text, Some("swift")).help(
        "Where backups lie when a request names no other place: file:///srv/backups (a folder or an NFS mount), swift, \
         s3://bucket/prefix, or conductor (sent over the bus).",
    ),
    opt(OWN, "backup_format", Choice(&["native", "upstream"]), Some("native"))
        .help("native is compressed by zstd and may be encrypted; upstream is what upstream's agent restores, and slower."),
    opt(OWN, "backup_key_file", Path, None).help(
        "File of keys, a name and a key (64 hex digits, or 32 bytes in Base64) a line: the last one encrypts new backups, all of them open \
         old ones. Mode 0600. Without it backups are not encrypted.",
    ),
    opt(OWN, "backup_second", Choice(&["queue", "refuse"]), Some("queue"))
        .help("What becomes of a backup that is asked for while one runs."),
    opt(OWN, "backup_verify", Choice(&["always", "sampled", "never"]), Some("never")).help(
        "Which backups are restored into a scratch server and checked as soon as they are complete: all, about one in seven, or none. \
         Needs as much room as the database, and its time.",
    ),
    opt(OWN, "replica_seed", Choice(&["stored", "direct"]), Some("stored")).help(
        "How new replicas get the data when their caller names an object store: from a backup that is stored there, as upstream does, or \
         straight from their source. Where no store takes it, they always copy straight.",
    ),
    opt(OWN, "backup_log", Bool, NO)
        .help("The server's log is shipped to backup_storage as it is written: recovery to any second, or transaction, since a backup."),
    opt(OWN, "backup_log_budget_mib", Int(0, 1 << 30), Some("8192"))
        .help("MiB of log that the server may keep because it is not shipped yet, 0 is no limit."),
    opt(OWN, "backup_log_when_full", Choice(&["drop-log", "keep-log"]), Some("drop-log"))
        .help("What happens when that is passed: old log is dropped and recovery has a gap, or the log stays, whatever becomes of the disk."),
    opt(OWN, "backup_level", Int(1, 19), Some("3")).help("How hard to compress."),
    opt(OWN, "backup_threads", Int(0, 64), None).help("Threads that compress. Default: as many as there are processors, at most 2."),
    opt(OWN, "backup_rate", Int(0, 1 << 40), Some("0")).help("Most bytes a second that a backup takes from the database, 0 is no limit."),
    opt(OWN, "backup_pressure", Int(0, 100), Some("0")).help(
        "A backup slows down while processes wait for disk or processor more than this percentage of the time (pressure stall \
         information), 0 never.",
    ),
    opt(OWN, "backup_read_back", Bool, NO).help(
        "A backup is read back from the storage and proved before it is called complete: finds a storage that confirms what it has not.",
    ),
    opt(OWN, "backup_progress", Seconds(0.1, DAY), Some("10"))
        .help("Seconds between two messages to the conductor that tell how far a backup is."),
    opt(OWN, "backup_scratch", Path, None)
        .help("Folder in which backups are restored to verify them. Default: the folder scratch on the data volume."),
    opt(OWN, "backup_part_mib", Int(1, 1024), Some("8")).help("Least length of the parts in which a backup is sent, MiB."),
    opt(OWN, "backup_part_limit", Seconds(1.0, DAY), Some("300"))
        .help("Seconds for which one part, or one other request, is tried again before the backup fails."),
    opt(OWN, "backup_folder_mounted", Bool, NO)
        .help("The folder of a file storage must be on another file system than /: a mount that is missing fails the backup."),
    opt(OWN, "backup_swift_credentials", Path, None).help(
        "File, mode 0600, for backups in Swift that no request asks for: auth_url = ... and application_credential_id = ... and \
         application_credential_secret = ..., or auth_url = ..., user = ... and key = ... for Swift's own accounts.",
    ),
    opt(OWN, "backup_s3_endpoint", Text, None).help("URL of the S3 service. Default: Amazon's of the region."),
    opt(OWN, "backup_s3_region", Text, Some("us-east-1")).help("Its region."),
    opt(OWN, "backup_s3_credentials", Path, None)
        .help("File with the lines access_key = ... and secret_key = ..., mode 0600."),
    opt(OWN, "backup_s3_ca_file", Path, None).help("PEM file of certificates that are trusted beside the system's."),
];
