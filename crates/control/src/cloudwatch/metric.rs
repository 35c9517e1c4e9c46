//! Samples that users put, and the metrics that they make. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html>.

use super::statistics::named;
use super::{combination, invalid, missing, page};
use crate::api::Call;
use crate::metric_store::{self, Sample, seconds};
use crate::refuse::{Given as _, unsupported};
use longshore_cloudwatch as cloudwatch;
use longshore_engine::metrics::Statistics;
use longshore_model::Timestamp;
use longshore_model::alarm::Metric;
use longshore_wire::Fault;
use std::collections::BTreeMap;

crate::given_when_present!(cloudwatch::EntityMetricData);

const MOST_DATA: usize = 1000;
const MOST_VALUES: usize = 150;
const MOST_DIMENSIONS: usize = 30;
/// Seconds that samples may be late or early.
const LATE: i64 = 14 * 24 * 3600;
const EARLY: i64 = 2 * 3600;
/// ListMetrics' page.
const PAGE: usize = 500;
/// What `PT3H` asks for.
const RECENT: i64 = 3 * 3600;

pub async fn put(call: Call, request: cloudwatch::PutMetricDataInput) -> Result<(), Fault> {
    let cloudwatch::PutMetricDataInput {
        namespace,
        metric_data,
        entity_metric_data,
        strict_entity_validation,
    } = request;
    unsupported(&[
        ("EntityMetricData", entity_metric_data.given()),
        ("StrictEntityValidation", strict_entity_validation.given()),
    ])
    .map_err(invalid)?;
    if namespace.starts_with("AWS/") {
        return Err(invalid(format!(
            "The value {namespace} for parameter Namespace is invalid: namespaces that begin with AWS/ are reserved."
        )));
    }
    let data = metric_data.filter(|data| !data.is_empty()).ok_or_else(|| missing("MetricData"))?;
    if data.len() > MOST_DATA {
        return Err(invalid(format!(
            "The collection MetricData must not have more than {MOST_DATA} members."
        )));
    }
    let now = call.context.now();
    let mut samples = Vec::new();
    for (at, datum) in data.into_iter().enumerate() {
        let place = format!("MetricData.member.{}", at + 1);
        samples.extend(read(&call, &namespace, datum, now, &place)?);
    }
    match call.context.metric_store.put(samples, now).await {
        Ok(()) => Ok(()),
        Err(error @ metric_store::Error::TooMany) => {
            Err(cloudwatch::Error::LimitExceededFault(error.to_string()).into())
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "metrics are not kept");
            Err(cloudwatch::Error::InternalServiceFault(
                "The metrics could not be kept. Try again.".to_owned(),
            )
            .into())
        }
    }
}

fn read(
    call: &Call,
    namespace: &str,
    datum: cloudwatch::MetricDatum,
    now: Timestamp,
    place: &str,
) -> Result<Vec<Sample>, Fault> {
    let cloudwatch::MetricDatum {
        metric_name,
        dimensions,
        timestamp,
        value,
        statistic_values,
        values,
        counts,
        unit,
        storage_resolution,
    } = datum;
    let resolution = match storage_resolution {
        None | Some(60) => 60,
        Some(1) => 1,
        Some(other) => {
            let message =
                format!("The value {other} for parameter {place}.StorageResolution is invalid: 1 or 60.");
            return Err(invalid(message));
        }
    };
    let at = timestamp.map_or(now, |at| Timestamp(at.millis()));
    let late = seconds(now) - seconds(at);
    if !(-EARLY..=LATE).contains(&late) {
        return Err(invalid(format!(
            "The parameter {place}.Timestamp must specify a time within the past two weeks and at most two hours in the future."
        )));
    }
    let parts = match (value, statistic_values, values) {
        (Some(value), None, None) => vec![Statistics::of(number(value, place, "Value")?, 1.0)],
        (None, Some(set), None) => vec![summed_up(&set, place)?],
        (None, None, Some(values)) => counted(&values, counts.as_deref(), place)?,
        (None, None, None) => return Err(missing(&format!("{place}.Value"))),
        _ => {
            return Err(combination(format!(
                "The parameters {place}.Value, {place}.StatisticValues and {place}.Values are mutually exclusive."
            )));
        }
    };
    let metric = metric(namespace.to_owned(), metric_name, dimensions)?;
    let unit = named(unit);
    let at = seconds(at).div_euclid(resolution) * resolution;
    let sample = |statistics| Sample {
        scope: call.scope().clone(),
        metric: metric.clone(),
        unit: unit.clone(),
        at,
        statistics,
    };
    Ok(parts.into_iter().map(sample).collect())
}

fn number(value: f64, place: &str, name: &str) -> Result<f64, Fault> {
    // CloudWatch's own range: 2^360.
    let in_range = value.is_finite() && value.abs() <= 2f64.powi(360);
    if in_range {
        Ok(value)
    } else {
        Err(invalid(format!("The value {value} for parameter {place}.{name} is invalid.")))
    }
}

