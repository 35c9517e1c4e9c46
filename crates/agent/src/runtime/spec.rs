//! The OCI runtime specification of a container: docker's defaults, with the container's own wishes on top.
//! Invariant: a container without `privileged` sees no device, no kernel knob and no other container.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{ContainerSpec, CreateError, Limits, devices, seccomp, users::User};

/// What the machine can do, found once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// What we have and so can give, as the kernel's bits.
    pub capabilities: u64,
    /// Only a process with CAP_SYS_RESOURCE may lower its out-of-memory score again.
    pub can_lower_oom_score: bool,
    pub cgroup_v2: bool,
    /// Whether the kernel accounts for swap; setting its limit fails otherwise.
    pub swap_accounting: bool,
}

/// The specification as JSON, as containerd wants it.
pub(super) fn build(spec: &ContainerSpec, user: &User, machine: Machine) -> Result<Vec<u8>, CreateError> {
    let capabilities = capabilities(spec, machine)?;
    let process = process(spec, user, &capabilities, machine)?;
    let (nodes, rules) = devices::of(spec)?;
    let mut linux = json!({
        "namespaces": namespaces(spec, machine),
        "cgroupsPath": spec.cgroup,
        "resources": resources(spec, rules, machine),
        "devices": nodes,
        "sysctl": spec.sysctls,
    });
    if !spec.privileged {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READONLY);
        linux["seccomp"] = seccomp::profile(&capabilities);
    }
    let whole = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": { "path": "rootfs", "readonly": spec.readonly_rootfs },
        "hostname": spec.hostname.as_deref().unwrap_or(&spec.id),
        "mounts": mounts(spec),
        "linux": linux,
    });
    serde_json::to_vec(&whole).map_err(|error| CreateError::Invalid(error.to_string()))
}

fn process(
    spec: &ContainerSpec,
    user: &User,
    capabilities: &[String],
    machine: Machine,
) -> Result<Value, CreateError> {
    let mut process = json!({
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids },
        "args": args(spec)?,
        "env": env(spec, user),
        "cwd": cwd(spec)?,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "rlimits": rlimits(spec)?,
        "noNewPrivileges": spec.no_new_privileges,
    });
    if machine.can_lower_oom_score {
        // The shim runs with a low score, which the container must not inherit.
        process["oomScoreAdj"] = json!(0);
    }
    Ok(process)
}

/// A new entrypoint drops the image's command, which was meant for the image's entrypoint.
fn args(spec: &ContainerSpec) -> Result<Vec<String>, CreateError> {
    let image = &spec.image.config;
    let entrypoint = spec.entrypoint.as_ref().or(image.entrypoint.as_ref());
    let command = match (&spec.command, &spec.entrypoint) {
        (Some(command), _) => Some(command),
        (None, Some(_)) => None,
        (None, None) => image.cmd.as_ref(),
    };
    let args: Vec<String> = entrypoint.into_iter().chain(command).flatten().cloned().collect();
    if args.is_empty() {
        return Err(CreateError::Invalid("No command specified".into()));
    }
    if args.iter().any(|arg| arg.contains('\0')) {
        return Err(CreateError::Invalid("a command's words cannot contain NUL".into()));
    }
    Ok(args)
}

fn env(spec: &ContainerSpec, user: &User) -> Vec<String> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let hostname = format!("HOSTNAME={}", spec.hostname.as_deref().unwrap_or(&spec.id));
    let home = format!("HOME={}", user.home.as_deref().unwrap_or("/"));
    let defaults = [PATH.to_owned(), hostname, home];
    let image = spec.image.config.env.iter().flatten();
    let mut order = Vec::new();
    let mut values = BTreeMap::new();
    for pair in defaults.iter().chain(image).chain(&spec.env).filter(|pair| !pair.contains('\0')) {
        let name = pair.split('=').next().unwrap_or_default();
        if values.insert(name, pair).is_none() {
            order.push(name);
        }
    }
    order.iter().filter_map(|name| values.get(name)).map(|pair| (*pair).clone()).collect()
}

fn cwd(spec: &ContainerSpec) -> Result<&str, CreateError> {
    let image = spec.image.config.working_dir.as_str();
    let wanted = spec.working_directory.as_deref().filter(|dir| !dir.is_empty()).unwrap_or(image);
    match wanted {
        "" => Ok("/"),
        dir if dir.starts_with('/') => Ok(dir),
        dir => Err(CreateError::Invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        ))),
    }
}

