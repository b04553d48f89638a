use super::*;
use proptest::prelude::*;

fn set(text: &str) -> Gtids {
    Gtids::parse(text).unwrap()
}

#[test]
fn text_is_read_and_written_as_the_server_does() {
    assert_eq!(set(" 0-2-9,\n0-1-100 , 1-1-3").to_string(), "0-2-9,0-1-100,1-1-3");
    assert_eq!(set("0-2-9,0-1-100,1-1-3").position().0, "0-1-100,1-1-3");
    assert!(set("") == Gtids::default() && set(" ,") == Gtids::default());
    for bad in [
        "0-1",
        "0-1-2-3",
        "a-1-2",
        "0--2",
        "0-1-+2",
        "4294967296-1-1",
        "0-1-18446744073709551616",
        "0-1-2;",
    ] {
        assert!(Gtids::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_position_covers_what_is_before_it_whoever_wrote_it() {
    for (have, want, lack) in [
        ("0-1-100", "0-1-100", 0),
        ("0-2-101", "0-1-100", 0),
        ("0-1-98", "0-2-100", 2),
        ("0-2-100", "0-1-100", 1),
        ("0-1-100,0-2-100", "0-1-100", 0),
        ("", "0-1-7", 7),
        ("0-1-7", "", 0),
        ("0-1-7", "0-1-7,1-1-5", 5),
    ] {
        assert_eq!(set(have).missing(&set(want)), lack, "{have} {want}");
    }
}

#[test]
fn errant_is_what_the_source_never_had() {
    let all = |_| true;
    let source = set("0-1-100,0-2-140");
    assert_eq!(set("0-1-100,0-2-90").errant(&source, all), Vec::<String>::new());
    assert_eq!(set("0-1-101").errant(&source, all), ["0-1-101"]);
    assert_eq!(set("0-1-105,0-2-140").errant(&source, all), ["0-1-101 to 0-1-105"]);
    assert_eq!(set("0-3-12").errant(&source, all), ["up to 0-3-12"]);
    // The source is a copy of server 2 and does not remember who wrote before: what comes before a shared transaction is shared.
    let copy = set("0-2-140");
    assert_eq!(set("0-1-100,0-2-140").errant(&copy, all), Vec::<String>::new());
    assert_eq!(set("0-1-100,0-2-90").errant(&copy, all), ["up to 0-1-100"]);
    assert_eq!(set("0-1-141,0-2-140").errant(&copy, all), ["up to 0-1-141"]);
    assert_eq!(
        set("0-3-12,0-1-100").errant(&source, |server| server == 1),
        Vec::<String>::new()
    );
}

/// A history as a pair or trio writes it: who writes next, and whose replica is how far behind when roles change.
#[derive(Debug, Clone)]
struct Turn {
    source: usize,
    writes: u64,
    /// What each server has of this turn's writes when the next one begins.
    received: Vec<u64>,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (0usize..3, 0u64..6, prop::collection::vec(0u64..7, 3));
    let turn = turn.prop_map(|(source, writes, received)| Turn {
        source,
        writes,
        received,
    });
    prop::collection::vec(turn, 1..30)
}

proptest! {
    /// Each new source has all there is (a switchover), so nobody is ever errant, however far behind the others are.
    #[test]
    fn role_swaps_make_nobody_errant(turns in turns()) {
        let mut history: Vec<(u32, u64)> = Vec::new();
        let mut has = [0usize; 3];
        for turn in turns {
            has[turn.source] = history.len();
            for _ in 0..turn.writes {
                history.push((turn.source as u32 + 1, history.len() as u64 + 1));
            }
            has[turn.source] = history.len();
            for (server, received) in turn.received.iter().enumerate() {
                has[server] = (has[server] + *received as usize).min(history.len());
            }
            let states: Vec<Gtids> = has
                .iter()
                .map(|count| {
                    let mut state = Gtids::default();
                    history[..*count].iter().for_each(|(server, sequence)| state.add(0, *server, *sequence));
                    state
                })
                .collect();
            let source = &states[turn.source];
            for (server, state) in states.iter().enumerate() {
                prop_assert_eq!(state.errant(source, |_| true), Vec::<String>::new());
                prop_assert_eq!(source.missing(state), 0);
                let lack = (history.len() - has[server]) as u64;
                prop_assert_eq!(set(&state.position().0).missing(&set(&source.position().0)), lack);
                prop_assert_eq!(Gtids::parse(&state.to_string()).unwrap(), state.clone());
            }
            // One write more by somebody who is not the source is always found.
            for (server, state) in states.iter().enumerate().filter(|(server, _)| *server != turn.source) {
                let mut wrong = state.clone();
                let next = wrong.last().get(&0).map_or(0, |(_, sequence)| *sequence) + 1;
                wrong.add(0, server as u32 + 1, next);
                let known = source.0.get(&(0, server as u32 + 1)).copied().unwrap_or_default();
                prop_assert_eq!(wrong.errant(source, |_| true).is_empty(), known >= next);
            }
        }
    }

    #[test]
    fn joining_covers_both(a in "((0|1)-(1|2|3)-[1-9][0-9]{0,2},){0,5}", b in "((0|1)-(1|2|3)-[1-9][0-9]{0,2},){0,5}") {
        let (a, b) = (set(&a), set(&b));
        let both = a.clone().and(&b);
        prop_assert!(both.covers(&a) && both.covers(&b));
        prop_assert_eq!(b.clone().and(&a), both.clone());
        prop_assert!(a.errant(&both, |_| true).is_empty());
    }
}
