//! Namespaces. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_Namespace.html>.

use super::filter::Filter;
use super::{find_namespace, invalid, page, tag};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_engine::View;
use longshore_model::discovery::{
    DiscoveryService, Namespace, NamespaceKind, Operation, OperationType, hosted_zone, suffix,
};
use longshore_model::vpc::Vpc;
use longshore_model::{Record, Transaction};
use longshore_servicediscovery as sd;
use longshore_wire::{Fault, Timestamp};

use sd::FilterCondition as Condition;
use sd::NamespaceFilterName as Name;

/// Seconds for which the absence of a name may be kept, where nothing is said.
const SOA_TTL: u32 = 15;

/// What is said of every new namespace.
struct Said {
    name: String,
    creator_request_id: Option<String>,
    description: Option<String>,
    tags: Option<Vec<sd::Tag>>,
}

pub async fn create_http(
    call: Call,
    request: sd::CreateHttpNamespaceRequest,
) -> Result<sd::CreateHttpNamespaceResponse, Fault> {
    let sd::CreateHttpNamespaceRequest { creator_request_id, description, name, tags } = request;
    let said = Said { name, creator_request_id, description, tags };
    let operation = create(&call, said, NamespaceKind::Http).await?;
    Ok(sd::CreateHttpNamespaceResponse { operation_id: Some(operation) })
}

pub async fn create_private_dns(
    call: Call,
    request: sd::CreatePrivateDnsNamespaceRequest,
) -> Result<sd::CreatePrivateDnsNamespaceResponse, Fault> {
    let sd::CreatePrivateDnsNamespaceRequest { creator_request_id, description, name, properties, tags, vpc } =
        request;
    if !is_domain(&name) {
        return Err(invalid(format!("The namespace name '{name}' is not a valid domain name.")));
    }
    let given = properties.map(|properties| properties.dns_properties.soa.ttl);
    let kind = NamespaceKind::DnsPrivate {
        vpc,
        hosted_zone: hosted_zone(&mut RandomIds),
        soa_ttl: given.map_or(Ok(SOA_TTL), ttl)?,
    };
    let said = Said { name, creator_request_id, description, tags };
    let operation = create(&call, said, kind).await?;
    Ok(sd::CreatePrivateDnsNamespaceResponse { operation_id: Some(operation) })
}

/// Seconds, as the model's bounds let them pass.
pub fn ttl(given: i64) -> Result<u32, Fault> {
    u32::try_from(given).map_err(|_| invalid(format!("The TTL {given} is out of range.")))
}

/// A name whose parts DNS takes, with or without the dot at its end.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !name.starts_with("arn:") && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

async fn create(call: &Call, said: Said, kind: NamespaceKind) -> Result<String, Fault> {
    let Said { name, creator_request_id, description, tags } = said;
    if name.starts_with("arn:") {
        return Err(invalid("The name of a namespace must not begin with 'arn:'."));
    }
    let id = format!("ns-{}", suffix(&mut RandomIds));
    let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
    let made = Namespace {
        scope: call.scope().clone(),
        http_name: name.clone(),
        name,
        id,
        kind,
        description: description.filter(|text| !text.is_empty()),
        creator_request_id,
        tags: tag::of_new(tags)?,
        created_at: call.context.now(),
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        check_new(view, &made)?;
        let mut made = made.clone();
        if view.namespaces.of(&made.scope).any(|other| other.http_name == made.http_name) {
            made.http_name = format!("{}-{}", made.name, made.id.trim_start_matches("ns-"));
        }
        if let Some(vpc) = made.vpc() {
            transaction.rely_on(Vpc::key_of(&made.scope, vpc));
        }
        transaction.rely_on_nothing_new_under(Namespace::prefix_of(&made.scope));
        transaction.create(&made);
        Ok(operate(call, OperationType::CreateNamespace, &made, transaction))
    });
    commit.await
}

