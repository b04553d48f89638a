//! Arguments and the order of what is asked, against guests that answer as agents do; tables (`shown`).

mod shown;

use super::Usage;
use super::args::CreateArgs;
use super::guests::{AskError, Guests};
use super::operate::{self, Verb};
use super::{PairCommand, create};
use crate::cli::Cli;
use crate::cli::args::Command;
use crate::pair::{PairSpec, SpecRole};
use clap::{CommandFactory, Parser};
use datastore_api::ExposeSecret;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1);

fn parse(line: &str) -> Result<PairCommand, clap::Error> {
    match Cli::try_parse_from(["trove-guestagent", "pair"].into_iter().chain(line.split_whitespace()))?.command {
        Some(Command::Pair { command }) => Ok(command),
        _ => unreachable!("the line begins with pair"),
    }
}

fn creating(line: &str) -> Result<Box<CreateArgs>, String> {
    match parse(&format!("create {line}")) {
        Ok(PairCommand::Create(args)) => create::check(&args).map(|()| args).map_err(|Usage(text)| text),
        Ok(_) => unreachable!("the line begins with create"),
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            Err(error.to_string())
        }
    }
}

#[test]
fn what_cannot_be_a_pair_is_told_before_anybody_is_asked() {
    let cases = [
        ("--source a --replica a", "guest a cannot be a pair with itself"),
        ("--source a", "--replica <ID>"),
        ("--source a/b --replica b", "an instance id has at most 100"),
        (
            "--source a --replica b --vip 10.0.0.9",
            "is not an address with a prefix length",
        ),
        ("--source a --replica b --vip 10.0.0.0/24", "the network's own address"),
        (
            "--source a --replica b --vip 10.0.0.9/24 --vip 10.0.0.9/25",
            "10.0.0.9 is listed twice",
        ),
        ("--source a --replica b --plane bgp", "possible values: arp, keepalived"),
        (
            "--source a --replica b --durability never",
            "possible values: async, semi-sync, durable",
        ),
        (
            "--source a --replica b --failover automatic --witness c",
            "invalid socket address",
        ),
        (
            "--source a --replica b --witness 10.0.0.3:4451",
            "a witness is for --failover automatic",
        ),
        ("--source a --replica b --witness-key-file f", "--witness <ADDR:PORT>"),
        ("--source a --replica b --lease-ms 10", "10 is not in 300..=60000"),
    ];
    for (line, text) in cases {
        let error = creating(line).map(drop).unwrap_err();
        assert!(error.contains(text), "{line}: {error}");
    }
    let args = creating("--source a --replica b --vip 10.0.0.9/24 --vip fd00::9/64 --durability durable").unwrap();
    assert_eq!(
        (args.vip.len(), args.plane.as_str(), args.blocked_ms, args.lease_ms),
        (2, "arp", 5_000, 1_500)
    );
}

#[test]
fn options_of_the_bus_need_a_guest_and_completions_know_pairs() {
    let sources = crate::config::Sources {
        files: Vec::new(),
        overrides: Vec::new(),
        env: Box::new(|_| None),
        program: "trove-guestagent".to_owned(),
        home: "/nonexistent".into(),
    };
    let command = parse("status --key-file /nonexistent").unwrap();
    let error = super::run(command, sources).unwrap_err();
    assert!(error.is::<Usage>(), "{error:#}");
    let mut text = Vec::new();
    clap_complete::generate(clap_complete::Shell::Bash, &mut Cli::command(), "trove-guestagent", &mut text);
    let text = String::from_utf8(text).unwrap();
    for word in ["switchover", "rejoin", "dissolve", "--witness-key-file", "--durability"] {
        assert!(text.contains(word), "{word}");
    }
}

