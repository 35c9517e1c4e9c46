//! The one place of the runtime that reads the clock.

use longshore_model::time::Timestamp;

pub(crate) fn now() -> Timestamp {
    #[allow(clippy::disallowed_methods, reason = "the runtime is a shell: it stamps what it saw happen")]
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// containerd's time; the Go zero time (an unset field) is `None`.
pub(super) fn from_proto(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time.filter(|t| t.seconds > 0)?;
    Some(Timestamp(time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)))
}
