//! Instances of services. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_RegisterInstance.html>.

use super::{find_service, invalid, page};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::unsupported;
use longshore_engine::View;
use longshore_model::discovery::{
    DiscoveryInstance, DiscoveryService, HealthStatus, Operation, OperationType, RecordType, RoutingPolicy,
    attribute,
};
use longshore_model::{Record, Transaction};
use longshore_servicediscovery as sd;
use longshore_wire::Fault;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many attributes an instance has at most besides those that begin with `AWS_`, and how long all are together.
const CUSTOM: usize = 30;
const LONGEST: usize = 5000;

pub async fn register(
    call: Call,
    request: sd::RegisterInstanceRequest,
) -> Result<sd::RegisterInstanceResponse, Fault> {
    let sd::RegisterInstanceRequest { attributes, creator_request_id, instance_id, service_id } = request;
    check_attributes(&attributes)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let service = find_service(view, call.scope(), &service_id)?;
        let made = DiscoveryInstance {
            scope: service.scope.clone(),
            service: service.id.clone(),
            id: instance_id.clone(),
            health: initial_health(service, &attributes)?,
            attributes: attributes.clone(),
            task: None,
            creator_request_id: creator_request_id.clone(),
            operation: None,
            registered_at: call.context.now(),
        };
        check_for(service, &made)?;
        if let Some(same) = made_before(view, &made)? {
            return Ok(same);
        }
        let operation = operate(&call, OperationType::RegisterInstance, &made, transaction);
        let made = DiscoveryInstance { operation: Some(operation.clone()), ..made };
        match view.discovery_instances.get(&made.key()) {
            Some(_) => transaction.update(&made),
            None => transaction.create(&made),
        }
        Ok(operation)
    });
    Ok(sd::RegisterInstanceResponse { operation_id: Some(commit.await?) })
}

fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), Fault> {
    let given = attributes.contains_key(attribute::EC2_INSTANCE);
    unsupported(&[("attributes.AWS_EC2_INSTANCE_ID", given)]).map_err(invalid)?;
    let custom = attributes.keys().filter(|name| !name.starts_with("AWS_")).count();
    if custom > CUSTOM {
        return Err(invalid(format!("An instance can have at most {CUSTOM} custom attributes.")));
    }
    let length: usize = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if length > LONGEST {
        return Err(invalid(format!("The attributes can have at most {LONGEST} characters together.")));
    }
    Ok(())
}

