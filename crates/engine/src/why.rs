//! Why a task or a service is where it is, for people: the causes in the order in which they came to be.
//!
//! Invariant: every line is read from the records; nothing is guessed.

mod placeable;
mod service;

use crate::managed_scaling;
use crate::view::View;
use longshore_model::arn::Arn;
use longshore_model::capacity_provider::CapacityProvider;
use longshore_model::container_instance::Status;
use longshore_model::task::{Container, ContainerStatus, DesiredStatus, LastStatus, Task};
use longshore_model::{Scope, Timestamp};

/// The causes that the records give of a task's or a service's state, first cause first; of a task definition, which instances of the
/// cluster would take a task of it now and what keeps it from the others.
///
/// # Errors
/// Says what is wrong with the ARN, for the one who typed it.
pub fn explain(view: &View, arn: &str, cluster: &str, now: Timestamp) -> Result<Vec<String>, String> {
    let wrong = || {
        format!(
            "{arn} is not the ARN of a task, a service or a task definition: run-task, describe-tasks and \
             describe-services print them as taskArn, serviceArn and taskDefinitionArn"
        )
    };
    let parsed = Arn::parse(arn).filter(|parsed| parsed.service == "ecs").ok_or_else(wrong)?;
    let scope = Scope::new(parsed.account, parsed.region);
    let parts: Vec<&str> = parsed.resource.split('/').collect();
    match parts.as_slice() {
        ["task", cluster, id] => explain_task(view, &scope, cluster, id, arn, now),
        ["service", cluster, name] => {
            let found = view.service(&scope, cluster, name);
            let service = found.ok_or_else(|| format!("no service has the ARN {arn}"))?;
            Ok(service::explain(view, service, now))
        }
        ["task-definition", revision] => {
            let (family, revision) = revision.split_once(':').ok_or_else(wrong)?;
            let definition = revision.parse().ok().and_then(|r| view.task_definition(&scope, family, r));
            let definition = definition.ok_or_else(|| format!("no task definition has the ARN {arn}"))?;
            placeable::explain(view, cluster, definition)
        }
        _ => Err(wrong()),
    }
}

fn explain_task(
    view: &View,
    scope: &Scope,
    cluster: &str,
    id: &str,
    arn: &str,
    now: Timestamp,
) -> Result<Vec<String>, String> {
    let task = id.parse().ok().and_then(|id| view.task(scope, cluster, id));
    let task = task.ok_or_else(|| {
        format!("no task has the ARN {arn}: it never was, or it ended so long ago that it is forgotten")
    })?;
    Ok(of_task(view, task, now))
}

fn of_task(view: &View, task: &Task, now: Timestamp) -> Vec<String> {
    let mut causes = vec![wanted(task)];
    causes.push(instance(view, task));
    causes.extend(steps(task));
    causes.extend(task.containers.iter().filter_map(container));
    causes.push(match task.last_status {
        LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => waiting(view, task, now),
        LastStatus::Running => "it runs, and nothing wants it otherwise".to_owned(),
        LastStatus::Deactivating | LastStatus::Stopping | LastStatus::Deprovisioning => leaving(view, task),
        LastStatus::Stopped => stopped(task),
    });
    causes
}

fn wanted(task: &Task) -> String {
    let by = task.started_by.as_ref().map_or_else(String::new, |by| format!(", started by {by}"));
    format!("{} of {}:{} was asked for{by}", task.launch_type.as_str(), task.family, task.revision)
}

fn instance(view: &View, task: &Task) -> String {
    if task.waiting.is_some() {
        let provider = task.capacity_provider.as_deref().unwrap_or_default();
        return format!("no instance of the capacity provider {provider} has room for it");
    }
    let Some(instance) = view.container_instance(task.container_instance) else {
        return format!("it was placed on container instance {}, which is gone", task.container_instance);
    };
    let agent = if instance.agent_connected { "connected" } else { "away" };
    let draining = instance.membership().is_some_and(|member| member.status == Status::Draining);
    let draining = if draining { "; the instance is DRAINING" } else { "" };
    format!("it was placed on {}, whose agent is {agent}{draining}", instance.name)
}

/// What is known to have happened, with the milliseconds after the task was made.
fn steps(task: &Task) -> Vec<String> {
    let times = &task.times;
    let all = [
        ("its images began to be made ready", times.pull_started_at),
        ("its images were ready", times.pull_stopped_at),
        ("its network was ready", times.connectivity_at),
        ("it was RUNNING", times.started_at),
        ("it was to stop", times.stopping_at),
        ("its last container had ended", times.execution_stopped_at),
        ("it was STOPPED", times.stopped_at),
    ];
    let said = |(what, at): (&str, Option<Timestamp>)| {
        at.map(|at| format!("{what} after {} ms", at.since(times.created_at)))
    };
    all.into_iter().filter_map(said).collect()
}

/// A container that has ended, or that something happened to.
fn container(container: &Container) -> Option<String> {
    let name = &container.name;
    match (container.last_status, container.exit_code, &container.reason) {
        (ContainerStatus::Stopped, Some(code), Some(reason)) => {
            Some(format!("container {name} exited with {code}: {reason}"))
        }
        (ContainerStatus::Stopped, Some(code), None) => Some(format!("container {name} exited with {code}")),
        (ContainerStatus::Stopped, None, Some(reason)) => Some(format!("container {name} ended: {reason}")),
        (ContainerStatus::Stopped, None, None) => Some(format!("container {name} never ran")),
        (ContainerStatus::Pending | ContainerStatus::Running, _, _) => None,
    }
}

