//! Instances as DescribeInstances shows them.

use super::super::filter::{Filters, Values};
use super::super::{dry_run, page, tag};
use super::find;
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::{View, instance_type};
use longshore_model::container_instance::CpuArchitecture;
use longshore_model::id::stable_hash;
use longshore_model::instance::{Instance, State};
use longshore_model::vpc::{MacAddress, SecurityGroup};
use longshore_wire::{Decode, Fault, Timestamp, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

const FILTERS: [&str; 24] = [
    "architecture",
    "availability-zone",
    "client-token",
    "iam-instance-profile.arn",
    "image-id",
    "instance-id",
    "instance-state-code",
    "instance-state-name",
    "instance-type",
    "instance.group-id",
    "instance.group-name",
    "ip-address",
    "key-name",
    "launch-index",
    "network-interface.network-interface-id",
    "network-interface.subnet-id",
    "network-interface.vpc-id",
    "owner-id",
    "private-dns-name",
    "private-ip-address",
    "reservation-id",
    "state-reason-code",
    "subnet-id",
    "vpc-id",
];

pub async fn describe(
    call: Call,
    request: ec2::DescribeInstancesRequest,
) -> Result<ec2::DescribeInstancesResult, Fault> {
    let ec2::DescribeInstancesRequest {
        dry_run: dry,
        filters,
        include_managed_resources: _,
        instance_ids,
        max_results,
        next_token,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = instance_ids.unwrap_or_default();
    let view = call.context.view();
    for id in &ids {
        find(&view, call.scope(), id)?;
    }
    let wanted = |instance: &&Arc<Instance>| {
        (ids.is_empty() || ids.contains(&instance.id))
            && filters.pass(&instance.tags, |name| values(&view, instance, name))
    };
    let mut by_reservation: BTreeMap<(Timestamp, &str), Vec<&Arc<Instance>>> = BTreeMap::new();
    for instance in view.instances.of(call.scope()).filter(wanted) {
        let key = (Timestamp(instance.launched_at.millis()), instance.reservation.as_str());
        by_reservation.entry(key).or_default().push(instance);
    }
    let reservations = by_reservation.into_values().map(|mut instances| {
        instances.sort_by_key(|instance| instance.launch_index);
        let first = instances.first().map(|first| &***first);
        reservation(first, instances.iter().map(|instance| render(&view, instance)).collect())
    });
    let (reservations, next_token) = page(reservations.collect(), max_results, next_token.as_deref())?;
    Ok(ec2::DescribeInstancesResult { reservations: Some(reservations), next_token })
}

pub fn reservation(first: Option<&Instance>, instances: Vec<ec2::Instance>) -> ec2::Reservation {
    ec2::Reservation {
        groups: Some(Vec::new()),
        instances: Some(instances),
        owner_id: first.map(|first| first.scope.account.to_string()),
        requester_id: None,
        reservation_id: first.map(|first| first.reservation.clone()),
    }
}

fn values(view: &View, instance: &Instance, filter: &str) -> Values {
    let Instance { scope, settings, .. } = instance;
    let is_there = instance.state != State::Terminated;
    let value = match filter {
        "architecture" => settings.architecture.attribute().to_owned(),
        "availability-zone" => instance.availability_zone.clone(),
        "client-token" => instance.client_token.clone().unwrap_or_default(),
        "iam-instance-profile.arn" => settings.profile.clone().unwrap_or_default(),
        "image-id" => settings.image.clone(),
        "instance-id" => instance.id.clone(),
        "instance-state-code" => code(instance.state).to_string(),
        "instance-state-name" => super::spec::text(name(instance.state)),
        "instance-type" => settings.instance_type.clone(),
        "instance.group-id" => return Some(instance.security_groups.clone()),
        "instance.group-name" => {
            return Some(groups(view, instance).into_iter().filter_map(|group| group.group_name).collect());
        }
        "key-name" => settings.key_name.clone().unwrap_or_default(),
        "launch-index" => instance.launch_index.to_string(),
        "network-interface.network-interface-id" => instance.network_interface.clone(),
        "subnet-id" | "network-interface.subnet-id" => instance.subnet.clone(),
        "vpc-id" | "network-interface.vpc-id" => instance.vpc.clone(),
        "owner-id" => scope.account.to_string(),
        "private-dns-name" if is_there => dns_name(instance),
        "private-ip-address" if is_there => instance.address.to_string(),
        "reservation-id" => instance.reservation.clone(),
        "state-reason-code" => instance.why.as_ref().map(|why| why.code.clone()).unwrap_or_default(),
        "ip-address" | "private-dns-name" | "private-ip-address" => return Some(Vec::new()),
        _ => return None,
    };
    Some(vec![value])
}

fn groups(view: &View, instance: &Instance) -> Vec<ec2::GroupIdentifier> {
    let group = |id: &String| ec2::GroupIdentifier {
        group_id: Some(id.clone()),
        group_name: view
            .security_groups
            .get(&SecurityGroup::key_of(&instance.scope, id))
            .map(|group| group.name.clone()),
    };
    instance.security_groups.iter().map(group).collect()
}

/// As EC2 names instances after their addresses.
fn dns_name(instance: &Instance) -> String {
    let dashed = instance.address.to_string().replace('.', "-");
    match instance.scope.region.as_ref() {
        "us-east-1" => format!("ip-{dashed}.ec2.internal"),
        region => format!("ip-{dashed}.{region}.compute.internal"),
    }
}

fn name(state: State) -> ec2::InstanceStateName {
    match state {
        State::Pending => ec2::InstanceStateName::Pending,
        State::Running => ec2::InstanceStateName::Running,
        State::ShuttingDown => ec2::InstanceStateName::ShuttingDown,
        State::Terminated => ec2::InstanceStateName::Terminated,
    }
}

fn code(state: State) -> i32 {
    match state {
        State::Pending => 0,
        State::Running => 16,
        State::ShuttingDown => 32,
        State::Terminated => 48,
    }
}

pub fn state(state: State) -> ec2::InstanceState {
    ec2::InstanceState { code: Some(code(state)), name: Some(name(state)) }
}

pub fn render(view: &View, instance: &Instance) -> ec2::Instance {
    let Instance { settings, .. } = instance;
    let is_there = instance.state != State::Terminated;
    let vcpus = instance_type::of(&settings.instance_type).and_then(|found| i32::try_from(found.vcpus).ok());
    let profile = settings.profile.clone().map(|arn| ec2::IamInstanceProfile {
        id: Some(format!("AIPA{:016X}", stable_hash(arn.bytes()))),
        arn: Some(arn),
    });
    ec2::Instance {
        ami_launch_index: i32::try_from(instance.launch_index).ok(),
        architecture: Some(match settings.architecture {
            CpuArchitecture::X86_64 => ec2::ArchitectureValues::X8664,
            CpuArchitecture::Arm64 => ec2::ArchitectureValues::Arm64,
        }),
        block_device_mappings: Some(Vec::new()),
        client_token: Some(instance.client_token.clone().unwrap_or_default()),
        cpu_options: Some(ec2::CpuOptions {
            core_count: vcpus,
            threads_per_core: Some(1),
            ..ec2::CpuOptions::default()
        }),
        ebs_optimized: Some(settings.ebs_optimized),
        ena_support: Some(true),
        hypervisor: Some(ec2::HypervisorType::Xen),
        iam_instance_profile: profile,
        image_id: Some(settings.image.clone()),
        instance_id: Some(instance.id.clone()),
        instance_type: ec2::InstanceType::decode(Value::from(settings.instance_type.clone())).ok(),
        key_name: settings.key_name.clone(),
        launch_time: Some(Timestamp(instance.launched_at.millis())),
        monitoring: Some(ec2::Monitoring {
            state: Some(if settings.monitoring {
                ec2::MonitoringState::Enabled
            } else {
                ec2::MonitoringState::Disabled
            }),
        }),
        network_interfaces: Some(if is_there { vec![interface(view, instance)] } else { Vec::new() }),
        placement: Some(ec2::Placement {
            availability_zone: Some(instance.availability_zone.clone()),
            group_name: Some(String::new()),
            tenancy: Some(ec2::Tenancy::Default),
            ..ec2::Placement::default()
        }),
        platform_details: Some("Linux/UNIX".to_owned()),
        private_dns_name: Some(if is_there { dns_name(instance) } else { String::new() }),
        private_ip_address: is_there.then(|| instance.address.to_string()),
        public_dns_name: Some(String::new()),
        root_device_type: Some(ec2::DeviceType::Ebs),
        security_groups: Some(groups(view, instance)),
        source_dest_check: Some(true),
        state: Some(state(instance.state)),
        state_reason: instance
            .why
            .as_ref()
            .map(|why| ec2::StateReason { code: Some(why.code.clone()), message: Some(why.message.clone()) }),
        state_transition_reason: Some(
            instance.why.as_ref().map(|why| why.message.clone()).unwrap_or_default(),
        ),
        subnet_id: Some(instance.subnet.clone()),
        tags: tag::render(&instance.tags),
        virtualization_type: Some(ec2::VirtualizationType::Hvm),
        vpc_id: Some(instance.vpc.clone()),
        ..ec2::Instance::default()
    }
}

fn interface(view: &View, instance: &Instance) -> ec2::InstanceNetworkInterface {
    ec2::InstanceNetworkInterface {
        attachment: Some(ec2::InstanceNetworkInterfaceAttachment {
            attach_time: Some(Timestamp(instance.launched_at.millis())),
            delete_on_termination: Some(true),
            device_index: Some(0),
            network_card_index: Some(0),
            status: Some(ec2::AttachmentStatus::Attached),
            ..ec2::InstanceNetworkInterfaceAttachment::default()
        }),
        description: Some(String::new()),
        groups: Some(groups(view, instance)),
        interface_type: Some("interface".to_owned()),
        mac_address: Some(MacAddress::of(instance.address).to_string()),
        network_interface_id: Some(instance.network_interface.clone()),
        owner_id: Some(instance.scope.account.to_string()),
        private_dns_name: Some(dns_name(instance)),
        private_ip_address: Some(instance.address.to_string()),
        private_ip_addresses: Some(vec![ec2::InstancePrivateIpAddress {
            primary: Some(true),
            private_dns_name: Some(dns_name(instance)),
            private_ip_address: Some(instance.address.to_string()),
            ..ec2::InstancePrivateIpAddress::default()
        }]),
        source_dest_check: Some(true),
        status: Some(ec2::NetworkInterfaceStatus::InUse),
        subnet_id: Some(instance.subnet.clone()),
        vpc_id: Some(instance.vpc.clone()),
        ..ec2::InstanceNetworkInterface::default()
    }
}
