//! Which changes are told as events. Invariant: each change that a task's `version` counts has one event, in order.

use crate::view::View;
use longshore_model::change::{Key, Write};
use longshore_model::container_instance::{ContainerInstance, Placements};
use longshore_model::event::{Event, InstanceState, ServiceAction, ServiceEventName, Subject};
use longshore_model::id::{ContainerInstanceId, IdSource};
use longshore_model::record::{Record, decode};
use longshore_model::service::{Deployment, ObstacleKind, RolloutState, Service};
use longshore_model::task::Task;
use longshore_model::{Timestamp, Transaction};
use std::collections::BTreeSet;

/// How many events are kept for those who have not read them. What they tell of is in the records.
pub const KEPT: usize = 4096;

/// Adds the events of what a transaction changes, decided on `view`, to the transaction.
pub fn add(view: &View, transaction: &mut Transaction, now: Timestamp, ids: &mut dyn IdSource) {
    let taken_from = instances_taken_from(view, transaction);
    count(view, &taken_from, transaction);
    let of_service =
        |write| service_actions(view, write).into_iter().map(|each| Subject::Service(Box::new(each)));
    let subjects: Vec<Subject> = transaction
        .writes()
        .iter()
        .flat_map(|write| subject(view, write).into_iter().chain(of_service(write)))
        .chain(instances(view, taken_from, transaction))
        .collect();
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
        _ => None,
    }
}

/// The instances of clusters that a transaction places tasks on, or frees of tasks.
fn instances_taken_from(view: &View, transaction: &Transaction) -> BTreeSet<ContainerInstanceId> {
    let holder = |task: &Task| task.holds_resources().then_some(task.container_instance);
    let tasks = transaction.writes().iter().filter(|write| write.key().table() == Task::TABLE);
    let changed = tasks.filter_map(|write| {
        let before = view.tasks.get(write.key()).and_then(|task| holder(task));
        let after = written::<Task>(Some(write)).as_ref().and_then(holder);
        before.or(after).filter(|_| before != after)
    });
    // Capacity for Fargate is shown to nobody.
    changed.filter(|id| view.container_instance(*id).is_some_and(|i| i.membership().is_some())).collect()
}

/// Counts what is told of the instances, where placing has not done so.
fn count(view: &View, taken_from: &BTreeSet<ContainerInstanceId>, transaction: &mut Transaction) {
    for instance in taken_from.iter().copied() {
        let key = Placements::key_of(instance);
        if write_of(transaction, &key).is_some() {
            continue;
        }
        match view.placements.get(&key) {
            Some(before) => transaction.update(&Placements { instance, count: before.count + 1 }),
            None => transaction.create(&Placements { instance, count: 1 }),
        }
    }
}

/// What instances are told of: that their record has changed, or what their tasks have of them.
fn instances(
    view: &View,
    taken_from: BTreeSet<ContainerInstanceId>,
    transaction: &Transaction,
) -> Vec<Subject> {
    let mut told = taken_from;
    let records = transaction.writes().iter().filter(|write| write.key().table() == ContainerInstance::TABLE);
    told.extend(records.filter_map(|write| {
        let after = written::<ContainerInstance>(Some(write))?;
        let before = view.container_instances.get(write.key());
        let is_shown = after.membership().is_some();
        (is_shown && before.is_none_or(|before| differ(before, &after))).then_some(after.id)
    }));
    told.into_iter().filter_map(|id| state(view, id, transaction)).collect()
}

