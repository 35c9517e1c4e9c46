//! What of a load balancer can be set anew: its subnets and its security groups.

use super::super::{invalid, misfit, reference, refuse};
use super::zone;
use super::{is_beyond_ipv4, is_on, render_zone, security_groups};
use crate::api::Call;
use longshore_elbv2 as elb;
use longshore_engine::View;
use longshore_model::elb::{LoadBalancer, LoadBalancerType, LoadBalancerZone};
use longshore_model::vpc::NetworkInterface;
use longshore_model::{Record, Timestamp, Transaction};
use longshore_wire::Fault;

pub async fn set_subnets(call: Call, request: elb::SetSubnetsInput) -> Result<elb::SetSubnetsOutput, Fault> {
    let elb::SetSubnetsInput {
        enable_prefix_for_ipv6_source_nat,
        ip_address_type,
        load_balancer_arn: arn,
        subnet_mappings,
        subnets,
    } = request;
    refuse(&[
        ("EnablePrefixForIpv6SourceNat=on", is_on(enable_prefix_for_ipv6_source_nat)),
        ("An IpAddressType other than ipv4", is_beyond_ipv4(ip_address_type)),
    ])?;
    let wanted = zone::wanted(subnets, subnet_mappings)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = reference::load_balancer(view, call.scope(), &arn)?;
        let zones = rezone(view, present, &wanted, call.context.now(), transaction)?;
        let next = LoadBalancer { zones, ..(**present).clone() };
        if next != **present {
            transaction.update(&next);
        }
        Ok(next)
    });
    let next = commit.await?;
    let is_network = next.kind == LoadBalancerType::Network;
    Ok(elb::SetSubnetsOutput {
        availability_zones: Some(next.zones.iter().map(render_zone).collect()),
        enable_prefix_for_ipv6_source_nat: is_network.then_some(elb::EnablePrefixForIpv6SourceNatEnum::Off),
        ip_address_type: Some(elb::IpAddressType::Ipv4),
    })
}

/// Leaves the subnets that are not wanted any more and takes addresses in the new ones; the others stay as they are.
fn rezone(
    view: &View,
    present: &LoadBalancer,
    wanted: &[zone::Wanted],
    now: Timestamp,
    transaction: &mut Transaction,
) -> Result<Vec<LoadBalancerZone>, Fault> {
    let places = zone::places(view, &present.scope, present.kind, present.scheme, wanted)?;
    if places.iter().any(|place| place.subnet.vpc != present.vpc) {
        return Err(misfit(format!("All subnets must belong to the same VPC: '{}'", present.vpc)));
    }
    let stays = |zone: &&LoadBalancerZone| {
        let same = |place: &zone::Place<'_>| {
            place.subnet.id == zone.subnet && place.address.is_none_or(|address| address == zone.address)
        };
        places.iter().any(same)
    };
    let (kept, left): (Vec<_>, Vec<_>) = present.zones.iter().partition(stays);
    for interface in zone::interfaces_of(view, present) {
        if left.iter().any(|zone| zone.address == interface.address) {
            transaction.delete(interface.key());
        }
    }
    let is_new = |place: &zone::Place<'_>| !kept.iter().any(|zone| zone.subnet == place.subnet.id);
    let new: Vec<_> = places.into_iter().filter(is_new).collect();
    let mut zones = zone::take(view, present, &new, now, transaction)?;
    zones.extend(kept.into_iter().cloned());
    zones.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
    Ok(zones)
}

pub async fn set_security_groups(
    call: Call,
    request: elb::SetSecurityGroupsInput,
) -> Result<elb::SetSecurityGroupsOutput, Fault> {
    use elb::EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum as Enforce;
    let elb::SetSecurityGroupsInput {
        enforce_security_group_inbound_rules_on_private_link_traffic: enforce,
        load_balancer_arn: arn,
        security_groups: given,
    } = request;
    refuse(&[("EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic=off", enforce == Some(Enforce::Off))])?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = reference::load_balancer(view, call.scope(), &arn)?;
        let is_network = present.kind == LoadBalancerType::Network;
        if is_network && present.security_groups.is_empty() {
            return Err(misfit(format!(
                "Security groups cannot be set on load balancer '{arn}', which was created without any"
            )));
        }
        if given.is_empty() {
            return Err(invalid("At least one security group must be specified"));
        }
        let groups = security_groups(view, call.scope(), &present.vpc, present.kind, &given)?;
        let ids: Vec<String> = groups.iter().map(|group| group.id.clone()).collect();
        if ids != present.security_groups {
            // So that none of them is deleted meanwhile.
            groups.iter().for_each(|group| transaction.update(&***group));
            for interface in zone::interfaces_of(view, present) {
                let next = NetworkInterface { security_groups: ids.clone(), ..(**interface).clone() };
                transaction.update(&next);
            }
            transaction.update(&LoadBalancer { security_groups: ids.clone(), ..(**present).clone() });
        }
        Ok((ids, is_network))
    });
    let (ids, is_network) = commit.await?;
    Ok(elb::SetSecurityGroupsOutput {
        enforce_security_group_inbound_rules_on_private_link_traffic: is_network.then_some(Enforce::On),
        security_group_ids: Some(ids),
    })
}

pub async fn set_ip_address_type(
    call: Call,
    request: elb::SetIpAddressTypeInput,
) -> Result<elb::SetIpAddressTypeOutput, Fault> {
    let elb::SetIpAddressTypeInput { ip_address_type, load_balancer_arn: arn } = request;
    refuse(&[("An IpAddressType other than ipv4", is_beyond_ipv4(Some(ip_address_type)))])?;
    reference::load_balancer(&call.context.view(), call.scope(), &arn)?;
    Ok(elb::SetIpAddressTypeOutput { ip_address_type: Some(ip_address_type) })
}

/// Nothing can be reserved, so that nothing is.
pub async fn describe_capacity(
    call: Call,
    request: elb::DescribeCapacityReservationInput,
) -> Result<elb::DescribeCapacityReservationOutput, Fault> {
    let elb::DescribeCapacityReservationInput { load_balancer_arn: arn } = request;
    reference::load_balancer(&call.context.view(), call.scope(), &arn)?;
    Ok(elb::DescribeCapacityReservationOutput {
        capacity_reservation_state: Some(Vec::new()),
        ..elb::DescribeCapacityReservationOutput::default()
    })
}
