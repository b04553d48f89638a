//! Two machines: never two writers, never stuck.

use super::joint::Joint;
use super::steps::{Step, of_guest};
use super::*;
use std::collections::{HashMap, HashSet, VecDeque};

/// Random sequences in each of the two modes.
const SEQUENCES: u64 = 200_000;
/// Longest of them.
const LONGEST: usize = 40;

fn some_step(joint: &Joint, dice: &mut Dice) -> Step {
    let waiting = joint.net.len();
    match dice.roll(10) {
        0..=4 if waiting > 0 => Step::Deliver {
            message: dice.roll(waiting),
            again: dice.roll(4) == 0,
        },
        5 if waiting > 0 => Step::Lose(dice.roll(waiting)),
        _ => {
            let at = dice.roll(2);
            let steps = of_guest(at);
            steps[dice.roll(steps.len())]
        }
    }
}

fn hold(automatic: bool) {
    let (mut done, mut switched) = (0_u64, HashMap::new());
    for seed in 0..SEQUENCES {
        let mut dice = Dice::new(seed);
        let mut joint = Joint::new(automatic);
        // Most begin in health.
        if dice.roll(4) > 0 {
            assert!(joint.heal());
        }
        let mut trace = Vec::new();
        for _ in 0..dice.roll(LONGEST) + 1 {
            let step = some_step(&joint, &mut dice);
            if !joint.step(step) {
                continue;
            }
            done += 1;
            trace.push(step);
            assert!(
                joint.writers() < 2,
                "sequence {seed}: two writers after {trace:?}\n{joint:#?}"
            );
        }
        let generation = joint.guests[0].state.generation.max(joint.guests[1].state.generation);
        *switched.entry(generation).or_insert(0_u64) += 1;
        let broken = joint.clone();
        assert!(
            joint.heal(),
            "sequence {seed}: stuck after {trace:?}\n{broken:#?}\nlast {joint:#?}"
        );
        assert!(joint.writers() == 1);
    }
    let changed: u64 = switched
        .iter()
        .filter(|(generation, _)| **generation > 1)
        .map(|(_, n)| n)
        .sum();
    eprintln!("{SEQUENCES} random sequences, automatic {automatic}: {done} steps; the source changed in {changed}");
    assert!(changed > SEQUENCES / 10, "the sequences reach a change of source: {changed}");
}

#[test]
fn r3_two_guests_never_write_at_once_and_are_never_stuck_in_manual_mode() {
    hold(false);
}

#[test]
fn r3_two_guests_never_write_at_once_and_are_never_stuck_in_automatic_mode() {
    hold(true);
}

/// Every state within some steps of health, all orders of all messages included.
#[test]
fn r3_no_order_of_steps_near_health_makes_two_writers_or_sticks() {
    for automatic in [false, true] {
        let mut start = Joint::new(automatic);
        assert!(start.heal());
        let mut seen = HashSet::from([start.clone()]);
        let mut waiting = VecDeque::from([(start, 0)]);
        while let Some((joint, depth)) = waiting.pop_front() {
            if depth == 5 {
                assert!(joint.clone().heal(), "stuck: {joint:#?}");
                continue;
            }
            let messages = (0..joint.net.len()).flat_map(|message| [false, true].map(|again| Step::Deliver { message, again }));
            for step in messages.chain(of_guest(0)).chain(of_guest(1)) {
                let mut after = joint.clone();
                if after.step(step) && seen.insert(after.clone()) {
                    assert!(after.writers() < 2, "two writers by {step:?}: {joint:#?}");
                    waiting.push_back((after, depth + 1));
                }
            }
        }
        eprintln!("automatic {automatic}: {} joint states", seen.len());
    }
}

/// A person who is wrong makes two writers; that is what the word costs, and only that.
#[test]
fn an_operator_who_is_wrong_is_the_only_way_to_two_writers() {
    let mut joint = Joint::new(false);
    assert!(joint.heal());
    let replica = &mut joint.guests[1];
    let taken = replica
        .state
        .taken_over(2, Evidence::Operator)
        .and_then(|state| state.opened())
        .unwrap();
    replica.set(taken);
    assert_eq!(joint.writers(), 2);
    // As soon as they hear of each other there is one.
    joint.step(Step::Check(1));
    joint.step(Step::Deliver {
        message: 0,
        again: false,
    });
    assert_eq!(joint.writers(), 1);
    assert_eq!(joint.guests[0].state.role, Role::Detached);
    assert!(joint.heal());
}
