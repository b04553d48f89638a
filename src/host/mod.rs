//! The machine: programs, services, files, volumes. The only room that starts processes, mounts, or writes system files.
//!
//! Owns: [`datastore_api::Host`]'s real implementation. Uses: nothing of ours but the driver API's types.
