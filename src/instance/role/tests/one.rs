//! One machine: the rules R1 to R7 after every operation of random sequences, and a way out of every state there is.

use super::*;
use std::collections::{HashSet, VecDeque};

/// How many random sequences a rule is held against.
const SEQUENCES: u64 = 100_000;
/// Longest of them.
const LONGEST: usize = 24;

#[derive(Debug, Clone, Copy)]
enum Op {
    Configured(Role, u64),
    Opened,
    Closed,
    Held,
    LetGo,
    Conflicted,
    Saw(u64),
    MetSource(u64),
    Rejoined(u64),
    Booted,
    BeginLeaving(&'static str, u64),
    Fenced(&'static str),
    Released(&'static str),
    Stayed(&'static str),
    BeginCandidate(&'static str, u64),
    Asked(&'static str),
    Promoted(&'static str),
    GaveUp(&'static str, bool),
    TakenOver(u64, Evidence),
}

/// Every operation with generations up to `top` and two operations' names.
fn operations(top: u64) -> Vec<Op> {
    let mut all = vec![Op::Opened, Op::Closed, Op::Held, Op::LetGo, Op::Conflicted, Op::Booted];
    for generation in 0..=top {
        all.extend([Role::Source, Role::Replica].map(|role| Op::Configured(role, generation)));
        all.extend([Op::Saw(generation), Op::MetSource(generation), Op::Rejoined(generation)]);
        all.extend([Evidence::Released, Evidence::LeaseOver, Evidence::Operator].map(|why| Op::TakenOver(generation, why)));
        for op in ["a", "b"] {
            all.extend([Op::BeginLeaving(op, generation), Op::BeginCandidate(op, generation)]);
        }
    }
    for op in ["a", "b"] {
        all.extend([
            Op::Fenced(op),
            Op::Released(op),
            Op::Stayed(op),
            Op::Asked(op),
            Op::Promoted(op),
        ]);
        all.extend([Op::GaveUp(op, false), Op::GaveUp(op, true)]);
    }
    all
}

/// What the operation makes of the state; `None` when it is refused.
fn apply(state: &RoleState, op: Op) -> Option<RoleState> {
    match op {
        Op::Configured(role, generation) => state.configured(role, generation).ok(),
        Op::Opened => state.opened().ok(),
        Op::Closed => Some(state.closed()),
        Op::Held => state.held().ok(),
        Op::LetGo => Some(state.let_go()),
        Op::Conflicted => Some(state.conflicted()),
        Op::Saw(generation) => Some(state.saw_generation(generation).0),
        Op::MetSource(generation) => Some(state.met_source(generation).0),
        Op::Rejoined(generation) => state.rejoined(generation).ok(),
        Op::Booted => Some(state.booted()),
        Op::BeginLeaving(op, next) => state.begin_leaving(op, next).ok(),
        Op::Fenced(op) => state.fenced(op).ok(),
        Op::Released(op) => state.released(op).ok(),
        Op::Stayed(op) => state.stayed(op).ok(),
        Op::BeginCandidate(op, next) => state.begin_candidate(op, next).ok(),
        Op::Asked(op) => state.asked(op).ok(),
        Op::Promoted(op) => state.promoted(op).ok(),
        Op::GaveUp(op, denied) => state.gave_up(op, denied).ok(),
        Op::TakenOver(next, why) => state.taken_over(next, why).ok(),
    }
}

/// Holds a rule against every operation of [`SEQUENCES`] random sequences.
fn always(rule: impl Fn(&RoleState, Op, &RoleState) -> bool) {
    let operations = operations(4);
    let (mut applied, mut refused) = (0_u64, 0_u64);
    for seed in 0..SEQUENCES {
        let mut dice = Dice::new(seed);
        let mut state = RoleState::default();
        let mut trace = Vec::new();
        for _ in 0..dice.roll(LONGEST) + 1 {
            let op = operations[dice.roll(operations.len())];
            let Some(after) = apply(&state, op) else {
                refused += 1;
                continue;
            };
            applied += 1;
            trace.push(op);
            assert!(
                rule(&state, op, &after),
                "sequence {seed}: {trace:?}\nmade {state:?}\ninto {after:?}"
            );
            state = after;
        }
    }
    eprintln!("{SEQUENCES} random sequences: {applied} operations done, {refused} refused");
    assert!(applied > SEQUENCES, "the sequences do something");
}

#[test]
fn r1_an_address_is_held_by_a_source_only_and_never_through_a_fence() {
    always(|before, op, after| {
        let fenced = matches!(after.switch, Some(Switch::Leaving { fenced: true, .. }));
        let taken_in_a_fence = fenced && before.vip != VipState::Held && after.vip == VipState::Held;
        let by = after.vip != VipState::Held || before.vip == VipState::Held || matches!(op, Op::Held);
        by && !taken_in_a_fence && (after.vip != VipState::Held || matches!(after.role, Role::Source | Role::Unconfigured))
    });
}

#[test]
fn r2_a_conflict_keeps_writes_closed() {
    always(|_, _, after| after.vip != VipState::Conflict || !after.writable);
}

#[test]
fn r3_only_a_source_that_is_not_fenced_writes_and_only_opening_opens() {
    always(|before, op, after| {
        let fenced = matches!(after.switch, Some(Switch::Leaving { fenced: true, .. }));
        let candidate = matches!(after.switch, Some(Switch::Candidate { .. }));
        let may = matches!(after.role, Role::Source | Role::Unconfigured) && !fenced && !candidate;
        let opens = !before.writable && after.writable;
        (may || !after.writable) && (!opens || matches!(op, Op::Opened))
    });
}

#[test]
fn r4_a_boot_raises_nothing() {
    always(|before, _, after| {
        let booted = after.booted();
        let same = booted.role == after.role && booted.switch == after.switch && booted.highest() == after.highest();
        let lower = booted.vip != VipState::Held && (!booted.writable || (after.writable && after.role == Role::Unconfigured));
        same && lower && before.booted().booted() == before.booted()
    });
}

#[test]
fn r5_what_is_on_disk_is_what_was_in_memory() {
    let operations = operations(4);
    let mut dice = Dice::new(7);
    for _ in 0..2_000 {
        let mut state = RoleState::default();
        for _ in 0..LONGEST {
            state = apply(&state, operations[dice.roll(operations.len())]).unwrap_or(state);
            let text = serde_json::to_vec(&state).unwrap();
            assert_eq!(serde_json::from_slice::<RoleState>(&text).unwrap(), state);
        }
    }
}

#[test]
fn r6_a_higher_generation_demotes_at_once_and_none_is_forgotten() {
    always(|before, op, after| {
        let expected = match &before.switch {
            Some(Switch::Candidate { next, asked: true, .. }) => (*next).max(before.highest()),
            _ => before.highest(),
        };
        let demoted = match op {
            Op::Saw(other) if other > expected && before.role != Role::Unconfigured => {
                after.role == Role::Detached
                    && !after.writable
                    && after.vip != VipState::Held
                    && after.switch.is_none()
                    && after.superseded_by == Some(other)
            }
            _ => true,
        };
        demoted && after.highest() >= before.highest()
    });
}

/// That an acknowledged write survives is the driver's and the pair's; the machine's part is that nobody takes over unasked.
#[test]
fn r7_nobody_becomes_source_without_the_word_of_the_source_or_evidence() {
    always(|before, op, after| {
        let became = before.role != Role::Source && after.role == Role::Source;
        let asked = matches!(before.switch, Some(Switch::Candidate { asked: true, .. }));
        let allowed = match op {
            Op::Configured(..) => before.role == Role::Unconfigured,
            Op::Promoted(_) => asked && after.generation > before.generation,
            // By itself only a replica takes over; one that was left behind needs the word of a person or of its source.
            Op::TakenOver(_, why) => {
                after.highest() > before.highest() && (before.role == Role::Replica || why != Evidence::LeaseOver)
            }
            _ => false,
        };
        !became || (allowed && !after.writable)
    });
}

/// Every state that can be reached with generations up to 3.
fn reachable() -> Vec<RoleState> {
    let operations = operations(3);
    let mut seen = HashSet::from([RoleState::default()]);
    let mut waiting = VecDeque::from([RoleState::default()]);
    while let Some(state) = waiting.pop_front() {
        for after in operations.iter().filter_map(|op| apply(&state, *op)) {
            if seen.insert(after.clone()) {
                waiting.push_back(after);
            }
        }
    }
    seen.into_iter().collect()
}

/// Out of a switchover, as the agents do it.
fn idle(state: &RoleState) -> RoleState {
    match &state.switch {
        Some(Switch::Leaving { op, .. }) => state.stayed(op).expect("a source goes back alone"),
        Some(Switch::Candidate { op, asked, .. }) => {
            state.gave_up(op, *asked).expect("a candidate goes back, told so if it asked")
        }
        None => state.clone(),
    }
}

#[test]
fn every_reachable_state_has_a_way_to_serve_and_a_way_to_follow() {
    let states = reachable();
    for state in &states {
        let mut source = idle(state);
        if !matches!(source.role, Role::Source | Role::Unconfigured) {
            source = source.taken_over(source.highest() + 1, Evidence::Operator).unwrap();
        }
        let serving = source.let_go().held().and_then(|held| held.opened()).unwrap();
        assert!(serving.writable && serving.vip == VipState::Held, "{state:?}");
        // A candidate whose source never answers is not stuck either.
        if let Some(Switch::Candidate { next, asked: true, .. }) = &state.switch {
            assert!(
                state
                    .taken_over((*next).max(state.highest() + 1), Evidence::LeaseOver)
                    .is_ok(),
                "{state:?}"
            );
        }
        let leaving = idle(state);
        let follower = match leaving.role {
            Role::Source => {
                let begun = leaving.begin_leaving("out", leaving.highest() + 1).unwrap();
                begun.fenced("out").and_then(|fenced| fenced.released("out")).unwrap()
            }
            Role::Unconfigured => leaving.configured(Role::Replica, leaving.highest()).unwrap(),
            Role::Replica | Role::Detached => leaving.rejoined(leaving.highest()).unwrap(),
        };
        assert!(
            follower.role == Role::Replica && !follower.writable && follower.switch.is_none(),
            "{state:?}"
        );
    }
    eprintln!("{} reachable states", states.len());
    assert!(states.len() > 150, "{}", states.len());
}

#[test]
fn a_step_that_is_asked_for_again_is_no_second_one() {
    let source = RoleState::default()
        .configured(Role::Source, 1)
        .and_then(|s| s.opened())
        .unwrap();
    let begun = source.begin_leaving("a", 2).unwrap();
    assert_eq!(begun.begin_leaving("a", 2).unwrap(), begun);
    assert_eq!(begun.begin_leaving("b", 2), Err(Refused::Switching("a".to_owned())));
    let fenced = begun.fenced("a").unwrap();
    assert_eq!(fenced.fenced("a").unwrap(), fenced);
    assert_eq!(begun.released("a"), Err(Refused::NotAtStage("a".to_owned())));
    let released = fenced.released("a").unwrap();
    assert_eq!(released.released("a"), Err(Refused::NotAtStage("a".to_owned())));
    assert_eq!((released.role, released.generation), (Role::Replica, 2));
}
