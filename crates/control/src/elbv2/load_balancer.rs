//! Load balancers. Follows
//! <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateLoadBalancer.html>.

mod hosted_zone;
mod settings;
mod zone;

pub use settings::{describe_capacity, set_ip_address_type, set_security_groups, set_subnets};

use super::{check_name, invalid, misfit, reference, refuse, tag};
use crate::api::Call;
use crate::context::RandomIds;
use crate::given_when_present;
use crate::pages::page;
use crate::refuse::Given;
use longshore_elbv2 as elb;
use longshore_engine::{View, elb as engine};
use longshore_model::elb::{LoadBalancer, LoadBalancerType, LoadBalancerZone, Scheme, new_id};
use longshore_model::vpc::SecurityGroup;
use longshore_model::{Record, Scope, Tags, Transaction};
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use zone::Wanted;

given_when_present!(elb::IpamPools);

/// Of one type in a region.
const MOST: usize = 50;
const MOST_SECURITY_GROUPS: usize = 5;
/// Writes of one commit: etcd takes 128 operations in a transaction.
const AT_ONCE: usize = 120;

/// A load balancer as a request asks for it.
struct Request {
    name: String,
    kind: LoadBalancerType,
    scheme: Scheme,
    zones: Vec<Wanted>,
    security_groups: Vec<String>,
    tags: Tags,
}

pub async fn create(
    call: Call,
    request: elb::CreateLoadBalancerInput,
) -> Result<elb::CreateLoadBalancerOutput, Fault> {
    let request = parse(request)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, key) = (&snapshot.view, LoadBalancer::key_of(call.scope(), &request.name));
        if let Some(present) = view.load_balancers.get(&key) {
            return same(view, present, &request)
                .map(|()| render(present, elb::LoadBalancerStateEnum::Active));
        }
        let mut others = view.load_balancers.of(call.scope()).filter(|other| other.kind == request.kind);
        if others.nth(MOST - 1).is_some() {
            let message = format!("You have reached the maximum number of load balancers: '{MOST}'");
            return Err(elb::Error::TooManyLoadBalancersException(message).into());
        }
        let made = make(&call, view, &request, transaction)?;
        transaction.create(&made);
        Ok(render(&made, elb::LoadBalancerStateEnum::Provisioning))
    });
    Ok(elb::CreateLoadBalancerOutput { load_balancers: Some(vec![commit.await?]) })
}

fn parse(request: elb::CreateLoadBalancerInput) -> Result<Request, Fault> {
    let elb::CreateLoadBalancerInput {
        customer_owned_ipv4_pool,
        enable_prefix_for_ipv6_source_nat,
        ip_address_type,
        ipam_pools,
        name,
        scheme,
        security_groups,
        subnet_mappings,
        subnets,
        tags,
        r#type,
    } = request;
    refuse(&[
        ("CustomerOwnedIpv4Pool", customer_owned_ipv4_pool.given()),
        ("EnablePrefixForIpv6SourceNat=on", is_on(enable_prefix_for_ipv6_source_nat)),
        ("An IpAddressType other than ipv4", is_beyond_ipv4(ip_address_type)),
        ("IpamPools", ipam_pools.given()),
        ("Type=gateway", r#type == Some(elb::LoadBalancerTypeEnum::Gateway)),
    ])?;
    let kind = match r#type {
        Some(elb::LoadBalancerTypeEnum::Network) => LoadBalancerType::Network,
        Some(elb::LoadBalancerTypeEnum::Application | elb::LoadBalancerTypeEnum::Gateway) | None => {
            LoadBalancerType::Application
        }
    };
    let scheme = match scheme {
        Some(elb::LoadBalancerSchemeEnum::Internal) => Scheme::Internal,
        Some(elb::LoadBalancerSchemeEnum::InternetFacing) | None => Scheme::InternetFacing,
    };
    let zones = zone::wanted(subnets, subnet_mappings)?;
    check_name("Load balancer", &name)?;
    if name.starts_with("internal-") {
        return Err(invalid(format!("Load balancer name '{name}' cannot begin with 'internal-'")));
    }
    let security_groups = security_groups.unwrap_or_default();
    Ok(Request { name, kind, scheme, zones, security_groups, tags: tag::of_new(tags)? })
}

fn is_on(given: Option<elb::EnablePrefixForIpv6SourceNatEnum>) -> bool {
    given == Some(elb::EnablePrefixForIpv6SourceNatEnum::On)
}

fn is_beyond_ipv4(given: Option<elb::IpAddressType>) -> bool {
    given.is_some_and(|given| given != elb::IpAddressType::Ipv4)
}

