//! Statistics of several metrics at once. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_GetMetricData.html>.

use super::metric::metric;
use super::statistics::{check_period, named, range, statistic};
use super::{invalid, missing};
use crate::api::Call;
use crate::refuse::{Given as _, unsupported};
use longshore_cloudwatch as cloudwatch;
use longshore_model::alarm::{Metric, Statistic};
use longshore_wire::{Fault, Timestamp};
use std::collections::BTreeSet;
use std::ops::Range;

crate::given_when_present!(cloudwatch::LabelOptions);

const MOST_QUERIES: usize = 500;
const MOST_DATAPOINTS: usize = 100_800;

pub async fn get(
    call: Call,
    request: cloudwatch::GetMetricDataInput,
) -> Result<cloudwatch::GetMetricDataOutput, Fault> {
    let cloudwatch::GetMetricDataInput {
        metric_data_queries: queries,
        start_time,
        end_time,
        next_token,
        scan_by,
        max_datapoints,
        label_options,
    } = request;
    unsupported(&[("NextToken", next_token.given()), ("LabelOptions", label_options.given())])
        .map_err(invalid)?;
    if queries.is_empty() {
        return Err(missing("MetricDataQueries"));
    }
    if queries.len() > MOST_QUERIES {
        return Err(invalid(format!("MetricDataQueries must not have more than {MOST_QUERIES} members.")));
    }
    let queries = queries.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let range = range(start_time, end_time)?;
    let most = max_datapoints.and_then(|most| usize::try_from(most).ok()).unwrap_or(MOST_DATAPOINTS);
    let oldest_first = scan_by == Some(cloudwatch::ScanBy::TimestampAscending);
    let (mut results, mut ids, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for query in queries {
        if !ids.insert(query.id.clone()) {
            return Err(invalid(format!("The MetricDataQuery id {} is there twice.", query.id)));
        }
        if !query.is_wanted {
            continue;
        }
        let result = answer(&call, query, &range, oldest_first);
        count += result.values.as_ref().map_or(0, Vec::len);
        if count > most.min(MOST_DATAPOINTS) {
            return Err(invalid(format!(
                "The request asks for more than {} datapoints. Ask for fewer metrics, a shorter time or a longer Period.",
                most.min(MOST_DATAPOINTS)
            )));
        }
        results.push(result);
    }
    Ok(cloudwatch::GetMetricDataOutput {
        metric_data_results: Some(results),
        messages: Some(Vec::new()),
        next_token: None,
    })
}

struct Query {
    id: String,
    label: String,
    metric: Metric,
    statistic: Statistic,
    /// Seconds.
    period: i64,
    unit: Option<String>,
    is_wanted: bool,
}

fn read(query: cloudwatch::MetricDataQuery) -> Result<Query, Fault> {
    let cloudwatch::MetricDataQuery { id, metric_stat, expression, label, return_data, period, account_id } =
        query;
    unsupported(&[
        ("MetricDataQueries.Expression", expression.given()),
        ("MetricDataQueries.Period", period.given()),
        ("MetricDataQueries.AccountId", account_id.given()),
    ])
    .map_err(invalid)?;
    let cloudwatch::MetricStat { metric: of, period, stat, unit } =
        metric_stat.ok_or_else(|| missing("MetricDataQueries.MetricStat"))?;
    let name = of.metric_name.ok_or_else(|| missing("MetricDataQueries.MetricStat.Metric.MetricName"))?;
    let namespace = of.namespace.ok_or_else(|| missing("MetricDataQueries.MetricStat.Metric.Namespace"))?;
    Ok(Query {
        id,
        label: label.unwrap_or_else(|| name.clone()),
        metric: metric(namespace, name, of.dimensions)?,
        statistic: statistic("MetricDataQueries.MetricStat.Stat", &stat)?,
        period: check_period("MetricDataQueries.MetricStat.Period", period)?,
        unit: named(unit),
        is_wanted: return_data.unwrap_or(true),
    })
}

fn answer(call: &Call, query: Query, range: &Range<i64>, oldest_first: bool) -> cloudwatch::MetricDataResult {
    let Query { id, label, metric, statistic, period, unit, is_wanted: _ } = query;
    // Periods are the same whenever they are asked for.
    let aligned = range.start.div_euclid(period) * period..range.end;
    let store = &call.context.metric_store;
    let found = store.statistics(call.scope(), &metric, unit.as_deref(), aligned, period);
    let points = found.into_values().flatten().filter_map(|(at, sum)| Some((at, sum.get(statistic)?)));
    let mut points: Vec<(i64, f64)> = points.collect();
    points.sort_by_key(|(at, _)| if oldest_first { *at } else { -*at });
    let (timestamps, values) = points.into_iter().map(|(at, value)| (Timestamp(at * 1000), value)).unzip();
    cloudwatch::MetricDataResult {
        id: Some(id),
        label: Some(label),
        timestamps: Some(timestamps),
        values: Some(values),
        status_code: Some(cloudwatch::StatusCode::Complete),
        messages: None,
    }
}
