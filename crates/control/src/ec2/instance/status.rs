//! How instances are: they pass their checks as long as their agents are connected.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceStatus.html>.

use super::super::filter::{Filters, Values};
use super::super::{dry_run, page};
use super::describe::state;
use super::{find, spec};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::Tags;
use longshore_model::instance::{Instance, State};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 4] =
    ["availability-zone", "instance-state-name", "instance-status.status", "system-status.status"];

pub async fn describe(
    call: Call,
    request: ec2::DescribeInstanceStatusRequest,
) -> Result<ec2::DescribeInstanceStatusResult, Fault> {
    let ec2::DescribeInstanceStatusRequest {
        dry_run: dry,
        filters,
        include_all_instances,
        include_managed_resources: _,
        instance_ids,
        max_results,
        next_token,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = instance_ids.unwrap_or_default();
    let every = include_all_instances.unwrap_or(false);
    let view = call.context.view();
    for id in &ids {
        find(&view, call.scope(), id)?;
    }
    let wanted = |instance: &&Arc<Instance>| {
        (ids.is_empty() || ids.contains(&instance.id))
            && (every || instance.state == State::Running)
            && filters.pass(&Tags::default(), |name| values(&view, instance, name))
    };
    let found =
        view.instances.of(call.scope()).filter(wanted).map(|instance| render(&view, instance)).collect();
    let (statuses, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeInstanceStatusResult { instance_statuses: Some(statuses), next_token })
}

fn values(view: &View, instance: &Instance, filter: &str) -> Values {
    Some(vec![match filter {
        "availability-zone" => instance.availability_zone.clone(),
        "instance-state-name" => state(instance.state).name.map(spec::text).unwrap_or_default(),
        "instance-status.status" | "system-status.status" => spec::text(status(view, instance).0),
        _ => return None,
    }])
}

fn status(view: &View, instance: &Instance) -> (ec2::SummaryStatus, ec2::StatusType) {
    let connected =
        view.container_instance(instance.container_instance).is_some_and(|there| there.agent_connected);
    match (instance.state, connected) {
        (State::Running, true) => (ec2::SummaryStatus::Ok, ec2::StatusType::Passed),
        (State::Running, false) => (ec2::SummaryStatus::Impaired, ec2::StatusType::Failed),
        (State::Pending, _) => (ec2::SummaryStatus::Initializing, ec2::StatusType::Initializing),
        (State::ShuttingDown | State::Terminated, _) => {
            (ec2::SummaryStatus::NotApplicable, ec2::StatusType::InsufficientData)
        }
    }
}

fn render(view: &View, instance: &Instance) -> ec2::InstanceStatus {
    let (summary, detail) = status(view, instance);
    let summary = || ec2::InstanceStatusSummary {
        details: Some(vec![ec2::InstanceStatusDetails {
            impaired_since: None,
            name: Some(ec2::StatusName::Reachability),
            status: Some(detail),
        }]),
        status: Some(summary),
    };
    ec2::InstanceStatus {
        availability_zone: Some(instance.availability_zone.clone()),
        instance_id: Some(instance.id.clone()),
        instance_state: Some(state(instance.state)),
        instance_status: Some(summary()),
        system_status: Some(summary()),
        ..ec2::InstanceStatus::default()
    }
}