/// Making one twice is one, where nothing differs.
fn same(view: &View, present: &LoadBalancer, request: &Request) -> Result<(), Fault> {
    let subnets: BTreeSet<&str> = present.zones.iter().map(|zone| zone.subnet.as_str()).collect();
    let wanted: BTreeSet<&str> = request.zones.iter().map(|zone| zone.subnet.as_str()).collect();
    let addresses = request.zones.iter().all(|wanted| {
        wanted.address.is_none_or(|address| present.addresses().any(|present| present == address))
    });
    let groups = security_groups(view, &present.scope, &present.vpc, present.kind, &request.security_groups);
    let groups: BTreeSet<String> = groups?.into_iter().map(|group| group.id.clone()).collect();
    let same = present.kind == request.kind
        && present.scheme == request.scheme
        && present.tags == request.tags
        && subnets == wanted
        && addresses
        && groups.iter().eq(present.security_groups.iter().collect::<BTreeSet<_>>());
    if same {
        return Ok(());
    }
    let message =
        format!("A load balancer with the same name '{}' exists, but with different settings", present.name);
    Err(elb::Error::DuplicateLoadBalancerNameException(message).into())
}

fn make(
    call: &Call,
    view: &View,
    request: &Request,
    transaction: &mut Transaction,
) -> Result<LoadBalancer, Fault> {
    let scope = call.scope();
    let places = zone::places(view, scope, request.kind, request.scheme, &request.zones)?;
    let vpc = places.first().map(|place| place.subnet.vpc.clone()).unwrap_or_default();
    if request.scheme == Scheme::InternetFacing {
        let attached = |vpc: &str| view.internet_gateways.of(scope).any(|g| g.vpc.as_deref() == Some(vpc));
        if !attached(&vpc) {
            return Err(
                elb::Error::InvalidSubnetException(format!("VPC {vpc} has no internet gateway")).into()
            );
        }
    }
    let groups = security_groups(view, scope, &vpc, request.kind, &request.security_groups)?;
    let mut made = LoadBalancer {
        scope: scope.clone(),
        name: request.name.clone(),
        id: new_id(&mut RandomIds),
        kind: request.kind,
        scheme: request.scheme,
        vpc,
        zones: Vec::new(),
        security_groups: groups.iter().map(|group| group.id.clone()).collect(),
        attributes: Default::default(),
        tags: request.tags.clone(),
        created_at: call.context.now(),
    };
    // So that what it uses is not deleted meanwhile.
    groups.iter().for_each(|group| transaction.update(&***group));
    made.zones = zone::take(view, &made, &places, call.context.now(), transaction)?;
    Ok(made)
}

/// The security groups of a load balancer that is given these.
fn security_groups<'a>(
    view: &'a View,
    scope: &Scope,
    vpc: &str,
    kind: LoadBalancerType,
    given: &[String],
) -> Result<Vec<&'a Arc<SecurityGroup>>, Fault> {
    let in_vpc = |group: &&Arc<SecurityGroup>| group.vpc == vpc;
    if given.is_empty() && kind == LoadBalancerType::Application {
        let mut all = view.security_groups.of(scope).filter(in_vpc);
        return Ok(all.find(|group| group.name == "default").into_iter().collect());
    }
    let ids: BTreeSet<&String> = given.iter().collect();
    if ids.len() > MOST_SECURITY_GROUPS {
        return Err(misfit(format!(
            "A maximum of '{MOST_SECURITY_GROUPS}' security groups can be specified"
        )));
    }
    let find = |id: &&String| view.security_groups.get(&SecurityGroup::key_of(scope, id)).filter(in_vpc);
    let missing = || misfit("One or more security groups are invalid");
    ids.iter().map(|id| find(id).ok_or_else(missing)).collect()
}

pub async fn delete(
    call: Call,
    request: elb::DeleteLoadBalancerInput,
) -> Result<elb::DeleteLoadBalancerOutput, Fault> {
    let elb::DeleteLoadBalancerInput { load_balancer_arn: arn } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        // Deleting what is gone is no error.
        let Some(present) = reference::find_load_balancer(view, call.scope(), &arn)? else { return Ok(()) };
        if present.attribute("deletion_protection.enabled") == Some("true") {
            let message =
                format!("Load balancer '{arn}' cannot be deleted because deletion protection is enabled");
            return Err(elb::Error::OperationNotPermittedException(message).into());
        }
        transaction.delete(present.key());
        for interface in zone::interfaces_of(view, present) {
            transaction.delete(interface.key());
        }
        // What does not fit into the commit counts no more without its load balancer, and is forgotten in time.
        let listeners = engine::listeners_of(view, present).map(|listener| listener.key());
        let rules = engine::rules_of_all(view, present).map(|rule| rule.key());
        let room = AT_ONCE.saturating_sub(transaction.writes().len());
        listeners.chain(rules).take(room).for_each(|key| transaction.delete(key));
        Ok(())
    });
    commit.await?;
    Ok(elb::DeleteLoadBalancerOutput {})
}