fn initial_health(
    service: &DiscoveryService,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<HealthStatus>, Fault> {
    let given = attributes.get(attribute::INITIAL_HEALTH).map(String::as_str);
    match (service.custom_health, given) {
        (true, None | Some("HEALTHY")) => Ok(Some(HealthStatus::Healthy)),
        (true, Some("UNHEALTHY")) => Ok(Some(HealthStatus::Unhealthy)),
        (true, Some(_)) => Err(invalid("AWS_INIT_HEALTH_STATUS must be HEALTHY or UNHEALTHY.")),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(invalid(
            "AWS_INIT_HEALTH_STATUS is only valid for instances of a service with HealthCheckCustomConfig.",
        )),
    }
}

/// What the records of the service are made of has to be there.
fn check_for(service: &DiscoveryService, made: &DiscoveryInstance) -> Result<(), Fault> {
    let bad = |name: &str, is_good: bool| {
        made.attribute(name)
            .filter(|_| !is_good)
            .map(|value| invalid(format!("The value '{value}' of the attribute {name} is invalid.")))
    };
    let wrong = bad(attribute::IPV4, made.ipv4().is_some())
        .or_else(|| bad(attribute::IPV6, made.ipv6().is_some()))
        .or_else(|| bad(attribute::PORT, made.port().is_some()));
    if let Some(fault) = wrong {
        return Err(fault);
    }
    let has = |kind: RecordType| service.record(kind).is_some();
    if made.attribute(attribute::ALIAS).is_some() {
        return check_alias(service, made);
    }
    let missing = [
        (has(RecordType::A), attribute::IPV4),
        (has(RecordType::Aaaa), attribute::IPV6),
        (has(RecordType::Srv), attribute::PORT),
        (has(RecordType::Cname), attribute::CNAME),
    ];
    if let Some((_, name)) = missing.iter().find(|(needed, name)| *needed && made.attribute(name).is_none()) {
        return Err(invalid(format!("The attribute {name} is required by the DNS records of the service.")));
    }
    if has(RecordType::Srv) && made.ipv4().is_none() && made.ipv6().is_none() {
        return Err(invalid(
            "One of the attributes AWS_INSTANCE_IPV4 and AWS_INSTANCE_IPV6 is required by a record of the type SRV.",
        ));
    }
    Ok(())
}

fn check_alias(service: &DiscoveryService, made: &DiscoveryInstance) -> Result<(), Fault> {
    let addresses = [RecordType::A, RecordType::Aaaa];
    let weighted = service.dns.as_ref().is_some_and(|dns| dns.routing == RoutingPolicy::Weighted);
    if !weighted || !addresses.iter().any(|kind| service.record(*kind).is_some()) {
        return Err(invalid(
            "AWS_ALIAS_DNS_NAME needs a service with a record of the type A or AAAA and the routing policy WEIGHTED.",
        ));
    }
    match made.attributes.keys().find(|name| name.starts_with("AWS_INSTANCE_")) {
        None => Ok(()),
        Some(other) => Err(invalid(format!("AWS_ALIAS_DNS_NAME cannot be given together with {other}."))),
    }
}

/// The operation of the same request before; another request must not have the same id.
fn made_before(view: &View, made: &DiscoveryInstance) -> Result<Option<String>, Fault> {
    let Some(request) = &made.creator_request_id else { return Ok(None) };
    let mut others = view.discovery_instances_of(&made.scope, &made.service);
    match others.find(|other| other.creator_request_id.as_ref() == Some(request)) {
        None => Ok(None),
        Some(same) if same.id == made.id && same.attributes == made.attributes => Ok(same.operation.clone()),
        // An update of the instance may go on under its request's id.
        Some(same) if same.id == made.id => Ok(None),
        Some(other) => Err(sd::Error::DuplicateRequest {
            message: format!("The CreatorRequestId {request} was used for another instance."),
            duplicate_operation_id: other.operation.clone(),
        }
        .into()),
    }
}

fn operate(
    call: &Call,
    kind: OperationType,
    instance: &DiscoveryInstance,
    transaction: &mut Transaction,
) -> String {
    let operation = Operation::new(&instance.scope, kind, call.context.now(), &mut RandomIds);
    let operation = Operation {
        service: Some(instance.service.clone()),
        instance: Some(instance.id.clone()),
        ..operation
    };
    transaction.create(&operation);
    operation.id
}

pub async fn deregister(
    call: Call,
    request: sd::DeregisterInstanceRequest,
) -> Result<sd::DeregisterInstanceResponse, Fault> {
    let sd::DeregisterInstanceRequest { instance_id, service_id } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let service = find_service(&snapshot.view, call.scope(), &service_id)?;
        let present = find(&snapshot.view, service, &instance_id)?;
        transaction.delete(present.key());
        Ok(operate(&call, OperationType::DeregisterInstance, present, transaction))
    });
    Ok(sd::DeregisterInstanceResponse { operation_id: Some(commit.await?) })
}

fn find<'a>(
    view: &'a View,
    service: &DiscoveryService,
    id: &str,
) -> Result<&'a Arc<DiscoveryInstance>, Fault> {
    let found = view.discovery_instances.get(&DiscoveryInstance::key_of(&service.scope, &service.id, id));
    found.ok_or_else(|| {
        let message = format!("No instance with the ID {id} is registered in the service {}.", service.id);
        sd::Error::InstanceNotFound(message).into()
    })
}

