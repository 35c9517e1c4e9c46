//! Deployment configurations: in which steps traffic goes over.
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_CreateDeploymentConfig.html>.

use super::{is_name, refuse};
use crate::api::Call;
use crate::context::RandomIds;
use crate::given_when_present;
use crate::pages::page;
use crate::refuse::Given;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_engine::codedeploy::PREDEFINED;
use longshore_model::codedeploy::{DeploymentConfig, Routing};
use longshore_model::id::{IdSource, stable_hash};
use longshore_model::{Record, Scope};
use longshore_wire::{Fault, Timestamp};

given_when_present!(cd::MinimumHealthyHosts, cd::ZonalConfig);

const LARGEST_PERCENT: i32 = 99;
/// Two days, in minutes.
const LONGEST: i32 = 2880;

pub fn routing(view: &View, scope: &Scope, name: &str) -> Result<Routing, Fault> {
    if let Some((_, routing)) = PREDEFINED.into_iter().find(|(known, _)| *known == name) {
        return Ok(routing);
    }
    let found = view.deployment_configs.get(&DeploymentConfig::key_of(scope, name));
    found.map(|config| config.routing).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Fault {
    let message = format!("No Deployment Configuration found for name: {name}");
    cd::Error::DeploymentConfigDoesNotExistException(message).into()
}

pub async fn create(
    call: Call,
    request: cd::CreateDeploymentConfigInput,
) -> Result<cd::CreateDeploymentConfigOutput, Fault> {
    let cd::CreateDeploymentConfigInput {
        compute_platform,
        deployment_config_name: name,
        minimum_healthy_hosts,
        traffic_routing_config,
        zonal_config,
    } = request;
    if compute_platform != Some(cd::ComputePlatform::Ecs) {
        let message = "Longshore deploys ECS services: computePlatform must be ECS.";
        return Err(cd::Error::InvalidComputePlatformException(message.to_owned()).into());
    }
    refuse(&[("minimumHealthyHosts", minimum_healthy_hosts.given()), ("zonalConfig", zonal_config.given())])?;
    if !is_name(&name) || name.starts_with("CodeDeployDefault.") {
        let message = format!(
            "A deployment configuration's name must be 1 to 100 letters, digits and +=,.@-_ characters and not begin with \
             CodeDeployDefault., and is '{name}'."
        );
        return Err(cd::Error::InvalidDeploymentConfigNameException(message).into());
    }
    let made = DeploymentConfig {
        scope: call.scope().clone(),
        name,
        id: RandomIds.uuid(),
        created_at: call.context.now(),
        routing: parse(traffic_routing_config)?,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        if snapshot.view.deployment_configs.get(&made.key()).is_some() {
            let message = format!("A deployment configuration with the name {} already exists.", made.name);
            return Err(cd::Error::DeploymentConfigAlreadyExistsException(message).into());
        }
        transaction.create(&made);
        Ok(())
    });
    commit.await?;
    Ok(cd::CreateDeploymentConfigOutput { deployment_config_id: Some(made.id.to_string()) })
}

