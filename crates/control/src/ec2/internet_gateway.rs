//! Internet gateways.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateInternetGateway.html>.

use super::filter::{Filters, Values};
use super::{all_found, dry_run, page, refused, tag, vpc};
use crate::api::Call;
use crate::context::RandomIds;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::id::IdSource;
use longshore_model::route::InternetGateway;
use longshore_model::{Record, Scope};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 4] = ["attachment.state", "attachment.vpc-id", "internet-gateway-id", "owner-id"];

pub async fn create(
    call: Call,
    request: ec2::CreateInternetGatewayRequest,
) -> Result<ec2::CreateInternetGatewayResult, Fault> {
    let ec2::CreateInternetGatewayRequest { tag_specifications, dry_run: dry } = request;
    dry_run(dry)?;
    let tags = tag::of_new(tag_specifications, ec2::ResourceType::InternetGateway)?;
    let made = InternetGateway { scope: call.scope().clone(), id: RandomIds.ec2("igw"), vpc: None, tags };
    let commit = call.context.commit::<_, Fault, _>(|_, transaction| {
        transaction.create(&made);
        Ok(())
    });
    commit.await?;
    Ok(ec2::CreateInternetGatewayResult { internet_gateway: Some(render(&made)) })
}

pub fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<InternetGateway>, Fault> {
    let missing = || {
        let message = format!("The internetGateway ID '{id}' does not exist");
        refused("InvalidInternetGatewayID.NotFound", message)
    };
    view.internet_gateways.get(&InternetGateway::key_of(scope, id)).ok_or_else(missing)
}

pub async fn attach(call: Call, request: ec2::AttachInternetGatewayRequest) -> Result<(), Fault> {
    let ec2::AttachInternetGatewayRequest { dry_run: dry, internet_gateway_id: id, vpc_id } = request;
    dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), &id)?;
        let vpc = vpc::find(view, call.scope(), &vpc_id)?;
        let taken = |what: &str, id: &str, other: &str| {
            let message = format!("resource {id} is already attached to {what} {other}");
            refused("Resource.AlreadyAssociated", message)
        };
        if let Some(other) = &present.vpc {
            return Err(taken("network", &id, other));
        }
        let mut gateways = view.internet_gateways.of(call.scope());
        if let Some(other) = gateways.find(|other| other.vpc.as_ref() == Some(&vpc_id)) {
            let message = format!("Network {vpc_id} already has an internet gateway attached: {}", other.id);
            return Err(refused("InvalidParameterValue", message));
        }
        transaction.update(&InternetGateway { vpc: Some(vpc_id.clone()), ..(**present).clone() });
        // So that of two that are attached at once the second is refused, and the VPC is not deleted meanwhile.
        transaction.update(&**vpc);
        Ok(())
    });
    commit.await
}

pub async fn detach(call: Call, request: ec2::DetachInternetGatewayRequest) -> Result<(), Fault> {
    let ec2::DetachInternetGatewayRequest { dry_run: dry, internet_gateway_id: id, vpc_id } = request;
    dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), &id)?;
        if present.vpc.as_ref() != Some(&vpc_id) {
            let message = format!("resource {id} is not attached to network {vpc_id}");
            return Err(refused("Gateway.NotAttached", message));
        }
        transaction.update(&InternetGateway { vpc: None, ..(**present).clone() });
        Ok(())
    });
    commit.await
}

pub async fn delete(call: Call, request: ec2::DeleteInternetGatewayRequest) -> Result<(), Fault> {
    let ec2::DeleteInternetGatewayRequest { dry_run: dry, internet_gateway_id: id } = request;
    dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), &id)?;
        if present.vpc.is_some() {
            let message = format!("The internetGateway '{id}' has dependencies and cannot be deleted.");
            return Err(refused("DependencyViolation", message));
        }
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeInternetGatewaysRequest,
) -> Result<ec2::DescribeInternetGatewaysResult, Fault> {
    let ec2::DescribeInternetGatewaysRequest {
        next_token,
        max_results,
        dry_run: dry,
        internet_gateway_ids,
        filters,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = internet_gateway_ids.unwrap_or_default();
    let view = call.context.view();
    let is_there = |id: &str| find(&view, call.scope(), id).is_ok();
    all_found(&ids, is_there, "InvalidInternetGatewayID.NotFound", "internetGateway")?;
    let wanted = |gateway: &InternetGateway| {
        (ids.is_empty() || ids.contains(&gateway.id))
            && filters.pass(&gateway.tags, |name| values(gateway, name))
    };
    let all = view.internet_gateways.of(call.scope());
    let found = all.filter(|gateway| wanted(gateway)).map(|gateway| render(gateway)).collect();
    let (gateways, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeInternetGatewaysResult { internet_gateways: Some(gateways), next_token })
}

fn values(gateway: &InternetGateway, filter: &str) -> Values {
    Some(match filter {
        "attachment.state" => gateway.vpc.iter().map(|_| "available".to_owned()).collect(),
        "attachment.vpc-id" => gateway.vpc.iter().cloned().collect(),
        "internet-gateway-id" => vec![gateway.id.clone()],
        "owner-id" => vec![gateway.scope.account.to_string()],
        _ => return None,
    })
}

fn render(gateway: &InternetGateway) -> ec2::InternetGateway {
    let attachment = |vpc: &String| ec2::InternetGatewayAttachment {
        state: Some(ec2::AttachmentStatus::Available),
        vpc_id: Some(vpc.clone()),
    };
    ec2::InternetGateway {
        attachments: Some(gateway.vpc.iter().map(attachment).collect()),
        internet_gateway_id: Some(gateway.id.clone()),
        owner_id: Some(gateway.scope.account.to_string()),
        tags: tag::render(&gateway.tags),
    }
}
