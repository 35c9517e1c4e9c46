//! Regions: those that were used, and the caller's own.
//! Follows <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeRegions.html>.

use super::filter::{Filters, Values};
use super::{dry_run, refused};
use crate::api::Call;
use longshore_ec2 as ec2;
use longshore_model::Tags;
use longshore_wire::Fault;
use std::collections::BTreeSet;

pub async fn describe(
    call: Call,
    request: ec2::DescribeRegionsRequest,
) -> Result<ec2::DescribeRegionsResult, Fault> {
    let ec2::DescribeRegionsRequest { region_names, dry_run: dry, filters, all_regions: _ } = request;
    dry_run(dry)?;
    let filters =
        Filters::parse(filters, |name| ["endpoint", "opt-in-status", "region-name"].contains(&name))?;
    let view = call.context.view();
    let opened = view.opened_regions.iter().filter(|opened| opened.scope.account == call.scope().account);
    let mut regions: BTreeSet<String> = opened.map(|opened| opened.scope.region.to_string()).collect();
    regions.insert(call.scope().region.to_string());
    let names = region_names.unwrap_or_default();
    if let Some(unknown) = names.iter().find(|name| !regions.contains(*name)) {
        return Err(refused("InvalidParameterValue", format!("Invalid region provided: '{unknown}'")));
    }
    let wanted = |region: &String| {
        (names.is_empty() || names.contains(region))
            && filters.pass(&Tags::default(), |filter| values(region, filter))
    };
    let shown = regions.iter().filter(|region| wanted(region)).map(|region| ec2::Region {
        region_name: Some(region.clone()),
        endpoint: Some(endpoint(region)),
        opt_in_status: Some("opt-in-not-required".to_owned()),
        geography: None,
    });
    Ok(ec2::DescribeRegionsResult { regions: Some(shown.collect()) })
}

fn endpoint(region: &str) -> String {
    format!("ec2.{region}.amazonaws.com")
}

fn values(region: &str, filter: &str) -> Values {
    Some(vec![match filter {
        "endpoint" => endpoint(region),
        "opt-in-status" => "opt-in-not-required".to_owned(),
        "region-name" => region.to_owned(),
        _ => return None,
    }])
}
