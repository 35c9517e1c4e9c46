//! What a container may do to the machine and what it calls itself, as users ask for it. Follows
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>.

use super::super::client;
use super::parse::at_least;
use crate::refuse::{Given as _, unsupported};
use longshore_ecs as ecs;
use longshore_model::task_definition::{
    Capabilities, ContainerDefinition, Device, HostEntry, Isolation, LinuxParameters, Names, NetworkMode,
    Permission, SystemControl, TaskDefinition, Tmpfs, Ulimit,
};
use std::net::IpAddr;

const NO_NEW_PRIVILEGES: [&str; 2] = ["no-new-privileges", "no-new-privileges:true"];
/// The parameters of the kernel that a container has for itself, beside `fs.mqueue.*` and `net.*`.
const OWN_CONTROLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
const MOUNT_OPTIONS: [&str; 33] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
const MOUNT_SETTINGS: [&str; 6] = ["mode=", "uid=", "gid=", "nr_inodes=", "nr_blocks=", "mpol="];

/// What of a container definition says how it is set apart.
pub struct Said {
    pub privileged: Option<bool>,
    pub security_options: Option<Vec<String>>,
    pub linux: Option<ecs::LinuxParameters>,
    pub ulimits: Option<Vec<ecs::Ulimit>>,
    pub system_controls: Option<Vec<ecs::SystemControl>>,
}

pub fn isolation(said: Said) -> Result<Isolation, ecs::Error> {
    let Said { privileged, security_options, linux, ulimits, system_controls } = said;
    let security_options = security_options.unwrap_or_default();
    if let Some(other) = security_options.iter().find(|option| !NO_NEW_PRIVILEGES.contains(&option.as_str()))
    {
        let field = format!("containerDefinitions.dockerSecurityOptions={other}");
        return Err(client(unsupported(&[(&field, true)]).err().unwrap_or_default()));
    }
    Ok(Isolation {
        privileged,
        security_options,
        linux: linux.map(linux_parameters).transpose()?,
        ulimits: ulimits.unwrap_or_default().into_iter().map(ulimit).collect::<Result<_, _>>()?,
        system_controls: system_controls
            .unwrap_or_default()
            .into_iter()
            .map(system_control)
            .collect::<Result<_, _>>()?,
    })
}

fn linux_parameters(given: ecs::LinuxParameters) -> Result<LinuxParameters, ecs::Error> {
    let ecs::LinuxParameters {
        capabilities,
        devices,
        init_process_enabled,
        shared_memory_size,
        tmpfs,
        max_swap,
        swappiness,
    } = given;
    unsupported(&[
        ("containerDefinitions.linuxParameters.initProcessEnabled", init_process_enabled.given()),
        ("containerDefinitions.linuxParameters.maxSwap", max_swap.given()),
        ("containerDefinitions.linuxParameters.swappiness", swappiness.given()),
    ])
    .map_err(client)?;
    let capabilities = capabilities.map(|given| Capabilities {
        add: given.add.unwrap_or_default(),
        drop: given.drop.unwrap_or_default(),
    });
    Ok(LinuxParameters {
        capabilities,
        devices: devices.unwrap_or_default().into_iter().map(device).collect::<Result<_, _>>()?,
        shared_memory_size: shared_memory_size
            .map(|size| at_least("linuxParameters.sharedMemorySize", size, 1))
            .transpose()?,
        tmpfs: tmpfs.unwrap_or_default().into_iter().map(self::tmpfs).collect::<Result<_, _>>()?,
    })
}

fn device(given: ecs::Device) -> Result<Device, ecs::Error> {
    let ecs::Device { host_path, container_path, permissions } = given;
    for path in [Some(&host_path), container_path.as_ref()].into_iter().flatten() {
        check_absolute("linuxParameters.devices", path)?;
    }
    let permission = |permission| match permission {
        ecs::DeviceCgroupPermission::Read => Permission::Read,
        ecs::DeviceCgroupPermission::Write => Permission::Write,
        ecs::DeviceCgroupPermission::Mknod => Permission::Mknod,
    };
    let permissions = permissions.unwrap_or_default().into_iter().map(permission).collect();
    Ok(Device { host_path, container_path, permissions })
}

fn tmpfs(given: ecs::Tmpfs) -> Result<Tmpfs, ecs::Error> {
    let ecs::Tmpfs { container_path, size, mount_options } = given;
    check_absolute("linuxParameters.tmpfs.containerPath", &container_path)?;
    let options = mount_options.unwrap_or_default();
    let known = |option: &str| {
        MOUNT_OPTIONS.contains(&option) || MOUNT_SETTINGS.iter().any(|setting| option.starts_with(setting))
    };
    if let Some(unknown) = options.iter().find(|option| !known(option)) {
        return Err(client(format!(
            "linuxParameters.tmpfs.mountOptions: '{unknown}' is not a valid option."
        )));
    }
    Ok(Tmpfs { container_path, size: at_least("linuxParameters.tmpfs.size", size, 1)?, options })
}

