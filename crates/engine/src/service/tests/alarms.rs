//! Alarms end a deployment that they go off during, and no other.

use super::*;
use crate::alarms::UNCHECKED;
use longshore_model::alarm::{Alarm, AlarmState, Comparison, Metric, Number, Statistic};
use longshore_model::change::{Batch, Change};
use longshore_model::service::DeploymentAlarms;
use std::collections::BTreeMap;

fn alarm(name: &str, state: AlarmState) -> Alarm {
    let metric = Metric { namespace: "shop".to_owned(), name: name.to_owned(), dimensions: BTreeMap::new() };
    Alarm {
        scope: scope(),
        name: name.to_owned(),
        description: None,
        actions_enabled: true,
        metric,
        statistic: Statistic::Sum,
        period: 60,
        unit: None,
        evaluation_periods: 1,
        datapoints_to_alarm: None,
        threshold: Number(0.0),
        comparison: Comparison::GreaterThanThreshold,
        treat_missing_data: None,
        state,
        state_reason: UNCHECKED.to_owned(),
        state_reason_data: None,
        state_updated_at: Timestamp(0),
        state_transitioned_at: Timestamp(0),
        configured_at: Timestamp(0),
        tags: Tags::default(),
    }
}

/// A settled service that listens to the alarms `errors` and `latency`.
fn listening(enable: bool, rollback: bool) -> World {
    let mut world = World::new(2, 100, 200);
    let names = vec!["errors".to_owned(), "latency".to_owned()];
    world.change(|service| service.configuration.alarms = Some(DeploymentAlarms { names, enable, rollback }));
    world.settle();
    world
}

#[test]
fn an_alarm_that_goes_off_ends_the_deployment() {
    for (rollback, expected) in
        [(true, ServiceDeploymentStatus::RollbackSuccessful), (false, ServiceDeploymentStatus::Stopped)]
    {
        let mut world = listening(true, rollback);
        let first = world.service().primary().unwrap().id.clone();
        world.deploy(3, false);
        assert!(world.look());
        world.put(&alarm("errors", AlarmState::Alarm));
        assert!(world.look());
        let said = world.said.join("\n");
        assert!(said.contains("deployment failed: alarm detected."), "{said}");
        assert_eq!(said.contains(&format!("rolling back to deployment {first}.")), rollback);
        world.settle();
        assert_eq!(*world.ended().last().unwrap(), expected);
        assert_eq!(world.service().primary().unwrap().id == first, rollback);
        let triggered: Vec<_> =
            world.view.service_deployments.iter().flat_map(|d| d.triggered_alarms.clone()).collect();
        assert_eq!(triggered, ["errors"]);
        assert!(!world.look(), "nothing is left to do");
    }
}

#[test]
fn an_alarm_ends_nothing_that_it_is_not_for() {
    // Not asked for.
    let mut world = listening(false, true);
    world.deploy(3, false);
    world.put(&alarm("errors", AlarmState::Alarm));
    world.settle();
    assert_eq!(world.revisions(), [3, 3]);
    // Off before.
    let mut world = listening(true, true);
    world.put(&alarm("errors", AlarmState::Alarm));
    world.deploy(3, false);
    world.settle();
    assert_eq!(world.revisions(), [3, 3]);
    // Off later, and one that is not named.
    world.put(&alarm("latency", AlarmState::Alarm));
    assert!(!world.look());
    world.put(&alarm("others", AlarmState::Alarm));
    world.deploy(2, false);
    world.settle();
    assert_eq!(world.revisions(), [2, 2]);
}

#[test]
fn a_service_is_looked_at_when_its_alarm_changes() {
    let mut world = listening(true, true);
    for (name, expected) in [("errors", 1), ("others", 0)] {
        let alarm = alarm(name, AlarmState::Alarm);
        world.put(&alarm);
        let mut agenda = Agenda::default();
        let change = Change { key: alarm.key(), value: None };
        agenda.take(&world.view, &Batch { version: Version(1), changes: vec![change] });
        let due = std::iter::from_fn(|| agenda.pop()).count();
        assert_eq!(due, expected, "{name}");
    }
}
