//! AppSpec files: which task definition takes the place of a service's, in JSON or YAML.
//! Follows <https://docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-resources.html>.

use crate::ecs::reference;
use longshore_codedeploy as cd;
use longshore_engine::View;
use longshore_model::Scope;
use longshore_model::capacity_provider::StrategyItem;
use longshore_model::codedeploy::Revision;
use longshore_model::service::NetworkConfiguration;
use longshore_model::task_definition::Status;
use longshore_wire::Fault;
use sha2::{Digest, Sha256};
use yaml_rust2::{Yaml, YamlLoader};

/// The longest text, in bytes.
const LONGEST: usize = 64 * 1024;

fn wrong(message: impl Into<String>) -> Fault {
    cd::Error::InvalidRevisionException(message.into()).into()
}

/// What a request names, read and found.
pub fn read(view: &View, scope: &Scope, given: Option<cd::RevisionLocation>) -> Result<Revision, Fault> {
    let required = || Fault::from(cd::Error::RevisionRequiredException("A revision is required.".to_owned()));
    let cd::RevisionLocation { app_spec_content, git_hub_location: _, revision_type, s3_location: _, string } =
        given.ok_or_else(required)?;
    let (content, sha256, is_string) = match revision_type {
        Some(cd::RevisionLocationType::AppSpecContent) | None => {
            let cd::AppSpecContent { content, sha256 } = app_spec_content.ok_or_else(required)?;
            (content, sha256, false)
        }
        Some(cd::RevisionLocationType::String) => {
            let cd::RawString { content, sha256 } = string.ok_or_else(required)?;
            (content, sha256, true)
        }
        Some(cd::RevisionLocationType::S3 | cd::RevisionLocationType::GitHub) => {
            return Err(wrong(
                "Longshore reads AppSpec files from the request: revisionType must be AppSpecContent.",
            ));
        }
    };
    let content = content.ok_or_else(required)?;
    if content.len() > LONGEST {
        return Err(wrong(format!("An AppSpec file can have at most {LONGEST} bytes.")));
    }
    let digest =
        Sha256::digest(content.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    if sha256.as_ref().is_some_and(|given| !given.eq_ignore_ascii_case(&digest)) {
        return Err(wrong("The sha256 of the AppSpec file is not that of its content."));
    }
    Revision { sha256, is_string, ..parse(view, scope, &content)? }.checked(view, scope)
}

trait Checked: Sized {
    fn checked(self, view: &View, scope: &Scope) -> Result<Self, Fault>;
}

impl Checked for Revision {
    fn checked(self, view: &View, scope: &Scope) -> Result<Self, Fault> {
        let definition = view.task_definition(scope, &self.family, self.revision);
        let active = definition.filter(|definition| definition.status == Status::Active);
        let definition = active.ok_or_else(|| {
            wrong(format!(
                "The task definition {}:{} does not exist or is not ACTIVE.",
                self.family, self.revision
            ))
        })?;
        let container = definition.containers.iter().find(|container| container.name == self.container);
        let maps = |port: u16| {
            container.is_some_and(|c| c.port_mappings.iter().any(|mapping| mapping.container_port == port))
        };
        if !maps(self.port) {
            return Err(wrong(format!(
                "The container {} of the task definition does not map the port {}.",
                self.container, self.port
            )));
        }
        Ok(self)
    }
}

fn parse(view: &View, scope: &Scope, content: &str) -> Result<Revision, Fault> {
    let documents = YamlLoader::load_from_str(content);
    let documents =
        documents.map_err(|error| wrong(format!("The AppSpec file is neither JSON nor YAML: {error}")))?;
    let [document] = documents.as_slice() else {
        return Err(wrong("The AppSpec file must be one document."));
    };
    if field(document, "Hooks").is_some_and(|hooks| !is_empty(hooks)) {
        return Err(wrong("Hooks are not supported by Longshore yet. Leave them out of the AppSpec file."));
    }
    let resources = field(document, "Resources").and_then(Yaml::as_vec);
    let [resource] = resources.map(Vec::as_slice).unwrap_or_default() else {
        return Err(wrong("The AppSpec file must have one resource, of the type AWS::ECS::Service."));
    };
    let service = resource.as_hash().and_then(|hash| hash.front()).map(|(_, service)| service);
    let service = service.ok_or_else(|| wrong("The resource of the AppSpec file has no name."))?;
    if text(service, "Type").as_deref() != Some("AWS::ECS::Service") {
        return Err(wrong("The resource's Type must be AWS::ECS::Service."));
    }
    let missing = |what: &str| wrong(format!("The AppSpec file lacks Properties.{what}."));
    let properties = field(service, "Properties").ok_or_else(|| missing("TaskDefinition"))?;
    let given = text(properties, "TaskDefinition").ok_or_else(|| missing("TaskDefinition"))?;
    let found =
        reference::task_definition(view, scope, &given).map_err(|error| wrong(Fault::from(error).message))?;
    let found = found.ok_or_else(|| wrong(format!("The task definition {given} does not exist.")))?;
    let balancer = field(properties, "LoadBalancerInfo").ok_or_else(|| missing("LoadBalancerInfo"))?;
    let port = field(balancer, "ContainerPort").and_then(number);
    Ok(Revision {
        content: content.to_owned(),
        sha256: None,
        is_string: false,
        family: found.family.clone(),
        revision: found.revision,
        container: text(balancer, "ContainerName")
            .ok_or_else(|| missing("LoadBalancerInfo.ContainerName"))?,
        port: port.ok_or_else(|| missing("LoadBalancerInfo.ContainerPort"))?,
        platform_version: text(properties, "PlatformVersion").filter(|version| !version.is_empty()),
        network: field(properties, "NetworkConfiguration")
            .filter(|given| !is_empty(given))
            .map(network)
            .transpose()?,
        strategy: strategy(field(properties, "CapacityProviderStrategy"))?,
    })
}

/// A member by its name, whatever the case of its first letter.
fn field<'a>(of: &'a Yaml, name: &str) -> Option<&'a Yaml> {
    let same = |key: &Yaml| key.as_str().is_some_and(|key| key.eq_ignore_ascii_case(name));
    of.as_hash()?.iter().find(|(key, _)| same(key)).map(|(_, value)| value)
}

