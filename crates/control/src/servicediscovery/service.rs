//! Services of namespaces. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_CreateService.html>.

use super::filter::Filter;
use super::namespace::ttl;
use super::{find_namespace, find_service, invalid, page, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::{Given, unsupported};
use longshore_engine::View;
use longshore_model::Record;
use longshore_model::discovery::{
    DiscoveryService, DnsConfig, DnsRecord, Namespace, NamespaceKind, Operation, OperationType, RecordType,
    RoutingPolicy, id_in, suffix,
};
use longshore_servicediscovery as sd;
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeSet;

use sd::ServiceFilterName as Name;

crate::given_when_present!(sd::HealthCheckConfig);

/// The longest name of a service, and the longest that DNS takes.
const LONGEST: usize = 127;
const LONGEST_DOMAIN: usize = 253;

pub async fn create(
    call: Call,
    request: sd::CreateServiceRequest,
) -> Result<sd::CreateServiceResponse, Fault> {
    let sd::CreateServiceRequest {
        creator_request_id,
        description,
        dns_config,
        health_check_config,
        health_check_custom_config,
        name,
        namespace_id,
        tags,
        r#type,
    } = request;
    unsupported(&[("healthCheckConfig", health_check_config.given())]).map_err(invalid)?;
    if name.len() > LONGEST {
        return Err(invalid(format!("The name of a service can have at most {LONGEST} characters.")));
    }
    let (of_dns, dns) = dns_config.map(parse_dns).transpose()?.unzip();
    let namespace_id = namespace_of(namespace_id, of_dns.flatten())?;
    let http_only = r#type == Some(sd::ServiceTypeOption::Http);
    // Its failure threshold is always one.
    let made = DiscoveryService {
        scope: call.scope().clone(),
        id: format!("srv-{}", suffix(&mut RandomIds)),
        name,
        namespace: String::new(),
        dns,
        custom_health: health_check_custom_config.is_some(),
        description: description.filter(|text| !text.is_empty()),
        creator_request_id,
        tags: tag::of_new(tags)?,
        created_at: call.context.now(),
        revision: 1,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let namespace = find_namespace(view, call.scope(), &namespace_id)?;
        check_kind(namespace, &made, http_only)?;
        check_new(view, namespace, &made)?;
        let made = DiscoveryService { namespace: namespace.id.clone(), ..made.clone() };
        transaction.rely_on(namespace.key());
        transaction.rely_on_nothing_new_under(DiscoveryService::prefix_of(&made.scope));
        transaction.create(&made);
        Ok(made)
    });
    let made = commit.await?;
    Ok(sd::CreateServiceResponse { service: Some(render(&call.context.view(), &made)) })
}

/// The namespace may be named in two places.
fn namespace_of(own: Option<String>, of_dns: Option<String>) -> Result<String, Fault> {
    let given = |id: Option<String>| id.filter(|id| !id.is_empty());
    match (given(own), given(of_dns)) {
        (Some(own), Some(other)) if own != other => {
            Err(invalid("The NamespaceId of the service and that of its DnsConfig must be the same."))
        }
        (Some(id), _) | (None, Some(id)) => Ok(id),
        (None, None) => Err(invalid("NamespaceId is required.")),
    }
}

/// The namespace that it names, and the records.
fn parse_dns(given: sd::DnsConfig) -> Result<(Option<String>, DnsConfig), Fault> {
    let sd::DnsConfig { dns_records, namespace_id, routing_policy } = given;
    let records = parse_records(dns_records)?;
    let routing = match routing_policy {
        None | Some(sd::RoutingPolicy::Multivalue) => RoutingPolicy::Multivalue,
        Some(sd::RoutingPolicy::Weighted) => RoutingPolicy::Weighted,
    };
    let is_alias = records.iter().any(|record| record.kind == RecordType::Cname);
    if is_alias && routing != RoutingPolicy::Weighted {
        return Err(invalid("The routing policy must be WEIGHTED for records of the type CNAME."));
    }
    Ok((namespace_id, DnsConfig { routing, records }))
}

fn parse_records(given: Vec<sd::DnsRecord>) -> Result<Vec<DnsRecord>, Fault> {
    let records = given.into_iter().map(|record| {
        let kind = match record.r#type {
            sd::RecordType::A => RecordType::A,
            sd::RecordType::Aaaa => RecordType::Aaaa,
            sd::RecordType::Cname => RecordType::Cname,
            sd::RecordType::Srv => RecordType::Srv,
        };
        Ok(DnsRecord { kind, ttl: ttl(record.ttl)? })
    });
    let records: Vec<DnsRecord> = records.collect::<Result<_, Fault>>()?;
    let kinds: BTreeSet<RecordType> = records.iter().map(|record| record.kind).collect();
    if records.is_empty() {
        return Err(invalid("DnsRecords must have at least one record."));
    }
    if kinds.len() < records.len() || kinds.contains(&RecordType::Cname) && kinds.len() > 1 {
        return Err(invalid(
            "DnsRecords can have one record of each type, and a CNAME record no other beside it.",
        ));
    }
    Ok(records)
}

