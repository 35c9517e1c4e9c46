//! How large the instances of a type are, by its name: the family says how much memory there is for each vCPU, the size how
//! many vCPUs there are.
//! Follows <https://docs.aws.amazon.com/ec2/latest/instancetypes/instance-types.html>.

use longshore_model::Resources;
use longshore_model::container_instance::CpuArchitecture;

/// The type of an instance that is asked for without one.
pub const DEFAULT: &str = "m1.small";

/// What an instance of a type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    pub vcpus: u32,
    /// In MiB.
    pub memory: u64,
    pub architecture: CpuArchitecture,
}

impl InstanceType {
    /// What tasks can have of it: all. (Of Amazon's instances the kernel and the agent take some of the memory.)
    pub fn resources(self) -> Resources {
        Resources { cpu: u64::from(self.vcpus) * 1024, memory: self.memory }
    }
}

/// The types that share their vCPUs: they have two from the smallest on, and memory by the size.
const BURSTABLE: [(&str, u32, u64); 7] = [
    ("nano", 2, 512),
    ("micro", 2, 1024),
    ("small", 2, 2048),
    ("medium", 2, 4096),
    ("large", 2, 8192),
    ("xlarge", 4, 16_384),
    ("2xlarge", 8, 32_768),
];

/// Of the type of this name; `None` where it is no general-purpose, compute-optimised or memory-optimised one.
pub fn of(name: &str) -> Option<InstanceType> {
    if name == DEFAULT {
        return Some(InstanceType { vcpus: 1, memory: 1740, architecture: CpuArchitecture::X86_64 });
    }
    let (family, size) = name.split_once('.')?;
    let digit = family.find(|c: char| c.is_ascii_digit())?;
    let (class, rest) = family.split_at(digit);
    let generation = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u32 = rest.get(..rest.len() - generation.len())?.parse().ok()?;
    let (letters, flex) = generation.split_once('-').unwrap_or((generation, "flex"));
    let known = flex == "flex" && letters.chars().all(|c| "abdginez".contains(c));
    if !known || !(1..=8).contains(&number) {
        return None;
    }
    let arm = generation.starts_with('g') || family == "a1";
    let architecture = if arm { CpuArchitecture::Arm64 } else { CpuArchitecture::X86_64 };
    if class == "t" {
        let (_, vcpus, memory) = BURSTABLE.into_iter().find(|(name, ..)| *name == size)?;
        // The oldest of them begin with one.
        let vcpus = if number == 2 && memory <= 2048 { 1 } else { vcpus };
        return Some(InstanceType { vcpus, memory, architecture });
    }
    let for_each = match class {
        "c" | "a" => 2,
        "m" => 4,
        "r" => 8,
        _ => return None,
    };
    let vcpus = vcpus(size, arm)?;
    Some(InstanceType { vcpus, memory: u64::from(vcpus) * for_each * 1024, architecture })
}

fn vcpus(size: &str, arm: bool) -> Option<u32> {
    Some(match size {
        "medium" if arm => 1,
        "large" => 2,
        "xlarge" => 4,
        _ => {
            let times: u32 = size.strip_suffix("xlarge")?.parse().ok()?;
            let exists = [2, 3, 4, 6, 8, 9, 10, 12, 16, 18, 24, 32, 48].contains(&times);
            exists.then_some(4 * times)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<(u32, u64)>) {
        assert_eq!(of(name).map(|found| (found.vcpus, found.memory / 512)), expected, "{name}");
    }

    #[test]
    fn names_say_how_large_instances_are() {
        for (name, vcpus, half_gibibytes) in [
            ("t2.micro", 1, 2),
            ("t2.large", 2, 16),
            ("t3.nano", 2, 1),
            ("t3.micro", 2, 2),
            ("t3.medium", 2, 8),
            ("t4g.small", 2, 4),
            ("m5.large", 2, 16),
            ("m5.24xlarge", 96, 768),
            ("m6g.medium", 1, 8),
            ("m7i-flex.large", 2, 16),
            ("c5.xlarge", 4, 16),
            ("c6gn.16xlarge", 64, 256),
            ("r6id.2xlarge", 8, 128),
        ] {
            check(name, Some((vcpus, half_gibibytes)));
        }
        for name in [
            "",
            "t3",
            "t3.",
            ".large",
            "t3.huge",
            "m5.medium",
            "m5.7xlarge",
            "p4d.24xlarge",
            "m.large",
            "m5!.large",
        ] {
            check(name, None);
        }
    }

    #[test]
    fn graviton_is_arm() {
        let architecture = |name| of(name).map(|found| found.architecture);
        assert_eq!(architecture("t4g.small"), Some(CpuArchitecture::Arm64));
        assert_eq!(architecture("c7gn.large"), Some(CpuArchitecture::Arm64));
        assert_eq!(architecture("m5n.large"), Some(CpuArchitecture::X86_64));
    }
}
