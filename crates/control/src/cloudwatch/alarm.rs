//! Alarms on metrics. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html>.

use super::metric::{dimensions, metric};
use super::statistics::{check_period, statistic};
use super::{combination, invalid, missing, page, tag};
use crate::api::Call;
use crate::refuse::{Given as _, unsupported};
use longshore_cloudwatch as cloudwatch;
use longshore_engine::View;
use longshore_engine::alarms::UNCHECKED;
use longshore_model::alarm::{Alarm, AlarmState, Comparison, MissingData, Number, Statistic};
use longshore_model::{Record, Scope, Tags};
use longshore_wire::{Fault, Timestamp};
use std::sync::Arc;

crate::given_when_present!(cloudwatch::EvaluationCriteria, cloudwatch::MetricDataQuery);

const MOST_ALARMS: usize = 5000;
const DAY: i64 = 24 * 3600;
const WEEK: i64 = 7 * DAY;
/// DescribeAlarms' page.
const PAGE: usize = 50;

pub async fn put(call: Call, request: cloudwatch::PutMetricAlarmInput) -> Result<(), Fault> {
    let tags = tag::of_new(request.tags.clone().unwrap_or_default())?;
    let wanted = read(&call, request, tags)?;
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let view = &snapshot.view;
        let Some(present) = view.alarms.get(&wanted.key()) else {
            if view.alarms.of(call.scope()).nth(MOST_ALARMS - 1).is_some() {
                let message = format!("You have reached the maximum number of alarms: {MOST_ALARMS}.");
                return Err(cloudwatch::Error::LimitExceededFault(message).into());
            }
            transaction.create(&wanted);
            return Ok(());
        };
        // An alarm that is there keeps its state until it is evaluated, and its tags.
        transaction.update(&Alarm {
            state: present.state,
            state_reason: present.state_reason.clone(),
            state_reason_data: present.state_reason_data.clone(),
            state_updated_at: present.state_updated_at,
            state_transitioned_at: present.state_transitioned_at,
            tags: present.tags.clone(),
            ..wanted.clone()
        });
        Ok(())
    });
    commit.await
}