/// Only namespaces of DNS have names for DNS.
fn check_kind(namespace: &Namespace, made: &DiscoveryService, http_only: bool) -> Result<(), Fault> {
    match (&namespace.kind, &made.dns) {
        (_, Some(_)) if http_only => Err(invalid("A service of the type HTTP takes no DnsConfig.")),
        (NamespaceKind::Http, Some(_)) => Err(invalid("A service of an HTTP namespace takes no DnsConfig.")),
        (NamespaceKind::DnsPrivate { .. }, None) if !http_only => {
            Err(invalid("DnsConfig is required for a service of a DNS namespace, unless its type is HTTP."))
        }
        (NamespaceKind::DnsPrivate { .. }, Some(_))
            if made.name.len() + 1 + namespace.name.len() > LONGEST_DOMAIN =>
        {
            Err(invalid(format!(
                "The names of the service and of its namespace can have at most {LONGEST_DOMAIN} characters together."
            )))
        }
        (NamespaceKind::Http | NamespaceKind::DnsPrivate { .. }, _) => Ok(()),
    }
}

fn check_new(view: &View, namespace: &Namespace, made: &DiscoveryService) -> Result<(), Fault> {
    let mut named = view.discovery_services_named(&namespace.id, &made.name);
    // DNS knows no capital letters.
    let same = named.find(|other| other.name == made.name || other.dns.is_some() && made.dns.is_some());
    match same {
        None => Ok(()),
        Some(present) => Err(sd::Error::ServiceAlreadyExists {
            message: format!("The service {} already exists.", made.name),
            creator_request_id: present.creator_request_id.clone(),
            service_arn: Some(present.arn()),
            service_id: Some(present.id.clone()),
        }
        .into()),
    }
}

pub async fn update(
    call: Call,
    request: sd::UpdateServiceRequest,
) -> Result<sd::UpdateServiceResponse, Fault> {
    let sd::UpdateServiceRequest { id, service } = request;
    let sd::ServiceChange { description, dns_config, health_check_config } = service;
    unsupported(&[("healthCheckConfig", health_check_config.given())]).map_err(invalid)?;
    let records = dns_config.map(|given| parse_records(given.dns_records)).transpose()?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find_service(view, call.scope(), &id)?;
        let namespace = find_namespace(view, call.scope(), &present.namespace)?;
        if namespace.kind == NamespaceKind::Http {
            return Err(invalid("A service of an HTTP namespace cannot be updated."));
        }
        let mut next = (**present).clone();
        next.dns = changed_dns(present, records.as_deref())?;
        if let Some(given) = &description {
            next.description = Some(given.clone()).filter(|text| !text.is_empty());
        }
        transaction.update(&next);
        let kind = OperationType::UpdateService;
        let operation = Operation::new(call.scope(), kind, call.context.now(), &mut RandomIds);
        let operation = Operation { service: Some(present.id.clone()), ..operation };
        transaction.create(&operation);
        Ok(operation.id)
    });
    Ok(sd::UpdateServiceResponse { operation_id: Some(commit.await?) })
}

/// Records keep their types; what is left out is taken away, as AWS does it.
fn changed_dns(
    present: &DiscoveryService,
    records: Option<&[DnsRecord]>,
) -> Result<Option<DnsConfig>, Fault> {
    let Some(records) = records else { return Ok(None) };
    let wrong = || invalid("The types of a service's DNS records cannot be changed.");
    let dns = present.dns.as_ref().ok_or_else(wrong)?;
    let is_new = |record: &DnsRecord| present.record(record.kind).is_none();
    if records.iter().any(is_new) {
        return Err(wrong());
    }
    Ok(Some(DnsConfig { routing: dns.routing, records: records.to_vec() }))
}

pub async fn delete(
    call: Call,
    request: sd::DeleteServiceRequest,
) -> Result<sd::DeleteServiceResponse, Fault> {
    let sd::DeleteServiceRequest { id } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find_service(view, call.scope(), &id)?;
        if view.discovery_instances_of(&present.scope, &present.id).next().is_some() {
            return Err(sd::Error::ResourceInUse(format!(
                "The service {} contains registered instances; delete the instances before deleting the service.",
                present.id
            ))
            .into());
        }
        // An instance that comes meanwhile changes the service's revision.
        transaction.delete(present.key());
        Ok(())
    });
    commit.await?;
    Ok(sd::DeleteServiceResponse {})
}

