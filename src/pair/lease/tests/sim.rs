//! A world of two guests and perhaps a witness: messages late, lost and out of order, links cut in one direction, agents stopped,
//! killed and restarted, hosts rebooted, clocks that run apart. Whatever happens, two doors never stand open, nobody promotes while
//! another's door is open, and when all is well again one door is.

use super::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;

mod world;

use world::{Fault, World};

/// Microseconds of the world's own time.
type Real = u64;

const SECOND: Real = 1_000_000;
/// From here on nothing goes wrong any more.
const HEALED: Real = 20 * SECOND;
const END: Real = 34 * SECOND;

fn fault() -> impl Strategy<Value = Fault> {
    let host = 0..3_usize;
    let time = 100..6000_u64;
    prop_oneof![
        (host.clone(), time.clone()).prop_map(|(host, ms)| Fault::Pause { host, ms }),
        (host.clone(), time.clone()).prop_map(|(host, ms)| Fault::Kill { host, ms }),
        (0..2_usize, time.clone(), 1000..8000_u64).prop_map(|(host, ms, within)| Fault::Stop { host, ms, within }),
        (host.clone(), time.clone()).prop_map(|(host, ms)| Fault::Reboot { host, ms }),
        (host.clone(), host.clone(), time.clone()).prop_map(|(from, to, ms)| Fault::Cut { from, to, ms }),
        (host.clone(), time.clone()).prop_map(|(host, ms)| Fault::Isolate { host, ms }),
        (5..60_u64, time.clone()).prop_map(|(percent, ms)| Fault::Lossy { percent, ms }),
        (100..2500_u64, time).prop_map(|(delay, ms)| Fault::Slow { delay, ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_doors_are_never_open_and_one_is_when_all_is_well(
        seed in any::<u64>(),
        rates in [-20_000..20_000_i64, -20_000..20_000, -20_000..20_000],
        witness in any::<bool>(),
        forgetful in any::<bool>(),
        insist in any::<bool>(),
        faults in prop::collection::vec((0..18_000_u64, fault()), 0..9),
    ) {
        let mut world = World::new(seed, rates, witness, forgetful, insist);
        for (at, fault) in faults {
            world.plan(at * 1000, fault);
        }
        world.run()?;
    }
}

#[test]
fn the_world_sees_failovers() {
    let mut world = World::new(7, [0; 3], true, false, false);
    world.plan(8 * SECOND, Fault::Reboot { host: 0, ms: 6000 });
    world.run().unwrap();
    assert_eq!(world.promotions, 1);
    let mut world = World::new(7, [0; 3], false, false, false);
    world.plan(8 * SECOND, Fault::Isolate { host: 0, ms: 6000 });
    world.run().unwrap();
    assert_eq!(world.promotions, 1);
    // The death of the replica's agent alone, or its stop, changes nothing.
    for fault in [Fault::Kill { host: 1, ms: 6000 }, Fault::Pause { host: 1, ms: 6000 }] {
        let mut world = World::new(7, [0; 3], false, false, false);
        world.plan(8 * SECOND, fault);
        world.run().unwrap();
        assert_eq!(world.promotions, 0);
        assert_eq!(world.guests[0].generation, 1);
    }
    // An agent that is upgraded in order keeps its door.
    let mut world = World::new(7, [0; 3], false, false, false);
    world.plan(
        8 * SECOND,
        Fault::Stop {
            host: 0,
            ms: 5000,
            within: 7000,
        },
    );
    world.watch_door = Some(9 * SECOND..13 * SECOND);
    world.run().unwrap();
    assert_eq!(world.promotions, 0);
}
