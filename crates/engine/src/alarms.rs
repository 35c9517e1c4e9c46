//! When alarms go off. Follows
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>.

use longshore_model::alarm::{Alarm, AlarmState, MissingData};

/// Periods that are looked at beside those that an alarm names, so that a late datapoint is not a missing one.
const SPARE_PERIODS: u32 = 2;
/// What a new alarm says of its state.
pub const UNCHECKED: &str = "Unchecked: Initial alarm creation";

/// How many periods an alarm looks back.
pub fn range(alarm: &Alarm) -> u32 {
    alarm.evaluation_periods + SPARE_PERIODS
}

/// The state that the datapoints of the last periods, oldest first, put an alarm into, and why.
pub fn evaluate(alarm: &Alarm, datapoints: &[Option<f64>]) -> (AlarmState, String) {
    let periods = alarm.evaluation_periods as usize;
    let needed = alarm.datapoints_to_alarm.unwrap_or(alarm.evaluation_periods) as usize;
    let breaches = |value: f64| alarm.comparison.breaches(value, alarm.threshold.0);
    let present = || datapoints.iter().enumerate().filter_map(|(at, value)| value.map(|value| (at, value)));
    let mut real: Vec<(usize, f64)> = present().collect();
    real.drain(..real.len().saturating_sub(periods));
    let missing = periods.saturating_sub(real.len());
    let breaching = real.iter().filter(|(_, value)| breaches(*value)).count();
    // A breach that is old enough, with nothing but breaches since, is not one that is about to end.
    let is_old = real.first().is_some_and(|(at, _)| datapoints.len() - at >= needed);
    let treatment = alarm.treat_missing_data.unwrap_or_default();
    let state = match treatment {
        _ if breaching >= needed => AlarmState::Alarm,
        MissingData::Breaching if breaching + missing >= needed => AlarmState::Alarm,
        MissingData::Breaching | MissingData::NotBreaching => AlarmState::Ok,
        _ if real.len() > breaching => AlarmState::Ok,
        MissingData::Ignore => alarm.state,
        MissingData::Missing if real.is_empty() => AlarmState::InsufficientData,
        MissingData::Missing if is_old => AlarmState::Alarm,
        MissingData::Missing => alarm.state,
    };
    (state, reason(alarm, state, &real, missing))
}

fn reason(alarm: &Alarm, state: AlarmState, real: &[(usize, f64)], missing: usize) -> String {
    let were = |count: usize| if count == 1 { "datapoint was" } else { "datapoints were" };
    if state == AlarmState::InsufficientData {
        return format!("Insufficient Data: {missing} {} unknown.", were(missing));
    }
    let breaches = |value: f64| alarm.comparison.breaches(value, alarm.threshold.0);
    let is_alarm = state == AlarmState::Alarm;
    let told: Vec<String> = real
        .iter()
        .rev()
        .filter(|(_, value)| breaches(*value) == is_alarm)
        .map(|(_, value)| format!("{value:?}"))
        .collect();
    let not = if is_alarm { "" } else { "not " };
    let threshold = alarm.threshold.0;
    let words = alarm.comparison.words();
    if told.is_empty() {
        return format!(
            "Threshold Crossed: no datapoints were received for {missing} {} and {missing} missing {} treated as [{}].",
            if missing == 1 { "period" } else { "periods" },
            were(missing),
            if is_alarm { "Breaching" } else { "NonBreaching" },
        );
    }
    let verb = if told.len() == 1 { "was" } else { "were" };
    format!(
        "Threshold Crossed: {} out of the last {} datapoints [{}] {verb} {not}{words} the threshold ({threshold:?}).",
        told.len(),
        alarm.evaluation_periods,
        told.join(", "),
    )
}

#[cfg(test)]
mod tests;