fn text(of: &Yaml, name: &str) -> Option<String> {
    match field(of, name)? {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number<T: TryFrom<i64>>(given: &Yaml) -> Option<T> {
    let number = given.as_i64().or_else(|| given.as_str().and_then(|text| text.trim().parse().ok()));
    number.and_then(|number| T::try_from(number).ok())
}

fn is_empty(given: &Yaml) -> bool {
    match given {
        Yaml::Null | Yaml::BadValue => true,
        Yaml::Array(items) => items.is_empty(),
        Yaml::Hash(members) => members.is_empty(),
        _ => false,
    }
}

fn network(given: &Yaml) -> Result<NetworkConfiguration, Fault> {
    let given = field(given, "AwsvpcConfiguration")
        .ok_or_else(|| wrong("NetworkConfiguration must have an AwsvpcConfiguration."))?;
    let all = |name: &str| -> Vec<String> {
        let items = field(given, name).and_then(Yaml::as_vec).map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let subnets = all("Subnets");
    if subnets.is_empty() {
        return Err(wrong("NetworkConfiguration.AwsvpcConfiguration must have Subnets."));
    }
    let public = text(given, "AssignPublicIp").is_some_and(|given| given.eq_ignore_ascii_case("ENABLED"));
    Ok(NetworkConfiguration { subnets, security_groups: all("SecurityGroups"), assign_public_ip: public })
}

fn strategy(given: Option<&Yaml>) -> Result<Vec<StrategyItem>, Fault> {
    let items = given.and_then(Yaml::as_vec).map(Vec::as_slice).unwrap_or_default();
    let item = |item: &Yaml| {
        let amount = |name: &str| field(item, name).map_or(Some(0), number);
        Some(StrategyItem {
            capacity_provider: text(item, "CapacityProvider")?,
            base: amount("Base")?,
            weight: amount("Weight")?,
        })
    };
    let all: Option<Vec<StrategyItem>> = items.iter().map(item).collect();
    all.ok_or_else(|| wrong("Each item of CapacityProviderStrategy needs a CapacityProvider, and numbers for Base and Weight."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_json_and_yaml() {
        let json = r#"{"version": 0.0, "Resources": [{"TargetService": {"Type": "AWS::ECS::Service"}}]}"#;
        let yaml = "version: 0.0\nResources:\n  - TargetService:\n      Type: AWS::ECS::Service\n";
        for content in [json, yaml] {
            let documents = YamlLoader::load_from_str(content).unwrap();
            let resources = field(&documents[0], "resources").and_then(Yaml::as_vec).unwrap();
            let (_, service) = resources[0].as_hash().unwrap().front().unwrap();
            assert_eq!(text(service, "Type").as_deref(), Some("AWS::ECS::Service"));
        }
    }

    #[test]
    fn ports_are_numbers_also_as_text() {
        let documents = YamlLoader::load_from_str("a: 80\nb: \"8080\"\nc: 70000\nd: x\n").unwrap();
        let port = |name: &str| field(&documents[0], name).and_then(number::<u16>);
        assert_eq!((port("a"), port("b"), port("c"), port("d")), (Some(80), Some(8080), None, None));
    }
}
