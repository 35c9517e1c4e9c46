//! Tags. Follows <https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AddTags.html>.

use super::invalid;
use longshore_elbv2 as elb;
use longshore_model::{Tags, tag};
use longshore_wire::Fault;

/// The tags of a resource that a request makes.
pub fn of_new(given: Option<Vec<elb::Tag>>) -> Result<Tags, Fault> {
    with(&Tags::default(), given.unwrap_or_default())
}

fn with(present: &Tags, more: Vec<elb::Tag>) -> Result<Tags, Fault> {
    let mut given = Tags::default();
    for elb::Tag { key, value } in more {
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid(format!(
                "Tag key '{key}' cannot begin with 'aws:', which is reserved for AWS"
            )));
        }
        if given.0.contains_key(&key) {
            let message = format!("Tag key was specified more than once: {key}");
            return Err(elb::Error::DuplicateTagKeysException(message).into());
        }
        given.0.insert(key, value.unwrap_or_default());
    }
    present.with(given).map_err(|tag::Error::TooMany| {
        let message = format!("The maximum number of tags on a resource is {}", tag::LIMIT);
        elb::Error::TooManyTagsException(message).into()
    })
}