pub async fn get(call: Call, request: sd::GetServiceRequest) -> Result<sd::GetServiceResponse, Fault> {
    let sd::GetServiceRequest { id } = request;
    let view = call.context.view();
    let found = find_service(&view, call.scope(), &id)?;
    Ok(sd::GetServiceResponse { service: Some(render(&view, found)) })
}

pub async fn list(call: Call, request: sd::ListServicesRequest) -> Result<sd::ListServicesResponse, Fault> {
    let sd::ListServicesRequest { filters, max_results, next_token } = request;
    let filters = filters.unwrap_or_default().into_iter().map(|given| test(&call, given));
    let tests: Vec<Test> = filters.collect::<Result<_, _>>()?;
    let view = call.context.view();
    let wanted =
        view.discovery_services.of(call.scope()).filter(|service| tests.iter().all(|test| test(service)));
    let summaries = wanted.map(|service| (service.id.clone(), summary(&view, service)));
    let (services, next_token) = page(summaries, next_token, max_results);
    Ok(sd::ListServicesResponse { next_token, services: Some(services) })
}

type Test = Box<dyn Fn(&DiscoveryService) -> bool>;

fn test(call: &Call, given: sd::ServiceFilter) -> Result<Test, Fault> {
    let sd::ServiceFilter { condition, name, values } = given;
    Ok(match name {
        Name::NamespaceId => {
            let ids = values.iter().map(|given| id_in(call.scope(), "namespace", given).unwrap_or_default());
            let filter = Filter::parse("NAMESPACE_ID", condition, ids.map(str::to_owned).collect(), &[])?;
            Box::new(move |service| filter.passes(&service.namespace))
        }
        Name::ResourceOwner => {
            let filter = Filter::parse("RESOURCE_OWNER", condition, values, &[])?;
            Box::new(move |_| filter.passes_own())
        }
    })
}

fn render(view: &View, service: &DiscoveryService) -> sd::Service {
    let summary = summary(view, service);
    sd::Service {
        arn: summary.arn,
        create_date: summary.create_date,
        created_by_account: summary.created_by_account,
        creator_request_id: service.creator_request_id.clone(),
        description: summary.description,
        dns_config: summary.dns_config,
        health_check_config: None,
        health_check_custom_config: summary.health_check_custom_config,
        id: summary.id,
        instance_count: summary.instance_count,
        name: summary.name,
        namespace_id: Some(service.namespace.clone()),
        resource_owner: summary.resource_owner,
        r#type: summary.r#type,
    }
}

fn summary(view: &View, service: &DiscoveryService) -> sd::ServiceSummary {
    let account = service.scope.account.to_string();
    let instances = view.discovery_instances_of(&service.scope, &service.id).count();
    let custom = sd::HealthCheckCustomConfig { failure_threshold: Some(1) };
    sd::ServiceSummary {
        arn: Some(service.arn()),
        create_date: Some(Timestamp(service.created_at.millis())),
        created_by_account: Some(account.clone()),
        description: service.description.clone(),
        dns_config: service.dns.as_ref().map(|dns| render_dns(service, dns)),
        health_check_config: None,
        health_check_custom_config: service.custom_health.then_some(custom),
        id: Some(service.id.clone()),
        instance_count: i32::try_from(instances).ok(),
        name: Some(service.name.clone()),
        resource_owner: Some(account),
        r#type: Some(if service.dns.is_some() { sd::ServiceType::DnsHttp } else { sd::ServiceType::Http }),
    }
}

fn render_dns(service: &DiscoveryService, dns: &DnsConfig) -> sd::DnsConfig {
    let records = dns.records.iter().map(|record| sd::DnsRecord {
        ttl: i64::from(record.ttl),
        r#type: match record.kind {
            RecordType::A => sd::RecordType::A,
            RecordType::Aaaa => sd::RecordType::Aaaa,
            RecordType::Cname => sd::RecordType::Cname,
            RecordType::Srv => sd::RecordType::Srv,
        },
    });
    sd::DnsConfig {
        dns_records: records.collect(),
        namespace_id: Some(service.namespace.clone()),
        routing_policy: Some(match dns.routing {
            RoutingPolicy::Multivalue => sd::RoutingPolicy::Multivalue,
            RoutingPolicy::Weighted => sd::RoutingPolicy::Weighted,
        }),
    }
}
