//! Amazon CloudWatch: metrics that users put, and alarms on them.

mod alarm;
mod data;
mod metric;
mod statistics;
mod tag;

use crate::api::Routes;
use longshore_cloudwatch as cloudwatch;
use longshore_cloudwatch::operations as op;
use longshore_wire::Fault;

pub fn routes() -> Routes {
    Routes::new(&cloudwatch::SERVICE)
        .on::<op::PutMetricData, _, _, _>(metric::put)
        .on::<op::ListMetrics, _, _, _>(metric::list)
        .on::<op::GetMetricStatistics, _, _, _>(statistics::get)
        .on::<op::GetMetricData, _, _, _>(data::get)
        .on::<op::PutMetricAlarm, _, _, _>(alarm::put)
        .on::<op::DescribeAlarms, _, _, _>(alarm::describe)
        .on::<op::DescribeAlarmsForMetric, _, _, _>(alarm::describe_for_metric)
        .on::<op::DeleteAlarms, _, _, _>(alarm::delete)
        .on::<op::SetAlarmState, _, _, _>(alarm::set_state)
        .on::<op::EnableAlarmActions, _, _, _>(alarm::enable_actions)
        .on::<op::DisableAlarmActions, _, _, _>(alarm::disable_actions)
        .on::<op::TagResource, _, _, _>(tag::add)
        .on::<op::UntagResource, _, _, _>(tag::remove)
        .on::<op::ListTagsForResource, _, _, _>(tag::list)
}

fn invalid(message: impl Into<String>) -> Fault {
    cloudwatch::Error::InvalidParameterValueException(message.into()).into()
}

/// For parameters that do not go together.
fn combination(message: impl Into<String>) -> Fault {
    cloudwatch::Error::InvalidParameterCombinationException(message.into()).into()
}

fn missing(parameter: &str) -> Fault {
    let message = format!("The parameter {parameter} is required.");
    cloudwatch::Error::MissingRequiredParameterException(message).into()
}

/// A page of what is listed in the order of its names: what follows the one that the token names.
fn page<T>(found: Vec<(String, T)>, token: Option<&str>, size: usize) -> (Vec<T>, Option<String>) {
    let mut rest = found.into_iter().filter(|(name, _)| token.is_none_or(|last| name.as_str() > last));
    let mut page = Vec::new();
    let mut last = None;
    for (name, item) in rest.by_ref().take(size) {
        page.push(item);
        last = Some(name);
    }
    let next = last.filter(|_| rest.next().is_some());
    (page, next)
}
