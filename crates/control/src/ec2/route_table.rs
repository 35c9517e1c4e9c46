//! Route tables and their routes.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateRouteTable.html>.

use super::filter::{Filters, Values};
use super::{
    all_found, dry_run as check_dry_run, internet_gateway, needed, page, refuse, refused, subnet, tag, vpc,
};
use crate::api::Call;
use crate::context::RandomIds;
use crate::refuse::Given;
use longshore_ec2 as ec2;
use longshore_engine::View;
use longshore_model::id::IdSource;
use longshore_model::route::{Association, Route, RouteTable};
use longshore_model::vpc::Cidr;
use longshore_model::{Record, Scope};
use longshore_wire::Fault;
use std::sync::Arc;

const FILTERS: [&str; 10] = [
    "association.main",
    "association.route-table-association-id",
    "association.route-table-id",
    "association.subnet-id",
    "owner-id",
    "route-table-id",
    "route.destination-cidr-block",
    "route.gateway-id",
    "route.state",
    "vpc-id",
];
const LOCAL: &str = "local";

pub async fn create(
    call: Call,
    request: ec2::CreateRouteTableRequest,
) -> Result<ec2::CreateRouteTableResult, Fault> {
    let ec2::CreateRouteTableRequest { tag_specifications, client_token, dry_run: dry, vpc_id } = request;
    check_dry_run(dry)?;
    let tags = tag::of_new(tag_specifications, ec2::ResourceType::RouteTable)?;
    let made = RouteTable {
        scope: call.scope().clone(),
        id: RandomIds.ec2("rtb"),
        vpc: vpc_id.clone(),
        main: None,
        routes: Vec::new(),
        associations: Vec::new(),
        tags,
    };
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let vpc = vpc::find(&snapshot.view, call.scope(), &vpc_id)?;
        transaction.create(&made);
        // The VPC is not to be deleted meanwhile.
        transaction.update(&**vpc);
        Ok(())
    });
    commit.await?;
    let route_table = Some(render(&call.context.view(), &made));
    Ok(ec2::CreateRouteTableResult { route_table, client_token })
}

fn find<'a>(view: &'a View, scope: &Scope, id: &str) -> Result<&'a Arc<RouteTable>, Fault> {
    let missing =
        || refused("InvalidRouteTableID.NotFound", format!("The routeTable ID '{id}' does not exist"));
    view.route_tables.get(&RouteTable::key_of(scope, id)).ok_or_else(missing)
}

pub async fn delete(call: Call, request: ec2::DeleteRouteTableRequest) -> Result<(), Fault> {
    let ec2::DeleteRouteTableRequest { dry_run: dry, route_table_id: id } = request;
    check_dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = find(&snapshot.view, call.scope(), &id)?;
        if present.main.is_some() || !present.associations.is_empty() {
            return Err(needed("routeTable", &id));
        }
        transaction.delete(present.key());
        Ok(())
    });
    commit.await
}