/// What a task waits for that has no instance.
fn capacity(view: &View, task: &Task) -> String {
    let name = task.capacity_provider.as_deref().unwrap_or_default();
    let provider = view.capacity_providers.get(&CapacityProvider::key_of(&task.scope, name));
    let Some(group) = provider.and_then(|provider| managed_scaling::group_of(view, provider)) else {
        return format!(
            "for capacity that the capacity provider {name} no longer has: its Auto Scaling group is gone"
        );
    };
    let size = group.size;
    let (group, largest) = (&group.name, size.max);
    match size.desired >= size.max {
        true => format!("for room: its Auto Scaling group {group} has its largest size, {largest}"),
        false => format!("for the instances that managed scaling launches in its Auto Scaling group {group}"),
    }
}

fn waiting(view: &View, task: &Task, now: Timestamp) -> String {
    let connected = view.container_instance(task.container_instance).is_some_and(|i| i.agent_connected);
    let since = now.since(task.times.created_at);
    if task.waiting.is_some() {
        return format!("it waits since {since} ms {}", capacity(view, task));
    }
    let step = if !connected {
        "its instance's agent is away, and starts it when it is back"
    } else if task.times.pull_started_at.is_none() {
        "its agent has not reported of it yet"
    } else if task.times.pull_stopped_at.is_none() {
        "its images are being made ready"
    } else {
        "its containers are being started"
    };
    format!("it waits since {since} ms: {step}")
}

fn leaving(view: &View, task: &Task) -> String {
    let connected = view.container_instance(task.container_instance).is_some_and(|i| i.agent_connected);
    let step = if connected {
        "its agent is stopping it"
    } else {
        "its agent is away, and stops it when it is back"
    };
    format!("{}; {step}", stopped(task))
}

fn stopped(task: &Task) -> String {
    match (&task.stop, task.desired_status) {
        (Some(stop), _) => format!("it stops for {}: {}", stop.code.as_str(), stop.reason),
        (None, DesiredStatus::Running | DesiredStatus::Stopped) => "no reason was recorded".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle;
    use crate::testing::{self, apply, instance, task, view};
    use longshore_model::task::{Stop, StopCode};
    use longshore_model::{Transaction, Version};

    fn check(agent_connected: bool, change: impl FnOnce(Task) -> Task, expected: &[&str]) {
        let mut one = instance(1, 1024, 4096);
        one.agent_connected = agent_connected;
        let mut view = view(&[one]);
        let task = change(task());
        let mut transaction = Transaction::at(Version(0));
        transaction.create(&task);
        apply(&mut view, transaction);
        assert_eq!(explain(&view, &task.arn(), "default", Timestamp(1010)).unwrap(), expected);
    }

    #[test]
    fn a_task_that_waits() {
        check(
            false,
            |task| task,
            &[
                "FARGATE of web:1 was asked for",
                "it was placed on instance-1, whose agent is away",
                "it waits since 1000 ms: its instance's agent is away, and starts it when it is back",
            ],
        );
    }

    #[test]
    fn a_task_that_was_stopped() {
        let stop = |task: Task| {
            let why = Stop { code: StopCode::UserInitiated, reason: "enough".to_owned() };
            lifecycle::lose(&task, why, Timestamp(60)).unwrap()
        };
        check(
            true,
            stop,
            &[
                "FARGATE of web:1 was asked for",
                "it was placed on instance-1, whose agent is connected",
                "it was to stop after 50 ms",
                "its last container had ended after 50 ms",
                "it was STOPPED after 50 ms",
                "container app never ran",
                "container side never ran",
                "it stops for UserInitiated: enough",
            ],
        );
    }

    #[test]
    fn what_names_no_task_is_refused() {
        let view = view(&[]);
        for arn in ["web", "arn:aws:ecs:us-east-1:123456789012:cluster/c", "arn:aws:ecs:us-east-1:1:task/c/x"]
        {
            assert!(explain(&view, arn, "default", Timestamp(0)).is_err(), "{arn}");
        }
    }

    #[test]
    fn where_a_task_of_a_definition_could_go() {
        let mut away = instance(2, 4096, 4096);
        away.agent_connected = false;
        let view = view(&[instance(1, 1024, 4096), away, instance(3, 100, 100)]);
        let arn = "arn:aws:ecs:us-east-1:123456789012:task-definition/web:1";
        let mut fargate = testing::definition();
        fargate.requires_compatibilities = vec![longshore_model::task_definition::Compatibility::Fargate];
        let mut view = view;
        let mut transaction = Transaction::at(Version(0));
        transaction.update(&fargate);
        apply(&mut view, transaction);
        let expected = [
            "instance-1 would take it",
            "instance-2 would not take it: its agent is disconnected",
            "instance-3 would not take it: it has insufficient CPU units available, 100 of 256",
        ];
        assert_eq!(explain(&view, arn, "default", Timestamp(0)).unwrap(), expected);
        let gone = explain(&view, arn, "gone", Timestamp(0)).unwrap_err();
        assert_eq!(gone, "there is no cluster gone: say which with --cluster");
    }
}
