//! Alarms that end a deployment. Invariant: one that was off when the deployment began does not.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-alarm-failure.html>.

use super::Plan;
use super::deployment::{Cause, current};
use crate::view::View;
use longshore_model::Timestamp;
use longshore_model::alarm::{Alarm, AlarmState};
use longshore_model::service::{
    DeploymentConfiguration, RolloutState, Service, ServiceDeploymentStatus, Status,
};

/// The alarms of a configuration that are off now.
pub(super) fn off(view: &View, service: &Service, configuration: &DeploymentConfiguration) -> Vec<String> {
    let is_off = |name: &&String| {
        let alarm = view.alarms.get(&Alarm::key_of(&service.scope, name));
        alarm.is_some_and(|alarm| alarm.state == AlarmState::Alarm)
    };
    let names = configuration.alarms().map(|alarms| alarms.names.as_slice()).unwrap_or_default();
    names.iter().filter(is_off).cloned().collect()
}

impl Plan {
    /// Gives the deployment up when an alarm goes off.
    pub(super) fn heed_alarms(&mut self, view: &View, now: Timestamp) {
        if self.ended.is_some() || self.next.status != Status::Active {
            return;
        }
        let Some(present) = current(view, &self.next) else { return };
        let in_progress =
            self.next.primary().is_some_and(|primary| primary.rollout_state == RolloutState::InProgress);
        if !in_progress || present.status != ServiceDeploymentStatus::InProgress {
            return;
        }
        let Some(alarms) = present.configuration.alarms() else { return };
        let mut names = off(view, &self.next, &present.configuration);
        names.retain(|name| !present.ignored_alarms.contains(name));
        if names.is_empty() {
            return;
        }
        let last = self.next.last_completed.clone().map(|last| *last).filter(|_| alarms.rollback);
        let back = last.filter(|last| self.next.primary().is_none_or(|primary| primary.id != last.id));
        self.give_up(&Cause::Alarms(names), back, now);
    }
}
