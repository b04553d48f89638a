//! The small files that the backup tool writes about its own work, in a stream or in a folder.

use datastore_api::{DriverError, EngineFacts, ErrorKind, Position};
use std::collections::BTreeMap;

/// Longest text of one of them that is looked at, in bytes.
const LONGEST: usize = 64 << 10;

/// The files by their meaning, under their names of now and of later versions.
const FILES: [(&str, [&str; 2]); 3] = [
    ("checkpoints", ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"]),
    ("info", ["xtrabackup_info", "mariadb_backup_info"]),
    ("binlog", ["xtrabackup_binlog_info", "mariadb_backup_binlog_info"]),
];

/// All names of files of the tool in a copy.
pub(crate) const ALL_FILES: [&str; 12] = [
    "backup-my.cnf",
    "xtrabackup_info",
    "xtrabackup_checkpoints",
    "xtrabackup_binlog_info",
    "xtrabackup_binlog_pos_innodb",
    "xtrabackup_slave_info",
    "mariadb_backup_info",
    "mariadb_backup_checkpoints",
    "mariadb_backup_binlog_info",
    "mariadb_backup_binlog_pos_innodb",
    "mariadb_backup_slave_info",
    "xtrabackup_tablespaces",
];

/// What the tool noted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Notes(BTreeMap<&'static str, Vec<u8>>);

/// Where a copy begins and ends in the engine's redo log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoints {
    /// `full-backuped`, `incremental`, `log-applied`.
    pub kind: String,
    /// Zero for a full one.
    pub from_lsn: u64,
    /// Where an increment to it begins.
    pub to_lsn: u64,
}

fn meaning(name: &str) -> Option<&'static str> {
    let file = FILES.iter().find(|(_, names)| names.contains(&name));
    file.map(|(meaning, _)| *meaning)
}

impl Notes {
    /// Whether a file of this name is one of them.
    pub fn wants(name: &str) -> bool {
        meaning(name).is_some()
    }

    /// Takes more bytes of such a file.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        if let Some(meaning) = meaning(name) {
            let text = self.0.entry(meaning).or_default();
            let room = LONGEST.saturating_sub(text.len());
            text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The names to look for in a folder.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().flat_map(|(_, names)| *names)
    }

    fn text(&self, meaning: &str) -> String {
        String::from_utf8_lossy(self.0.get(meaning).map_or(&[], Vec::as_slice)).into_owned()
    }

    fn value(&self, meaning: &str, key: &str) -> Option<String> {
        let text = self.text(meaning);
        let mut pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
    }

    /// Whether those are there that the tool writes last.
    pub fn is_whole(&self) -> bool {
        self.checkpoints().is_ok() && self.0.contains_key("info")
    }

    /// `Failed` if it was not noted.
    pub fn checkpoints(&self) -> Result<Checkpoints, DriverError> {
        let lsn = |key| self.value("checkpoints", key).and_then(|text| text.parse().ok());
        match (self.value("checkpoints", "backup_type"), lsn("from_lsn"), lsn("to_lsn")) {
            (Some(kind), Some(from_lsn), Some(to_lsn)) => Ok(Checkpoints { kind, from_lsn, to_lsn }),
            _ => {
                let text = "the copy does not say where it begins and ends in the redo log";
                Err(DriverError::new(ErrorKind::Failed, text))
            }
        }
    }

    /// Version of the server it is of.
    pub fn server_version(&self) -> Option<String> {
        self.value("info", "server_version")
    }

    /// Version of the tool.
    pub fn tool_version(&self) -> Option<String> {
        self.value("info", "tool_version")
    }

    /// Binary log, byte in it, and the transactions before; `None` if the server wrote no binary log. A set may be spread over lines.
    pub fn binlog(&self) -> Option<(String, u64, Position)> {
        let text = self.text("binlog");
        let mut parts = text.splitn(3, '\t');
        let (file, offset) = (parts.next()?.trim(), parts.next()?.trim().parse().ok()?);
        let gtids: Vec<&str> = parts.next().unwrap_or_default().split_whitespace().collect();
        (!file.is_empty()).then(|| (file.to_owned(), offset, Position(gtids.concat())))
    }

    /// Puts what was noted into the facts.
    pub fn tell(&self, facts: &mut EngineFacts) -> Result<(), DriverError> {
        let checkpoints = self.checkpoints()?;
        facts.from_lsn = Some(checkpoints.from_lsn.to_string());
        facts.to_lsn = Some(checkpoints.to_lsn.to_string());
        facts.version = self.server_version().unwrap_or_default();
        facts.tool = format!("mariadb-backup {}", self.tool_version().unwrap_or_default());
        if let Some((file, offset, position)) = self.binlog() {
            (facts.log_file, facts.log_offset, facts.position) = (Some(file), Some(offset), position);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_names_mean_the_same() {
        for prefix in ["xtrabackup", "mariadb_backup"] {
            let mut notes = Notes::default();
            assert!(!notes.is_whole() && notes.binlog().is_none());
            notes.add(&format!("{prefix}_binlog_info"), b"binlog.000001\t637\t0-7-2,\n1-1-5\n");
            notes.add(
                &format!("{prefix}_checkpoints"),
                b"backup_type = incremental\nfrom_lsn = 5\nto_lsn = 9\nlast_lsn = 10\n",
            );
            notes.add(&format!("{prefix}_info"), b"tool_version = 10.11.19-MariaDB\nserver_ver");
            notes.add(&format!("{prefix}_info"), b"sion = 10.11.19-MariaDB-log\n");
            notes.add("ibdata1", b"no note");
            assert!(notes.is_whole());
            let mut facts = EngineFacts::default();
            notes.tell(&mut facts).unwrap();
            assert_eq!(facts.position.0, "0-7-2,1-1-5");
            assert_eq!(
                (facts.log_file.as_deref(), facts.log_offset),
                (Some("binlog.000001"), Some(637))
            );
            assert_eq!((facts.from_lsn.as_deref(), facts.to_lsn.as_deref()), (Some("5"), Some("9")));
            assert_eq!(facts.version, "10.11.19-MariaDB-log");
        }
    }
}
