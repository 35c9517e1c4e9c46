//! The system calls that a container may not make. Invariant: what is refused here is refused only without the
//! capability that lifts it, so that a task definition's `linuxParameters` keep their meaning.

use serde_json::{Value, json};

/// Refused unless the container has the capability (empty: always). These reach across the container's border or into
/// the kernel's own state; all else is left to capabilities and namespaces.
const REFUSED: [(&str, &[&str]); 10] = [
    (
        "CAP_SYS_ADMIN",
        &[
            "mount",
            "umount",
            "umount2",
            "move_mount",
            "open_tree",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
            "mount_setattr",
            "pivot_root",
            "setns",
            "unshare",
            "quotactl",
            "quotactl_fd",
            "lookup_dcookie",
            "fanotify_init",
            "sethostname",
            "setdomainname",
        ],
    ),
    ("CAP_SYS_MODULE", &["init_module", "finit_module", "delete_module", "create_module", "query_module"]),
    ("CAP_SYS_BOOT", &["reboot", "kexec_load", "kexec_file_load"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_PTRACE", &["kcmp", "process_vm_readv", "process_vm_writev", "process_madvise"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
    (
        "",
        &[
            "add_key",
            "keyctl",
            "request_key",
            "userfaultfd",
            "swapon",
            "swapoff",
            "uselib",
            "ustat",
            "sysfs",
            "_sysctl",
            "nfsservctl",
            "get_kernel_syms",
            "vm86",
            "vm86old",
            "open_by_handle_at",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "move_pages",
        ],
    ),
];

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `linux.seccomp` of the runtime specification for a process with `capabilities`.
pub(super) fn profile(capabilities: &[String]) -> Value {
    let holds = |name: &str| capabilities.iter().any(|c| c == name);
    // SYS_ADMIN held these two before they had a capability of their own, and the kernel still accepts it.
    let lifted =
        |name: &str| holds(name) || (matches!(name, "CAP_BPF" | "CAP_PERFMON") && holds("CAP_SYS_ADMIN"));
    let names: Vec<&str> = REFUSED
        .iter()
        .filter(|(capability, _)| capability.is_empty() || !lifted(capability))
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM })];
    if !holds("CAP_SYS_ADMIN") {
        rules.extend(no_new_namespaces());
    }
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures(), "syscalls": rules })
}

/// `clone` is refused by its flags. `clone3` has them in memory, where a filter cannot look: libraries fall back to `clone`
/// when it is said to be unknown.
fn no_new_namespaces() -> impl Iterator<Item = Value> {
    /// `CLONE_NEW…`: time is not here, it shares its bit with the exit signal of `clone`.
    const FLAGS: [u64; 7] =
        [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let clone = FLAGS.into_iter().map(|flag| {
        json!({
            "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM,
            "args": [{ "index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ" }],
        })
    });
    clone.chain([json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS })])
}

/// With those that the kernel can also run, or a program would pass the filter by being 32 bits wide.
fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(capabilities: &[&str]) -> String {
        profile(&capabilities.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
    }

    #[test]
    fn a_capability_lifts_its_calls_and_no_others() {
        assert!(refused(&[]).contains("\"unshare\"") && refused(&[]).contains("\"bpf\""));
        let administrator = refused(&["CAP_SYS_ADMIN"]);
        assert!(!administrator.contains("\"unshare\"") && !administrator.contains("\"clone\""));
        assert!(!administrator.contains("\"bpf\"") && administrator.contains("\"kexec_load\""));
        assert!(refused(&["CAP_SYS_PTRACE"]).contains("\"mount\""));
    }
}
