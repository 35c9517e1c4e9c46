//! Instances. Each is a container instance on this machine, with a network namespace of its own and the size of its type.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html>.

mod describe;
pub mod spec;
mod status;

pub use describe::describe;
pub use status::describe as describe_status;

use super::{dry_run, launch_template, refused, security_group, subnet};
use crate::api::Call;
use crate::context::{Context, RandomIds};
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_engine::instance::{self as engine, Launch, Shortage, Unfit};
use longshore_model::Scope;
use longshore_model::id::IdSource;
use longshore_model::instance::{Instance, LaunchSpec, Reason, Settings, State};
use longshore_model::vpc::Subnet;
use longshore_wire::Fault;
use std::sync::Arc;

pub async fn run(call: Call, request: ec2::RunInstancesRequest) -> Result<ec2::Reservation, Fault> {
    let spec::Asked { spec, template, least, most, client_token } = spec::of_request(call.scope(), request)?;
    let now = call.context.now();
    let reservation = RandomIds.ec2("r");
    let launched = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            if let Some(earlier) = earlier(view, call.scope(), client_token.as_deref()) {
                return Ok(earlier);
            }
            let (spec, version) = match &template {
                None => (spec.clone(), None),
                Some(given) => {
                    let (version, named) = launch_template::resolve(view, call.scope(), given)?;
                    (spec.clone().or(&version.spec), Some(named))
                }
            };
            let settings = engine::settings(&spec, version).map_err(unfit)?;
            check_machine(&call.context, &settings)?;
            let subnet = place(view, call.scope(), &spec)?;
            check_groups(view, &spec, &subnet)?;
            let launch = |count| Launch {
                subnet: &subnet,
                settings: settings.clone(),
                security_groups: engine::security_groups(view, &spec, &subnet),
                tags: spec.tags.clone(),
                reservation: reservation.clone(),
                first: 0,
                count,
                address: spec.private_address,
                client_token: client_token.clone(),
                group: None,
            };
            let mut attempt = engine::launch(view, &launch(most), now, &mut RandomIds, transaction);
            if attempt.is_err() && least < most {
                attempt = engine::launch(view, &launch(least), now, &mut RandomIds, transaction);
            }
            attempt.map_err(|shortage| short(shortage, &subnet, &spec))
        })
        .await?;
    let view = call.context.view();
    let instances = launched.iter().map(|instance| describe::render(&view, instance)).collect();
    Ok(describe::reservation(launched.first(), instances))
}

/// What an earlier call with the token launched: repeating a call launches nothing.
fn earlier(view: &View, scope: &Scope, token: Option<&str>) -> Option<Vec<Instance>> {
    let token = token?;
    let with_token =
        view.instances.of(scope).filter(|instance| instance.client_token.as_deref() == Some(token));
    let mut found: Vec<Instance> = with_token.map(|instance| (**instance).clone()).collect();
    found.sort_by_key(|instance| instance.launch_index);
    (!found.is_empty()).then_some(found)
}

fn unfit(unfit: Unfit) -> Fault {
    match unfit {
        Unfit::NoImage => refused("MissingParameter", "The request must contain the parameter ImageId"),
        Unfit::Type(name) => {
            refused("InvalidParameterValue", format!("Invalid value '{name}' for InstanceType."))
        }
    }
}

/// Whether this machine can have such instances.
pub fn check_machine(context: &Context, settings: &Settings) -> Result<(), Fault> {
    let Some(architecture) = context.config.instances else {
        return Err(refused(
            "InsufficientInstanceCapacity",
            "A control plane alone launches no instances: machines join it by `longshore agent`. `longshore up` launches \
             them on its own machine.",
        ));
    };
    if settings.architecture != architecture {
        let message = format!(
            "The requested configuration is currently not supported: {} has the architecture {}, and this machine {}.",
            settings.instance_type,
            settings.architecture.attribute(),
            architecture.attribute()
        );
        return Err(refused("Unsupported", message));
    }
    Ok(())
}