fn read(call: &Call, request: cloudwatch::PutMetricAlarmInput, tags: Tags) -> Result<Alarm, Fault> {
    let cloudwatch::PutMetricAlarmInput {
        alarm_name,
        alarm_description,
        actions_enabled,
        ok_actions,
        alarm_actions,
        insufficient_data_actions,
        metric_name,
        namespace,
        statistic: plain,
        extended_statistic,
        dimensions,
        period,
        unit,
        evaluation_periods,
        datapoints_to_alarm,
        threshold,
        comparison_operator,
        treat_missing_data,
        evaluate_low_sample_count_percentile,
        metrics,
        tags: _,
        threshold_metric_id,
        evaluation_criteria,
        evaluation_interval,
    } = request;
    unsupported(&[
        ("OKActions", ok_actions.given()),
        ("AlarmActions", alarm_actions.given()),
        ("InsufficientDataActions", insufficient_data_actions.given()),
        ("EvaluateLowSampleCountPercentile", evaluate_low_sample_count_percentile.given()),
        ("Metrics", metrics.given()),
        ("ThresholdMetricId", threshold_metric_id.given()),
        ("EvaluationCriteria", evaluation_criteria.given()),
        ("EvaluationInterval", evaluation_interval.given()),
    ])
    .map_err(invalid)?;
    let comparison = comparison_operator.map(comparison).transpose()?;
    let name = metric_name.ok_or_else(|| missing("MetricName"))?;
    let namespace = namespace.ok_or_else(|| missing("Namespace"))?;
    let statistic = match (plain, extended_statistic) {
        (Some(plain), None) => statistic("Statistic", plain.as_str())?,
        (None, Some(extended)) => statistic("ExtendedStatistic", &extended)?,
        (None, None) => return Err(missing("Statistic")),
        (Some(_), Some(_)) => {
            return Err(combination(
                "The parameters Statistic and ExtendedStatistic must not both be given.",
            ));
        }
    };
    let period = check_period("Period", period.ok_or_else(|| missing("Period"))?)?;
    if ![10, 20, 30].contains(&period) && period % 60 != 0 {
        return Err(invalid(format!(
            "The parameter Period must be 10, 20, 30 or a multiple of 60, and is {period}."
        )));
    }
    let evaluation_periods = positive("EvaluationPeriods", evaluation_periods)?;
    let evaluation_periods = evaluation_periods.ok_or_else(|| missing("EvaluationPeriods"))?;
    let most = if period < 3600 { DAY } else { WEEK };
    if i64::from(evaluation_periods).saturating_mul(period) > most {
        return Err(invalid(format!(
            "Metrics cannot be checked across more than {}: EvaluationPeriods times Period is more.",
            if most == DAY { "a day" } else { "seven days" }
        )));
    }
    let datapoints_to_alarm = positive("DatapointsToAlarm", datapoints_to_alarm)?;
    if datapoints_to_alarm.is_some_and(|needed| needed > evaluation_periods) {
        return Err(invalid(
            "The parameter DatapointsToAlarm must be less than or equal to EvaluationPeriods.",
        ));
    }
    let threshold = threshold.ok_or_else(|| missing("Threshold"))?;
    if !threshold.is_finite() {
        return Err(invalid(format!("The value {threshold} for parameter Threshold is invalid.")));
    }
    let treat_missing_data = treat_missing_data
        .filter(|given| !given.is_empty())
        .map(|given| {
            let wrong = || {
                invalid(format!(
                    "The value {given} for parameter TreatMissingData is not supported: breaching, notBreaching, ignore or \
                     missing."
                ))
            };
            MissingData::parse(&given).ok_or_else(wrong)
        })
        .transpose()?;
    let now = call.context.now();
    Ok(Alarm {
        scope: call.scope().clone(),
        name: alarm_name,
        description: alarm_description,
        actions_enabled: actions_enabled.unwrap_or(true),
        metric: metric(namespace, name, dimensions)?,
        statistic,
        period: u32::try_from(period).unwrap_or(u32::MAX),
        unit: unit.map(|unit| unit.as_str().to_owned()),
        evaluation_periods,
        datapoints_to_alarm,
        threshold: Number(threshold),
        comparison: comparison.ok_or_else(|| missing("ComparisonOperator"))?,
        treat_missing_data,
        state: AlarmState::InsufficientData,
        state_reason: UNCHECKED.to_owned(),
        state_reason_data: None,
        state_updated_at: now,
        state_transitioned_at: now,
        configured_at: now,
        tags,
    })
}

fn positive(parameter: &str, given: Option<i32>) -> Result<Option<u32>, Fault> {
    let wrong =
        |number: i32| invalid(format!("The parameter {parameter} must be at least 1, and is {number}."));
    let positive = |number: i32| u32::try_from(number).ok().filter(|n| *n > 0).ok_or_else(|| wrong(number));
    given.map(positive).transpose()
}

fn comparison(operator: cloudwatch::ComparisonOperator) -> Result<Comparison, Fault> {
    use cloudwatch::ComparisonOperator as Operator;
    match operator {
        Operator::GreaterThanThreshold => Ok(Comparison::GreaterThanThreshold),
        Operator::GreaterThanOrEqualToThreshold => Ok(Comparison::GreaterThanOrEqualToThreshold),
        Operator::LessThanThreshold => Ok(Comparison::LessThanThreshold),
        Operator::LessThanOrEqualToThreshold => Ok(Comparison::LessThanOrEqualToThreshold),
        other => {
            let field = format!("ComparisonOperator={}", other.as_str());
            Err(invalid(unsupported(&[(&field, true)]).err().unwrap_or_default()))
        }
    }
}