/// A VPC knows a name once, and so does the region outside of VPCs.
fn check_new(view: &View, made: &Namespace) -> Result<(), Fault> {
    if let Some(vpc) = made.vpc()
        && view.vpcs.get(&Vpc::key_of(&made.scope, vpc)).is_none()
    {
        return Err(invalid(format!("The VPC {vpc} does not exist in the region {}.", made.scope.region)));
    }
    let same = |other: &&std::sync::Arc<Namespace>| {
        other.vpc() == made.vpc() && other.name.eq_ignore_ascii_case(&made.name)
    };
    match view.namespaces.of(&made.scope).find(same) {
        None => Ok(()),
        Some(present) => Err(sd::Error::NamespaceAlreadyExists {
            message: format!("The namespace {} already exists.", made.name),
            creator_request_id: present.creator_request_id.clone(),
            namespace_id: Some(present.id.clone()),
        }
        .into()),
    }
}

/// The operation of a change of a namespace, as the change commits it.
fn operate(call: &Call, kind: OperationType, namespace: &Namespace, transaction: &mut Transaction) -> String {
    let operation = Operation::new(&namespace.scope, kind, call.context.now(), &mut RandomIds);
    let operation = Operation { namespace: Some(namespace.id.clone()), ..operation };
    transaction.create(&operation);
    operation.id
}

pub async fn delete(
    call: Call,
    request: sd::DeleteNamespaceRequest,
) -> Result<sd::DeleteNamespaceResponse, Fault> {
    let sd::DeleteNamespaceRequest { id } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find_namespace(view, call.scope(), &id)?;
        if view.discovery_services_of(&present.id).next().is_some() {
            return Err(sd::Error::ResourceInUse(format!(
                "The namespace {} has associated services. Delete them first.",
                present.id
            ))
            .into());
        }
        transaction.rely_on_nothing_new_under(DiscoveryService::prefix_of(&present.scope));
        transaction.delete(present.key());
        Ok(operate(&call, OperationType::DeleteNamespace, present, transaction))
    });
    Ok(sd::DeleteNamespaceResponse { operation_id: Some(commit.await?) })
}

pub async fn get(call: Call, request: sd::GetNamespaceRequest) -> Result<sd::GetNamespaceResponse, Fault> {
    let sd::GetNamespaceRequest { id } = request;
    let view = call.context.view();
    let found = find_namespace(&view, call.scope(), &id)?;
    let summary = summary(&view, found);
    let namespace = sd::Namespace {
        arn: summary.arn,
        create_date: summary.create_date,
        creator_request_id: found.creator_request_id.clone(),
        description: summary.description,
        id: summary.id,
        name: summary.name,
        properties: summary.properties,
        resource_owner: summary.resource_owner,
        service_count: summary.service_count,
        r#type: summary.r#type,
    };
    Ok(sd::GetNamespaceResponse { namespace: Some(namespace) })
}

pub async fn list(
    call: Call,
    request: sd::ListNamespacesRequest,
) -> Result<sd::ListNamespacesResponse, Fault> {
    let sd::ListNamespacesRequest { filters, max_results, next_token } = request;
    let tests: Vec<Test> = filters.unwrap_or_default().into_iter().map(test).collect::<Result<_, _>>()?;
    let view = call.context.view();
    let wanted =
        view.namespaces.of(call.scope()).filter(|namespace| tests.iter().all(|test| test(namespace)));
    let summaries = wanted.map(|namespace| (namespace.id.clone(), summary(&view, namespace)));
    let (namespaces, next_token) = page(summaries, next_token, max_results);
    Ok(sd::ListNamespacesResponse { namespaces: Some(namespaces), next_token })
}

type Test = Box<dyn Fn(&Namespace) -> bool>;

fn test(given: sd::NamespaceFilter) -> Result<Test, Fault> {
    let sd::NamespaceFilter { condition, name, values } = given;
    let parse = |name: &str, allowed: &[Condition]| Filter::parse(name, condition, values, allowed);
    Ok(match name {
        Name::Type => {
            let filter = parse("TYPE", &[Condition::In])?;
            Box::new(move |namespace| filter.passes(kind(namespace).as_str()))
        }
        Name::Name => {
            let filter = parse("NAME", &[Condition::BeginsWith])?;
            Box::new(move |namespace| filter.passes(&namespace.name))
        }
        Name::HttpName => {
            let filter = parse("HTTP_NAME", &[Condition::BeginsWith])?;
            Box::new(move |namespace| filter.passes(&namespace.http_name))
        }
        Name::ResourceOwner => {
            let filter = parse("RESOURCE_OWNER", &[])?;
            Box::new(move |_| filter.passes_own())
        }
    })
}