pub async fn get(call: Call, request: sd::GetInstanceRequest) -> Result<sd::GetInstanceResponse, Fault> {
    let sd::GetInstanceRequest { instance_id, service_id } = request;
    let view = call.context.view();
    let service = find_service(&view, call.scope(), &service_id)?;
    let found = find(&view, service, &instance_id)?;
    let account = found.scope.account.to_string();
    let instance = sd::Instance {
        attributes: Some(found.attributes.clone()),
        created_by_account: Some(account.clone()),
        creator_request_id: found.creator_request_id.clone(),
        id: found.id.clone(),
    };
    Ok(sd::GetInstanceResponse { instance: Some(instance), resource_owner: Some(account) })
}

pub async fn list(call: Call, request: sd::ListInstancesRequest) -> Result<sd::ListInstancesResponse, Fault> {
    let sd::ListInstancesRequest { max_results, next_token, service_id } = request;
    let view = call.context.view();
    let service = find_service(&view, call.scope(), &service_id)?;
    let account = service.scope.account.to_string();
    let summaries = view.discovery_instances_of(&service.scope, &service.id).map(|instance| {
        let summary = sd::InstanceSummary {
            attributes: Some(instance.attributes.clone()),
            created_by_account: Some(account.clone()),
            id: Some(instance.id.clone()),
        };
        (instance.id.clone(), summary)
    });
    let (instances, next_token) = page(summaries, next_token, max_results);
    Ok(sd::ListInstancesResponse { instances: Some(instances), next_token, resource_owner: Some(account) })
}

pub async fn health(
    call: Call,
    request: sd::GetInstancesHealthStatusRequest,
) -> Result<sd::GetInstancesHealthStatusResponse, Fault> {
    let sd::GetInstancesHealthStatusRequest { instances, max_results, next_token, service_id } = request;
    let view = call.context.view();
    let service = find_service(&view, call.scope(), &service_id)?;
    let mut wanted = match instances {
        None => view.discovery_instances_of(&service.scope, &service.id).collect(),
        Some(ids) => ids.iter().map(|id| find(&view, service, id)).collect::<Result<Vec<_>, _>>()?,
    };
    wanted.sort_by(|one, other| one.id.cmp(&other.id));
    let statuses = wanted.into_iter().map(|instance| {
        let status = (instance.id.clone(), render_health(instance));
        (instance.id.clone(), status)
    });
    let (statuses, next_token) = page(statuses, next_token, max_results);
    Ok(sd::GetInstancesHealthStatusResponse { next_token, status: Some(statuses.into_iter().collect()) })
}

pub fn render_health(instance: &DiscoveryInstance) -> sd::HealthStatus {
    match instance.health {
        None => sd::HealthStatus::Unknown,
        Some(HealthStatus::Healthy) => sd::HealthStatus::Healthy,
        Some(HealthStatus::Unhealthy) => sd::HealthStatus::Unhealthy,
    }
}

/// AWS waits half a minute before it believes that an instance is unhealthy; here it is believed at once.
pub async fn update_health(
    call: Call,
    request: sd::UpdateInstanceCustomHealthStatusRequest,
) -> Result<(), Fault> {
    let sd::UpdateInstanceCustomHealthStatusRequest { instance_id, service_id, status } = request;
    let health = match status {
        sd::CustomHealthStatus::Healthy => HealthStatus::Healthy,
        sd::CustomHealthStatus::Unhealthy => HealthStatus::Unhealthy,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let service = find_service(&snapshot.view, call.scope(), &service_id)?;
        let present = find(&snapshot.view, service, &instance_id)?;
        if !service.custom_health {
            return Err(sd::Error::CustomHealthNotFound(format!(
                "The service {} has no custom health check.",
                service.id
            ))
            .into());
        }
        if present.health != Some(health) {
            transaction.update(&DiscoveryInstance { health: Some(health), ..(**present).clone() });
        }
        Ok(())
    });
    commit.await
}