fn check_absolute(field: &str, path: &str) -> Result<(), ecs::Error> {
    match path.starts_with('/') && !path.contains('\0') {
        true => Ok(()),
        false => Err(client(format!("{field} must be an absolute path, and is '{path}'."))),
    }
}

fn ulimit(given: ecs::Ulimit) -> Result<Ulimit, ecs::Error> {
    let ecs::Ulimit { name, soft_limit: soft, hard_limit: hard } = given;
    let name = name.as_str().to_owned();
    let number = |limit: i32| if limit < 0 { i64::MAX } else { i64::from(limit) };
    if soft < -1 || hard < -1 {
        return Err(client(format!("The limits of the ulimit {name} must be -1, for none, or more.")));
    }
    if number(soft) > number(hard) {
        return Err(client(format!(
            "The softLimit of the ulimit {name} must not be more than its hardLimit: {soft} > {hard}."
        )));
    }
    Ok(Ulimit { name, soft, hard })
}

fn system_control(given: ecs::SystemControl) -> Result<SystemControl, ecs::Error> {
    let ecs::SystemControl { namespace, value } = given;
    let (namespace, value) = (namespace.unwrap_or_default(), value.unwrap_or_default());
    let is_own = OWN_CONTROLS.contains(&namespace.as_str())
        || namespace.starts_with("fs.mqueue.")
        || namespace.starts_with("net.");
    let is_plain = namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_own || !is_plain || namespace.contains("..") {
        return Err(client(format!(
            "The systemControls namespace '{namespace}' is not valid: it must be one of {}, or begin with fs.mqueue. or net.",
            OWN_CONTROLS.join(", ")
        )));
    }
    if value.is_empty() || value.contains(['\0', '\n']) {
        return Err(client(format!("The systemControls value of {namespace} is not valid.")));
    }
    Ok(SystemControl { namespace, value })
}

/// What of a container definition says its names.
pub struct SaidNames {
    pub hostname: Option<String>,
    pub dns_servers: Option<Vec<String>>,
    pub dns_search_domains: Option<Vec<String>>,
    pub extra_hosts: Option<Vec<ecs::HostEntry>>,
}

pub fn names(said: SaidNames) -> Result<Names, ecs::Error> {
    let SaidNames { hostname, dns_servers, dns_search_domains, extra_hosts } = said;
    let hostname = hostname.filter(|name| !name.is_empty());
    let (dns_servers, domains) = (dns_servers.unwrap_or_default(), dns_search_domains.unwrap_or_default());
    for name in hostname.iter().chain(&domains) {
        check_domain("hostname and dnsSearchDomains", name)?;
    }
    for server in &dns_servers {
        check_address("dnsServers", server)?;
    }
    let entry = |ecs::HostEntry { hostname, ip_address: address }| {
        check_domain("extraHosts.hostname", &hostname)?;
        check_address("extraHosts.ipAddress", &address)?;
        Ok(HostEntry { hostname, address })
    };
    let entries = extra_hosts.unwrap_or_default().into_iter().map(entry);
    let extra_hosts = entries.collect::<Result<_, ecs::Error>>()?;
    Ok(Names { hostname, dns_servers, dns_search_domains: domains, extra_hosts })
}

fn check_domain(field: &str, name: &str) -> Result<(), ecs::Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain) {
        true => Ok(()),
        false => {
            Err(client(format!("{field} must be names of letters, digits, dots and hyphens: '{name}'.")))
        }
    }
}

fn check_address(field: &str, address: &str) -> Result<(), ecs::Error> {
    let parsed: Result<IpAddr, _> = address.parse();
    parsed.map(drop).map_err(|_| client(format!("{field} must be IP addresses: '{address}'.")))
}

/// What the network mode cannot give.
pub fn check(definition: &TaskDefinition) -> Result<(), ecs::Error> {
    let mode = definition.mode();
    for container in &definition.containers {
        let Names { hostname, dns_servers, dns_search_domains, extra_hosts } = &container.names;
        let said = [
            ("hostname", hostname.is_some()),
            ("dnsServers", !dns_servers.is_empty()),
            ("dnsSearchDomains", !dns_search_domains.is_empty()),
            ("extraHosts", !extra_hosts.is_empty()),
        ];
        let refused = match mode {
            NetworkMode::Awsvpc | NetworkMode::Host => said.iter().find(|(_, given)| *given),
            NetworkMode::Bridge | NetworkMode::None => None,
        };
        if let Some((field, _)) = refused {
            return Err(client(format!("{field} is not supported when networkMode={}.", mode.as_str())));
        }
        let controls = &container.isolation.system_controls;
        let net = controls.iter().find(|control| control.namespace.starts_with("net."));
        if let Some(net) = net.filter(|_| mode == NetworkMode::Host) {
            return Err(client(format!(
                "The systemControls namespace {} is not supported when networkMode=host.",
                net.namespace
            )));
        }
    }
    Ok(())
}

