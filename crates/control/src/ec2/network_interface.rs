//! Network interfaces of tasks and load balancers. Follows
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeNetworkInterfaces.html>.

use super::filter::{Filters, Values};
use super::{dry_run, page};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::elb::{LoadBalancer, LoadBalancerType};
use longshore_model::vpc::{Holder, NetworkInterface, SecurityGroup, Subnet};
use longshore_model::{Scope, Tags};
use longshore_wire::{Fault, Timestamp};

const FILTERS: [&str; 14] = [
    "addresses.private-ip-address",
    "attachment.instance-id",
    "availability-zone",
    "description",
    "group-id",
    "mac-address",
    "network-interface-id",
    "owner-id",
    "private-ip-address",
    "requester-id",
    "requester-managed",
    "status",
    "subnet-id",
    "vpc-id",
];

pub async fn describe(
    call: Call,
    request: ec2::DescribeNetworkInterfacesRequest,
) -> Result<ec2::DescribeNetworkInterfacesResult, Fault> {
    let ec2::DescribeNetworkInterfacesRequest {
        next_token,
        max_results,
        include_managed_resources: _,
        dry_run: dry,
        network_interface_ids,
        filters,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = network_interface_ids.unwrap_or_default();
    let view = call.context.view();
    let mine = || view.network_interfaces.iter().filter(|interface| interface.scope == *call.scope());
    if let Some(missing) = ids.iter().find(|id| !mine().any(|interface| interface.id == **id)) {
        let message = format!("The networkInterface ID '{missing}' does not exist");
        return Err(Fault::sender("InvalidNetworkInterfaceID.NotFound", message));
    }
    let wanted = |interface: &NetworkInterface| {
        (ids.is_empty() || ids.contains(&interface.id))
            && filters.pass(&Tags::default(), |name| values(&view, interface, name))
    };
    let found = mine().filter(|i| wanted(i)).map(|i| render(&view, call.scope(), i)).collect();
    let (interfaces, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeNetworkInterfacesResult { network_interfaces: Some(interfaces), next_token })
}

fn values(view: &View, interface: &NetworkInterface, filter: &str) -> Values {
    let subnet = view.subnets.get(&Subnet::key_of(&interface.scope, &interface.subnet));
    Some(match filter {
        "addresses.private-ip-address" | "private-ip-address" => vec![interface.address.to_string()],
        "availability-zone" => subnet.map(|subnet| subnet.availability_zone.clone()).into_iter().collect(),
        "description" => vec![described(view, interface).0],
        "requester-id" => described(view, interface).2.map(str::to_owned).into_iter().collect(),
        "requester-managed" => vec![described(view, interface).2.is_some().to_string()],
        "attachment.instance-id" => match &interface.holder {
            Holder::Instance(id) => vec![id.clone()],
            Holder::Task(_) | Holder::LoadBalancer(_) => Vec::new(),
        },
        "group-id" => interface.security_groups.clone(),
        "mac-address" => vec![interface.mac.to_string()],
        "network-interface-id" => vec![interface.id.clone()],
        "owner-id" => vec![interface.scope.account.to_string()],
        "status" => vec!["in-use".to_owned()],
        "subnet-id" => vec![interface.subnet.clone()],
        "vpc-id" => subnet.map(|subnet| subnet.vpc.clone()).into_iter().collect(),
        _ => return None,
    })
}

fn render(view: &View, scope: &Scope, interface: &NetworkInterface) -> ec2::NetworkInterface {
    let subnet = view.subnets.get(&Subnet::key_of(scope, &interface.subnet));
    let group = |id: &String| ec2::GroupIdentifier {
        group_id: Some(id.clone()),
        group_name: view
            .security_groups
            .get(&SecurityGroup::key_of(scope, id))
            .map(|group| group.name.clone()),
    };
    let account = scope.account.to_string();
    let (description, kind, requester) = described(view, interface);
    let instance = match &interface.holder {
        Holder::Instance(id) => Some(id.clone()),
        Holder::Task(_) | Holder::LoadBalancer(_) => None,
    };
    let attachment = ec2::NetworkInterfaceAttachment {
        attachment_id: Some(format!("eni-attach-{}", interface.id.trim_start_matches("eni-"))),
        attach_time: Some(Timestamp(interface.created_at.millis())),
        delete_on_termination: Some(instance.is_some()),
        device_index: Some(i32::from(instance.is_none())),
        instance_id: instance,
        instance_owner_id: Some(account.clone()),
        status: Some(ec2::AttachmentStatus::Attached),
        ..ec2::NetworkInterfaceAttachment::default()
    };
    let address = ec2::NetworkInterfacePrivateIpAddress {
        primary: Some(true),
        private_ip_address: Some(interface.address.to_string()),
        ..ec2::NetworkInterfacePrivateIpAddress::default()
    };
    ec2::NetworkInterface {
        attachment: Some(attachment),
        availability_zone: subnet.map(|subnet| subnet.availability_zone.clone()),
        description: Some(description),
        groups: Some(interface.security_groups.iter().map(group).collect()),
        interface_type: Some(kind),
        mac_address: Some(interface.mac.to_string()),
        network_interface_id: Some(interface.id.clone()),
        owner_id: Some(account),
        private_ip_address: Some(interface.address.to_string()),
        private_ip_addresses: Some(vec![address]),
        requester_id: requester.map(str::to_owned),
        requester_managed: Some(requester.is_some()),
        source_dest_check: Some(true),
        status: Some(ec2::NetworkInterfaceStatus::InUse),
        subnet_id: Some(interface.subnet.clone()),
        tag_set: Some(Vec::new()),
        vpc_id: subnet.map(|subnet| subnet.vpc.clone()),
        ..ec2::NetworkInterface::default()
    }
}

/// What is said of it, of what kind it is, and which service made it.
fn described(
    view: &View,
    interface: &NetworkInterface,
) -> (String, ec2::NetworkInterfaceType, Option<&'static str>) {
    let Scope { account, region } = &interface.scope;
    match &interface.holder {
        Holder::Task(_) => {
            let description = format!("arn:aws:ecs:{region}:{account}:attachment/{}", interface.attachment);
            (description, ec2::NetworkInterfaceType::Interface, None)
        }
        Holder::Instance(_) => (String::new(), ec2::NetworkInterfaceType::Interface, None),
        Holder::LoadBalancer(name) => {
            let load_balancer = view.load_balancers.get(&LoadBalancer::key_of(&interface.scope, name));
            let is_network = load_balancer.is_some_and(|found| found.kind == LoadBalancerType::Network);
            let kind = match is_network {
                true => ec2::NetworkInterfaceType::NetworkLoadBalancer,
                false => ec2::NetworkInterfaceType::Interface,
            };
            let path = load_balancer.map_or_else(|| name.clone(), |found| found.path());
            (format!("ELB {path}"), kind, Some("amazon-elb"))
        }
    }
}
