//! Which changes are told as events. Invariant: each change that a task's `version` counts has one event, in order.

use crate::view::View;
use longshore_model::change::{Key, Write};
use longshore_model::container_instance::ContainerInstance;
use longshore_model::event::{Event, Subject};
use longshore_model::id::IdSource;
use longshore_model::record::{Record, decode};
use longshore_model::task::Task;
use longshore_model::{Timestamp, Transaction};

/// How many events are kept for those who have not read them. What they tell of is in the records.
pub const KEPT: usize = 4096;

/// Adds the events of what a transaction changes, decided on `view`, to the transaction.
pub fn add(view: &View, transaction: &mut Transaction, now: Timestamp, ids: &mut dyn IdSource) {
    let subjects: Vec<Subject> =
        transaction.writes().iter().filter_map(|write| subject(view, write)).collect();
    for (place, subject) in (0..).zip(subjects) {
        let decided_at = transaction.read();
        transaction.create(&Event { id: ids.uuid(), at: now, decided_at, place, subject });
    }
}

/// The oldest events, where there are too many: at most `limit` of them.
pub fn to_forget(view: &View, limit: usize) -> Vec<Key> {
    let surplus = view.events.len().saturating_sub(KEPT);
    view.events.iter().take(surplus.min(limit)).map(|event| event.key()).collect()
}

fn subject(view: &View, write: &Write) -> Option<Subject> {
    let (key, value) = (write.key(), write.value()?);
    match key.table() {
        Task::TABLE => {
            let after: Task = decode(value).ok()?;
            // A change of tags alone does not count.
            let is_told = view.tasks.get(key).is_none_or(|before| before.version < after.version);
            is_told.then(|| Subject::Task(Box::new(after)))
        }
        ContainerInstance::TABLE => {
            let after: ContainerInstance = decode(value).ok()?;
            // Capacity for Fargate is shown to nobody.
            let is_shown = after.membership().is_some();
            let before = view.container_instances.get(key);
            let is_told = is_shown && before.is_none_or(|before| differ(before, &after));
            is_told.then(|| Subject::ContainerInstance(Box::new(after)))
        }
        _ => None,
    }
}

/// Neither tags nor which control plane it is linked to are of its state.
fn differ(before: &ContainerInstance, after: &ContainerInstance) -> bool {
    let connected_to = before.connected_to;
    *before != ContainerInstance { tags: before.tags.clone(), connected_to, ..after.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Count};
    use longshore_model::container_instance::{Capacity, Membership, Status};
    use longshore_model::task::{DesiredStatus, LastStatus, LaunchType};
    use longshore_model::{Tags, Version};

    fn told(view: &View, change: impl FnOnce(&mut Transaction)) -> Vec<String> {
        let mut transaction = Transaction::at(Version(7));
        change(&mut transaction);
        add(view, &mut transaction, Timestamp(9), &mut Count(1));
        let events = transaction.writes().iter().filter(|write| write.key().table() == Event::TABLE);
        events
            .map(|write| {
                let event: Event = decode(write.value().unwrap()).unwrap();
                assert_eq!(
                    (event.at, event.decided_at, event.key()),
                    (Timestamp(9), Version(7), write.key().clone())
                );
                match event.subject {
                    Subject::Task(task) => {
                        format!("{} {} {}", event.place, task.last_status.as_str(), task.version)
                    }
                    Subject::ContainerInstance(instance) => {
                        let status = instance.membership().unwrap().status.as_str();
                        format!("{} {status} {}", event.place, instance.agent_connected)
                    }
                }
            })
            .collect()
    }

    fn with_task() -> (View, Task) {
        let (mut view, task) = (testing::view(&[testing::instance(1, 1024, 4096)]), testing::task());
        let mut transaction = Transaction::at(Version(1));
        transaction.create(&task);
        testing::apply(&mut view, transaction);
        (view, task)
    }

    fn member() -> Membership {
        Membership {
            scope: testing::scope(),
            cluster: "default".to_owned(),
            launch_type: LaunchType::Ec2,
            ec2_instance_id: None,
            status: Status::Active,
        }
    }

    #[test]
    fn each_version_of_a_task_is_told() {
        let (mut view, task) = with_task();
        let pending = Task { last_status: LastStatus::Pending, version: 2, ..task.clone() };
        let stopping = Task { desired_status: DesiredStatus::Stopped, version: 2, ..task.clone() };
        assert_eq!(told(&view, |t| t.update(&pending)), ["0 PENDING 2"]);
        assert_eq!(told(&view, |t| t.update(&stopping)), ["0 PROVISIONING 2"]);
        let tagged =
            Task { tags: [("a".to_owned(), "b".to_owned())].into_iter().collect::<Tags>(), ..task.clone() };
        assert!(told(&view, |t| t.update(&tagged)).is_empty());
        assert!(told(&view, |t| t.delete(task.key())).is_empty());
        let mut gone = Transaction::at(Version(1));
        gone.delete(task.key());
        testing::apply(&mut view, gone);
        assert_eq!(told(&view, |t| t.create(&task)), ["0 PROVISIONING 1"]);
    }

    #[test]
    fn container_instances_are_told_and_capacity_for_fargate_is_not() {
        let fargate = testing::instance(1, 1024, 1024);
        let member = member();
        let shown = ContainerInstance {
            capacity: Capacity::Cluster(member.clone()),
            ..testing::instance(2, 1024, 1024)
        };
        let view = testing::view(&[fargate.clone(), shown.clone()]);
        let away = |of: &ContainerInstance| ContainerInstance { agent_connected: false, ..of.clone() };
        assert!(told(&view, |t| t.update(&away(&fargate))).is_empty());
        assert!(told(&view, |t| t.update(&shown)).is_empty());
        let draining = Membership { status: Status::Draining, ..member };
        let draining = ContainerInstance { capacity: Capacity::Cluster(draining), ..shown.clone() };
        let both = told(&view, |t| {
            t.update(&away(&shown));
            t.update(&draining);
        });
        assert_eq!(both, ["0 ACTIVE false", "1 DRAINING true"]);
    }
}