pub async fn describe(
    call: Call,
    request: elb::DescribeLoadBalancersInput,
) -> Result<elb::DescribeLoadBalancersOutput, Fault> {
    let elb::DescribeLoadBalancersInput { load_balancer_arns, marker, names, page_size } = request;
    let (arns, names) = (load_balancer_arns.unwrap_or_default(), names.unwrap_or_default());
    if !arns.is_empty() && !names.is_empty() {
        return Err(invalid(
            "Load balancer names and load balancer ARNs cannot be specified at the same time",
        ));
    }
    let (view, scope) = (call.context.view(), call.scope());
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let mut missing: Vec<&str> = Vec::new();
    for arn in &arns {
        match reference::find_load_balancer(&view, scope, arn)? {
            Some(found) => wanted.insert(&found.name),
            None => {
                missing.push(arn);
                false
            }
        };
    }
    for name in &names {
        match view.load_balancers.get(&LoadBalancer::key_of(scope, name)) {
            Some(found) => wanted.insert(&found.name),
            None => {
                missing.push(name);
                false
            }
        };
    }
    if !missing.is_empty() {
        let message = format!("Load balancers '[{}]' not found", missing.join(", "));
        return Err(elb::Error::LoadBalancerNotFoundException(message).into());
    }
    let all = view.load_balancers.of(scope);
    let found = all.filter(|lb| (arns.is_empty() && names.is_empty()) || wanted.contains(lb.name.as_str()));
    let found = found.map(|lb| (lb.name.clone(), render(lb, elb::LoadBalancerStateEnum::Active)));
    let (load_balancers, next_marker) = page(found, marker.as_deref(), page_size);
    Ok(elb::DescribeLoadBalancersOutput { load_balancers: Some(load_balancers), next_marker })
}

fn render(lb: &LoadBalancer, state: elb::LoadBalancerStateEnum) -> elb::LoadBalancer {
    let is_network = lb.kind == LoadBalancerType::Network;
    let has_groups = !lb.security_groups.is_empty();
    elb::LoadBalancer {
        availability_zones: Some(lb.zones.iter().map(render_zone).collect()),
        canonical_hosted_zone_id: hosted_zone::of(lb.kind, &lb.scope.region).map(str::to_owned),
        created_time: Some(Timestamp(lb.created_at.millis())),
        dns_name: Some(lb.dns_name()),
        enable_prefix_for_ipv6_source_nat: is_network.then_some(elb::EnablePrefixForIpv6SourceNatEnum::Off),
        enforce_security_group_inbound_rules_on_private_link_traffic: (is_network && has_groups)
            .then(|| "on".to_owned()),
        ip_address_type: Some(elb::IpAddressType::Ipv4),
        load_balancer_arn: Some(lb.arn()),
        load_balancer_name: Some(lb.name.clone()),
        scheme: Some(match lb.scheme {
            Scheme::InternetFacing => elb::LoadBalancerSchemeEnum::InternetFacing,
            Scheme::Internal => elb::LoadBalancerSchemeEnum::Internal,
        }),
        security_groups: has_groups.then(|| lb.security_groups.clone()),
        state: Some(elb::LoadBalancerState { code: Some(state), reason: None }),
        r#type: Some(match lb.kind {
            LoadBalancerType::Application => elb::LoadBalancerTypeEnum::Application,
            LoadBalancerType::Network => elb::LoadBalancerTypeEnum::Network,
        }),
        vpc_id: Some(lb.vpc.clone()),
        ..elb::LoadBalancer::default()
    }
}

fn render_zone(zone: &LoadBalancerZone) -> elb::AvailabilityZone {
    let address = || elb::LoadBalancerAddress {
        private_i_pv4_address: Some(zone.address.to_string()),
        ..elb::LoadBalancerAddress::default()
    };
    elb::AvailabilityZone {
        load_balancer_addresses: Some(zone.chosen.then(address).into_iter().collect()),
        subnet_id: Some(zone.subnet.clone()),
        zone_name: Some(zone.availability_zone.clone()),
        ..elb::AvailabilityZone::default()
    }
}
