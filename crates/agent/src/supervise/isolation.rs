//! What a container may do to the machine and sees of it, in the runtime's words.

use crate::runtime;
use longshore_model::task_definition::{Device, Isolation, Permission, Tmpfs, Ulimit};

const MEBIBYTE: u64 = 1 << 20;

/// What sets a container apart from the machine.
pub fn isolation(of: &Isolation) -> runtime::ContainerSpec {
    let linux = of.linux.clone().unwrap_or_default();
    let capabilities = linux.capabilities.unwrap_or_default();
    let limit = |limit: i32| u64::try_from(limit).unwrap_or(u64::MAX);
    let ulimit =
        |of: &Ulimit| runtime::Ulimit { name: of.name.clone(), soft: limit(of.soft), hard: limit(of.hard) };
    let tmpfs = |of: Tmpfs| runtime::Tmpfs {
        target: of.container_path,
        size: of.size * MEBIBYTE,
        options: of.options,
    };
    runtime::ContainerSpec {
        privileged: of.privileged.unwrap_or(false),
        no_new_privileges: of.security_options.iter().any(|option| option.starts_with("no-new-privileges")),
        capabilities_add: capabilities.add,
        capabilities_drop: capabilities.drop,
        devices: linux.devices.into_iter().map(device).collect(),
        shm_size: linux.shared_memory_size.map(|size| size * MEBIBYTE),
        tmpfs: linux.tmpfs.into_iter().map(tmpfs).collect(),
        sysctls: of.system_controls.iter().map(|of| (of.namespace.clone(), of.value.clone())).collect(),
        ulimits: of.ulimits.iter().map(ulimit).collect(),
        ..runtime::ContainerSpec::default()
    }
}

fn device(of: Device) -> runtime::Device {
    let letter = |permission: &Permission| match permission {
        Permission::Read => 'r',
        Permission::Write => 'w',
        Permission::Mknod => 'm',
    };
    let access: String = of.permissions.iter().map(letter).collect();
    runtime::Device {
        target: of.container_path.unwrap_or_else(|| of.host_path.clone()),
        source: of.host_path.into(),
        access: if access.is_empty() { "rwm".to_owned() } else { access },
    }
}
