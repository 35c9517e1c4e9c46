//! Amazon CloudWatch Logs: groups are records, streams and events are in the log store.

mod event;
mod group;
mod retention;
mod stream;
mod tag;

pub use retention::apply_retention;

use crate::api::{Call, Routes};
use crate::context::CommitError;
use crate::log_store::{AppendError, GroupId, ReadError, StreamError};
use longshore_engine::View;
use longshore_logs as logs;
use longshore_logs::operations as op;
use longshore_model::Scope;
use longshore_model::arn::Arn;
use longshore_model::log_group::LogGroup;
use std::sync::Arc;

pub fn routes() -> Routes {
    Routes::new(&logs::SERVICE)
        .on::<op::CreateLogGroup, _, _, _>(group::create)
        .on::<op::DeleteLogGroup, _, _, _>(group::delete)
        .on::<op::DescribeLogGroups, _, _, _>(group::describe)
        .on::<op::PutRetentionPolicy, _, _, _>(retention::put)
        .on::<op::DeleteRetentionPolicy, _, _, _>(retention::delete)
        .on::<op::CreateLogStream, _, _, _>(stream::create)
        .on::<op::DeleteLogStream, _, _, _>(stream::delete)
        .on::<op::DescribeLogStreams, _, _, _>(stream::describe)
        .on::<op::PutLogEvents, _, _, _>(event::put)
        .on::<op::GetLogEvents, _, _, _>(event::get)
        .on::<op::FilterLogEvents, _, _, _>(event::filter)
        .on::<op::TagResource, _, _, _>(tag::tag)
        .on::<op::UntagResource, _, _, _>(tag::untag)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
        .on::<op::TagLogGroup, _, _, _>(tag::tag_group)
        .on::<op::UntagLogGroup, _, _, _>(tag::untag_group)
        .on::<op::ListTagsLogGroup, _, _, _>(tag::list_group)
}

fn invalid(message: impl Into<String>) -> logs::Error {
    logs::Error::InvalidParameterException(message.into())
}

fn no_group() -> logs::Error {
    logs::Error::ResourceNotFoundException("The specified log group does not exist.".to_owned())
}

fn no_stream() -> logs::Error {
    logs::Error::ResourceNotFoundException("The specified log stream does not exist.".to_owned())
}

fn find_group(view: &View, scope: &Scope, name: &str) -> Result<Arc<LogGroup>, logs::Error> {
    view.log_groups.get(&LogGroup::key_of(scope, name)).cloned().ok_or_else(no_group)
}

fn group_id(call: &Call, name: &str) -> GroupId {
    GroupId::new(call.scope().clone(), name)
}

/// The group of a request that may name it in two ways: by name, or by name or ARN.
fn named_group(
    call: &Call,
    name: Option<String>,
    identifier: Option<String>,
) -> Result<GroupId, logs::Error> {
    let name = match (name, identifier) {
        (Some(name), None) => name,
        (None, Some(identifier)) => group_of_identifier(call.scope(), &identifier)?,
        (Some(_), Some(_)) => return Err(invalid("Give logGroupName or logGroupIdentifier, not both.")),
        (None, None) => return Err(invalid("LogGroup name is required.")),
    };
    find_group(&call.context.view(), call.scope(), &name)?;
    Ok(group_id(call, &name))
}

fn group_of_identifier(scope: &Scope, identifier: &str) -> Result<String, logs::Error> {
    let Some(arn) = Arn::parse(identifier) else { return Ok(identifier.to_owned()) };
    let name =
        arn.resource.strip_prefix("log-group:").filter(|_| arn.service == "logs" && arn.in_scope(scope));
    name.map(|name| name.trim_end_matches(":*").to_owned()).ok_or_else(no_group)
}

/// A page size of the API: 1 to `most`, and `default` where none is given.
fn limit(given: Option<i32>, default: usize, most: usize) -> Result<usize, logs::Error> {
    match given {
        None => Ok(default),
        Some(given) => usize::try_from(given)
            .ok()
            .filter(|limit| (1..=most).contains(limit))
            .ok_or_else(|| invalid(format!("limit must be between 1 and {most}, and is {given}."))),
    }
}

impl From<CommitError> for logs::Error {
    fn from(error: CommitError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a commit failed");
        Self::ServiceUnavailableException(format!("The request was not carried out: {error}. Try again."))
    }
}

impl From<StreamError> for logs::Error {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::AlreadyExists => {
                Self::ResourceAlreadyExistsException("The specified log stream already exists".to_owned())
            }
            StreamError::NoSuchStream => no_stream(),
            StreamError::Io(_) | StreamError::Closed => unavailable(&error),
        }
    }
}

impl From<ReadError> for logs::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoSuchStream => no_stream(),
            ReadError::InvalidToken => invalid("The specified nextToken is invalid."),
            ReadError::Io(_) | ReadError::Interrupted => unavailable(&error),
        }
    }
}

impl From<AppendError> for logs::Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoSuchStream => no_stream(),
            AppendError::Refused(why) => invalid(why),
            AppendError::OutOfSequence { .. } | AppendError::Io(_) | AppendError::Closed => {
                unavailable(&error)
            }
        }
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> logs::Error {
    tracing::error!(error, "the log store failed");
    logs::Error::ServiceUnavailableException(
        "The log store could not carry out the request. Try again.".to_owned(),
    )
}
