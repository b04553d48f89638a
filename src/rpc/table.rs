//! METHODS: every method of upstream's guest client with its version (contract section 5.1), and a few that are not in it.

use super::method::Kind::{Call, Cast};
use super::method::{Entry, Origin};
use super::methods::*;

/// All methods, upstream's first.
pub static METHODS: &[Entry] = &[
    Entry::of::<Prepare>(Cast, 1),
    Entry::absent("rebuild", Cast, 0),
    Entry::absent("upgrade", Cast, 0),
    Entry::absent("pre_upgrade", Call, 0),
    Entry::absent("post_upgrade", Call, 0),
    Entry::of::<Restart>(Call, 0),
    Entry::of::<StopDb>(Call, 1),
    Entry::of::<StartDbWithConfChanges>(Call, 1),
    Entry::of::<ResetConfiguration>(Call, 0),
    Entry::of::<UpdateOverrides>(Call, 0),
    Entry::of::<ApplyOverrides>(Call, 0),
    Entry::of::<RpcPing>(Call, 0),
    Entry::of::<GetFilesystemStats>(Call, 0),
    Entry::of::<MountVolume>(Call, 0),
    Entry::of::<UnmountVolume>(Call, 0),
    Entry::of::<ResizeFs>(Call, 1),
    Entry::of::<GetHwinfo>(Call, 0),
    Entry::of::<GetDiagnostics>(Call, 0),
    Entry::absent("update_guest", Call, 0),
    Entry::of::<CreateBackup>(Cast, 0),
    Entry::of::<PreCreateBackup>(Call, 2),
    Entry::of::<PostCreateBackup>(Call, 2),
    Entry::of::<CreateDatabase>(Cast, 0),
    Entry::of::<DeleteDatabase>(Cast, 0),
    Entry::of::<ListDatabases>(Call, 0),
    Entry::of::<CreateUser>(Cast, 0),
    Entry::of::<DeleteUser>(Cast, 0),
    Entry::of::<GetUser>(Call, 0),
    Entry::of::<ListUsers>(Call, 0),
    Entry::of::<ChangePasswords>(Cast, 0),
    Entry::of::<UpdateAttributes>(Cast, 0),
    Entry::of::<GrantAccess>(Call, 0),
    Entry::of::<RevokeAccess>(Call, 0),
    Entry::of::<ListAccess>(Call, 0),
    Entry::of::<EnableRoot>(Call, 0),
    Entry::of::<EnableRootWithPassword>(Call, 0),
    Entry::of::<DisableRoot>(Call, 0),
    Entry::of::<IsRootEnabled>(Call, 0),
    Entry::absent("get_root_password", Call, 0),
    Entry::of::<BackupRequiredForReplication>(Call, 0),
    Entry::of::<GetReplicationSnapshot>(Call, 0),
    Entry::of::<AttachReplica>(Call, 0),
    Entry::of::<AttachReplicationSlave>(Cast, 0),
    Entry::of::<DetachReplica>(Call, 0),
    Entry::of::<GetReplicaContext>(Call, 0),
    Entry::of::<MakeReadOnly>(Call, 0),
    Entry::of::<EnableAsMaster>(Call, 0),
    Entry::of::<DemoteReplicationMaster>(Call, 0),
    Entry::of::<GetLatestTxnId>(Call, 0),
    Entry::of::<GetLastTxn>(Call, 0),
    Entry::of::<WaitForTxn>(Call, 0),
    Entry::of::<GetTxnCount>(Call, 0),
    Entry::of::<CleanupSourceOnReplicaDetach>(Call, 0),
    Entry::absent("guest_log_list", Call, 0),
    Entry::absent("guest_log_action", Call, 0),
    Entry::absent("module_list", Call, 0),
    Entry::absent("module_apply", Call, 0),
    Entry::absent("module_remove", Call, 0),
    Entry::absent("ssl_show", Call, 3),
    Entry::absent("ssl_action", Call, 3),
    Entry::absent("ssl_rollback", Call, 3),
    Entry::absent("cluster_complete", Call, 0).from(Origin::Cluster),
    Entry::of::<GetStatus>(Call, 0).from(Origin::Agent),
    Entry::of::<ConfigurePair>(Call, 0).from(Origin::Agent),
    Entry::of::<DissolvePair>(Call, 0).from(Origin::Agent),
    Entry::of::<GetPairStatus>(Call, 0).from(Origin::Agent),
    Entry::of::<GetReplicationStatus>(Call, 0).from(Origin::Agent),
    Entry::of::<GetVipStatus>(Call, 0).from(Origin::Agent),
    Entry::of::<HoldVip>(Call, 0).from(Origin::Agent),
    Entry::of::<ReleaseVip>(Call, 0).from(Origin::Agent),
    Entry::of::<Switchover>(Call, 0).from(Origin::Agent),
    Entry::of::<Failover>(Call, 0).from(Origin::Agent),
    Entry::of::<Rejoin>(Call, 0).from(Origin::Agent),
    Entry::of::<GetBackupStatus>(Call, 0).from(Origin::Agent),
    Entry::of::<CancelBackup>(Call, 0).from(Origin::Agent),
    Entry::of::<ListBackups>(Call, 0).from(Origin::Agent),
    Entry::of::<GetRecoveryWindow>(Call, 0).from(Origin::Agent),
    Entry::of::<RestoreBackup>(Call, 0).from(Origin::Agent),
    Entry::of::<VerifyBackup>(Call, 0).from(Origin::Agent),
];

/// Finds a method by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn upstream_has_sixty_one_methods_and_none_twice() {
        assert_eq!(METHODS.iter().filter(|entry| entry.origin == Origin::Upstream).count(), 61);
        assert_eq!(
            METHODS.iter().map(|entry| entry.name).collect::<HashSet<_>>().len(),
            METHODS.len()
        );
    }
}