/// Guest, method, arguments.
type Asked = (String, &'static str, Map<String, Value>);

/// Guests by name. Each answers its state, and a queue of reports to whatever else is asked; with nothing in the queue: done.
#[derive(Default)]
struct StandIn {
    guests: Mutex<BTreeMap<String, (Value, VecDeque<Value>)>>,
    asked: Mutex<Vec<Asked>>,
}

impl StandIn {
    fn new(guests: &[(&str, Value)]) -> Self {
        let of = |(name, status): &(&str, Value)| ((*name).to_owned(), (status.clone(), VecDeque::new()));
        Self {
            guests: Mutex::new(guests.iter().map(of).collect()),
            asked: Mutex::default(),
        }
    }

    fn answers(self, guest: &str, report: Value) -> Self {
        self.guests.lock().unwrap().get_mut(guest).unwrap().1.push_back(report);
        self
    }

    /// What was asked for, beside states.
    fn changes(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(guest, method, _)| format!("{method} {guest}")).collect()
    }

    fn pair_told(&self, at: usize) -> PairSpec {
        serde_json::from_value(self.asked.lock().unwrap()[at].2["pair"].clone()).expect("what an agent takes")
    }
}

impl Guests for StandIn {
    async fn ask(&self, guest: &str, method: &'static str, args: Map<String, Value>, _: Duration) -> Result<Value, AskError> {
        let mut guests = self.guests.lock().unwrap();
        let Some((status, reports)) = guests.get_mut(guest) else {
            return Err(AskError::Unknown(guest.to_owned()));
        };
        if method == "get_pair_status" {
            let answer = status.clone();
            // What runs now has ended at the next look.
            if status["last_operation"]["state"] == "running" {
                status["last_operation"]["state"] = json!("done");
            }
            return Ok(answer);
        }
        self.asked.lock().unwrap().push((guest.to_owned(), method, args));
        let report = reports
            .pop_front()
            .unwrap_or(json!({"operation": "1", "kind": method, "state": "done"}));
        if let Some(text) = report["refused"].as_str() {
            let (guest, text) = (guest.to_owned(), text.to_owned());
            return Err(AskError::Refused { guest, method, text });
        }
        status["last_operation"] = report.clone();
        Ok(report)
    }

    fn reaches_peers(&self) -> bool {
        true
    }
}

fn alone(name: &str, address: &str) -> Value {
    json!({"guest_id": name, "data_address": address, "link_port": 4450, "database_port": 3306, "management_address": "192.0.2.1",
           "role": "unconfigured", "writable": true, "generation": 0, "pair": null})
}

fn paired(name: &str, peer: &str, role: &str) -> Value {
    let source = role == "source";
    json!({"guest_id": name, "data_address": "10.0.0.1", "link_port": 4450, "role": role, "writable": source, "generation": 3,
           "superseded_by": null, "switch": null,
           "vip": {"addresses": ["10.0.0.9/24", "fd00::9/64"], "state": if source {"held"} else {"released"}, "plane": "arp", "reason": null},
           "pair": {"id": "p1", "peer": {"guest_id": peer}, "durability": "semi-sync", "failover": "automatic",
                    "witness": {"host": "10.0.0.3", "port": 4451}, "blocked_ms": 5000, "lease_ms": 1500},
           "peer_link": {"state": "up", "heard_ms_ago": 12}, "replication": {"lag_ms": if source {Value::Null} else {json!(40)}},
           "door": {"state": if source {"leased"} else {"closed"}, "left_ms": if source {json!(1390)} else {Value::Null}},
           "last_operation": {"operation": "7", "kind": "switchover", "state": "done"}})
}

fn two_alone() -> StandIn {
    StandIn::new(&[("a", alone("a", "10.0.0.1")), ("b", alone("b", "10.0.0.2"))])
}

fn is(code: ExitCode, wanted: ExitCode) -> bool {
    format!("{code:?}") == format!("{wanted:?}")
}

