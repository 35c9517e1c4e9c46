//! What this machine has to offer.

use crate::Outcome;
use longshore_model::Resources;
use longshore_model::container_instance::CpuArchitecture;
use std::collections::BTreeMap;
use std::path::Path;

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

/// Where NVIDIA's driver says what it drives: a directory a GPU.
pub const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The ids of the machine's GPUs, such as `GPU-0d5b3a2e-…`; none where no driver is loaded.
pub fn gpus(directory: &Path) -> Outcome<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("list {}: {error}", directory.display()).into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("list {}: {error}", directory.display()))?.path();
        let path = path.join("information");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        let id = text.lines().find_map(|line| line.strip_prefix("GPU UUID:"));
        found.extend(id.map(|id| id.trim().to_owned()));
    }
    found.sort();
    Ok(found)
}

pub fn cpu_architecture() -> CpuArchitecture {
    if cfg!(target_arch = "aarch64") { CpuArchitecture::Arm64 } else { CpuArchitecture::X86_64 }
}

/// What ECS's agent says of a machine, with a zone of the region for each in turn.
pub fn attributes(region: &str, number: usize) -> BTreeMap<String, String> {
    let zone = ["a", "b", "c"].get(number % 3).copied().unwrap_or("a");
    attributes_in(&format!("{region}{zone}"))
}

/// The same of a machine in this zone.
pub fn attributes_in(zone: &str) -> BTreeMap<String, String> {
    let valued = [
        ("ecs.availability-zone", zone.to_owned()),
        ("ecs.cpu-architecture", cpu_architecture().attribute().to_owned()),
        ("ecs.os-family", "LINUX".to_owned()),
        ("ecs.os-type", "linux".to_owned()),
    ];
    let capabilities = [
        "com.amazonaws.ecs.capability.docker-remote-api.1.18",
        "com.amazonaws.ecs.capability.logging-driver.awslogs",
        "com.amazonaws.ecs.capability.privileged-container",
        "ecs.capability.execution-role-awslogs",
        "ecs.capability.secrets.asm.environment-variables",
        "ecs.capability.secrets.ssm.environment-variables",
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

    #[test]
    fn gpus_are_those_that_the_driver_names() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(gpus(&directory.path().join("none")).unwrap(), Vec::<String>::new());
        for (place, id) in [("0000:00:1f.0", "GPU-b"), ("0000:00:1e.0", "GPU-a")] {
            let gpu = directory.path().join(place);
            std::fs::create_dir(&gpu).unwrap();
            let text =
                format!("Model: \t\t Tesla T4\nIRQ:   \t\t 11\nGPU UUID: \t {id}\nVideo BIOS: \t 90\n");
            std::fs::write(gpu.join("information"), text).unwrap();
        }
        assert_eq!(gpus(directory.path()).unwrap(), ["GPU-a", "GPU-b"]);
    }
}