/// Where a route is to lead, and what else a request could have said of it.
struct Target {
    gateway: Option<String>,
    others: [(&'static str, bool); 11],
}

impl Target {
    /// The gateway; what leads elsewhere is refused.
    fn resolve(&self, view: &View, table: &RouteTable) -> Result<String, Fault> {
        refuse(&self.others)?;
        let Some(id) = &self.gateway else {
            return Err(refused(
                "MissingParameter",
                "The request must contain exactly one of gatewayId, ...",
            ));
        };
        if !id.starts_with("igw-") {
            refuse(&[("GatewayId of another kind than an internet gateway", true)])?;
        }
        let gateway = internet_gateway::find(view, &table.scope, id)?;
        if gateway.vpc.as_ref() != Some(&table.vpc) {
            let message =
                format!("route table {} and network gateway {id} belong to different networks", table.id);
            return Err(refused("InvalidParameterValue", message));
        }
        Ok(id.clone())
    }
}

/// Takes a request for a route apart: where it leads to, whither, and what else the request has.
macro_rules! take_apart {
    ($target:ident, $to:ident, $request:ident: $shape:ident { $($rest:ident),* $(,)? }) => {
        let ec2::$shape {
            destination_prefix_list_id,
            destination_cidr_block,
            destination_ipv6_cidr_block,
            gateway_id,
            vpc_endpoint_id,
            transit_gateway_id,
            local_gateway_id,
            carrier_gateway_id,
            core_network_arn,
            odb_network_arn,
            egress_only_internet_gateway_id,
            instance_id,
            network_interface_id,
            vpc_peering_connection_id,
            nat_gateway_id,
            $($rest),*
        } = $request;
        let $to =
            destination(destination_cidr_block, &destination_ipv6_cidr_block, &destination_prefix_list_id)?;
        let $target = Target {
            gateway: gateway_id.filter(|id| !id.is_empty()),
            others: [
                ("VpcEndpointId", vpc_endpoint_id.given()),
                ("TransitGatewayId", transit_gateway_id.given()),
                ("LocalGatewayId", local_gateway_id.given()),
                ("CarrierGatewayId", carrier_gateway_id.given()),
                ("CoreNetworkArn", core_network_arn.given()),
                ("OdbNetworkArn", odb_network_arn.given()),
                ("EgressOnlyInternetGatewayId", egress_only_internet_gateway_id.given()),
                ("InstanceId", instance_id.given()),
                ("NetworkInterfaceId", network_interface_id.given()),
                ("VpcPeeringConnectionId", vpc_peering_connection_id.given()),
                ("NatGatewayId", nat_gateway_id.given()),
            ],
        };
    };
}

fn destination(given: Option<String>, ipv6: &Option<String>, list: &Option<String>) -> Result<Cidr, Fault> {
    refuse(&[("DestinationIpv6CidrBlock", ipv6.given()), ("DestinationPrefixListId", list.given())])?;
    let given = given.ok_or_else(|| {
        refused("MissingParameter", "The request must contain the parameter destinationCidrBlock")
    })?;
    vpc::parse_cidr("destinationCidrBlock", &given)
}

pub async fn create_route(
    call: Call,
    request: ec2::CreateRouteRequest,
) -> Result<ec2::CreateRouteResult, Fault> {
    take_apart!(target, to, request: CreateRouteRequest { dry_run, route_table_id });
    check_dry_run(dry_run)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), &route_table_id)?;
        if is_local(view, present, to) || present.routes.iter().any(|route| route.destination == to) {
            let message = format!("The route identified by {to} already exists.");
            return Err(refused("RouteAlreadyExists", message));
        }
        let mut next = (**present).clone();
        next.routes.push(Route { destination: to, gateway: target.resolve(view, present)? });
        transaction.update(&next);
        Ok(())
    });
    commit.await?;
    Ok(ec2::CreateRouteResult { r#return: Some(true) })
}

/// Whether the destination is the VPC itself, which every table leads to.
fn is_local(view: &View, table: &RouteTable, to: Cidr) -> bool {
    vpc::find(view, &table.scope, &table.vpc).is_ok_and(|vpc| vpc.cidr == to)
}

pub async fn replace_route(call: Call, request: ec2::ReplaceRouteRequest) -> Result<(), Fault> {
    take_apart!(target, to, request: ReplaceRouteRequest { dry_run, route_table_id, local_target });
    check_dry_run(dry_run)?;
    refuse(&[("LocalTarget", local_target.given())])?;
    change_route(&call, &route_table_id, to, |view, table, place| {
        let gateway = target.resolve(view, table)?;
        if let Some(route) = table.routes.get_mut(place) {
            route.gateway = gateway;
        }
        Ok(())
    })
    .await
}

pub async fn delete_route(call: Call, request: ec2::DeleteRouteRequest) -> Result<(), Fault> {
    let ec2::DeleteRouteRequest {
        destination_prefix_list_id,
        dry_run: dry,
        route_table_id,
        destination_cidr_block,
        destination_ipv6_cidr_block,
    } = request;
    check_dry_run(dry)?;
    let to = destination(destination_cidr_block, &destination_ipv6_cidr_block, &destination_prefix_list_id)?;
    change_route(&call, &route_table_id, to, |_, table, place| {
        table.routes.remove(place);
        Ok(())
    })
    .await
}

/// Changes the route to a destination, which must be there.
async fn change_route(
    call: &Call,
    table: &str,
    to: Cidr,
    change: impl Fn(&View, &mut RouteTable, usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let present = find(view, call.scope(), table)?;
        if is_local(view, present, to) {
            let message = format!("cannot remove or replace local route {to} in route table {table}");
            return Err(refused("InvalidParameterValue", message));
        }
        let place = present.routes.iter().position(|route| route.destination == to).ok_or_else(|| {
            let message = format!("no route with destination-cidr-block {to} in route table {table}");
            refused("InvalidRoute.NotFound", message)
        })?;
        let mut next = (**present).clone();
        change(view, &mut next, place)?;
        transaction.update(&next);
        Ok(())
    });
    commit.await
}