pub async fn update_http(
    call: Call,
    request: sd::UpdateHttpNamespaceRequest,
) -> Result<sd::UpdateHttpNamespaceResponse, Fault> {
    let sd::UpdateHttpNamespaceRequest { id, namespace, updater_request_id: _ } = request;
    let sd::HttpNamespaceChange { description } = namespace;
    let update = update(&call, &id, |present| match present.kind {
        NamespaceKind::Http => Ok(with_description(present, Some(&description))),
        NamespaceKind::DnsPrivate { .. } => Err(wrong_kind(present)),
    });
    Ok(sd::UpdateHttpNamespaceResponse { operation_id: Some(update.await?) })
}

pub async fn update_private_dns(
    call: Call,
    request: sd::UpdatePrivateDnsNamespaceRequest,
) -> Result<sd::UpdatePrivateDnsNamespaceResponse, Fault> {
    let sd::UpdatePrivateDnsNamespaceRequest { id, namespace, updater_request_id: _ } = request;
    let sd::PrivateDnsNamespaceChange { description, properties } = namespace;
    let given = properties.map(|properties| ttl(properties.dns_properties.soa.ttl)).transpose()?;
    let update = update(&call, &id, |present| {
        let NamespaceKind::DnsPrivate { vpc, hosted_zone, soa_ttl } = &present.kind else {
            return Err(wrong_kind(present));
        };
        let kind = NamespaceKind::DnsPrivate {
            vpc: vpc.clone(),
            hosted_zone: hosted_zone.clone(),
            soa_ttl: given.unwrap_or(*soa_ttl),
        };
        Ok(Namespace { kind, ..with_description(present, description.as_ref()) })
    });
    Ok(sd::UpdatePrivateDnsNamespaceResponse { operation_id: Some(update.await?) })
}

/// What is not said stays; an empty text takes the description away.
fn with_description(present: &Namespace, given: Option<&String>) -> Namespace {
    let description = match given {
        None => present.description.clone(),
        Some(given) => Some(given.clone()).filter(|text| !text.is_empty()),
    };
    Namespace { description, ..present.clone() }
}

fn wrong_kind(present: &Namespace) -> Fault {
    invalid(format!("The namespace {} is of the type {}.", present.id, kind(present).as_str()))
}

async fn update(
    call: &Call,
    id: &str,
    change: impl Fn(&Namespace) -> Result<Namespace, Fault>,
) -> Result<String, Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find_namespace(&snapshot.view, call.scope(), id)?;
        transaction.update(&change(present)?);
        Ok(operate(call, OperationType::UpdateNamespace, present, transaction))
    });
    commit.await
}

fn kind(namespace: &Namespace) -> sd::NamespaceType {
    match namespace.kind {
        NamespaceKind::Http => sd::NamespaceType::Http,
        NamespaceKind::DnsPrivate { .. } => sd::NamespaceType::DnsPrivate,
    }
}

fn summary(view: &View, namespace: &Namespace) -> sd::NamespaceSummary {
    let dns = match &namespace.kind {
        NamespaceKind::Http => None,
        NamespaceKind::DnsPrivate { hosted_zone, soa_ttl, .. } => Some(sd::DnsProperties {
            hosted_zone_id: Some(hosted_zone.clone()),
            soa: Some(sd::SOA { ttl: i64::from(*soa_ttl) }),
        }),
    };
    let http = sd::HttpProperties { http_name: Some(namespace.http_name.clone()) };
    let services = view.discovery_services_of(&namespace.id).count();
    sd::NamespaceSummary {
        arn: Some(namespace.arn()),
        create_date: Some(Timestamp(namespace.created_at.millis())),
        description: namespace.description.clone(),
        id: Some(namespace.id.clone()),
        name: Some(namespace.name.clone()),
        properties: Some(sd::NamespaceProperties { dns_properties: dns, http_properties: Some(http) }),
        resource_owner: Some(namespace.scope.account.to_string()),
        service_count: i32::try_from(services).ok(),
        r#type: Some(kind(namespace)),
    }
}