#[tokio::test]
async fn a_pair_is_made_of_the_source_first_and_both_are_told_the_same_secrets() {
    let running = json!({"operation": "9", "kind": "configure_pair", "state": "running", "steps": [{"name": "seed", "state": "running"}],
                         "progress": {"bytes": 5_000_000, "of": 10_000_000}});
    let guests = two_alone().answers("b", running);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("witness.key");
    let line = format!(
        "--source a --replica b --vip 10.0.0.9/24 --failover automatic --witness 10.0.0.3:4451 --witness-key-file {}",
        file.display()
    );
    let args = creating(&line).unwrap();
    assert!(is(create::run(&guests, &args).await.unwrap(), ExitCode::SUCCESS));
    assert_eq!(guests.changes(), ["configure_pair a", "configure_pair b"]);
    let (source, replica) = (guests.pair_told(0), guests.pair_told(1));
    assert_eq!((source.role, replica.role), (SpecRole::Source, SpecRole::Replica));
    assert_eq!(
        (source.peer.guest_id.as_str(), source.peer.host.to_string().as_str()),
        ("b", "10.0.0.2")
    );
    assert_eq!((replica.peer.database_port, replica.peer.port), (Some(3306), 4450));
    assert_eq!((&source.id, &source.vip), (&replica.id, &vec!["10.0.0.9/24".to_owned()]));
    let key = source.key.expose_secret();
    assert_eq!(key, replica.key.expose_secret());
    assert!(crate::link::PairKey::from_base64(&source.key).is_ok());
    assert_eq!(source.replication.user.len(), "pair_".len() + 8);
    let password = source.replication.password.expose_secret();
    assert!(password.len() == 24 && password.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert_eq!(password, replica.replication.password.expose_secret());
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), key);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // A file that is there already is not written over, and nobody is asked for anything.
    let again = two_alone();
    assert!(create::run(&again, &args).await.is_err());
    assert!(again.changes().is_empty());
}

#[tokio::test]
async fn when_the_second_half_fails_the_first_is_undone() {
    let args = creating("--source a --replica b").unwrap();
    let refused = json!({"refused": "it holds databases of users: shop"});
    let guests = two_alone().answers("b", refused);
    let error = format!("{:#}", create::run(&guests, &args).await.unwrap_err());
    assert_eq!(
        guests.changes(),
        ["configure_pair a", "configure_pair b", "dissolve_pair a"],
        "b is as it was"
    );
    assert_eq!(
        error,
        "no pair was made: a is as it was before: guest b refuses configure_pair: it holds databases of users: shop"
    );
    let failed = json!({"operation": "9", "kind": "configure_pair", "state": "failed", "error": "the copy broke off"});
    let guests = two_alone().answers("b", failed);
    let error = format!("{:#}", create::run(&guests, &args).await.unwrap_err());
    assert_eq!(guests.changes()[2..], ["dissolve_pair b", "dissolve_pair a"]);
    assert!(
        error.contains("b is as it was before; a is as it was before") && error.contains("the copy broke off"),
        "{error}"
    );
    let guests = two_alone().answers("a", json!({"refused": "no"}));
    assert!(create::run(&guests, &args).await.is_err());
    assert_eq!(guests.changes(), ["configure_pair a"]);
}

#[tokio::test]
async fn guests_that_do_not_fit_are_refused_and_nothing_is_changed() {
    let plain = || alone("a", "10.0.0.1");
    let cases = [
        (plain(), None, "there is no guest b on the bus"),
        (plain(), Some(paired("b", "c", "replica")), "guest b is in pair p1 already"),
        (
            plain(),
            Some(alone("b", "10.0.0.1")),
            "both guests say that they are at 10.0.0.1",
        ),
        (
            plain(),
            Some(alone("b", "10.0.0.9")),
            "10.0.0.9/24 is the own address of guest b",
        ),
        (plain(), Some(alone("b", "")), "guest b has no address on a data network"),
    ];
    let args = creating("--source a --replica b --vip 10.0.0.9/24").unwrap();
    for (source, replica, text) in cases {
        let mut all = vec![("a", source)];
        all.extend(replica.map(|status| ("b", status)));
        let guests = StandIn::new(&all);
        let error = format!("{:#}", create::run(&guests, &args).await.unwrap_err());
        assert!(error.contains(text), "{error}");
        assert!(guests.changes().is_empty());
    }
}

