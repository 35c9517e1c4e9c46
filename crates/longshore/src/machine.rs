//! What this machine has to offer.

use crate::Outcome;
use longshore_model::Resources;
use longshore_model::container_instance::CpuArchitecture;
use std::collections::BTreeMap;

/// What each of the parts, the instances, may promise to tasks: its part of the machine, times the overcommit.
pub fn share(parts: u16, overcommit_cpu: f64, overcommit_memory: f64) -> Outcome<Resources> {
    let cpus =
        std::thread::available_parallelism().map_err(|error| format!("count the CPUs: {error}"))?.get();
    let meminfo =
        std::fs::read_to_string("/proc/meminfo").map_err(|error| format!("read /proc/meminfo: {error}"))?;
    let kibibytes = total_kibibytes(&meminfo).ok_or("/proc/meminfo has no MemTotal")?;
    let share = |amount: f64, overcommit: f64| (amount * overcommit / f64::from(parts.max(1))) as u64;
    Ok(Resources {
        cpu: share(cpus as f64 * 1024.0, overcommit_cpu),
        memory: share(kibibytes as f64 / 1024.0, overcommit_memory),
    })
}

fn total_kibibytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

pub fn cpu_architecture() -> CpuArchitecture {
    if cfg!(target_arch = "aarch64") { CpuArchitecture::Arm64 } else { CpuArchitecture::X86_64 }
}

/// What ECS's agent says of a machine, with a zone of the region for each in turn.
pub fn attributes(region: &str, number: usize) -> BTreeMap<String, String> {
    let zone = ["a", "b", "c"].get(number % 3).copied().unwrap_or("a");
    let valued = [
        ("ecs.availability-zone", format!("{region}{zone}")),
        ("ecs.cpu-architecture", cpu_architecture().attribute().to_owned()),
        ("ecs.os-family", "LINUX".to_owned()),
        ("ecs.os-type", "linux".to_owned()),
    ];
    let capabilities = [
        "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "ecs.capability.execution-role-awslogs",
        "ecs.capability.task-eni",
    ];
    let plain = capabilities.map(|name| (name, String::new()));
    valued.into_iter().chain(plain).map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(total_kibibytes("MemTotal:       24639344 kB\nMemFree: 1 kB\n"), Some(24_639_344));
        assert_eq!(total_kibibytes(""), None);
    }
}
