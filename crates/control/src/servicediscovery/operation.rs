//! Operations: what became of requests. Follows <https://docs.aws.amazon.com/cloud-map/latest/api/API_GetOperation.html>.

use super::filter::Filter;
use super::page;
use crate::api::Call;
use longshore_model::Record;
use longshore_model::discovery::{Operation, OperationType};
use longshore_servicediscovery as sd;
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeMap;

use sd::FilterCondition as Condition;
use sd::OperationFilterName as Name;

pub async fn get(call: Call, request: sd::GetOperationRequest) -> Result<sd::GetOperationResponse, Fault> {
    let sd::GetOperationRequest { operation_id, owner_account } = request;
    let scope = call.scope();
    let is_own = owner_account.is_none_or(|owner| owner == *scope.account);
    let view = call.context.view();
    let found = view.discovery_operations.get(&Operation::key_of(scope, &operation_id)).filter(|_| is_own);
    let found = found.ok_or_else(|| {
        sd::Error::OperationNotFound(format!("No operation exists with the ID {operation_id}."))
    })?;
    Ok(sd::GetOperationResponse { operation: Some(render(found)) })
}

pub async fn list(
    call: Call,
    request: sd::ListOperationsRequest,
) -> Result<sd::ListOperationsResponse, Fault> {
    let sd::ListOperationsRequest { filters, max_results, next_token } = request;
    let tests: Vec<Test> = filters.unwrap_or_default().into_iter().map(test).collect::<Result<_, _>>()?;
    let view = call.context.view();
    let wanted = view
        .discovery_operations
        .of(call.scope())
        .filter(|operation| tests.iter().all(|test| test(operation)));
    let summaries = wanted.map(|operation| {
        let summary = sd::OperationSummary {
            id: Some(operation.id.clone()),
            status: Some(sd::OperationStatus::Success),
        };
        (operation.key().to_string(), summary)
    });
    let (operations, next_token) = page(summaries, next_token, max_results);
    Ok(sd::ListOperationsResponse { next_token, operations: Some(operations) })
}

type Test = Box<dyn Fn(&Operation) -> bool>;

fn test(given: sd::OperationFilter) -> Result<Test, Fault> {
    let sd::OperationFilter { condition, name, values } = given;
    let parse = |name: &str, allowed: &[Condition]| Filter::parse(name, condition, values, allowed);
    Ok(match name {
        Name::NamespaceId => {
            let filter = parse("NAMESPACE_ID", &[])?;
            Box::new(move |operation| operation.namespace.as_ref().is_some_and(|id| filter.passes(id)))
        }
        Name::ServiceId => {
            let filter = parse("SERVICE_ID", &[])?;
            Box::new(move |operation| operation.service.as_ref().is_some_and(|id| filter.passes(id)))
        }
        Name::Status => {
            let filter = parse("STATUS", &[Condition::In])?;
            // The documentation names it both ways.
            Box::new(move |_| filter.passes("SUCCESS") || filter.passes("SUCCEED"))
        }
        Name::Type => {
            let filter = parse("TYPE", &[Condition::In])?;
            Box::new(move |operation| filter.passes(name_of(operation.kind)))
        }
        Name::UpdateDate => {
            let (from, to) = parse("UPDATE_DATE", &[Condition::Between])?.range("UPDATE_DATE")?;
            Box::new(move |operation| (from..=to).contains(&(operation.at.millis() as f64 / 1000.0)))
        }
    })
}

fn render(operation: &Operation) -> sd::Operation {
    let targets = [
        ("NAMESPACE", &operation.namespace),
        ("SERVICE", &operation.service),
        ("INSTANCE", &operation.instance),
    ];
    let targets = targets.into_iter().filter_map(|(kind, id)| Some((kind.to_owned(), id.clone()?)));
    let at = Timestamp(operation.at.millis());
    sd::Operation {
        create_date: Some(at),
        error_code: None,
        error_message: None,
        id: Some(operation.id.clone()),
        owner_account: Some(operation.scope.account.to_string()),
        status: Some(sd::OperationStatus::Success),
        targets: Some(targets.collect::<BTreeMap<_, _>>()),
        r#type: Some(kind(operation.kind)),
        update_date: Some(at),
    }
}

fn kind(kind: OperationType) -> sd::OperationType {
    match kind {
        OperationType::CreateNamespace => sd::OperationType::CreateNamespace,
        OperationType::DeleteNamespace => sd::OperationType::DeleteNamespace,
        OperationType::UpdateNamespace => sd::OperationType::UpdateNamespace,
        OperationType::UpdateService => sd::OperationType::UpdateService,
        OperationType::RegisterInstance => sd::OperationType::RegisterInstance,
        OperationType::DeregisterInstance => sd::OperationType::DeregisterInstance,
    }
}

fn name_of(given: OperationType) -> &'static str {
    kind(given).as_str()
}