const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// In the kernel's order.
const ALL_CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Drops win over defaults, adds over drops; `ALL` is every one. Defaults that we lack ourselves, as in a container, are left
/// out; one that is asked for by name and cannot be given is an error.
fn capabilities(spec: &ContainerSpec, machine: Machine) -> Result<Vec<String>, CreateError> {
    let held = |(bit, _): &(usize, &&str)| machine.capabilities >> bit & 1 == 1;
    let all: BTreeSet<String> =
        ALL_CAPABILITIES.iter().enumerate().filter(held).map(|(_, name)| format!("CAP_{name}")).collect();
    let named = |names: &[String]| -> BTreeSet<String> {
        let named = names.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")).map(|name| full_name(name));
        let every = names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        named.chain(every.then(|| all.clone()).into_iter().flatten()).collect()
    };
    let start: BTreeSet<String> = if spec.privileged {
        all.clone()
    } else {
        DEFAULT_CAPABILITIES.iter().map(ToString::to_string).filter(|name| all.contains(name)).collect()
    };
    let added = named(&spec.capabilities_add);
    if let Some(name) = added.difference(&all).next() {
        return Err(CreateError::Invalid(format!(
            "invalid capability: {name} is unknown or not this instance's to give"
        )));
    }
    Ok(start
        .difference(&named(&spec.capabilities_drop))
        .chain(&added)
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect())
}

fn full_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") }
}