pub async fn associate(
    call: Call,
    request: ec2::AssociateRouteTableRequest,
) -> Result<ec2::AssociateRouteTableResult, Fault> {
    let ec2::AssociateRouteTableRequest {
        gateway_id,
        public_ipv4_pool,
        dry_run: dry,
        subnet_id,
        route_table_id,
    } = request;
    check_dry_run(dry)?;
    refuse(&[("GatewayId", gateway_id.given()), ("PublicIpv4Pool", public_ipv4_pool.given())])?;
    let subnet_id = subnet_id
        .ok_or_else(|| refused("MissingParameter", "The request must contain the parameter subnetId"))?;
    let id = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let present = find(view, call.scope(), &route_table_id)?;
            let subnet = subnet::find(view, call.scope(), &subnet_id)?;
            if subnet.vpc != present.vpc {
                let message =
                    format!("Route table {route_table_id} and subnet {subnet_id} belong to different networks");
                return Err(refused("InvalidParameterValue", message));
            }
            if let Some((table, association)) = of_subnet(view, call.scope(), &subnet_id) {
                if table.id == route_table_id {
                    return Ok(association.id.clone());
                }
                let message = format!(
                    "the specified association for route table {route_table_id} conflicts with an existing association"
                );
                return Err(refused("Resource.AlreadyAssociated", message));
            }
            let id = RandomIds.ec2("rtbassoc");
            let mut next = (**present).clone();
            next.associations.push(Association { id: id.clone(), subnet: subnet_id.clone() });
            transaction.update(&next);
            // So that of two associations that are made at once the second is refused.
            transaction.update(&**subnet);
            Ok(id)
        })
        .await?;
    Ok(ec2::AssociateRouteTableResult { association_id: Some(id), association_state: Some(associated()) })
}

/// The association that a subnet has of its own.
fn of_subnet<'a>(view: &'a View, scope: &Scope, subnet: &str) -> Option<(&'a RouteTable, &'a Association)> {
    view.route_tables.of(scope).find_map(|table| {
        let found = table.associations.iter().find(|association| association.subnet == subnet)?;
        Some((&**table, found))
    })
}

fn associated() -> ec2::RouteTableAssociationState {
    ec2::RouteTableAssociationState {
        state: Some(ec2::RouteTableAssociationStateCode::Associated),
        status_message: None,
    }
}

fn no_association(id: &str) -> Fault {
    refused("InvalidAssociationID.NotFound", format!("The association ID '{id}' does not exist"))
}

pub async fn disassociate(call: Call, request: ec2::DisassociateRouteTableRequest) -> Result<(), Fault> {
    let ec2::DisassociateRouteTableRequest { dry_run: dry, association_id: id } = request;
    check_dry_run(dry)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let mut tables = snapshot.view.route_tables.of(call.scope());
        let has = |table: &RouteTable| table.associations.iter().any(|association| association.id == id);
        let present = tables.find(|table| has(table) || table.main.as_ref() == Some(&id));
        let present = present.ok_or_else(|| no_association(&id))?;
        if present.main.as_ref() == Some(&id) {
            let message = format!("cannot disassociate the main route table association {id}");
            return Err(refused("InvalidParameterValue", message));
        }
        let mut next = (**present).clone();
        next.associations.retain(|association| association.id != id);
        transaction.update(&next);
        Ok(())
    });
    commit.await
}

pub async fn replace_association(
    call: Call,
    request: ec2::ReplaceRouteTableAssociationRequest,
) -> Result<ec2::ReplaceRouteTableAssociationResult, Fault> {
    let ec2::ReplaceRouteTableAssociationRequest { dry_run: dry, association_id: id, route_table_id } =
        request;
    check_dry_run(dry)?;
    let new = call
        .context
        .commit::<_, Fault, _>(|snapshot, transaction| {
            let view = &snapshot.view;
            let to = find(view, call.scope(), &route_table_id)?;
            let mut tables = view.route_tables.of(call.scope()).filter(|table| table.vpc == to.vpc);
            let has = |table: &RouteTable| {
                table.main.as_ref() == Some(&id) || table.associations.iter().any(|a| a.id == id)
            };
            let from = tables.find(|table| has(table)).ok_or_else(|| no_association(&id))?;
            let new = RandomIds.ec2("rtbassoc");
            let (mut before, mut after) = ((**from).clone(), (**to).clone());
            if from.id == to.id {
                return Ok(id.clone());
            }
            if before.main.as_ref() == Some(&id) {
                before.main = None;
                after.main = Some(new.clone());
            }
            let moved = before.associations.iter().find(|association| association.id == id).cloned();
            before.associations.retain(|association| association.id != id);
            after.associations.extend(moved.map(|moved| Association { id: new.clone(), ..moved }));
            transaction.update(&before);
            transaction.update(&after);
            Ok(new)
        })
        .await?;
    Ok(ec2::ReplaceRouteTableAssociationResult {
        new_association_id: Some(new),
        association_state: Some(associated()),
    })
}

