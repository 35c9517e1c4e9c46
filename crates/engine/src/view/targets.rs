//! Target groups by their ARNs, targets by the tasks that they are for, and those that drain.

use super::View;
use longshore_model::change::{Change, Key, Undecodable};
use longshore_model::elb::{Target, TargetGroup};
use longshore_model::{Record, Scope};
use std::sync::Arc;

impl View {
    /// The group of this very ARN, not one of its name that came later.
    pub fn target_group(&self, scope: &Scope, arn: &str) -> Option<&Arc<TargetGroup>> {
        let group = self.target_groups.get(&TargetGroup::key_of_arn(scope, arn)?)?;
        (group.arn() == arn).then_some(group)
    }

    /// The targets that a task, by its key, is registered as.
    pub fn targets_of<'a>(&'a self, task: &Key) -> impl Iterator<Item = &'a Arc<Target>> + use<'a> {
        self.targets_by_task.get(task).into_iter().flatten().filter_map(|key| self.targets.get(key))
    }

    /// The targets that were deregistered and are still there.
    pub fn draining_targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.draining_targets.iter().filter_map(|key| self.targets.get(key))
    }

    pub(super) fn apply_target(&mut self, change: &Change) -> Result<(), Undecodable> {
        let task_of = |target: &Arc<Target>| target.task.as_ref().map(|task| task.key());
        if let Some(task) = self.targets.get(&change.key).and_then(task_of) {
            let targets = self.targets_by_task.entry(task.clone()).or_default();
            targets.remove(&change.key);
            if targets.is_empty() {
                self.targets_by_task.remove(&task);
            }
        }
        self.targets.apply(change)?;
        let drains = |target: &Arc<Target>| target.deregistered_at.is_some();
        match self.targets.get(&change.key).is_some_and(drains) {
            true => self.draining_targets.insert(change.key.clone()),
            false => self.draining_targets.remove(&change.key),
        };
        if let Some(target) = self.targets.get(&change.key)
            && let Some(task) = task_of(target)
        {
            self.targets_by_task.entry(task).or_default().insert(target.key());
        }
        Ok(())
    }
}
