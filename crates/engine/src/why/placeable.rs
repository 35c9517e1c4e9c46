//! Where a task of a definition could go now, instance by instance.

use crate::placement::{self, Reason, Request};
use crate::view::View;
use longshore_model::Tags;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::ContainerInstance;
use longshore_model::task::LaunchType;
use longshore_model::task_definition::{Compatibility, TaskDefinition};
use std::sync::Arc;

pub fn explain(view: &View, cluster: &str, definition: &Arc<TaskDefinition>) -> Result<Vec<String>, String> {
    let found = view.cluster(&definition.scope, cluster);
    let cluster = found.ok_or_else(|| format!("there is no cluster {cluster}: say which with --cluster"))?;
    let request = request(cluster, definition);
    let said = lines(view, &request);
    if said.is_empty() {
        let kind = request.launch_type.as_str();
        return Ok(vec![format!("the cluster {} has no instance for the launch type {kind}", cluster.name)]);
    }
    Ok(said)
}

/// Whether each instance would take such a task, and what keeps it from that.
pub fn lines(view: &View, request: &Request) -> Vec<String> {
    let explained = placement::explain(view, request);
    explained.iter().map(|(instance, reasons)| of_instance(view, request, instance, reasons)).collect()
}

/// A task as RunTask makes it without options. Which subnets it would have is not known.
fn request(cluster: &Cluster, definition: &Arc<TaskDefinition>) -> Request {
    let requires = |compatibility| definition.requires_compatibilities.contains(&compatibility);
    let launch_type = if requires(Compatibility::Fargate) {
        LaunchType::Fargate
    } else if requires(Compatibility::External) {
        LaunchType::External
    } else {
        LaunchType::Ec2
    };
    Request {
        scope: definition.scope.clone(),
        cluster: cluster.name.clone(),
        definition: Arc::clone(definition),
        count: 1,
        overrides: None,
        size: placement::size(None, definition),
        launch_type,
        network: None,
        constraints: Vec::new(),
        strategies: Vec::new(),
        capacity_providers: Vec::new(),
        provider: None,
        instances: None,
        group: format!("family:{}", definition.family),
        started_by: None,
        tags: Tags::default(),
    }
}

fn of_instance(view: &View, request: &Request, instance: &ContainerInstance, reasons: &[Reason]) -> String {
    if reasons.is_empty() {
        return format!("{} would take it", instance.name);
    }
    let said: Vec<String> = reasons.iter().map(|reason| words(view, request, instance, *reason)).collect();
    format!("{} would not take it: {}", instance.name, said.join("; "))
}

fn words(view: &View, request: &Request, instance: &ContainerInstance, reason: Reason) -> String {
    let left = instance.resources.minus(view.used_on(instance.id));
    let short =
        |what: &str, left: u64, need: u64| format!("it has insufficient {what} available, {left} of {need}");
    match reason {
        Reason::Cpu => short("CPU units", left.cpu, request.size.cpu),
        Reason::Memory => short("memory", left.memory, request.size.memory),
        Reason::Agent => "its agent is disconnected".to_owned(),
        Reason::Draining => "it is DRAINING".to_owned(),
        Reason::Attribute => "it has another CPU architecture".to_owned(),
        Reason::Ports => "it is already using a port required by the task".to_owned(),
        Reason::Missing
        | Reason::Inactive
        | Reason::Location
        | Reason::NetworkInterface
        | Reason::DistinctInstance
        | Reason::MemberOf => reason.reason().trim_end_matches('.').to_owned(),
    }
}
