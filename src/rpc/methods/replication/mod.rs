//! Replication as the control plane drives it (contract sections 5.7, 6.6, 6.7, 8.2 to 8.5). No call restarts the server.

mod position;
mod replica;
mod seed;
mod shapes;
mod source;

pub use position::{GetLastTxn, GetLatestTxnId, GetTxnCount, WaitForTxn};
pub use replica::{AttachReplica, AttachReplicationSlave, DetachReplica};
pub use seed::{FOLLOW, SEED, Stored, Wanted, fits, follow, has_location, restore, seed};
pub use shapes::WireSource;
pub use source::{
    BackupRequiredForReplication, CleanupSourceOnReplicaDetach, DemoteReplicationMaster, EnableAsMaster, GetReplicaContext,
    GetReplicationSnapshot, MakeReadOnly,
};