pub async fn describe(
    call: Call,
    request: cloudwatch::DescribeAlarmsInput,
) -> Result<cloudwatch::DescribeAlarmsOutput, Fault> {
    let cloudwatch::DescribeAlarmsInput {
        alarm_names,
        alarm_name_prefix,
        alarm_types,
        children_of_alarm_name,
        parents_of_alarm_name,
        state_value,
        action_prefix,
        max_records,
        next_token,
    } = request;
    unsupported(&[
        ("ChildrenOfAlarmName", children_of_alarm_name.given()),
        ("ParentsOfAlarmName", parents_of_alarm_name.given()),
        ("ActionPrefix", action_prefix.given()),
    ])
    .map_err(invalid)?;
    let names = alarm_names.filter(|names| !names.is_empty());
    if names.is_some() && alarm_name_prefix.is_some() {
        return Err(combination("The parameters AlarmNames and AlarmNamePrefix must not both be given."));
    }
    let of_metrics = alarm_types
        .as_ref()
        .is_none_or(|types| types.is_empty() || types.contains(&cloudwatch::AlarmType::MetricAlarm));
    let view = call.context.view();
    let wanted = |alarm: &&Arc<Alarm>| {
        of_metrics
            && names.as_ref().is_none_or(|names| names.contains(&alarm.name))
            && alarm_name_prefix.as_ref().is_none_or(|prefix| alarm.name.starts_with(prefix.as_str()))
            && state_value.as_ref().is_none_or(|state| state.as_str() == alarm.state.as_str())
    };
    let found = view.alarms.of(call.scope()).filter(wanted);
    let mut found: Vec<_> = found.map(|alarm| (alarm.name.clone(), render(alarm))).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let size = max_records.and_then(|size| usize::try_from(size).ok()).unwrap_or(PAGE);
    let (alarms, next_token) = page(found, next_token.as_deref(), size);
    Ok(cloudwatch::DescribeAlarmsOutput {
        metric_alarms: Some(alarms),
        composite_alarms: Some(Vec::new()),
        next_token,
    })
}

pub async fn describe_for_metric(
    call: Call,
    request: cloudwatch::DescribeAlarmsForMetricInput,
) -> Result<cloudwatch::DescribeAlarmsForMetricOutput, Fault> {
    let cloudwatch::DescribeAlarmsForMetricInput {
        metric_name,
        namespace,
        statistic,
        extended_statistic,
        dimensions,
        period,
        unit,
    } = request;
    let of = metric(namespace, metric_name, dimensions)?;
    let statistic = statistic.map(|statistic| statistic.as_str().to_owned()).or(extended_statistic);
    let view = call.context.view();
    let wanted = |alarm: &&Arc<Alarm>| {
        alarm.metric == of
            && statistic.as_ref().is_none_or(|statistic| *statistic == alarm.statistic.to_string())
            && period.is_none_or(|period| i64::from(period) == i64::from(alarm.period))
            && unit.as_ref().is_none_or(|unit| alarm.unit.as_deref() == Some(unit.as_str()))
    };
    let found = view.alarms.of(call.scope()).filter(wanted).map(|alarm| render(alarm)).collect();
    Ok(cloudwatch::DescribeAlarmsForMetricOutput { metric_alarms: Some(found) })
}

fn render(alarm: &Alarm) -> cloudwatch::MetricAlarm {
    let time = |at: longshore_model::Timestamp| Some(Timestamp(at.millis()));
    let number = |number: u32| i32::try_from(number).ok();
    let text = alarm.statistic.to_string();
    let is_extended = matches!(alarm.statistic, Statistic::Percentile(_));
    cloudwatch::MetricAlarm {
        alarm_name: Some(alarm.name.clone()),
        alarm_arn: Some(alarm.arn()),
        alarm_description: alarm.description.clone(),
        alarm_configuration_updated_timestamp: time(alarm.configured_at),
        actions_enabled: Some(alarm.actions_enabled),
        ok_actions: Some(Vec::new()),
        alarm_actions: Some(Vec::new()),
        insufficient_data_actions: Some(Vec::new()),
        state_value: alarm.state.as_str().parse().ok(),
        state_reason: Some(alarm.state_reason.clone()),
        state_reason_data: alarm.state_reason_data.clone(),
        state_updated_timestamp: time(alarm.state_updated_at),
        state_transitioned_timestamp: time(alarm.state_transitioned_at),
        metric_name: Some(alarm.metric.name.clone()),
        namespace: Some(alarm.metric.namespace.clone()),
        dimensions: Some(dimensions(&alarm.metric)),
        statistic: if is_extended { None } else { text.parse().ok() },
        extended_statistic: is_extended.then_some(text),
        period: number(alarm.period),
        unit: alarm.unit.as_deref().and_then(|unit| unit.parse().ok()),
        evaluation_periods: number(alarm.evaluation_periods),
        datapoints_to_alarm: alarm.datapoints_to_alarm.and_then(number),
        threshold: Some(alarm.threshold.0),
        comparison_operator: format!("{:?}", alarm.comparison).parse().ok(),
        treat_missing_data: alarm.treat_missing_data.map(|missing| missing.as_str().to_owned()),
        ..cloudwatch::MetricAlarm::default()
    }
}

