//! What datapoints make of an alarm: `check` writes them oldest first, `X` for one that breaches, `0` for one that does not
//! and `-` for one that is missing.

use super::*;
use crate::testing::scope;
use longshore_model::alarm::{Comparison, Metric, Number, Statistic};
use longshore_model::{Tags, Timestamp};
use std::collections::BTreeMap;

fn alarm(needed: u32, of: u32, missing: MissingData, state: AlarmState) -> Alarm {
    let metric =
        Metric { namespace: "shop".to_owned(), name: "errors".to_owned(), dimensions: BTreeMap::new() };
    Alarm {
        scope: scope(),
        name: "errors".to_owned(),
        description: None,
        actions_enabled: true,
        metric,
        statistic: Statistic::Sum,
        period: 60,
        unit: None,
        evaluation_periods: of,
        datapoints_to_alarm: Some(needed),
        threshold: Number(3.0),
        comparison: Comparison::GreaterThanThreshold,
        treat_missing_data: Some(missing),
        state,
        state_reason: UNCHECKED.to_owned(),
        state_reason_data: None,
        state_updated_at: Timestamp(0),
        state_transitioned_at: Timestamp(0),
        configured_at: Timestamp(0),
        tags: Tags::default(),
    }
}

/// The states with missing data taken as missing, ignored, breaching and not breaching; `kept` where the state stays.
fn check(needed: u32, of: u32, datapoints: &str, expected: [&str; 4]) {
    let points: Vec<_> = datapoints
        .chars()
        .map(|point| match point {
            'X' => Some(5.0),
            '0' => Some(3.0),
            _ => None,
        })
        .collect();
    let treatments =
        [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];
    for (missing, expected) in treatments.into_iter().zip(expected) {
        for before in [AlarmState::Ok, AlarmState::Alarm, AlarmState::InsufficientData] {
            let (state, reason) = evaluate(&alarm(needed, of, missing, before), &points);
            let expected = if expected == "kept" { before.as_str() } else { expected };
            assert_eq!(state.as_str(), expected, "{datapoints} {missing:?} {reason}");
        }
    }
}

#[test]
fn all_of_the_periods_must_breach() {
    check(3, 3, "0-X-X", ["OK"; 4]);
    check(3, 3, "0XX-X", ["ALARM"; 4]);
    check(3, 3, "----0", ["OK"; 4]);
    check(3, 3, "-----", ["INSUFFICIENT_DATA", "kept", "ALARM", "OK"]);
    check(3, 3, "--X--", ["ALARM", "kept", "ALARM", "OK"]);
    check(3, 3, "----X", ["kept", "kept", "ALARM", "OK"]);
}

#[test]
fn some_of_the_periods_must_breach() {
    check(2, 3, "0-X-X", ["ALARM"; 4]);
    check(2, 3, "00X0X", ["ALARM"; 4]);
    check(2, 3, "0-X--", ["OK", "OK", "ALARM", "OK"]);
    check(2, 3, "----0", ["OK", "OK", "ALARM", "OK"]);
    check(2, 3, "---X-", ["ALARM", "kept", "ALARM", "OK"]);
}

#[test]
fn the_reason_names_what_decided() {
    let reason =
        |points: &[Option<f64>]| evaluate(&alarm(1, 1, MissingData::Missing, AlarmState::Ok), points).1;
    assert_eq!(
        reason(&[Some(5.5)]),
        "Threshold Crossed: 1 out of the last 1 datapoints [5.5] was greater than the threshold (3.0)."
    );
    assert_eq!(
        reason(&[Some(1.0)]),
        "Threshold Crossed: 1 out of the last 1 datapoints [1.0] was not greater than the threshold (3.0)."
    );
    assert_eq!(reason(&[None]), "Insufficient Data: 1 datapoint was unknown.");
}