/// What Fargate does not give.
pub fn check_fargate(container: &ContainerDefinition) -> Result<(), ecs::Error> {
    let Isolation { privileged, security_options, linux, ulimits, system_controls: _ } = &container.isolation;
    let linux = linux.clone().unwrap_or_default();
    let refused = [
        ("privileged", *privileged == Some(true)),
        ("dockerSecurityOptions", !security_options.is_empty()),
        ("devices", !linux.devices.is_empty()),
        ("sharedMemorySize", linux.shared_memory_size.is_some()),
        ("tmpfs", !linux.tmpfs.is_empty()),
    ];
    if let Some((field, _)) = refused.iter().find(|(_, given)| *given) {
        return Err(client(format!("Fargate compatible task definitions do not support {field}")));
    }
    let added = linux.capabilities.unwrap_or_default().add;
    if let Some(other) = added.iter().find(|name| *name != "SYS_PTRACE") {
        return Err(client(format!(
            "Fargate compatible task definitions only support adding the capability SYS_PTRACE, and not {other}"
        )));
    }
    if let Some(other) = ulimits.iter().find(|ulimit| ulimit.name != "nofile") {
        return Err(client(format!(
            "Fargate compatible task definitions only support the ulimit nofile, and not {}",
            other.name
        )));
    }
    Ok(())
}

pub fn render_linux(linux: &LinuxParameters) -> ecs::LinuxParameters {
    let LinuxParameters { capabilities, devices, shared_memory_size, tmpfs } = linux;
    let some = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
    let device = |device: &Device| ecs::Device {
        host_path: device.host_path.clone(),
        container_path: device.container_path.clone(),
        permissions: (!device.permissions.is_empty())
            .then(|| device.permissions.iter().copied().map(render_permission).collect()),
    };
    let tmpfs_of = |tmpfs: &Tmpfs| ecs::Tmpfs {
        container_path: tmpfs.container_path.clone(),
        size: i32::try_from(tmpfs.size).unwrap_or(i32::MAX),
        mount_options: some(&tmpfs.options),
    };
    ecs::LinuxParameters {
        capabilities: capabilities
            .as_ref()
            .map(|Capabilities { add, drop }| ecs::KernelCapabilities { add: some(add), drop: some(drop) }),
        devices: (!devices.is_empty()).then(|| devices.iter().map(device).collect()),
        shared_memory_size: shared_memory_size.and_then(|size| i32::try_from(size).ok()),
        tmpfs: (!tmpfs.is_empty()).then(|| tmpfs.iter().map(tmpfs_of).collect()),
        ..ecs::LinuxParameters::default()
    }
}

fn render_permission(permission: Permission) -> ecs::DeviceCgroupPermission {
    match permission {
        Permission::Read => ecs::DeviceCgroupPermission::Read,
        Permission::Write => ecs::DeviceCgroupPermission::Write,
        Permission::Mknod => ecs::DeviceCgroupPermission::Mknod,
    }
}

pub fn render_ulimit(ulimit: &Ulimit) -> Option<ecs::Ulimit> {
    let name = ulimit.name.parse().ok()?;
    Some(ecs::Ulimit { name, soft_limit: ulimit.soft, hard_limit: ulimit.hard })
}

pub fn render_control(control: &SystemControl) -> ecs::SystemControl {
    ecs::SystemControl { namespace: Some(control.namespace.clone()), value: Some(control.value.clone()) }
}

pub fn render_host(entry: &HostEntry) -> ecs::HostEntry {
    ecs::HostEntry { hostname: entry.hostname.clone(), ip_address: entry.address.clone() }
}

/// Labels that the runtime would take for its own are refused.
pub fn check_labels(labels: &std::collections::BTreeMap<String, String>) -> Result<(), ecs::Error> {
    // containerd's own limit for a label, its name and its value together.
    const MOST: usize = 4096;
    // Some are read by the agent, and some by containerd.
    const RESERVED: [&str; 2] = ["longshore.", "containerd.io/"];
    let wrong = labels.iter().find(|(name, value)| {
        let is_reserved = RESERVED.iter().any(|prefix| name.starts_with(prefix));
        name.is_empty() || is_reserved || name.len() + value.len() > MOST
    });
    match wrong {
        None => Ok(()),
        Some((name, _)) => Err(client(format!(
            "The docker label '{name}' is not valid: it must have a name that does not begin with longshore. or \
             containerd.io/, and at most {MOST} bytes with its value."
        ))),
    }
}