/// All of them, or none where one is not there.
pub async fn delete(call: Call, request: cloudwatch::DeleteAlarmsInput) -> Result<(), Fault> {
    let cloudwatch::DeleteAlarmsInput { alarm_names: names } = request;
    if names.len() > 100 {
        return Err(invalid("AlarmNames must not have more than 100 members."));
    }
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let present = names.iter().filter_map(|name| find(&snapshot.view, call.scope(), name));
        let mut keys: Vec<_> = present.map(|alarm| alarm.key()).collect();
        if keys.len() < names.len() {
            let gone = |name: &&String| find(&snapshot.view, call.scope(), name).is_none();
            let unknown: Vec<_> = names.iter().filter(gone).map(String::as_str).collect();
            return Err(unknown_alarms(&unknown.join(", ")));
        }
        keys.sort();
        keys.dedup();
        keys.into_iter().for_each(|key| transaction.delete(key));
        Ok(())
    });
    commit.await
}

/// Until the next evaluation.
pub async fn set_state(call: Call, request: cloudwatch::SetAlarmStateInput) -> Result<(), Fault> {
    let cloudwatch::SetAlarmStateInput { alarm_name, state_value, state_reason, state_reason_data } = request;
    let state = match state_value {
        cloudwatch::StateValue::Ok => AlarmState::Ok,
        cloudwatch::StateValue::Alarm => AlarmState::Alarm,
        cloudwatch::StateValue::InsufficientData => AlarmState::InsufficientData,
    };
    let is_json = |data: &String| serde_json::from_str::<serde_json::Value>(data).is_ok();
    if state_reason_data.as_ref().is_some_and(|data| !is_json(data)) {
        let message = "The parameter StateReasonData must be JSON.".to_owned();
        return Err(cloudwatch::Error::InvalidFormatFault(message).into());
    }
    let now = call.context.now();
    change(&call, std::slice::from_ref(&alarm_name), |alarm| {
        if alarm.state != state {
            alarm.state_transitioned_at = now;
        }
        alarm.state = state;
        alarm.state_reason.clone_from(&state_reason);
        alarm.state_reason_data.clone_from(&state_reason_data);
        alarm.state_updated_at = now;
    })
    .await
}

pub async fn enable_actions(call: Call, request: cloudwatch::EnableAlarmActionsInput) -> Result<(), Fault> {
    let cloudwatch::EnableAlarmActionsInput { alarm_names: names } = request;
    change(&call, &names, |alarm| alarm.actions_enabled = true).await
}

pub async fn disable_actions(call: Call, request: cloudwatch::DisableAlarmActionsInput) -> Result<(), Fault> {
    let cloudwatch::DisableAlarmActionsInput { alarm_names: names } = request;
    change(&call, &names, |alarm| alarm.actions_enabled = false).await
}

async fn change(call: &Call, names: &[String], next: impl Fn(&mut Alarm)) -> Result<(), Fault> {
    let commit = call.context.commit::<_, Fault, _>(|snapshot, transaction| {
        let mut changed = std::collections::BTreeMap::new();
        for name in names {
            let present = find(&snapshot.view, call.scope(), name).ok_or_else(|| unknown_alarms(name))?;
            let mut alarm = Alarm::clone(present);
            next(&mut alarm);
            if alarm != **present {
                changed.insert(alarm.key(), alarm);
            }
        }
        changed.values().for_each(|alarm| transaction.update(alarm));
        Ok(())
    });
    commit.await
}

pub fn find<'a>(view: &'a View, scope: &Scope, name: &str) -> Option<&'a Arc<Alarm>> {
    view.alarms.get(&Alarm::key_of(scope, name))
}

fn unknown_alarms(names: &str) -> Fault {
    cloudwatch::Error::ResourceNotFound(format!("Unknown alarms: {names}")).into()
}
