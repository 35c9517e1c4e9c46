//! Points in time as the protocols write them: seconds with a fraction in JSON, ISO 8601 elsewhere.

use std::fmt;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Reads ISO 8601 with an offset or `Z`: `2026-01-31T12:00:00Z`, `2026-01-31T12:00:00.250Z`.
    pub fn parse_iso(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|time| Self(time.as_millisecond()))
    }

    /// Seconds since the epoch, rounded to milliseconds; nothing for what is no point in time.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let millis = (seconds * 1000.0).round();
        // Beyond 2^53 milliseconds a double no longer holds whole ones, and no calendar goes there.
        (millis.abs() <= 9_007_199_254_740_992.0).then_some(Self(millis as i64))
    }

    /// `20260131T120000Z`, as SigV4 writes it.
    pub fn basic(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => time.strftime("%Y%m%dT%H%M%SZ").to_string(),
            Err(_) => self.0.to_string(),
        }
    }

    /// Reads `20260131T120000Z`.
    pub fn parse_basic(text: &str) -> Option<Self> {
        let digits = |from: usize, to: usize| -> Option<i64> {
            let part = text.get(from..to)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
        };
        if text.len() != 16 || text.as_bytes().get(8) != Some(&b'T') || !text.ends_with('Z') {
            return None;
        }
        let date = jiff::civil::DateTime::new(
            digits(0, 4)? as i16,
            digits(4, 6)? as i8,
            digits(6, 8)? as i8,
            digits(9, 11)? as i8,
            digits(11, 13)? as i8,
            digits(13, 15)? as i8,
            0,
        )
        .ok()?;
        let time = jiff::tz::Offset::UTC.to_timestamp(date).ok()?;
        Some(Self(time.as_millisecond()))
    }
}

/// ISO 8601 in UTC; the fraction only where there is one.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(time) = jiff::Timestamp::from_millisecond(self.0) else {
            return write!(f, "{}", self.0);
        };
        let format = if self.0 % 1000 == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%3fZ" };
        write!(f, "{}", time.strftime(format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_and_basic_forms_read_back() {
        let time = Timestamp::parse_iso("2026-01-31T12:00:00.250Z").unwrap();
        assert_eq!(time, Timestamp(1_769_860_800_250));
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.250Z");
        assert_eq!(time.basic(), "20260131T120000Z");
        assert_eq!(Timestamp::parse_basic("20260131T120000Z"), Some(Timestamp(1_769_860_800_000)));
        assert_eq!(Timestamp(1_769_860_800_000).to_string(), "2026-01-31T12:00:00Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "20260131T120000", "20261331T120000Z", "2026-1-31T12:00:00", "+0260131T120000Z"] {
            assert_eq!(Timestamp::parse_basic(text), None, "{text}");
        }
        assert_eq!(Timestamp::from_seconds(f64::NAN), None);
        assert_eq!(Timestamp::from_seconds(1e300), None);
        assert_eq!(Timestamp::from_seconds(1.2345), Some(Timestamp(1235)));
    }
}
