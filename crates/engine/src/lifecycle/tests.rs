//! Lifecycle decisions, each as data: what the agent saw, and what the task became.

use super::*;
use crate::testing;
use longshore_model::link::StartFailureKind;

fn seen(states: &[(&str, ContainerState)]) -> Observation {
    let containers = states.iter().map(|(name, state)| ContainerObservation {
        name: (*name).to_owned(),
        started_at: (!matches!(state, ContainerState::Waiting | ContainerState::Gone { .. }))
            .then_some(Timestamp(20)),
        state: state.clone(),
        image_digest: None,
        health: Health::Unknown,
        restarts: 0,
    });
    Observation {
        task: testing::task().reference(),
        pull_started_at: Some(Timestamp(11)),
        pull_stopped_at: Some(Timestamp(12)),
        connected_at: Some(Timestamp(13)),
        containers: containers.collect(),
        failure: None,
        released: false,
    }
}

fn exited(code: i32) -> ContainerState {
    ContainerState::Exited { code, at: Timestamp(50), out_of_memory: code == 137 }
}

fn check(observations: &[Observation], expected: &str) {
    let mut task = testing::task();
    for (step, observation) in observations.iter().enumerate() {
        if let Some(next) = observe(&task, &testing::definition(), observation, Timestamp(100 + step as i64))
        {
            assert!(next.last_status >= task.last_status, "went back to {:?}", next.last_status);
            task = next;
        }
        assert_eq!(
            observe(&task, &testing::definition(), observation, Timestamp(900)).map(|t| t.version > 99),
            None
        );
    }
    let containers: Vec<String> = task
        .containers
        .iter()
        .map(|c| format!("{} {} {:?} {:?}", c.name, c.last_status.as_str(), c.exit_code, c.reason.as_deref()))
        .collect();
    let stop = task.stop.as_ref().map(|stop| format!("{} ({})", stop.code.as_str(), stop.reason));
    let shown = format!(
        "{} wants {}; {}; {}; {:?}",
        task.last_status.as_str(),
        task.desired_status.as_str(),
        containers.join(", "),
        stop.unwrap_or_default(),
        goal(&task),
    );
    assert_eq!(shown, expected);
}

#[test]
fn starts() {
    let waiting = seen(&[("app", ContainerState::Waiting), ("side", ContainerState::Waiting)]);
    let half = seen(&[("app", ContainerState::Running), ("side", ContainerState::Waiting)]);
    let both = seen(&[("app", ContainerState::Running), ("side", ContainerState::Running)]);
    check(
        std::slice::from_ref(&waiting),
        "PENDING wants RUNNING; app PENDING None None, side PENDING None None; ; Run",
    );
    check(
        &[waiting.clone(), half.clone()],
        "PENDING wants RUNNING; app RUNNING None None, side PENDING None None; ; Run",
    );
    check(
        &[waiting, half, both],
        "RUNNING wants RUNNING; app RUNNING None None, side RUNNING None None; ; Run",
    );
}

#[test]
fn a_container_that_is_not_essential_may_end() {
    let ended = seen(&[("app", ContainerState::Running), ("side", exited(0))]);
    check(&[ended], "RUNNING wants RUNNING; app RUNNING None None, side STOPPED Some(0) None; ; Run");
}

#[test]
fn the_end_of_an_essential_container_ends_the_task() {
    let one = seen(&[("app", exited(1)), ("side", ContainerState::Running)]);
    let two = seen(&[("app", exited(1)), ("side", exited(143))]);
    let mut gone = two.clone();
    gone.released = true;
    check(
        std::slice::from_ref(&one),
        "STOPPING wants STOPPED; app STOPPED Some(1) None, side RUNNING None None; \
         EssentialContainerExited (Essential container in task exited); Stop",
    );
    check(
        &[one.clone(), two.clone()],
        "DEPROVISIONING wants STOPPED; app STOPPED Some(1) None, side STOPPED Some(143) None; \
         EssentialContainerExited (Essential container in task exited); Release",
    );
    check(
        &[one, two, gone],
        "STOPPED wants STOPPED; app STOPPED Some(1) None, side STOPPED Some(143) None; \
         EssentialContainerExited (Essential container in task exited); Release",
    );
}

#[test]
fn running_out_of_memory_is_the_containers_reason() {
    check(
        &[seen(&[("app", exited(137)), ("side", exited(0))])],
        "DEPROVISIONING wants STOPPED; \
         app STOPPED Some(137) Some(\"OutOfMemoryError: Container killed due to memory usage\"), side STOPPED Some(0) None; \
         EssentialContainerExited (Essential container in task exited); Release",
    );
}

#[test]
fn a_failed_pull_is_the_tasks_and_the_containers_reason() {
    let gone = ContainerState::Gone { reason: None };
    let mut failed = seen(&[("app", gone.clone()), ("side", gone)]);
    failed.failure = Some(StartFailure {
        kind: StartFailureKind::CannotPullContainer,
        container: Some("app".to_owned()),
        message: "no such image".to_owned(),
        at: Timestamp(30),
    });
    check(
        &[failed],
        "DEPROVISIONING wants STOPPED; \
         app STOPPED None Some(\"CannotPullContainerError: no such image\"), side STOPPED None None; \
         TaskFailedToStart (CannotPullContainerError: no such image); Release",
    );
}

#[test]
fn the_first_reason_to_stop_stays() {
    let by_user = Stop { code: StopCode::UserInitiated, reason: STOPPED_BY_USER.to_owned() };
    let stopping = stop(&testing::task(), by_user.clone(), Timestamp(5)).unwrap();
    assert_eq!(goal(&stopping), Goal::Stop);
    assert_eq!(stop(&stopping, by_user.clone(), Timestamp(6)), None);
    let both = seen(&[("app", exited(143)), ("side", exited(143))]);
    let ended = observe(&stopping, &testing::definition(), &both, Timestamp(60)).unwrap();
    assert_eq!(ended.stop, Some(by_user));
    assert_eq!(ended.times.stopping_at, Some(Timestamp(5)));
    assert_eq!(ended.times.execution_stopped_at, Some(Timestamp(50)));
}

#[test]
fn a_stopped_task_no_longer_changes() {
    let mut task = testing::task();
    task.last_status = LastStatus::Stopped;
    assert_eq!(
        observe(&task, &testing::definition(), &seen(&[("app", ContainerState::Running)]), Timestamp(1)),
        None
    );
}
