//! Reads what users name resources by: short names or ARNs.

use super::{client, invalid};
use longshore_ecs as ecs;
use longshore_engine::View;
use longshore_model::arn::Arn;
use longshore_model::cluster::{Cluster, Status};
use longshore_model::service::Service;
use longshore_model::task_definition::TaskDefinition;
use longshore_model::{ContainerInstanceId, Scope, TaskId};
use std::str::FromStr;
use std::sync::Arc;

/// The name of a cluster given by name or ARN; `default` when none is given.
pub fn cluster_name(scope: &Scope, given: Option<&str>) -> Result<String, ecs::Error> {
    let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok("default".to_owned()) };
    let Some(arn) = Arn::parse(given) else { return Ok(given.to_owned()) };
    let name = arn.resource.strip_prefix("cluster/").filter(|_| arn.service == "ecs" && arn.in_scope(scope));
    name.map(str::to_owned).ok_or_else(not_found)
}

/// An ACTIVE cluster.
pub fn cluster(view: &View, scope: &Scope, given: Option<&str>) -> Result<Arc<Cluster>, ecs::Error> {
    let cluster = view.cluster(scope, &cluster_name(scope, given)?).ok_or_else(not_found)?;
    match cluster.status {
        Status::Active => Ok(Arc::clone(cluster)),
        Status::Inactive => {
            Err(ecs::Error::ClusterNotFoundException("The referenced cluster was inactive.".to_owned()))
        }
    }
}

fn not_found() -> ecs::Error {
    ecs::Error::ClusterNotFoundException("Cluster not found.".to_owned())
}

/// A task's id given by itself or in an ARN. `None` when the ARN is of another cluster, account or region.
pub fn task_id(scope: &Scope, cluster: &str, given: &str) -> Result<Option<TaskId>, ecs::Error> {
    id(scope, cluster, given, "task")
}

/// A container instance's id given by itself or in an ARN, as [`task_id`].
pub fn container_instance_id(
    scope: &Scope,
    cluster: &str,
    given: &str,
) -> Result<Option<ContainerInstanceId>, ecs::Error> {
    id(scope, cluster, given, "container-instance")
}

fn id<I: FromStr>(scope: &Scope, cluster: &str, given: &str, kind: &str) -> Result<Option<I>, ecs::Error> {
    let Some(arn) = Arn::parse(given) else {
        return given.parse().map(Some).map_err(|_| {
            invalid(format!(
                "Invalid identifier: Identifier is for {given}. Give the id of a {kind} or its ARN."
            ))
        });
    };
    let mut parts = arn.resource.split('/');
    let (of_kind, of_cluster, id) = (parts.next(), parts.next(), parts.next());
    if arn.service != "ecs" || of_kind != Some(kind) || parts.next().is_some() {
        return Err(invalid(format!("Invalid identifier: {given} is not the ARN of a {kind}.")));
    }
    let id = id.and_then(|id| id.parse().ok());
    Ok(id.filter(|_| arn.in_scope(scope) && of_cluster == Some(cluster)))
}

/// The name of a service of a cluster, given by itself or in an ARN. `None` when the ARN is of another cluster, account or
/// region.
pub fn service_name(scope: &Scope, cluster: &str, given: &str) -> Option<String> {
    let Some(arn) = Arn::parse(given) else { return Some(given.to_owned()) };
    let name =
        arn.resource.strip_prefix("service/").filter(|_| arn.service == "ecs" && arn.in_scope(scope))?;
    match name.split_once('/') {
        None => Some(name.to_owned()),
        Some((of, name)) => (of == cluster).then(|| name.to_owned()),
    }
}

/// A service of a cluster, also one that was deleted.
pub fn service(view: &View, scope: &Scope, cluster: &str, given: &str) -> Result<Arc<Service>, ecs::Error> {
    let name = service_name(scope, cluster, given);
    let found = name.and_then(|name| view.service(scope, cluster, &name).cloned());
    found.ok_or_else(|| ecs::Error::ServiceNotFoundException("Service not found.".to_owned()))
}

/// A family with the revision that was named, if one was.
#[derive(Debug, PartialEq, Eq)]
pub struct FamilyRevision {
    pub family: String,
    pub revision: Option<u32>,
}

/// Reads `family`, `family:revision` or an ARN.
pub fn family_revision(scope: &Scope, given: &str) -> Result<FamilyRevision, ecs::Error> {
    let name = match Arn::parse(given) {
        None => given,
        Some(arn) => {
            let name = arn.resource.strip_prefix("task-definition/");
            name.filter(|_| arn.service == "ecs" && arn.in_scope(scope)).ok_or_else(|| {
                client("The specified task definition does not exist in this account and region.")
            })?
        }
    };
    let Some((family, revision)) = name.split_once(':') else {
        return Ok(FamilyRevision { family: name.to_owned(), revision: None });
    };
    let revision =
        revision.parse().map_err(|_| invalid(format!("Invalid revision number. Number: {revision}")))?;
    Ok(FamilyRevision { family: family.to_owned(), revision: Some(revision) })
}

/// The revision that was named, or the latest ACTIVE one of the family.
pub fn task_definition(
    view: &View,
    scope: &Scope,
    given: &str,
) -> Result<Option<Arc<TaskDefinition>>, ecs::Error> {
    let wanted = family_revision(scope, given)?;
    Ok(match wanted.revision {
        Some(revision) => view.task_definition(scope, &wanted.family, revision).cloned(),
        None => {
            let active =
                |d: &&Arc<TaskDefinition>| d.status == longshore_model::task_definition::Status::Active;
            view.revisions(scope, &wanted.family).rev().find(active).cloned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope::new("123456789012", "us-east-1")
    }

    #[test]
    fn clusters_by_name_and_arn() {
        let check = |given: Option<&str>| cluster_name(&scope(), given).ok();
        assert_eq!(check(None).as_deref(), Some("default"));
        assert_eq!(check(Some("a")).as_deref(), Some("a"));
        assert_eq!(check(Some("arn:aws:ecs:us-east-1:123456789012:cluster/a")).as_deref(), Some("a"));
        assert_eq!(check(Some("arn:aws:ecs:eu-west-1:123456789012:cluster/a")), None);
    }

    #[test]
    fn tasks_by_id_and_arn() {
        let id = "00000000000000000000000000000a1b";
        let check = |given: &str| task_id(&scope(), "c", given).map(|id| id.map(|id| id.0));
        assert_eq!(check(id), Ok(Some(0xa1b)));
        assert_eq!(check(&format!("arn:aws:ecs:us-east-1:123456789012:task/c/{id}")), Ok(Some(0xa1b)));
        assert_eq!(check(&format!("arn:aws:ecs:us-east-1:123456789012:task/d/{id}")), Ok(None));
        assert!(check("nonsense").is_err());
    }

    #[test]
    fn definitions_by_family_revision_and_arn() {
        let check = |given: &str| family_revision(&scope(), given).map(|f| (f.family, f.revision));
        assert_eq!(check("web"), Ok(("web".to_owned(), None)));
        assert_eq!(check("web:3"), Ok(("web".to_owned(), Some(3))));
        assert_eq!(
            check("arn:aws:ecs:us-east-1:123456789012:task-definition/web:3"),
            Ok(("web".to_owned(), Some(3)))
        );
        assert!(check("web:x").is_err());
    }
}
