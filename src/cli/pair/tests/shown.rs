//! What people are shown.

use super::super::render;
use super::{alone, paired};
use serde_json::json;

#[test]
fn the_table_shows_what_a_person_asks_for() {
    let text = render::status(&[paired("aaaa", "bbbb", "source"), paired("bbbb", "aaaa", "replica")]);
    for line in [
        "pair        p1",
        "vip         10.0.0.9/24, fd00::9/64 (arp)",
        "durability  semi-sync",
        "failover    automatic, lease 1500 ms, witness 10.0.0.3:4451",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
    }
    let words = |start: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(start));
        line.unwrap_or_else(|| panic!("{start} in\n{text}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        words("GUEST"),
        "GUEST ROLE WRITES VIP GENERATION LAG DOOR PEER LAST OPERATION"
    );
    assert_eq!(
        words("aaaa"),
        "aaaa source open held 3 - leased, 1390 ms left up switchover done"
    );
    assert_eq!(
        words("bbbb"),
        "bbbb replica closed released 3 40 ms closed up switchover done"
    );
    assert!(text.lines().count() == 8, "nothing to remark: {text}");
}

#[test]
fn what_is_wrong_is_told_in_words() {
    let mut guest = paired("a", "b", "detached");
    guest["superseded_by"] = json!(4);
    guest["vip"]["reason"] = json!("fa:16:3e:00:00:01 answers for 10.0.0.9");
    guest["switch"] = json!({"leaving": {"op": "8", "next": 4, "fenced": true}});
    guest["replication"] = json!({"error": "cannot connect", "semi_sync": {"degraded": true}});
    guest["last_operation"] = json!({"kind": "rejoin", "state": "failed", "error": "no space", "saved":
        {"path": "/var/lib/x.binlog", "transactions": 3, "bytes": 1234}});
    let text = render::status(&[guest, json!({"guest_id": "b", "error": "guest b did not answer"})]);
    for line in [
        "a: was left behind by generation 4 and has to rejoin",
        "a: service address: fa:16:3e:00:00:01 answers for 10.0.0.9",
        "a: a change of source is under way: leaving, to generation 4 (operation 8)",
        "a: replication: cannot connect",
        "a: semi-sync is not in force: a write is acknowledged without a replica",
        "a: rejoin: no space",
        "a: 3 transactions that the source never had are saved in /var/lib/x.binlog (1234 bytes)",
        "b: guest b did not answer",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
    }
    assert!(render::status(&[alone("c", "10.0.0.1")]).contains("c: is in no pair"));
    // An answer that is nothing like a state is shown, not died of.
    for strange in [
        json!(null),
        json!([]),
        json!({"vip": 3, "pair": [], "door": "x", "last_operation": {"steps": 1}}),
    ] {
        assert!(!render::status(&[strange]).is_empty());
    }
}

#[test]
fn a_report_tells_steps_and_what_was_taken_back() {
    let report = json!({"guest_id": "b", "operation": "8", "kind": "switchover", "state": "rolled_back", "generation": 3,
        "writes_blocked_ms": 5003, "idle_ended": 2, "writers_killed": 0, "steps": [{"name": "fence", "ms": 12.04, "ok": true}, {"name": "wait", "ms": 4990, "ok": false}],
        "rolled_back": ["fence", "begin"], "error": "the replica did not catch up within 5 s"});
    let text = render::report(&report);
    let mut lines = text.lines();
    let head = "b: switchover rolled_back, generation 3, writes blocked for 5003.0 ms, 2 idle transactions ended";
    assert_eq!(lines.next(), Some(head));
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["fence", "12.0", "ms", "ok"]
    );
    assert!(lines.next().unwrap().ends_with("4990.0 ms  failed"));
    assert_eq!(lines.next(), Some("  taken back: fence, begin"));
    assert_eq!(lines.next(), Some("  error: the replica did not catch up within 5 s"));
    let running = json!({"kind": "configure_pair", "state": "running", "steps": [{"name": "check", "state": "done"},
        {"name": "seed", "state": "running"}], "progress": {"bytes": 5_242_880, "of": 1_073_741_824}});
    assert_eq!(
        render::progress("b", &running, Some(7)),
        "b: configure_pair runs, seed, 5.0 MiB of 1.0 GiB, 7 ms behind"
    );
}
