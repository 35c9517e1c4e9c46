//! Processes and mounts of containers, as the kernel tells of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{mount::UnmountFlags, process::Pid};

/// The shims of a namespace, or of every one that starts with it when no `id` is given.
pub(super) fn shims(namespace: &str, id: Option<&str>) -> Vec<Pid> {
    let is_ours = |pid: &Pid| {
        let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let words: Vec<_> = command.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let follows = |flag: &str| words.windows(2).find(|pair| pair[0] == flag).map(|pair| &*pair[1]);
        let is_shim = words.first().is_some_and(|program| program.ends_with("containerd-shim-runc-v2"));
        is_shim
            && match id {
                Some(id) => follows("-namespace") == Some(namespace) && follows("-id") == Some(id),
                None => follows("-namespace").is_some_and(|found| found.starts_with(namespace)),
            }
    };
    all().filter(is_ours).collect()
}

/// Everything that a process has started, at any depth; parents come before their children.
pub(super) fn descendants(of: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, i32)> = all().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(process) = found.get(next).copied() {
        let children = parents
            .iter()
            .filter(|(_, parent)| *parent == process.as_raw_nonzero().get())
            .map(|(pid, _)| *pid);
        found.extend(children.filter(|pid| !found.contains(pid)).collect::<Vec<_>>());
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: Pid) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is a name in parentheses that may contain anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

pub(super) fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

/// The deepest first, as they were mounted last. The directories themselves may be disks of the user's.
pub(super) fn unmount_below(directories: &[&Path]) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut ours: Vec<PathBuf> =
        points.filter(|point| directories.iter().any(|dir| point.starts_with(dir) && point != dir)).collect();
    ours.reverse();
    for point in ours {
        if let Err(error) = rustix::mount::unmount(&point, UnmountFlags::DETACH) {
            tracing::warn!(point = %point.display(), %error, "a mount is left over");
        }
    }
}

/// mountinfo writes spaces and the like as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) => plain.extend([char::from(byte)].into_iter().chain(part.chars().skip(3))),
            None => plain.push_str(part),
        }
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b/c\134"), Path::new(r"/a b/c\"));
        assert_eq!(unescape("/plain"), Path::new("/plain"));
    }

    #[test]
    fn descendants_are_found_at_every_depth() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sh -c 'sleep 1000 & echo; wait' & wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let of = Pid::from_raw(shell.id().try_into().unwrap()).unwrap();
        let found = descendants(of);
        for pid in found.iter().rev().chain([&of]) {
            rustix::process::kill_process(*pid, rustix::process::Signal::KILL).unwrap();
        }
        shell.wait().unwrap();
        assert_eq!(found.len(), 2);
    }
}
