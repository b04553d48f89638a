//! OpenStack Trove guest agent: the rooms and the arrows between them.
//!
//! ```text
//! 6  main  app  cli  config  registry      app sees all; config fills each room's own `Settings`
//! 5  rpc                                   parse, admit, act, answer
//! 4  pair  backup                          roles of a pair: switchover, failover, rejoin, lease; backups, their restore, the log
//! 3  conductor  vip
//! 2  instance  storage                     storage: where backups lie, knows no backup
//! 1  bus  host  journal  link              link: the channel between two agents, knows no verb
//! 0  datastores/api   <- datastores/{mysql,sim}
//! ```
//!
//! Arrows point downward only; rooms on one level do not import each other. `tests/house.rs` holds this.

pub mod app;
pub mod backup;
pub mod bus;
pub mod cli;
pub mod conductor;
pub mod config;
pub mod host;
pub mod instance;
pub mod journal;
pub mod link;
pub mod pair;
pub mod registry;
pub mod rpc;
pub mod storage;
pub mod vip;
