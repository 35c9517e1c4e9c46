//! Metrics and the alarms on them. What metrics measure is kept beside the store, because it grows with time.
//!
//! Follows <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricAlarm.html>.

use crate::change::Key;
use crate::record::Record;
use crate::scope::Scope;
use crate::tag::Tags;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metric {
    pub namespace: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dimensions: BTreeMap<String, String>,
}

/// A number with an order: `-0` before `0`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// What is made of the samples of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Statistic {
    SampleCount,
    Average,
    Sum,
    Minimum,
    Maximum,
    /// Such as 99.9.
    Percentile(Number),
}

impl Statistic {
    /// Reads `Average` and its like, and `p99.9`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "SampleCount" => Self::SampleCount,
            "Average" => Self::Average,
            "Sum" => Self::Sum,
            "Minimum" => Self::Minimum,
            "Maximum" => Self::Maximum,
            _ => {
                let digits = text.strip_prefix('p')?;
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let percent: f64 = digits.parse().ok().filter(|_| plain)?;
                return (0.0..=100.0).contains(&percent).then_some(Self::Percentile(Number(percent)));
            }
        })
    }
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SampleCount => f.write_str("SampleCount"),
            Self::Average => f.write_str("Average"),
            Self::Sum => f.write_str("Sum"),
            Self::Minimum => f.write_str("Minimum"),
            Self::Maximum => f.write_str("Maximum"),
            Self::Percentile(percent) => write!(f, "p{}", percent.0),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    pub scope: Scope,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub actions_enabled: bool,
    pub metric: Metric,
    pub statistic: Statistic,
    /// Seconds.
    pub period: u32,
    /// Of the samples that count; all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub evaluation_periods: u32,
    /// So many of the periods must breach the threshold; all where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapoints_to_alarm: Option<u32>,
    pub threshold: Number,
    pub comparison: Comparison,
    /// As the user said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treat_missing_data: Option<MissingData>,
    pub state: AlarmState,
    pub state_reason: String,
    /// JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason_data: Option<String>,
    pub state_updated_at: Timestamp,
    /// When the state was last another.
    pub state_transitioned_at: Timestamp,
    pub configured_at: Timestamp,
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmState {
    Ok,
    Alarm,
    InsufficientData,
}

impl AlarmState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Alarm => "ALARM",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

/// How a datapoint stands to the threshold that it breaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    GreaterThanThreshold,
    GreaterThanOrEqualToThreshold,
    LessThanThreshold,
    LessThanOrEqualToThreshold,
}

impl Comparison {
    pub fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::GreaterThanThreshold => value > threshold,
            Self::GreaterThanOrEqualToThreshold => value >= threshold,
            Self::LessThanThreshold => value < threshold,
            Self::LessThanOrEqualToThreshold => value <= threshold,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::GreaterThanThreshold => "greater than",
            Self::GreaterThanOrEqualToThreshold => "greater than or equal to",
            Self::LessThanThreshold => "less than",
            Self::LessThanOrEqualToThreshold => "less than or equal to",
        }
    }
}

/// What a period without a datapoint counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MissingData {
    #[default]
    Missing,
    Ignore,
    Breaching,
    NotBreaching,
}

impl MissingData {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "missing" => Self::Missing,
            "ignore" => Self::Ignore,
            "breaching" => Self::Breaching,
            "notBreaching" => Self::NotBreaching,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ignore => "ignore",
            Self::Breaching => "breaching",
            Self::NotBreaching => "notBreaching",
        }
    }
}

impl Alarm {
    pub fn key_of(scope: &Scope, name: &str) -> Key {
        Key::new(format!("{}/{}/{name}", Self::TABLE, scope.path()))
    }

    pub fn arn(&self) -> String {
        let Scope { account, region } = &self.scope;
        format!("arn:aws:cloudwatch:{region}:{account}:alarm:{}", self.name)
    }
}

impl Record for Alarm {
    const TABLE: &'static str = "alarm";
    fn key(&self) -> Key {
        Self::key_of(&self.scope, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_read_back_what_they_show() {
        for text in ["SampleCount", "Average", "Sum", "Minimum", "Maximum", "p0", "p99.9", "p100"] {
            assert_eq!(Statistic::parse(text).map(|statistic| statistic.to_string()).as_deref(), Some(text));
        }
        for text in ["", "average", "p", "p101", "p-1", "pinf", "p1e1", "tm50"] {
            assert_eq!(Statistic::parse(text), None, "{text}");
        }
    }
}