fn summed_up(set: &cloudwatch::StatisticSet, place: &str) -> Result<Statistics, Fault> {
    let read = |value, name: &str| number(value, place, &format!("StatisticValues.{name}"));
    let (count, sum) = (read(set.sample_count, "SampleCount")?, read(set.sum, "Sum")?);
    let (minimum, maximum) = (read(set.minimum, "Minimum")?, read(set.maximum, "Maximum")?);
    if count <= 0.0 || minimum > maximum {
        return Err(invalid(format!(
            "The parameter {place}.StatisticValues must have a SampleCount above 0 and a Minimum of at most its Maximum."
        )));
    }
    Ok(Statistics::of_set(count, sum, minimum, maximum))
}

fn counted(values: &[f64], counts: Option<&[f64]>, place: &str) -> Result<Vec<Statistics>, Fault> {
    if values.is_empty() || values.len() > MOST_VALUES {
        return Err(invalid(format!("The collection {place}.Values must have 1 to {MOST_VALUES} members.")));
    }
    if counts.is_some_and(|counts| counts.len() != values.len()) {
        return Err(invalid(format!(
            "The parameters {place}.Values and {place}.Counts must have the same number of members."
        )));
    }
    let count = |at: usize| counts.and_then(|counts| counts.get(at)).copied().unwrap_or(1.0);
    let mut parts = Vec::new();
    for (at, value) in values.iter().enumerate() {
        let (value, count) = (number(*value, place, "Values")?, number(count(at), place, "Counts")?);
        if count <= 0.0 {
            return Err(invalid(format!("The value {count} for parameter {place}.Counts is invalid.")));
        }
        parts.push(Statistics::of(value, count));
    }
    Ok(parts)
}

/// A metric as requests name it.
pub fn metric(
    namespace: String,
    name: String,
    dimensions: Option<Vec<cloudwatch::Dimension>>,
) -> Result<Metric, Fault> {
    let given = dimensions.unwrap_or_default();
    if given.len() > MOST_DIMENSIONS {
        return Err(invalid(format!(
            "The collection Dimensions must not have more than {MOST_DIMENSIONS} members."
        )));
    }
    let mut dimensions = BTreeMap::new();
    for cloudwatch::Dimension { name, value } in given {
        if dimensions.insert(name.clone(), value).is_some() {
            return Err(invalid(format!("The dimension {name} is there twice.")));
        }
    }
    Ok(Metric { namespace, name, dimensions })
}

pub fn render(metric: &Metric) -> cloudwatch::Metric {
    cloudwatch::Metric {
        namespace: Some(metric.namespace.clone()),
        metric_name: Some(metric.name.clone()),
        dimensions: Some(dimensions(metric)),
    }
}

pub fn dimensions(metric: &Metric) -> Vec<cloudwatch::Dimension> {
    let dimension = |(name, value): (&String, &String)| cloudwatch::Dimension {
        name: name.clone(),
        value: value.clone(),
    };
    metric.dimensions.iter().map(dimension).collect()
}

pub async fn list(
    call: Call,
    request: cloudwatch::ListMetricsInput,
) -> Result<cloudwatch::ListMetricsOutput, Fault> {
    let cloudwatch::ListMetricsInput {
        namespace,
        metric_name,
        dimensions,
        next_token,
        recently_active,
        include_linked_accounts,
        owning_account,
    } = request;
    unsupported(&[
        ("IncludeLinkedAccounts", include_linked_accounts.given()),
        ("OwningAccount", owning_account.given()),
    ])
    .map_err(invalid)?;
    let now = seconds(call.context.now());
    let filters = dimensions.unwrap_or_default();
    let has = |metric: &Metric, filter: &cloudwatch::DimensionFilter| {
        let found = metric.dimensions.get(&filter.name);
        found.is_some_and(|value| filter.value.as_ref().is_none_or(|wanted| wanted == value))
    };
    let wanted = |(metric, last): &(Metric, i64)| {
        namespace.as_ref().is_none_or(|namespace| *namespace == metric.namespace)
            && metric_name.as_ref().is_none_or(|name| *name == metric.name)
            && filters.iter().all(|filter| has(metric, filter))
            && (recently_active.is_none() || now - last <= RECENT)
    };
    let named = |(metric, _): (Metric, i64)| {
        let Metric { namespace, name, dimensions } = &metric;
        let pairs: Vec<String> = dimensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (format!("{namespace}\u{1}{name}\u{1}{}", pairs.join("\u{1}")), render(&metric))
    };
    let mut found: Vec<_> =
        call.context.metric_store.metrics(call.scope()).into_iter().filter(wanted).map(named).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let token = next_token.map(|token| unhex(&token)).transpose()?;
    let (metrics, next) = page(found, token.as_deref(), PAGE);
    Ok(cloudwatch::ListMetricsOutput {
        metrics: Some(metrics),
        next_token: next.map(|name| hex(&name)),
        owning_accounts: None,
    })
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(token: &str) -> Result<String, Fault> {
    let wrong = || Fault::from(cloudwatch::Error::InvalidNextToken("The NextToken is not valid.".to_owned()));
    let digits = token.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    String::from_utf8(digits.collect::<Option<_>>().ok_or_else(wrong)?).map_err(|_| wrong())
}
