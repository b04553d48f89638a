//! The arithmetic by example; `sim` runs it in a small world with everything that goes wrong.

use super::*;

mod sim;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn terms() -> Terms {
    Terms::default()
}

/// Milliseconds after which a lease of the usual terms is surely over.
const OVER: u64 = 1675;

#[test]
fn an_echo_counts_from_the_moment_its_ping_was_sent() {
    let mut lease = SourceLease::new(terms(), ms(0), None);
    assert_eq!(lease.remaining(ms(0)), None);
    let (first, second) = (lease.ping(ms(1000)), lease.ping(ms(1200)));
    assert!(first.arms && first.ends_hold.is_none());
    lease.echoed(second.seq, None, ms(1300));
    assert_eq!(lease.remaining(ms(1300)), Some(ms(1400)));
    // An older echo takes nothing away, an unknown one gives nothing, and neither does one that is too late.
    lease.echoed(first.seq, None, ms(1310));
    lease.echoed(77, None, ms(1310));
    assert_eq!(lease.remaining(ms(1310)), Some(ms(1390)));
    assert_eq!(lease.remaining(ms(2700)), None);
    lease.echoed(second.seq, None, ms(2800));
    assert_eq!(lease.remaining(ms(2800)), None);
}

#[test]
fn a_refused_connection_is_an_echo_only_while_the_lease_never_ended() {
    let mut lease = SourceLease::new(terms(), ms(0), None);
    lease.refused(ms(10), ms(20));
    assert_eq!(lease.remaining(ms(20)), None, "there was no lease");
    let ping = lease.ping(ms(100));
    lease.echoed(ping.seq, None, ms(101));
    lease.refused(ms(1000), ms(1001));
    assert_eq!(lease.remaining(ms(1001)), Some(ms(1499)));
    lease.refused(ms(2600), ms(2601));
    assert_eq!(lease.remaining(ms(2601)), None, "it may have promoted before it died");
}

#[test]
fn a_door_that_outlived_its_agent_is_taken_over_and_an_absence_is_ended_in_order() {
    let mut lease = SourceLease::new(terms(), ms(0), None);
    let ping = lease.ping(ms(0));
    lease.echoed(ping.seq, None, ms(1));
    let mut watch = ReplicaWatch::new(terms(), 1, false);
    assert!(matches!(watch.heard(ms(0), 1, ping.arms, ping.ends_hold), Heard::Echo { .. }));
    assert!(matches!(watch.away(ms(10), 1, ms(20_000), 5), Heard::Echo { .. }));
    assert!(lease.announced(ms(10), ms(20_000), false, ms(12)));
    assert_eq!(lease.remaining(ms(12)), Some(ms(19_998)));
    // Its next process.
    let mut lease = SourceLease::new(terms(), ms(5000), Some(ms(15_010)));
    let ping = lease.ping(ms(5000));
    assert!(!ping.arms);
    let heard = watch.heard(ms(5000), 1, ping.arms, ping.ends_hold);
    let with_hold = Heard::Echo {
        abandoned: None,
        hold: Some(5),
    };
    assert_eq!(heard, with_hold);
    lease.echoed(ping.seq, Some(5), ms(5001));
    assert_eq!(lease.remaining(ms(5001)), Some(ms(1499)));
    let ping = lease.ping(ms(5200));
    assert!(ping.arms && ping.ends_hold == Some(5));
    watch.step(ms(5000));
    watch.heard(ms(5200), 1, ping.arms, ping.ends_hold);
    assert_eq!(watch.step(ms(5300)), Step::Wait(ms(5200 + OVER)));
}

#[test]
fn an_absence_is_waited_for() {
    let mut watch = ReplicaWatch::new(terms(), 1, false);
    watch.step(ms(0));
    watch.heard(ms(0), 1, true, None);
    watch.away(ms(100), 1, ms(10_000), 5);
    for at in (200..10_700).step_by(300) {
        assert_eq!(watch.step(ms(at)), Step::Wait(ms(10_700)), "{at}");
    }
    assert_eq!(watch.step(ms(10_700)), Step::Promote);
}

#[test]
fn a_replica_promotes_only_on_the_silence_of_a_source_it_has_heard() {
    let mut watch = ReplicaWatch::new(terms(), 4, false);
    for at in (0..10_000).step_by(500) {
        assert_eq!(watch.step(ms(at)), Step::Unarmed);
    }
    assert_eq!(watch.commit(ms(10_000)), None);
    // A source that is alone does not arm it.
    watch.heard(ms(10_000), 4, false, None);
    assert_eq!(watch.step(ms(10_001)), Step::Unarmed);
    watch.heard(ms(10_000), 4, true, None);
    assert_eq!(watch.step(ms(10_500)), Step::Wait(ms(10_000 + OVER)));
    assert_eq!(watch.step(ms(11_100)), Step::Wait(ms(10_000 + OVER)));
    assert_eq!(watch.step(ms(10_000 + OVER)), Step::Promote);
    assert_eq!(watch.commit(ms(10_000 + OVER)), Some(5));
    assert_eq!(watch.heard(ms(12_000), 4, true, None), Heard::Denied { generation: 5 });
}

