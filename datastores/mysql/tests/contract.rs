//! The contract suite against a real MariaDB, as the system user `mysql`, in a folder and on a port of its own.

mod common;

use common::Machine;
use datastore_api::contract::{Setup, run};
use serde_json::json;

#[tokio::test]
async fn mariadb_keeps_the_contract() {
    let mut machines = Vec::new();
    let report = run(&datastore_mysql::ENTRY, "mariadb", || {
        let machine = Machine::new();
        let setup = Setup {
            context: machine.context(),
            plan: machine.plan(),
            live: ("max_connections", json!(77), json!(99)),
            restart: ("innodb_log_buffer_size", json!("4M")),
            other_version: "11.4.2",
            has_hosts: true,
        };
        machines.push(machine);
        setup
    })
    .await;
    print!("{report}");
    report.assert_passed();
}