pub async fn describe(
    call: Call,
    request: ec2::DescribeRouteTablesRequest,
) -> Result<ec2::DescribeRouteTablesResult, Fault> {
    let ec2::DescribeRouteTablesRequest { next_token, max_results, dry_run: dry, route_table_ids, filters } =
        request;
    check_dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let ids = route_table_ids.unwrap_or_default();
    let view = call.context.view();
    let is_there = |id: &str| find(&view, call.scope(), id).is_ok();
    all_found(&ids, is_there, "InvalidRouteTableID.NotFound", "routeTable")?;
    let wanted = |table: &RouteTable| {
        (ids.is_empty() || ids.contains(&table.id))
            && filters.pass(&table.tags, |name| values(&view, table, name))
    };
    let all = view.route_tables.of(call.scope());
    let found = all.filter(|table| wanted(table)).map(|table| render(&view, table)).collect();
    let (route_tables, next_token) = page(found, max_results, next_token.as_deref())?;
    Ok(ec2::DescribeRouteTablesResult { route_tables: Some(route_tables), next_token })
}

fn values(view: &View, table: &RouteTable, filter: &str) -> Values {
    let shown = || render(view, table);
    let associations = || shown().associations.unwrap_or_default().into_iter();
    let routes = || shown().routes.unwrap_or_default().into_iter();
    Some(match filter {
        "association.main" => associations().filter_map(|a| a.main).map(|main| main.to_string()).collect(),
        "association.route-table-association-id" => {
            associations().filter_map(|a| a.route_table_association_id).collect()
        }
        "association.route-table-id" => associations().filter_map(|a| a.route_table_id).collect(),
        "association.subnet-id" => associations().filter_map(|a| a.subnet_id).collect(),
        "owner-id" => vec![table.scope.account.to_string()],
        "route-table-id" => vec![table.id.clone()],
        "route.destination-cidr-block" => routes().filter_map(|r| r.destination_cidr_block).collect(),
        "route.gateway-id" => routes().filter_map(|r| r.gateway_id).collect(),
        "route.state" => routes().filter_map(|r| r.state).map(|state| state.as_str().to_owned()).collect(),
        "vpc-id" => vec![table.vpc.clone()],
        _ => return None,
    })
}

fn render(view: &View, table: &RouteTable) -> ec2::RouteTable {
    let vpc = vpc::find(view, &table.scope, &table.vpc);
    let local = vpc.ok().map(|vpc| ec2::Route {
        destination_cidr_block: Some(vpc.cidr.to_string()),
        gateway_id: Some(LOCAL.to_owned()),
        origin: Some(ec2::RouteOrigin::CreateRouteTable),
        state: Some(ec2::RouteState::Active),
        ..ec2::Route::default()
    });
    let route = |route: &Route| {
        let gateway = internet_gateway::find(view, &table.scope, &route.gateway);
        let leads = gateway.is_ok_and(|gateway| gateway.vpc.as_ref() == Some(&table.vpc));
        ec2::Route {
            destination_cidr_block: Some(route.destination.to_string()),
            gateway_id: Some(route.gateway.clone()),
            origin: Some(ec2::RouteOrigin::CreateRoute),
            state: Some(if leads { ec2::RouteState::Active } else { ec2::RouteState::Blackhole }),
            ..ec2::Route::default()
        }
    };
    let association = |id: &String, subnet: Option<&String>| ec2::RouteTableAssociation {
        main: Some(subnet.is_none()),
        route_table_association_id: Some(id.clone()),
        route_table_id: Some(table.id.clone()),
        subnet_id: subnet.cloned(),
        association_state: Some(associated()),
        gateway_id: None,
        public_ipv4_pool: None,
    };
    let of_subnets = table.associations.iter().map(|a| association(&a.id, Some(&a.subnet)));
    ec2::RouteTable {
        associations: Some(table.main.iter().map(|id| association(id, None)).chain(of_subnets).collect()),
        owner_id: Some(table.scope.account.to_string()),
        propagating_vgws: Some(Vec::new()),
        route_table_id: Some(table.id.clone()),
        routes: Some(local.into_iter().chain(table.routes.iter().map(route)).collect()),
        tags: tag::render(&table.tags),
        vpc_id: Some(table.vpc.clone()),
    }
}