#[test]
fn a_replica_that_was_stopped_itself_listens_anew() {
    let mut watch = ReplicaWatch::new(terms(), 1, false);
    watch.step(ms(0));
    watch.heard(ms(0), 1, true, None);
    assert_eq!(watch.step(ms(9000)), Step::Wait(ms(9000 + OVER)));
}

#[test]
fn with_a_witness_silence_is_not_enough() {
    let mut watch = ReplicaWatch::new(terms(), 1, true);
    watch.step(ms(0));
    watch.heard(ms(0), 1, true, None);
    for at in (0..2000).step_by(400) {
        watch.step(ms(at));
    }
    assert_eq!(watch.step(ms(2000)), Step::Fence);
    assert_eq!(watch.commit(ms(2000)), None);
    assert_eq!(watch.fence_asked(ms(2000), 8), 8);
    assert_eq!(watch.step(ms(2010)), Step::Wait(ms(2500)));
    watch.fence_promised(ms(2000), ms(2020), 7, None);
    assert_eq!(watch.step(ms(2030)), Step::Wait(ms(2500)), "an answer to another attempt");
    watch.fence_promised(ms(2000), ms(2020), 8, Some(ms(1600)));
    assert_eq!(watch.step(ms(2030)), Step::Wait(ms(2095)));
    // Were the source back now, the attempt would be over, and its promise of no use.
    let back = Heard::Echo {
        abandoned: Some(8),
        hold: None,
    };
    assert_eq!(watch.clone().heard(ms(2050), 1, true, None), back);
    for at in [2095, 2600, 3200, 3800, 4400, 4999] {
        assert_eq!(watch.step(ms(at)), Step::Promote);
    }
    assert_eq!(watch.step(ms(5000)), Step::Fence, "the witness may have forgotten it by now");
    assert_eq!(watch.fence_asked(ms(5000), 9), 8);
}

#[test]
fn a_witness_lets_one_generation_in_and_keeps_its_promise() {
    let mut witness: Grants<&str> = Grants::new(terms(), ms(0), []);
    assert!(matches!(witness.ping(&"p", 1, ms(3000)), Err(Denied::JustStarted { .. })));
    let early = witness.fence(&"p", 1, 9, true, ms(3000));
    assert!(matches!(early, Err(Denied::JustStarted { .. })));
    witness.ping(&"p", 1, ms(4000)).unwrap();
    let lively = witness.fence(&"p", 1, 9, false, ms(4300));
    assert_eq!(lively, Err(Denied::SourceLives { ago: ms(300) }));
    witness.ping(&"p", 1, ms(4400)).unwrap();
    assert_eq!(witness.fence(&"p", 1, 9, false, ms(5900)), Ok(Some(ms(1500))));
    assert_eq!(witness.ping(&"p", 1, ms(5901)), Err(Denied::Promised { generation: 1 }));
    // Taken back only by the attempt it was made for.
    assert_eq!(witness.unfence(&"p", 1, 8), Some(9));
    assert_eq!(witness.unfence(&"p", 1, 9), None);
    witness.ping(&"p", 1, ms(5902)).unwrap();
    // The newer generation comes in when the older one's lease is over, and the older one never again.
    let early = witness.ping(&"p", 2, ms(6000));
    assert!(matches!(early, Err(Denied::LeaseRuns { generation: 1, .. })));
    assert_eq!(witness.ping(&"p", 1, ms(6001)), Err(Denied::Promised { generation: 1 }));
    witness.ping(&"p", 2, ms(5902 + OVER)).unwrap();
    assert_eq!(witness.ping(&"p", 1, ms(9000)), Err(Denied::Newer { generation: 2 }));
    assert_eq!(
        witness.fence(&"p", 1, 9, true, ms(9000)),
        Err(Denied::Newer { generation: 2 })
    );
    // Another pair is another matter; what is kept outlives the process.
    witness.ping(&"q", 1, ms(9000)).unwrap();
    let mut again = Grants::new(terms(), ms(0), [("p", witness.kept(&"p"))]);
    assert_eq!(again.ping(&"p", 1, ms(9000)), Err(Denied::Newer { generation: 2 }));
}