fn parse(given: Option<cd::TrafficRoutingConfig>) -> Result<Routing, Fault> {
    let wrong =
        |message: &str| cd::Error::InvalidTrafficRoutingConfigurationException(message.to_owned()).into();
    let Some(cd::TrafficRoutingConfig { time_based_canary, time_based_linear, r#type }) = given else {
        return Ok(Routing::AllAtOnce);
    };
    let within = |given: Option<i32>, most: i32| {
        given.filter(|given| (1..=most).contains(given)).map(i32::unsigned_abs)
    };
    let steps = |percent: Option<i32>, interval: Option<i32>| -> Result<(u32, u32), Fault> {
        within(percent, LARGEST_PERCENT)
            .zip(within(interval, LONGEST))
            .ok_or_else(|| wrong("A percentage must be 1 to 99, and an interval 1 to 2880 minutes."))
    };
    match (r#type, time_based_canary, time_based_linear) {
        (None | Some(cd::TrafficRoutingType::AllAtOnce), None, None) => Ok(Routing::AllAtOnce),
        (Some(cd::TrafficRoutingType::TimeBasedCanary), Some(canary), None) => {
            let (percent, interval) = steps(canary.canary_percentage, canary.canary_interval)?;
            Ok(Routing::Canary { percent, interval })
        }
        (Some(cd::TrafficRoutingType::TimeBasedLinear), None, Some(linear)) => {
            let (percent, interval) = steps(linear.linear_percentage, linear.linear_interval)?;
            Ok(Routing::Linear { percent, interval })
        }
        _ => Err(wrong("trafficRoutingConfig must have what its type names, and nothing else.")),
    }
}

pub async fn get(
    call: Call,
    request: cd::GetDeploymentConfigInput,
) -> Result<cd::GetDeploymentConfigOutput, Fault> {
    let cd::GetDeploymentConfigInput { deployment_config_name: name } = request;
    let view = call.context.view();
    let routing = routing(&view, call.scope(), &name)?;
    let own = view.deployment_configs.get(&DeploymentConfig::key_of(call.scope(), &name));
    let id = own.map_or_else(|| format!("{:016x}", stable_hash(name.bytes())), |own| own.id.to_string());
    Ok(cd::GetDeploymentConfigOutput {
        deployment_config_info: Some(cd::DeploymentConfigInfo {
            compute_platform: Some(cd::ComputePlatform::Ecs),
            create_time: own.map(|own| Timestamp(own.created_at.millis())),
            deployment_config_id: Some(id),
            deployment_config_name: Some(name),
            minimum_healthy_hosts: None,
            traffic_routing_config: Some(render(routing)),
            zonal_config: None,
        }),
    })
}

fn render(routing: Routing) -> cd::TrafficRoutingConfig {
    let number = |value: u32| i32::try_from(value).ok();
    match routing {
        Routing::AllAtOnce => cd::TrafficRoutingConfig {
            r#type: Some(cd::TrafficRoutingType::AllAtOnce),
            ..cd::TrafficRoutingConfig::default()
        },
        Routing::Canary { percent, interval } => cd::TrafficRoutingConfig {
            r#type: Some(cd::TrafficRoutingType::TimeBasedCanary),
            time_based_canary: Some(cd::TimeBasedCanary {
                canary_interval: number(interval),
                canary_percentage: number(percent),
            }),
            time_based_linear: None,
        },
        Routing::Linear { percent, interval } => cd::TrafficRoutingConfig {
            r#type: Some(cd::TrafficRoutingType::TimeBasedLinear),
            time_based_canary: None,
            time_based_linear: Some(cd::TimeBasedLinear {
                linear_interval: number(interval),
                linear_percentage: number(percent),
            }),
        },
    }
}

pub async fn delete(call: Call, request: cd::DeleteDeploymentConfigInput) -> Result<(), Fault> {
    let cd::DeleteDeploymentConfigInput { deployment_config_name: name } = request;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let (view, scope) = (&snapshot.view, call.scope());
        let Some(present) = view.deployment_configs.get(&DeploymentConfig::key_of(scope, &name)) else {
            return match PREDEFINED.iter().any(|(known, _)| *known == name) {
                true => {
                    Err(cd::Error::InvalidOperationException(format!("{name} cannot be deleted.")).into())
                }
                false => Err(missing(&name)),
            };
        };
        if view.deployment_groups.of(scope).any(|group| group.settings.config == name) {
            let message = format!("The deployment configuration {name} is in use.");
            return Err(cd::Error::DeploymentConfigInUseException(message).into());
        }
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

pub async fn list(
    call: Call,
    request: cd::ListDeploymentConfigsInput,
) -> Result<cd::ListDeploymentConfigsOutput, Fault> {
    let cd::ListDeploymentConfigsInput { next_token } = request;
    let view = call.context.view();
    let own = view.deployment_configs.of(call.scope()).map(|config| config.name.clone());
    let mut names: Vec<String> = PREDEFINED.iter().map(|(name, _)| (*name).to_owned()).chain(own).collect();
    names.sort();
    let keyed = names.into_iter().map(|name| (name.clone(), name));
    let (names, next_token) = page(keyed, next_token.as_deref(), Some(100));
    Ok(cd::ListDeploymentConfigsOutput { deployment_configs_list: Some(names), next_token })
}