fn short(shortage: Shortage, subnet: &Subnet, spec: &LaunchSpec) -> Fault {
    match (shortage, spec.private_address) {
        (Shortage::Numbers, _) => refused(
            "InstanceLimitExceeded",
            format!(
                "Your quota allows for {} more running instance(s): one machine has no room for more.",
                0
            ),
        ),
        (Shortage::Addresses, Some(address)) if !subnet.cidr.contains(address) => refused(
            "InvalidParameterValue",
            format!("Address {address} does not fall within the subnet's address range"),
        ),
        (Shortage::Addresses, Some(address)) => {
            refused("InvalidIPAddress.InUse", format!("Address {address} is in use."))
        }
        (Shortage::Addresses, None) => refused(
            "InsufficientFreeAddressesInSubnet",
            "There are not enough free addresses in subnet to satisfy the requested number of instances.",
        ),
    }
}

/// The subnet that was named, or the default one of the zone that was named, or of the first.
fn place(view: &View, scope: &Scope, spec: &LaunchSpec) -> Result<Arc<Subnet>, Fault> {
    if let Some(id) = &spec.subnet {
        return subnet::find(view, scope, id).cloned();
    }
    let zone = |subnet: &Subnet| {
        spec.availability_zone.as_ref().is_none_or(|zone| *zone == subnet.availability_zone)
    };
    let mut defaults: Vec<&Arc<Subnet>> =
        view.subnets.of(scope).filter(|s| s.is_default && zone(s)).collect();
    defaults.sort_by_key(|subnet| &subnet.availability_zone);
    defaults
        .first()
        .copied()
        .cloned()
        .ok_or_else(|| refused("MissingInput", "No subnets found for the default VPC: name one by SubnetId."))
}

fn check_groups(view: &View, spec: &LaunchSpec, subnet: &Subnet) -> Result<(), Fault> {
    for id in &spec.security_groups {
        let group = security_group::find(view, &subnet.scope, id)?;
        if group.vpc != subnet.vpc {
            let message =
                format!("Security group {id} and subnet {} belong to different networks.", subnet.id);
            return Err(refused("InvalidParameter", message));
        }
    }
    Ok(())
}

pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<Instance>, Fault> {
    if !id.starts_with("i-") {
        return Err(refused("InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\"")));
    }
    let missing = || refused("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist"));
    view.instances.get(&Instance::key_of(scope, id)).ok_or_else(missing)
}

pub async fn terminate(
    call: Call,
    request: ec2::TerminateInstancesRequest,
) -> Result<ec2::TerminateInstancesResult, Fault> {
    // Neither matters: what runs in an instance is its tasks, and they are stopped with it.
    let ec2::TerminateInstancesRequest { dry_run: dry, force: _, instance_ids, skip_os_shutdown: _ } =
        request;
    dry_run(dry)?;
    let now = call.context.now();
    let changes = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let mut changes = Vec::new();
            for id in &instance_ids {
                let present = find(view, call.scope(), id)?;
                if present.settings.termination_protection && present.state.is_alive() {
                    let message = format!(
                        "The instance '{id}' may not be terminated. Modify its 'disableApiTermination' instance \
                         attribute and try again."
                    );
                    return Err(refused("OperationNotPermitted", message));
                }
                if changes.iter().any(|(other, _, _): &(String, State, State)| other == id) {
                    continue;
                }
                let why = Reason {
                    code: "Client.UserInitiatedShutdown".to_owned(),
                    message: "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
                };
                let next = engine::terminate(view, present, why, now, transaction);
                changes.push((id.clone(), present.state, next.map_or(present.state, |next| next.state)));
            }
            Ok(changes)
        })
        .await?;
    let change = |(id, before, after): (String, State, State)| ec2::InstanceStateChange {
        instance_id: Some(id),
        previous_state: Some(describe::state(before)),
        current_state: Some(describe::state(after)),
    };
    Ok(ec2::TerminateInstancesResult {
        terminating_instances: Some(changes.into_iter().map(change).collect()),
    })
}
