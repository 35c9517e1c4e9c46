//! What is kept of a metric's samples, and what is made of them. Invariant: the order in which samples come does not
//! change what they amount to.

use longshore_model::alarm::{Number, Statistic};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values that are told apart for percentiles; of more, only the first two digits count.
const MOST_VALUES: usize = 512;

/// Samples of one moment, or of a period.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    pub count: f64,
    pub sum: f64,
    pub minimum: f64,
    pub maximum: f64,
    /// How often each value was there; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "pairs")]
    values: Option<BTreeMap<Number, f64>>,
}

impl Statistics {
    pub fn of(value: f64, count: f64) -> Self {
        Self {
            count,
            sum: value * count,
            minimum: value,
            maximum: value,
            values: Some(BTreeMap::from([(Number(value), count)])),
        }
    }

    /// Of samples that somebody else has summed up.
    pub fn of_set(count: f64, sum: f64, minimum: f64, maximum: f64) -> Self {
        let is_one = minimum.total_cmp(&maximum).is_eq();
        let values = is_one.then(|| BTreeMap::from([(Number(minimum), count)]));
        Self { count, sum, minimum, maximum, values }
    }

    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.minimum = self.minimum.min(other.minimum);
        self.maximum = self.maximum.max(other.maximum);
        let Some(values) = &mut self.values else { return };
        let Some(more) = &other.values else {
            self.values = None;
            return;
        };
        for (value, count) in more {
            *values.entry(*value).or_default() += count;
        }
        if values.len() > MOST_VALUES {
            let mut coarse = BTreeMap::new();
            for (value, count) in &*values {
                *coarse.entry(Number(two_digits(value.0))).or_default() += count;
            }
            *values = coarse;
        }
    }

    /// `None` where the samples do not tell: percentiles of summed-up samples.
    pub fn get(&self, statistic: Statistic) -> Option<f64> {
        Some(match statistic {
            Statistic::SampleCount => self.count,
            Statistic::Average => self.sum / self.count,
            Statistic::Sum => self.sum,
            Statistic::Minimum => self.minimum,
            Statistic::Maximum => self.maximum,
            Statistic::Percentile(percent) => {
                let wanted = self.count * percent.0 / 100.0;
                let mut passed = 0.0;
                let found = self.values.as_ref()?.iter().find(|(_, count)| {
                    passed += **count;
                    passed >= wanted
                });
                found.map_or(self.maximum, |(value, _)| value.0)
            }
        })
    }
}

fn two_digits(value: f64) -> f64 {
    if value == 0.0 {
        return value;
    }
    let unit = 10f64.powf(value.abs().log10().floor() - 1.0);
    let rounded = (value / unit).round() * unit;
    if rounded.is_finite() { rounded } else { value }
}

/// Numbers cannot be the names of a JSON object.
mod pairs {
    use super::{BTreeMap, Deserialize, Number, Serialize};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        values: &Option<BTreeMap<Number, f64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        values.as_ref().map(|values| values.iter().collect::<Vec<_>>()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<BTreeMap<Number, f64>>, D::Error> {
        let pairs = Option::<Vec<(Number, f64)>>::deserialize(deserializer)?;
        Ok(pairs.map(|pairs| pairs.into_iter().collect()))
    }
}

/// Sums up samples by periods that begin at `start` and every `period` seconds after it, up to `end`.
pub fn by_period<'a>(
    samples: impl IntoIterator<Item = (i64, &'a Statistics)>,
    start: i64,
    period: i64,
) -> BTreeMap<i64, Statistics> {
    let mut periods = BTreeMap::<i64, Statistics>::new();
    for (at, sample) in samples {
        let begins = start + (at - start).div_euclid(period.max(1)) * period.max(1);
        match periods.get_mut(&begins) {
            Some(sum) => sum.add(sample),
            None => {
                periods.insert(begins, sample.clone());
            }
        }
    }
    periods
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(values: &[f64]) -> Statistics {
        let mut sum = Statistics::of(values[0], 1.0);
        values[1..].iter().for_each(|value| sum.add(&Statistics::of(*value, 1.0)));
        sum
    }

    #[test]
    fn statistics_are_what_they_are_called() {
        let sum = sum(&[5.0, 1.0, 2.0, 4.0, 3.0]);
        let get = |name: &str| sum.get(Statistic::parse(name).unwrap());
        for (name, expected) in [
            ("SampleCount", 5.0),
            ("Average", 3.0),
            ("Sum", 15.0),
            ("Minimum", 1.0),
            ("Maximum", 5.0),
            ("p0", 1.0),
            ("p50", 3.0),
            ("p99", 5.0),
        ] {
            assert_eq!(get(name), Some(expected), "{name}");
        }
        let set = Statistics::of_set(3.0, 9.0, 1.0, 5.0);
        assert_eq!(set.get(Statistic::Average), Some(3.0));
        assert_eq!(set.get(Statistic::Percentile(Number(50.0))), None);
    }

    #[test]
    fn samples_fall_into_their_periods() {
        let one = Statistics::of(1.0, 1.0);
        let periods = by_period([(59, &one), (60, &one), (119, &one), (180, &one)], 0, 60);
        let counts: Vec<_> = periods.iter().map(|(at, sum)| (*at, sum.count)).collect();
        assert_eq!(counts, [(0, 1.0), (60, 2.0), (180, 1.0)]);
    }

    proptest! {
        #[test]
        fn of_many_values_percentiles_are_near(mut values in prop::collection::vec(1.0..1e6f64, 600..900)) {
            let found = sum(&values).get(Statistic::Percentile(Number(90.0))).unwrap();
            values.sort_by(f64::total_cmp);
            let exact = values[(values.len() * 9).div_ceil(10) - 1];
            prop_assert!((found - exact).abs() <= exact * 0.06, "{} and not {}", found, exact);
        }
    }
}
