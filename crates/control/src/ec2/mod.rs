//! Amazon EC2, the VPC part: one file per resource.

mod availability_zone;
mod filter;
mod network_interface;
mod security_group;
mod subnet;
mod vpc;

use crate::api::Routes;
use longshore_ec2 as ec2;
use longshore_ec2::operations as op;
use longshore_model::Tags;
use longshore_wire::Fault;

pub fn routes() -> Routes {
    Routes::new(&ec2::SERVICE)
        .on::<op::DescribeAvailabilityZones, _, _, _>(availability_zone::describe)
        .on::<op::DescribeNetworkInterfaces, _, _, _>(network_interface::describe)
        .on::<op::DescribeSecurityGroups, _, _, _>(security_group::describe)
        .on::<op::DescribeSubnets, _, _, _>(subnet::describe)
        .on::<op::DescribeVpcs, _, _, _>(vpc::describe)
}

fn tags(tags: &Tags) -> Option<Vec<ec2::Tag>> {
    let tag =
        |(key, value): (&String, &String)| ec2::Tag { key: Some(key.clone()), value: Some(value.clone()) };
    (!tags.is_empty()).then(|| tags.0.iter().map(tag).collect())
}

/// `DryRun` answers with an error that says whether the call would have been allowed.
fn dry_run(dry_run: Option<bool>) -> Result<(), Fault> {
    if dry_run != Some(true) {
        return Ok(());
    }
    Err(Fault::sender("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
        .with_status(412))
}

/// Describe calls page only when they are asked to, and then by position: their lists are short and stable.
fn page<T>(
    mut all: Vec<T>,
    max_results: Option<i32>,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let start: usize = match token.filter(|token| !token.is_empty()) {
        None => 0,
        Some(token) => token
            .parse()
            .map_err(|_| Fault::sender("InvalidNextToken", format!("The token '{token}' is invalid.")))?,
    };
    let size = match max_results {
        None => usize::MAX,
        Some(size) => {
            usize::try_from(size).ok().filter(|size| (5..=1000).contains(size)).ok_or_else(|| {
                let message = format!(
                    "Value ( {size} ) for parameter maxResults is invalid. Expecting a value from 5 to 1000."
                );
                Fault::sender("InvalidParameterValue", message)
            })?
        }
    };
    let end = start.saturating_add(size);
    let next = (end < all.len()).then(|| end.to_string());
    all.truncate(end);
    Ok((all.into_iter().skip(start).collect(), next))
}

/// The resources that were named by id must all be there.
fn all_found(wanted: &[String], exists: impl Fn(&str) -> bool, code: &str, what: &str) -> Result<(), Fault> {
    match wanted.iter().find(|id| !exists(id)) {
        None => Ok(()),
        Some(missing) => Err(Fault::sender(code, format!("The {what} ID '{missing}' does not exist"))),
    }
}
