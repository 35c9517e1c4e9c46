//! RegisterContainerInstance: an instance that somebody else's agent speaks for. Longshore's own agents register by
//! their link. Until an agent connects, the instance takes no tasks.

use super::super::{invalid, reference, tag};
use super::attribute::{self, check_value};
use super::{find, render};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_ecs as ecs;
use longshore_model::cluster::Cluster;
use longshore_model::container_instance::{
    AgentVersion, Capacity, ContainerInstance, CpuArchitecture, Membership, Ports, Status,
};
use longshore_model::id::IdSource;
use longshore_model::task::LaunchType;
use longshore_model::task_definition::Protocol;
use longshore_model::{ContainerInstanceId, Resources, Timestamp};
use std::collections::BTreeMap;

pub async fn register(
    call: Call,
    request: ecs::RegisterContainerInstanceRequest,
) -> Result<ecs::RegisterContainerInstanceResponse, ecs::Error> {
    let (cluster, arn) = (request.cluster.clone(), request.container_instance_arn.clone());
    let machine = Machine::parse(request)?;
    let now = call.context.now();
    let registered = call
        .context
        .commit::<_, ecs::Error, _>(|snapshot, transaction| {
            let cluster = reference::cluster(&snapshot.view, call.scope(), cluster.as_deref())?;
            let Some(arn) = arn.as_deref().filter(|arn| !arn.is_empty()) else {
                let first = machine.first(&cluster, RandomIds.container_instance(), now);
                transaction.create(&first);
                return Ok(first);
            };
            let present = find(&snapshot.view, &cluster, arn)?;
            let present = present.map_err(|_| invalid("Referenced container instance not found."))?;
            if present.agent_connected {
                let message =
                    "The agent of this container instance is connected, and says by itself what it has.";
                return Err(ecs::Error::ClientException(message.to_owned()));
            }
            let next = machine.again(&present);
            transaction.update(&next);
            Ok(next)
        })
        .await?;
    let rendered = render(&call.context.view(), &registered, true);
    Ok(ecs::RegisterContainerInstanceResponse { container_instance: Some(rendered) })
}

/// What a request says of its machine.
struct Machine {
    ec2_instance_id: Option<String>,
    resources: Resources,
    ports: Ports,
    gpus: Vec<String>,
    attributes: BTreeMap<String, String>,
    agent: AgentVersion,
    tags: longshore_model::Tags,
}

impl Machine {
    fn parse(request: ecs::RegisterContainerInstanceRequest) -> Result<Self, ecs::Error> {
        let ecs::RegisterContainerInstanceRequest {
            cluster: _,
            instance_identity_document,
            // Signed by AWS for machines of AWS: there is nothing here to verify it with.
            instance_identity_document_signature: _,
            total_resources,
            version_info,
            container_instance_arn: _,
            attributes,
            platform_devices,
            tags,
        } = request;
        let (resources, ports) = parse_resources(total_resources.unwrap_or_default())?;
        let version = version_info.unwrap_or_default();
        Ok(Self {
            ec2_instance_id: instance_identity_document.as_deref().map(instance_id).transpose()?,
            resources,
            ports,
            gpus: platform_devices.unwrap_or_default().into_iter().map(|device| device.id).collect(),
            attributes: parse_attributes(attributes.unwrap_or_default())?,
            agent: AgentVersion {
                agent: version.agent_version.unwrap_or_default(),
                runtime: version.docker_version.unwrap_or_default(),
            },
            tags: tag::parse(tags)?,
        })
    }

    fn first(&self, cluster: &Cluster, id: ContainerInstanceId, now: Timestamp) -> ContainerInstance {
        ContainerInstance {
            id,
            name: self.ec2_instance_id.clone().unwrap_or_else(|| id.to_string()),
            capacity: Capacity::Cluster(Membership {
                scope: cluster.scope.clone(),
                cluster: cluster.name.clone(),
                launch_type: LaunchType::Ec2,
                ec2_instance_id: self.ec2_instance_id.clone(),
                launched: false,
                capacity_provider: None,
                status: Status::Active,
            }),
            resources: self.resources,
            cpu_architecture: match self.attributes.get("ecs.cpu-architecture").map(String::as_str) {
                Some("arm64") => CpuArchitecture::Arm64,
                _ => CpuArchitecture::X86_64,
            },
            attributes: self.attributes.clone(),
            ports: self.ports.clone(),
            gpus: self.gpus.clone(),
            agent: self.agent.clone(),
            tags: self.tags.clone(),
            registered_at: now,
            agent_connected: false,
            connected_to: None,
            deregistered_at: None,
            version: 1,
        }
    }

    fn again(&self, present: &ContainerInstance) -> ContainerInstance {
        let mut next = ContainerInstance {
            resources: self.resources,
            ports: self.ports.clone(),
            gpus: self.gpus.clone(),
            agent: self.agent.clone(),
            version: present.version + 1,
            ..present.clone()
        };
        next.attributes.extend(self.attributes.clone());
        if let Capacity::Cluster(member) = &mut next.capacity {
            member.status = Status::Active;
        }
        next
    }
}

fn parse_resources(given: Vec<ecs::Resource>) -> Result<(Resources, Ports), ecs::Error> {
    let (mut cpu, mut memory, mut ports) = (None, None, Ports::default());
    for resource in given {
        let name = resource.name.unwrap_or_default();
        let values = resource.string_set_value.unwrap_or_default();
        match name.as_str() {
            "CPU" => cpu = Some(amount(&name, resource.integer_value)?),
            "MEMORY" => memory = Some(amount(&name, resource.integer_value)?),
            "PORTS" => reserve(&mut ports, Protocol::Tcp, &values)?,
            "PORTS_UDP" => reserve(&mut ports, Protocol::Udp, &values)?,
            _ => return Err(invalid(format!("totalResources: '{name}' is not supported by Longshore yet."))),
        }
    }
    let missing = |name: &str| invalid(format!("totalResources must have {name}."));
    let cpu = cpu.ok_or_else(|| missing("CPU"))?;
    Ok((Resources { cpu, memory: memory.ok_or_else(|| missing("MEMORY"))? }, ports))
}

fn amount(name: &str, given: Option<i32>) -> Result<u64, ecs::Error> {
    let amount = given.and_then(|amount| u64::try_from(amount).ok()).filter(|amount| *amount > 0);
    amount.ok_or_else(|| invalid(format!("totalResources: {name} needs an integerValue above 0.")))
}

fn reserve(ports: &mut Ports, protocol: Protocol, values: &[String]) -> Result<(), ecs::Error> {
    for value in values {
        let port = value.parse().map_err(|_| invalid(format!("totalResources: '{value}' is not a port.")))?;
        ports.reserved.push((protocol, port));
    }
    Ok(())
}

fn parse_attributes(given: Vec<ecs::Attribute>) -> Result<BTreeMap<String, String>, ecs::Error> {
    let mut attributes = BTreeMap::new();
    for each in given {
        attribute::check_name(&each.name)?;
        let value = each.value.unwrap_or_default();
        check_value(&each.name, &value)?;
        attributes.insert(each.name, value);
    }
    Ok(attributes)
}

/// The member `instanceId` of an identity document.
fn instance_id(document: &str) -> Result<String, ecs::Error> {
    let parsed: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    let id = parsed.get("instanceId").and_then(serde_json::Value::as_str).filter(|id| !id.is_empty());
    let message = "The instanceIdentityDocument must be a JSON document with an instanceId.";
    id.map(str::to_owned).ok_or_else(|| invalid(message))
}
