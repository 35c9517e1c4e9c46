//! A metric's statistics. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricStatistics.html>.

use super::metric::metric;
use super::{combination, invalid, missing};
use crate::api::Call;
use longshore_cloudwatch as cloudwatch;
use longshore_engine::metrics::Statistics;
use longshore_model::alarm::Statistic;
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeMap;
use std::ops::Range;

/// Of one request.
const MOST_DATAPOINTS: i64 = 1440;
const MOST_EXTENDED: usize = 10;
const DAY: i64 = 24 * 3600;
const HIGH_RESOLUTION: [i64; 5] = [1, 5, 10, 20, 30];

pub async fn get(
    call: Call,
    request: cloudwatch::GetMetricStatisticsInput,
) -> Result<cloudwatch::GetMetricStatisticsOutput, Fault> {
    let cloudwatch::GetMetricStatisticsInput {
        namespace,
        metric_name,
        dimensions,
        start_time,
        end_time,
        period,
        statistics,
        extended_statistics,
        unit,
    } = request;
    let (plain, extended) = (statistics.unwrap_or_default(), extended_statistics.unwrap_or_default());
    if plain.is_empty() && extended.is_empty() {
        return Err(missing("Statistics"));
    }
    if !plain.is_empty() && !extended.is_empty() {
        return Err(combination("The parameters Statistics and ExtendedStatistics must not both be given."));
    }
    if extended.len() > MOST_EXTENDED {
        return Err(invalid(format!("ExtendedStatistics must not have more than {MOST_EXTENDED} members.")));
    }
    let period = check_period("Period", period)?;
    let range = range(start_time, end_time)?;
    let most = (range.end - range.start + period - 1) / period;
    if most > MOST_DATAPOINTS {
        return Err(combination(format!(
            "You have requested up to {most} datapoints, which exceeds the limit of {MOST_DATAPOINTS}. You may reduce the \
             datapoints requested by increasing Period, or decreasing the time range."
        )));
    }
    let extended = extended.iter().map(|name| Ok((name.clone(), percentile(name)?)));
    let extended: Vec<_> = extended.collect::<Result<_, Fault>>()?;
    let of_metric = metric(namespace, metric_name.clone(), dimensions)?;
    let unit = named(unit);
    let unit = unit.as_deref();
    let found = call.context.metric_store.statistics(call.scope(), &of_metric, unit, range, period);
    let has = |wanted: &str| plain.iter().any(|statistic| statistic.as_str() == wanted);
    let datapoint = |unit: &Option<String>, at: i64, sum: &Statistics| {
        let get = |statistic: Statistic| sum.get(statistic).filter(|_| has(&statistic.to_string()));
        let percentiles: BTreeMap<String, f64> = extended
            .iter()
            .filter_map(|(name, statistic)| Some((name.clone(), sum.get(*statistic)?)))
            .collect();
        cloudwatch::Datapoint {
            timestamp: Some(Timestamp(at * 1000)),
            sample_count: get(Statistic::SampleCount),
            average: get(Statistic::Average),
            sum: get(Statistic::Sum),
            minimum: get(Statistic::Minimum),
            maximum: get(Statistic::Maximum),
            unit: unit.as_deref().unwrap_or("None").parse().ok(),
            extended_statistics: (!percentiles.is_empty()).then_some(percentiles),
        }
    };
    let datapoints =
        found.iter().flat_map(|(unit, periods)| periods.iter().map(move |(at, sum)| (unit, *at, sum)));
    let datapoints = datapoints.map(|(unit, at, sum)| datapoint(unit, at, sum)).collect();
    Ok(cloudwatch::GetMetricStatisticsOutput { label: Some(metric_name), datapoints: Some(datapoints) })
}

fn percentile(name: &str) -> Result<Statistic, Fault> {
    let found = Statistic::parse(name).filter(|statistic| matches!(statistic, Statistic::Percentile(_)));
    found.ok_or_else(|| {
        invalid(format!("The value {name} for parameter ExtendedStatistics is not supported."))
    })
}

/// The unit that is asked for; samples without one are not told apart from what is asked for without.
pub fn named(unit: Option<cloudwatch::StandardUnit>) -> Option<String> {
    unit.filter(|unit| *unit != cloudwatch::StandardUnit::None).map(|unit| unit.as_str().to_owned())
}

/// A statistic by the name that queries and alarms give it.
pub fn statistic(parameter: &str, name: &str) -> Result<Statistic, Fault> {
    let wrong = || invalid(format!("The value {name} for parameter {parameter} is not supported."));
    Statistic::parse(name).ok_or_else(wrong)
}

pub fn check_period(parameter: &str, period: i32) -> Result<i64, Fault> {
    let period = i64::from(period);
    let fits = HIGH_RESOLUTION.contains(&period) || (period > 0 && period % 60 == 0 && period <= DAY);
    let wrong = || {
        invalid(format!(
            "The parameter {parameter} must be 1, 5, 10, 20, 30 or a multiple of 60, and is {period}."
        ))
    };
    if fits { Ok(period) } else { Err(wrong()) }
}

/// Whole minutes from the start on.
pub fn range(start: Timestamp, end: Timestamp) -> Result<Range<i64>, Fault> {
    let (start, end) = (start.millis().div_euclid(60_000) * 60, end.millis().div_euclid(1000));
    if end <= start {
        return Err(combination("The parameter StartTime must be less than the parameter EndTime."));
    }
    Ok(start..end)
}
