//! What is reportable of every view.

use super::*;
use proptest::prelude::*;

fn phase() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::New),
        Just(Phase::Preparing),
        Just(Phase::Ready),
        Just(Phase::Failed)
    ]
}

fn health() -> impl Strategy<Value = Option<Health>> {
    let reason = || String::from("reason");
    proptest::option::of(prop_oneof![
        Just(Health::Healthy),
        Just(Health::Starting),
        Just(Health::Stopped),
        Just(Health::Crashed { reason: reason() }),
        Just(Health::Unknown { reason: reason() }),
    ])
}

prop_compose! {
    fn view()(phase in phase(), health in health(), counter: u64, waiting in 0..9usize, restart_required: bool, planned: bool) -> View {
        View { counter, phase, health, operation: None, role_operation: None, backup_operation: None, waiting, restart_required, planned }
    }
}

proptest! {
    #[test]
    fn nothing_is_claimed_that_the_view_does_not_say(view in view()) {
        let status = reportable(&view);
        prop_assert_eq!(status.is_none(), view.phase == Phase::New
            || (view.phase == Phase::Ready && (view.health.is_none() || (view.planned && view.health == Some(Health::Healthy)))));
        match status {
            Some(Status::Building) => prop_assert_eq!(view.phase, Phase::Preparing),
            Some(Status::FailedToSpawn) => prop_assert_eq!(view.phase, Phase::Failed),
            Some(Status::Healthy) => prop_assert!(view.health == Some(Health::Healthy) && !view.planned && !view.restart_required),
            Some(Status::RestartRequired) => prop_assert!(view.restart_required && view.health == Some(Health::Healthy)),
            Some(_) => prop_assert_eq!(view.phase, Phase::Ready),
            None => {}
        }
        if view.phase == Phase::Ready && matches!(view.health, Some(Health::Crashed { .. })) {
            prop_assert_eq!(status, Some(Status::Crashed), "a dead server is never hidden");
        }
    }

    #[test]
    fn counters_and_queues_do_not_change_what_is_reported(view in view(), counter: u64, waiting in 0..9usize) {
        let other = View { counter, waiting, ..view.clone() };
        prop_assert_eq!(reportable(&view), reportable(&other));
    }
}

#[test]
fn descriptions_are_those_the_conductor_of_the_era_knows() {
    let known = [
        "building",
        "healthy",
        "running",
        "shutdown",
        "crashed",
        "failed to spawn",
        "unknown",
        "instance ready",
        "restart required",
    ];
    for status in Status::ALL {
        for era in [Era::Ussuri, Era::Victoria, Era::Epoxy, Era::Hibiscus] {
            assert!(known.contains(&status.description(era)));
        }
        for era in [Era::Mitaka, Era::Ocata] {
            assert_ne!(status.description(era), "healthy", "lost by conductors before 13");
        }
    }
    assert_eq!(Status::Healthy.description(Era::Ocata), "running");
    assert_eq!(Status::Healthy.description(Era::Hibiscus), "healthy");
    assert_eq!(Status::ALL.map(|s| s.description(Era::Hibiscus)), known);
}
