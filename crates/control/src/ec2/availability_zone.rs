//! Availability zones. Follows
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeAvailabilityZones.html>.

use super::dry_run;
use super::filter::{Filters, Values};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_engine::default_vpc::zone_id;
use longshore_model::{Scope, Tags};
use longshore_wire::Fault;

const FILTERS: [&str; 6] = ["opt-in-status", "region-name", "state", "zone-id", "zone-name", "zone-type"];

pub async fn describe(
    call: Call,
    request: ec2::DescribeAvailabilityZonesRequest,
) -> Result<ec2::DescribeAvailabilityZonesResult, Fault> {
    let ec2::DescribeAvailabilityZonesRequest {
        zone_names,
        zone_ids,
        all_availability_zones: _,
        dry_run: dry,
        filters,
    } = request;
    dry_run(dry)?;
    let filters = Filters::parse(filters, |name| FILTERS.contains(&name))?;
    let (names, ids) = (zone_names.unwrap_or_default(), zone_ids.unwrap_or_default());
    let scope = call.scope();
    let zones: Vec<(String, String)> = scope
        .availability_zones()
        .into_iter()
        .enumerate()
        .map(|(index, name)| (name, zone_id(&scope.region, index)))
        .collect();
    let unknown = names.iter().find(|name| !zones.iter().any(|(known, _)| known == *name));
    if let Some(unknown) =
        unknown.or_else(|| ids.iter().find(|id| !zones.iter().any(|(_, known)| known == *id)))
    {
        return Err(Fault::sender(
            "InvalidParameterValue",
            format!("Invalid availability zone: [{unknown}]"),
        ));
    }
    let wanted = |(name, id): &(String, String)| {
        (names.is_empty() || names.contains(name))
            && (ids.is_empty() || ids.contains(id))
            && filters.pass(&Tags::default(), |filter| values(scope, name, id, filter))
    };
    let zones = zones.iter().filter(|zone| wanted(zone)).map(|(name, id)| render(scope, name, id)).collect();
    Ok(ec2::DescribeAvailabilityZonesResult { availability_zones: Some(zones) })
}

fn values(scope: &Scope, name: &str, id: &str, filter: &str) -> Values {
    let value = match filter {
        "opt-in-status" => "opt-in-not-required",
        "region-name" => &scope.region,
        "state" => "available",
        "zone-id" => id,
        "zone-name" => name,
        "zone-type" => "availability-zone",
        _ => return None,
    };
    Some(vec![value.to_owned()])
}

fn render(scope: &Scope, name: &str, id: &str) -> ec2::AvailabilityZone {
    ec2::AvailabilityZone {
        region_name: Some(scope.region.to_string()),
        zone_name: Some(name.to_owned()),
        zone_id: Some(id.to_owned()),
        zone_type: Some("availability-zone".to_owned()),
        group_name: Some(format!("{}-zg-1", scope.region)),
        network_border_group: Some(scope.region.to_string()),
        opt_in_status: Some(ec2::AvailabilityZoneOptInStatus::OptInNotRequired),
        state: Some(ec2::AvailabilityZoneState::Available),
        ..ec2::AvailabilityZone::default()
    }
}