/// An instance as the transaction leaves it.
fn state(view: &View, id: ContainerInstanceId, transaction: &Transaction) -> Option<Subject> {
    let record = written(write_of(transaction, &ContainerInstance::key_of(id)));
    let instance = record.or_else(|| view.container_instance(id).map(|instance| (**instance).clone()))?;
    let key = Placements::key_of(id);
    let counted = written::<Placements>(write_of(transaction, &key)).map(|counted| counted.count);
    let placements = counted.or_else(|| view.placements.get(&key).map(|counted| counted.count)).unwrap_or(0);
    let mut state =
        InstanceState { instance, used: view.used_on(id), held_ports: BTreeSet::new(), placements };
    let ports = |task: &Task| -> Vec<_> {
        task.host_ports.iter().map(|port| (port.protocol, port.host_port)).collect()
    };
    state.held_ports.extend(view.tasks_on(id).flat_map(|task| ports(task)));
    let is_here = |task: &&Task| task.container_instance == id && task.holds_resources();
    let tasks: Vec<&Write> =
        transaction.writes().iter().filter(|write| write.key().table() == Task::TABLE).collect();
    for before in
        tasks.iter().filter_map(|write| view.tasks.get(write.key())).map(|task| &**task).filter(is_here)
    {
        state.used = state.used.minus(before.size);
        let freed = ports(before);
        state.held_ports.retain(|port| !freed.contains(port));
    }
    let after: Vec<Task> = tasks.iter().filter_map(|write| written(Some(write))).collect();
    for after in after.iter().filter(is_here) {
        state.used = state.used.plus(after.size);
        state.held_ports.extend(ports(after));
    }
    Some(Subject::ContainerInstance(Box::new(state)))
}

fn write_of<'a>(transaction: &'a Transaction, key: &Key) -> Option<&'a Write> {
    transaction.writes().iter().rfind(|write| write.key() == key)
}

/// What a transaction leaves of a record; `None` also for one that it deletes.
fn written<R: Record>(write: Option<&Write>) -> Option<R> {
    write.and_then(Write::value).and_then(|value| decode(value).ok())
}

