//! Task sizes. Invariant: a Fargate task has one of the pairs that AWS offers.

use super::super::{client, invalid};
use longshore_ecs as ecs;

/// CPU units of `512`, `0.5 vCPU` or `.5 vcpu`.
pub fn cpu_units(text: &str) -> Result<u64, ecs::Error> {
    let lower = text.trim().to_ascii_lowercase();
    let units = match lower.strip_suffix("vcpu") {
        Some(vcpus) => scaled(vcpus),
        None => lower.parse().ok(),
    };
    units.filter(|units| *units > 0).ok_or_else(|| client(format!("Invalid 'cpu' setting for task: {text}")))
}

/// MiB of `1024`, `1GB`, `1 GB` or `.5 gb`.
pub fn mebibytes(text: &str) -> Result<u64, ecs::Error> {
    let lower = text.trim().to_ascii_lowercase();
    let size = match (lower.strip_suffix("gb"), lower.strip_suffix("mb")) {
        (Some(gigabytes), _) => scaled(gigabytes),
        (None, Some(megabytes)) => megabytes.trim().parse().ok(),
        (None, None) => lower.parse().ok(),
    };
    size.filter(|size| *size > 0).ok_or_else(|| client(format!("Invalid 'memory' setting for task: {text}")))
}

/// `text` × 1024, where that is a whole number below 2^32.
fn scaled(text: &str) -> Option<u64> {
    let number = text.trim();
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let thousand_and_24 = number.parse::<f64>().ok()? * 1024.0;
    (thousand_and_24.fract() == 0.0 && thousand_and_24 < f64::from(u32::MAX))
        .then_some(thousand_and_24 as u64)
}

/// Whether Fargate offers the size.
pub fn fargate_size(cpu: u64, memory: u64) -> Result<(), ecs::Error> {
    let by = |first: u64, last: u64, step: u64| {
        (first..=last).contains(&memory) && (memory - first).is_multiple_of(step)
    };
    let offered = match cpu {
        256 => matches!(memory, 512 | 1024 | 2048),
        512 => by(1024, 4096, 1024),
        1024 => by(2048, 8192, 1024),
        2048 => by(4096, 16384, 1024),
        4096 => by(8192, 30720, 1024),
        8192 => by(16384, 61440, 4096),
        16384 => by(32768, 122_880, 8192),
        _ => false,
    };
    if offered {
        return Ok(());
    }
    Err(client(format!(
        "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. \
         See the Amazon ECS documentation for the valid values."
    )))
}

/// A whole number of the API that must not be negative.
pub fn not_negative(field: &str, value: i32) -> Result<u64, ecs::Error> {
    u64::try_from(value).map_err(|_| invalid(format!("{field} must not be negative, and is {value}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_users_write_them() {
        for (text, units) in
            [("512", 512), ("0.5 vCPU", 512), (".5 vcpu", 512), ("1vCPU", 1024), ("16 vCPU", 16384)]
        {
            assert_eq!(cpu_units(text).ok(), Some(units), "{text}");
        }
        for (text, size) in [("1024", 1024), ("1GB", 1024), ("1 GB", 1024), ("0.5GB", 512), (".5 gb", 512)] {
            assert_eq!(mebibytes(text).ok(), Some(size), "{text}");
        }
        for text in ["", "x", "-1", "0", "1e3 vCPU", "inf vcpu", "0.3 vCPU", "NaN vcpu"] {
            assert!(cpu_units(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fargate_offers_some_pairs() {
        for (cpu, memory) in [(256, 512), (256, 2048), (4096, 30720), (8192, 20480), (16384, 122_880)] {
            assert_eq!(fargate_size(cpu, memory), Ok(()), "{cpu} {memory}");
        }
        for (cpu, memory) in [(256, 4096), (512, 512), (100, 512), (8192, 17408), (1024, 2049)] {
            assert!(fargate_size(cpu, memory).is_err(), "{cpu} {memory}");
        }
    }
}