fn rlimits(spec: &ContainerSpec) -> Result<Value, CreateError> {
    let limits = spec.ulimits.iter().map(|limit| {
        if limit.soft > limit.hard {
            return Err(CreateError::Invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
        let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
        Ok(json!({ "type": name, "soft": limit.soft, "hard": limit.hard }))
    });
    limits.collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn namespaces(spec: &ContainerSpec, machine: Machine) -> Value {
    let mut namespaces = vec![
        json!({ "type": "pid" }),
        json!({ "type": "ipc" }),
        json!({ "type": "uts" }),
        json!({ "type": "mount" }),
    ];
    if let Some(path) = &spec.network_namespace {
        namespaces.push(json!({ "type": "network", "path": path }));
    }
    if machine.cgroup_v2 {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    namespaces.into()
}

fn resources(spec: &ContainerSpec, rules: Vec<Value>, machine: Machine) -> Value {
    let Limits { memory, memory_reservation, cpu_shares, cpu_quota, cpu_period, pids } = spec.limits;
    let mut resources = json!({ "devices": device_rules(spec.privileged, rules) });
    let mut memory_limits = serde_json::Map::new();
    if let Some(bytes) = memory {
        memory_limits.insert("limit".into(), json!(bytes));
        if machine.swap_accounting {
            memory_limits.insert("swap".into(), json!(bytes));
        }
    }
    if let Some(bytes) = memory_reservation {
        memory_limits.insert("reservation".into(), json!(bytes));
    }
    let mut cpu = serde_json::Map::new();
    if let Some(shares) = cpu_shares {
        // The kernel's least.
        cpu.insert("shares".into(), json!(shares.max(2)));
    }
    if let Some(quota) = cpu_quota {
        cpu.insert("quota".into(), json!(quota));
        cpu.insert("period".into(), json!(cpu_period.unwrap_or(100_000)));
    }
    if !memory_limits.is_empty() {
        resources["memory"] = memory_limits.into();
    }
    if !cpu.is_empty() {
        resources["cpu"] = cpu.into();
    }
    if let Some(limit) = pids {
        resources["pids"] = json!({ "limit": limit });
    }
    resources
}

/// runc itself allows null, zero, full, random, urandom, tty, ptmx and the pseudo-terminals.
fn device_rules(privileged: bool, more: Vec<Value>) -> Vec<Value> {
    if privileged {
        return vec![json!({ "allow": true, "access": "rwm" })];
    }
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    rules.extend(more);
    rules
}

const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn mounts(spec: &ContainerSpec) -> Value {
    let access = if spec.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", spec.shm_size.unwrap_or(64 << 20));
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
    ];
    mounts.extend(spec.mounts.iter().map(|bind| {
        let access = if bind.readonly { "ro" } else { "rw" };
        let source = bind.source.to_string_lossy();
        mount(&bind.target, "bind", &source, &["rbind", "rprivate", access])
    }));
    mounts.extend(spec.tmpfs.iter().map(|tmpfs| {
        let size = format!("size={}", tmpfs.size);
        let given = tmpfs.options.iter().map(String::as_str).filter(|option| *option != "defaults");
        let options: Vec<&str> =
            ["nosuid", "nodev", "noexec"].into_iter().chain(given).chain([size.as_str()]).collect();
        mount(&tmpfs.target, "tmpfs", "tmpfs", &options)
    }));
    mounts.into()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::{Image, ImageConfig};

    const MACHINE: Machine = Machine {
        capabilities: u64::MAX,
        can_lower_oom_score: false,
        cgroup_v2: false,
        swap_accounting: true,
    };

    fn words(text: &[&str]) -> Option<Vec<String>> {
        Some(text.iter().map(ToString::to_string).collect())
    }

    fn nginx() -> ContainerSpec {
        let config = ImageConfig {
            entrypoint: words(&["/entry"]),
            cmd: words(&["nginx", "-g"]),
            env: words(&["PATH=/bin", "A=image"]),
            ..ImageConfig::default()
        };
        ContainerSpec {
            id: "web".into(),
            image: Image { config: Arc::new(config), ..Image::default() },
            ..ContainerSpec::default()
        }
    }

    fn built(spec: &ContainerSpec) -> Value {
        serde_json::from_slice(&build(spec, &User::default(), MACHINE).unwrap()).unwrap()
    }

    #[test]
    fn a_new_entrypoint_drops_the_images_command() {
        let args = |entrypoint, command| {
            let spec = ContainerSpec { entrypoint, command, ..nginx() };
            built(&spec)["process"]["args"].to_string()
        };
        assert_eq!(args(None, None), r#"["/entry","nginx","-g"]"#);
        assert_eq!(args(None, words(&["x"])), r#"["/entry","x"]"#);
        assert_eq!(args(words(&["sh"]), None), r#"["sh"]"#);
        assert_eq!(args(words(&["sh"]), words(&["-c"])), r#"["sh","-c"]"#);
    }

    #[test]
    fn the_task_definitions_environment_wins_over_the_images() {
        let spec = ContainerSpec { env: vec!["A=task".into(), "B=1".into()], ..nginx() };
        assert_eq!(
            built(&spec)["process"]["env"].to_string(),
            r#"["PATH=/bin","HOSTNAME=web","HOME=/","A=task","B=1"]"#
        );
    }

    #[test]
    fn capabilities_follow_add_and_drop() {
        let count = |add: &[&str], drop: &[&str]| {
            let spec = ContainerSpec {
                capabilities_add: words(add).unwrap(),
                capabilities_drop: words(drop).unwrap(),
                ..nginx()
            };
            capabilities(&spec, MACHINE).unwrap()
        };
        assert_eq!(count(&[], &[]).len(), 14);
        assert_eq!(count(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(count(&["all"], &[]).len(), 41);
        assert_eq!(count(&["cap_sys_ptrace"], &["CAP_MKNOD"]).len(), 14);
    }

    #[test]
    fn what_we_lack_is_left_out_or_refused() {
        // CHOWN and KILL are all that this machine has.
        let machine = Machine { capabilities: 0b10_0001, ..MACHINE };
        let kept = |spec: &ContainerSpec| capabilities(spec, machine).map_err(|error| error.to_string());
        let both = Ok(vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()]);
        assert_eq!(kept(&nginx()), both);
        assert_eq!(kept(&ContainerSpec { privileged: true, ..nginx() }), both);
        assert_eq!(kept(&ContainerSpec { capabilities_add: vec!["ALL".into()], ..nginx() }), both);
        for name in ["SYS_ADMIN", "NO_SUCH"] {
            assert!(
                kept(&ContainerSpec { capabilities_add: vec![name.into()], ..nginx() }).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn what_cannot_run_is_refused_before_runc_sees_it() {
        let refused = |spec: ContainerSpec| build(&spec, &User::default(), MACHINE).unwrap_err().to_string();
        assert_eq!(refused(ContainerSpec { image: Image::default(), ..nginx() }), "No command specified");
        let relative = ContainerSpec { working_directory: Some("srv".into()), ..nginx() };
        assert!(refused(relative).contains("needs to be an absolute path"));
    }
}