/// What a change of a service's record says of it.
fn service_actions(view: &View, write: &Write) -> Vec<ServiceAction> {
    let decoded = write.value().filter(|_| write.key().table() == Service::TABLE).map(decode::<Service>);
    let Some(Ok(after)) = decoded else { return Vec::new() };
    let before = view.services.get(write.key());
    let mut actions = Vec::new();
    let mut add = |what, deployment: Option<&Deployment>, reason: Option<&String>| {
        actions.push(ServiceAction {
            scope: after.scope.clone(),
            cluster: after.cluster.clone(),
            service: after.name.clone(),
            what,
            deployment: deployment.map(|deployment| deployment.id.clone()),
            reason: reason.cloned(),
        });
    };
    for deployment in &after.deployments {
        let known =
            before.and_then(|before| before.deployments.iter().find(|known| known.id == deployment.id));
        if known.is_none_or(|known| known.rollout_state != deployment.rollout_state) {
            let what = match deployment.rollout_state {
                RolloutState::InProgress => ServiceEventName::ServiceDeploymentInProgress,
                RolloutState::Completed => ServiceEventName::ServiceDeploymentCompleted,
                RolloutState::Failed => ServiceEventName::ServiceDeploymentFailed,
            };
            add(what, Some(deployment), Some(&deployment.rollout_state_reason));
        }
    }
    let new = after.obstacle.as_ref().filter(|now| before.and_then(|b| b.obstacle.as_ref()) != Some(now));
    match new.map(|obstacle| (obstacle.kind, &obstacle.message)) {
        Some((ObstacleKind::Placement, message)) => {
            add(ServiceEventName::ServiceTaskPlacementFailure, None, Some(message));
        }
        Some((ObstacleKind::Starts, message)) => {
            add(ServiceEventName::ServiceTaskStartImpaired, None, Some(message));
        }
        // These have no event on AWS.
        Some((ObstacleKind::Bounds | ObstacleKind::Definition, _)) | None => {}
    }
    let rebalanced = before.is_some_and(|before| before.rebalancing);
    match (rebalanced, after.rebalancing) {
        (false, true) => add(ServiceEventName::ServiceRebalancingStarted, None, None),
        // One that was ended by a deployment or by its user has not come to its end.
        (true, false) if after.availability_zone_rebalancing && after.deployments.len() == 1 => {
            add(ServiceEventName::ServiceRebalancingCompleted, None, None);
        }
        _ => {}
    }
    if after.steady && before.is_none_or(|before| !before.steady) {
        add(ServiceEventName::ServiceSteadyState, None, None);
    }
    actions
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
    use longshore_model::service::Obstacle;
    use longshore_model::task::{DesiredStatus, HostPort, LastStatus, LaunchType};
    use longshore_model::task_definition::Protocol;
    use longshore_model::{Resources, Tags, Version};

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
                    Subject::Service(action) => format!("{} {}", event.place, action.what.as_str()),
                    Subject::ContainerInstance(state) => {
                        let status = state.instance.membership().unwrap().status.as_str();
                        let version = state.version() - state.instance.version;
                        let (connected, used) = (state.instance.agent_connected, state.used);
                        format!(
                            "{} {status} {connected} {version} {} {:?}",
                            event.place, used.cpu, state.held_ports
                        )
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
            launched: false,
            capacity_provider: None,
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
        assert_eq!(both, ["0 DRAINING true 0 0 {}"]);
        assert_eq!(told(&view, |t| t.update(&away(&shown))), ["0 ACTIVE false 0 0 {}"]);
    }

    #[test]
    fn container_instances_are_told_of_what_their_tasks_take() {
        let shown =
            ContainerInstance { capacity: Capacity::Cluster(member()), ..testing::instance(2, 1024, 1024) };
        let mut view = testing::view(std::slice::from_ref(&shown));
        let container = "web".to_owned();
        let port = HostPort { container, container_port: 80, host_port: 8080, protocol: Protocol::Tcp };
        let task = Task {
            container_instance: shown.id,
            size: Resources { cpu: 100, memory: 200 },
            host_ports: vec![port],
            ..testing::task()
        };
        let placed = ["0 PROVISIONING 1", "1 ACTIVE true 1 100 {(Tcp, 8080)}"];
        assert_eq!(told(&view, |t| t.create(&task)), placed);
        let mut transaction = Transaction::at(Version(1));
        transaction.create(&task);
        transaction.create(&Placements { instance: shown.id, count: 7 });
        testing::apply(&mut view, transaction);
        let running = Task { last_status: LastStatus::Running, version: 2, ..task.clone() };
        assert_eq!(told(&view, |t| t.update(&running)), ["0 RUNNING 2"]);
        let stopped = Task { last_status: LastStatus::Stopped, version: 2, ..task.clone() };
        assert_eq!(told(&view, |t| t.update(&stopped)), ["0 STOPPED 2", "1 ACTIVE true 8 0 {}"]);
    }

    #[test]
    fn what_a_service_comes_to_is_told() {
        let view = testing::view(&[]);
        let made = testing::service();
        assert_eq!(told(&view, |t| t.create(&made)), ["0 SERVICE_DEPLOYMENT_IN_PROGRESS"]);
        let mut view = view;
        let mut transaction = Transaction::at(Version(1));
        transaction.create(&made);
        testing::apply(&mut view, transaction);
        let mut done = made.clone();
        done.deployments[0].rollout_state = RolloutState::Completed;
        done.steady = true;
        let both = ["0 SERVICE_DEPLOYMENT_COMPLETED", "1 SERVICE_STEADY_STATE"];
        assert_eq!(told(&view, |t| t.update(&done)), both);
        let mut stuck = made.clone();
        let message = "no room".to_owned();
        stuck.obstacle = Some(Obstacle { kind: ObstacleKind::Placement, message, said_at: Timestamp(1) });
        assert_eq!(told(&view, |t| t.update(&stuck)), ["0 SERVICE_TASK_PLACEMENT_FAILURE"]);
        assert!(told(&view, |t| t.update(&Service { events: 7, ..made.clone() })).is_empty());
        let moving = Service { availability_zone_rebalancing: true, rebalancing: true, ..made.clone() };
        assert_eq!(told(&view, |t| t.update(&moving)), ["0 SERVICE_REBALANCING_STARTED"]);
        let mut transaction = Transaction::at(Version(1));
        transaction.update(&moving);
        testing::apply(&mut view, transaction);
        let even = Service { rebalancing: false, ..moving };
        assert_eq!(told(&view, |t| t.update(&even)), ["0 SERVICE_REBALANCING_COMPLETED"]);
    }
}