#[tokio::test]
async fn a_switchover_is_asked_of_the_replica_and_its_end_decides_the_exit_code() {
    let pair = || StandIn::new(&[("a", paired("a", "b", "source")), ("b", paired("b", "a", "replica"))]);
    let switchover = Verb::Switchover { force: false };
    for named in ["a", "b"] {
        let guests = pair().answers("b", json!({"operation": "8", "kind": "switchover", "state": "running"}));
        assert!(is(
            operate::run(&guests, named, switchover, LIMIT, false).await.unwrap(),
            ExitCode::SUCCESS
        ));
        assert_eq!(guests.changes(), ["switchover b"]);
    }
    for (state, wanted) in [
        ("unchanged", ExitCode::SUCCESS),
        ("rolled_back", ExitCode::FAILURE),
        ("failed", ExitCode::FAILURE),
    ] {
        let guests = pair().answers("b", json!({"operation": "8", "kind": "failover", "state": state}));
        let verb = Verb::Failover { force: true };
        assert!(
            is(operate::run(&guests, "b", verb, LIMIT, true).await.unwrap(), wanted),
            "{state}"
        );
        assert_eq!(guests.asked.lock().unwrap()[0].2["force"], true);
    }
    let guests = StandIn::new(&[("a", alone("a", "10.0.0.1"))]);
    let error = operate::run(&guests, "a", switchover, LIMIT, false).await.unwrap_err();
    assert_eq!(error.to_string(), "guest a is in no pair");
}

#[tokio::test]
async fn both_guests_are_dissolved_the_replica_first_and_one_that_is_gone_is_told() {
    let guests = StandIn::new(&[("a", paired("a", "b", "source")), ("b", paired("b", "a", "replica"))]);
    assert!(is(
        operate::run(&guests, "a", Verb::Dissolve, LIMIT, false).await.unwrap(),
        ExitCode::SUCCESS
    ));
    assert_eq!(guests.changes(), ["dissolve_pair b", "dissolve_pair a"]);
    let guests = StandIn::new(&[("a", paired("a", "b", "source"))]);
    assert!(is(
        operate::run(&guests, "a", Verb::Dissolve, LIMIT, false).await.unwrap(),
        ExitCode::FAILURE
    ));
    assert_eq!(guests.changes(), ["dissolve_pair a"]);
    let (both, whole) = operate::both(&guests, "a", LIMIT).await.unwrap();
    assert!(!whole && both[1]["error"] == "there is no guest b on the bus");
}

/// One guest whose states are these, one after the other; the last one stays.
struct Script(Mutex<VecDeque<Value>>);

impl Guests for Script {
    async fn ask(&self, guest: &str, method: &'static str, _: Map<String, Value>, limit: Duration) -> Result<Value, AskError> {
        if method != "get_pair_status" {
            return Err(AskError::Silent {
                guest: guest.to_owned(),
                method,
                limit,
            });
        }
        let mut states = self.0.lock().unwrap();
        let state = states.pop_front().unwrap_or(Value::Null);
        if states.is_empty() {
            states.push_back(state.clone());
        }
        Ok(state)
    }

    fn reaches_peers(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_replica_is_waited_for_through_attempts_until_it_follows_or_three_have_failed() {
    let state = |operation: &str, state: &str, follows: bool| {
        json!({"role": "replica", "reseed": !follows, "replication": {"receiving": follows, "applying": follows, "lag_ms": 5},
               "last_operation": {"operation": operation, "kind": "rejoin", "state": state, "error": "no space"}})
    };
    let first = json!({"operation": "9", "kind": "configure", "state": "running"});
    let good = [
        state("a", "failed", false),
        state("b", "running", false),
        state("b", "done", true),
    ];
    let guests = Script(Mutex::new(good.into()));
    assert_eq!(operate::seeded(&guests, "b", &first).await.unwrap()["state"], "done");
    let bad = ["a", "b", "c"].map(|operation| state(operation, "failed", false));
    let guests = Script(Mutex::new(bad.into()));
    let error = operate::seeded(&guests, "b", &first).await.unwrap_err().to_string();
    assert_eq!(error, "guest b could not be made a replica: no space");
    // What takes longer than its answer may is followed by looking.
    let guests = Script(Mutex::new([state("d", "running", false), state("d", "done", false)].into()));
    let report = operate::operate(&guests, "b", "rejoin", Map::new()).await.unwrap();
    assert_eq!((&report["operation"], &report["state"]), (&json!("d"), &json!("done")));
}
