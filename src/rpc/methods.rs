//! The use-cases, a file for each family.

mod backup;
mod configuration;
mod databases;
mod inspect;
mod lifecycle;
mod pair;
mod prepare;
mod replication;
mod root;
mod users;
mod volume;

pub use backup::{
    CREATE_BACKUP, CancelBackup, CreateBackup, GetBackupStatus, GetRecoveryWindow, ListBackups, PostCreateBackup,
    PreCreateBackup, RestoreBackup, VerifyBackup,
};
pub use configuration::{ApplyOverrides, ResetConfiguration, UpdateOverrides};
pub use databases::{CreateDatabase, DeleteDatabase, ListDatabases};
pub use inspect::{GetDiagnostics, GetHwinfo, GetStatus, RpcPing};
pub use lifecycle::{Restart, StartDbWithConfChanges, StopDb};
pub use pair::{
    ConfigurePair, DissolvePair, Failover, GetPairStatus, GetReplicationStatus, GetVipStatus, HoldVip, Rejoin, ReleaseVip,
    Switchover,
};
pub use prepare::{
    NAME as PREPARE, Prepare, prepare_refused, replica_steps as prepare_replica_steps, steps as prepare_steps, was_ready,
};
pub use replication::{
    AttachReplica, AttachReplicationSlave, BackupRequiredForReplication, CleanupSourceOnReplicaDetach, DemoteReplicationMaster,
    DetachReplica, EnableAsMaster, GetLastTxn, GetLatestTxnId, GetReplicaContext, GetReplicationSnapshot, GetTxnCount,
    MakeReadOnly, WaitForTxn,
};
pub use root::{DisableRoot, EnableRoot, EnableRootWithPassword, IsRootEnabled};
pub use users::{
    ChangePasswords, CreateUser, DeleteUser, GetUser, GrantAccess, ListAccess, ListUsers, RevokeAccess, UpdateAttributes,
};
pub use volume::{GetFilesystemStats, MountVolume, ResizeFs, UnmountVolume, ensure as ensure_volume};
