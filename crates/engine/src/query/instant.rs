//! Points in time as expressions write them. Invariant: what is no point in time is `None`, never another one.
//!
//! A library for dates reads clocks as well, which `engine` must not be able to.

/// Milliseconds since the epoch of a date (`2018-02-18`), a date and a time in UTC or with an offset
/// (`2018-02-18T13:22:28+00:00`), or seconds since the epoch.
pub fn millis(text: &str) -> Option<i64> {
    if let Some(seconds) = digits(text) {
        return seconds.checked_mul(1000);
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00Z"));
    let mut parts = date.splitn(3, '-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let seconds = days(year, month, day)? * 86_400 + seconds_of_day(time)?;
    Some(seconds * 1000)
}

fn digits(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= 11 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// Days from the epoch to a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = usize::try_from(month).ok().filter(|month| (1..=12).contains(month))?;
    if !(1970..=9999).contains(&year) || day < 1 || day > *lengths.get(month - 1)? {
        return None;
    }
    let before = year - 1;
    let leap_days = (before / 4 - before / 100 + before / 400) - 477;
    let months: i64 = lengths.iter().take(month - 1).sum();
    Some((year - 1970) * 365 + leap_days + months + day - 1)
}

/// Of `13:22`, `13:22:28` or `13:22:28.250` with `Z`, an offset or nothing, which is UTC.
fn seconds_of_day(text: &str) -> Option<i64> {
    let (time, offset) = match text.find(['Z', '+', '-']) {
        Some(at) => (text.get(..at)?, text.get(at..)?),
        None => (text, "Z"),
    };
    let offset = match offset.strip_prefix(['+', '-']) {
        None => Some(0).filter(|_| offset == "Z"),
        Some(amount) => {
            let (hours, minutes) = amount.split_once(':')?;
            let seconds = clock(hours, minutes, "0")?;
            Some(if offset.starts_with('-') { -seconds } else { seconds })
        }
    }?;
    let mut parts = time.splitn(3, ':');
    let (hours, minutes) = (parts.next()?, parts.next()?);
    let seconds = parts.next().unwrap_or("0");
    let seconds = seconds.split_once('.').map_or(seconds, |(whole, _)| whole);
    Some(clock(hours, minutes, seconds)? - offset)
}

fn clock(hours: &str, minutes: &str, seconds: &str) -> Option<i64> {
    let below = |text: &str, limit: i64| digits(text).filter(|number| *number < limit);
    Some(below(hours, 24)? * 3600 + below(minutes, 60)? * 60 + below(seconds, 60)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time() {
        for (text, seconds) in [
            ("1970-01-01", Some(0)),
            ("2000-02-29", Some(951_782_400)),
            ("2000-03-01", Some(951_868_800)),
            ("2018-02-18", Some(1_518_912_000)),
            ("2018-02-18T13:22:28Z", Some(1_518_960_148)),
            ("2018-02-18 13:22", Some(1_518_960_120)),
            ("2018-02-18T13:22:28.999+01:00", Some(1_518_956_548)),
            ("2018-02-18T13:22:28-01:30", Some(1_518_965_548)),
            ("2100-12-31T23:59:59Z", Some(4_133_980_799)),
            ("1518960148", Some(1_518_960_148)),
            ("2018-02-29", None),
            ("2018-13-01", None),
            ("1900-01-01", None),
            ("2018-02-18T24:00", None),
            ("2018-02-18T1", None),
            ("2018-02", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(millis(text), seconds.map(|seconds: i64| seconds * 1000), "{text}");
        }
    }
}
