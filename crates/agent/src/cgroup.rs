//! Cgroups of tasks: `/longshore-<hash>/<task>/<container>`, where the agent makes the task's and runc the containers'.
//! Invariant: nothing outside the prefix is ever written or removed, in any hierarchy, for v1 and v2 alike.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The hierarchies of this machine, and our part of them.
#[derive(Clone, Debug)]
pub struct Cgroups {
    /// `/longshore-<hash>`
    prefix: String,
    hierarchies: Hierarchies,
}

#[derive(Clone, Debug)]
enum Hierarchies {
    /// Mount points; `cpu` and `cpuacct` may be one or two.
    V1(Vec<V1>),
    V2(PathBuf),
}

#[derive(Clone, Debug)]
struct V1 {
    controllers: Vec<String>,
    mount: PathBuf,
}

/// The task's size: a cap on all of its containers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLimits {
    /// 1,024 for each vCPU. Fargate's task size; `None` on EC2, where `cpu` is only a share.
    pub cpu_units: Option<u64>,
    /// Relative weight against other tasks, in CPU units.
    pub cpu_shares: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// What a cgroup uses now, with everything below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, page cache included.
    pub memory: u64,
    /// Bytes of page cache that the kernel can take back at once.
    pub memory_inactive_file: u64,
    /// Bytes; `None` without a limit.
    pub memory_limit: Option<u64>,
    /// Nanoseconds of CPU time since the start.
    pub cpu_nanos: u64,
    pub processes: u64,
}

/// Microseconds, as docker and Fargate.
const CPU_PERIOD: u64 = 100_000;
const ROOT: &str = "/sys/fs/cgroup";
/// What statfs says of a cgroup v2 filesystem.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

impl Cgroups {
    /// `prefix` is absolute inside the hierarchies: `/longshore-<hash>`.
    pub fn detect(prefix: &str) -> io::Result<Self> {
        let unified = rustix::fs::statfs(ROOT)?.f_type == CGROUP2_MAGIC;
        let hierarchies = if unified {
            Hierarchies::V2(ROOT.into())
        } else {
            Hierarchies::V1(parse_mounts(&fs::read_to_string("/proc/self/mountinfo")?))
        };
        Ok(Self { prefix: format!("/{}", prefix.trim_matches('/')), hierarchies })
    }

    pub fn is_v2(&self) -> bool {
        matches!(self.hierarchies, Hierarchies::V2(_))
    }

    /// Whether a limit on swap can be set.
    pub fn accounts_swap(&self) -> bool {
        match &self.hierarchies {
            Hierarchies::V1(_) => {
                self.file("memory", "/", "memory.memsw.limit_in_bytes").is_some_and(|path| path.exists())
            }
            // runc leaves out a limit of zero where there is no swap.
            Hierarchies::V2(_) => true,
        }
    }

    pub fn task_path(&self, task: &str) -> String {
        format!("{}/{task}", self.prefix)
    }

    pub fn container_path(&self, task: &str, container: &str) -> String {
        format!("{}/{task}/{container}", self.prefix)
    }

    /// Makes the task's cgroup with its limits; the same again when it is there.
    pub fn create_task(&self, task: &str, limits: TaskLimits) -> io::Result<()> {
        let path = self.checked(task)?;
        match &self.hierarchies {
            Hierarchies::V1(_) => self.create_v1(&path, limits),
            Hierarchies::V2(mount) => create_v2(mount, &path, limits),
        }
    }

    /// Removes the task's cgroup and what is left below it. Its containers were deleted before: a process that is
    /// still there was started by a runtime that was killed before it could write it down, and is killed.
    pub async fn remove_task(&self, task: &str) -> io::Result<()> {
        let path = self.checked(task)?;
        match self.remove(&path).await {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                self.kill(&path);
                self.remove(&path).await
            }
            other => other,
        }
    }

    /// Kills every process of a container's cgroup, and waits until none is left.
    pub(crate) async fn end(&self, cgroup: &str) -> io::Result<()> {
        const ATTEMPTS: u32 = 500;
        // A path that names no cgroup of a task's container would reach too far.
        if cgroup.split('/').filter(|part| !part.is_empty()).count() < 3 || cgroup.contains("..") {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            if self.mounts().iter().all(|mount| processes(&join(mount, cgroup)).is_empty()) {
                return Ok(());
            }
            self.kill(cgroup);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("processes of {cgroup} do not end")))
    }

    /// Kills every process in a cgroup and below it.
    fn kill(&self, path: &str) {
        let mut pids: Vec<i32> =
            self.mounts().iter().flat_map(|mount| processes(&join(mount, path))).collect();
        pids.sort_unstable();
        pids.dedup();
        for pid in pids.into_iter().filter_map(rustix::process::Pid::from_raw) {
            tracing::warn!(
                pid = pid.as_raw_nonzero(),
                cgroup = path,
                "killing a process that no container owns"
            );
            // One that has ended meanwhile is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Removes everything of ours: the prefix, and those that continue it, `/longshore-<hash>-<instance>`.
    pub async fn remove_all(&self) -> io::Result<()> {
        let name = self.prefix.trim_start_matches('/');
        if name.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root cgroup is not ours to remove"));
        }
        let continued = format!("{name}-");
        let mut found: Vec<String> = self.mounts().iter().flat_map(|mount| children(mount)).collect();
        found.retain(|child| child == name || child.starts_with(&continued));
        found.sort();
        found.dedup();
        for child in found {
            self.remove(&child).await?;
        }
        Ok(())
    }

    /// Tasks that have a cgroup, for finding those that nobody wants any more.
    pub fn tasks(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.mounts().iter().flat_map(|m| children(&join(m, &self.prefix))).collect();
        names.sort();
        names.dedup();
        names
    }

    /// `cgroup` is a task's or a container's path.
    pub fn usage(&self, cgroup: &str) -> io::Result<Usage> {
        match &self.hierarchies {
            Hierarchies::V1(_) => self.usage_v1(cgroup),
            Hierarchies::V2(mount) => usage_v2(&join(mount, cgroup)),
        }
    }

    /// How many processes in the cgroup were killed for their memory; 0 when it is gone.
    pub fn oom_kills(&self, cgroup: &str) -> u64 {
        let file = match &self.hierarchies {
            Hierarchies::V1(_) => self.file("memory", cgroup, "memory.oom_control"),
            Hierarchies::V2(mount) => Some(join(mount, cgroup).join("memory.events")),
        };
        file.and_then(|path| fs::read_to_string(path).ok()).map_or(0, |text| field(&text, "oom_kill"))
    }

    fn create_v1(&self, path: &str, limits: TaskLimits) -> io::Result<()> {
        for controller in ["memory", "cpu", "pids"] {
            if let Some(mount) = self.mount_of(controller) {
                fs::create_dir_all(join(mount, path))?;
            }
        }
        if let Some(bytes) = limits.memory {
            // Old kernels count children only when told to; new ones refuse the question.
            let _ = self.write("memory", path, "memory.use_hierarchy", 1);
            self.write("memory", path, "memory.limit_in_bytes", bytes)?;
            if self.accounts_swap() {
                self.write("memory", path, "memory.memsw.limit_in_bytes", bytes)?;
            }
        }
        if let Some(units) = limits.cpu_units {
            self.write("cpu", path, "cpu.cfs_period_us", CPU_PERIOD)?;
            self.write("cpu", path, "cpu.cfs_quota_us", quota(units))?;
        }
        if let Some(shares) = limits.cpu_shares {
            self.write("cpu", path, "cpu.shares", shares.max(2))?;
        }
        Ok(())
    }

    fn write(&self, controller: &str, cgroup: &str, name: &str, value: u64) -> io::Result<()> {
        let Some(path) = self.file(controller, cgroup, name) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("no {controller} cgroup controller"),
            ));
        };
        write(&path, &value.to_string())
    }

    fn usage_v1(&self, cgroup: &str) -> io::Result<Usage> {
        let read = |controller: &str, name: &str| match self.file(controller, cgroup, name) {
            Some(path) => fs::read_to_string(path),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let limit = number(&read("memory", "memory.limit_in_bytes")?);
        Ok(Usage {
            memory: number(&read("memory", "memory.usage_in_bytes")?),
            memory_inactive_file: field(&read("memory", "memory.stat")?, "total_inactive_file"),
            // "No limit" is the largest multiple of the page size.
            memory_limit: Some(limit).filter(|bytes| *bytes < 1 << 62),
            cpu_nanos: read("cpuacct", "cpuacct.usage").map_or(0, |text| number(&text)),
            processes: read("pids", "pids.current").map_or(0, |text| number(&text)),
        })
    }

    async fn remove(&self, path: &str) -> io::Result<()> {
        const ATTEMPTS: u32 = 100;
        let mut attempt = 0;
        loop {
            let result: io::Result<()> = self.mounts().iter().try_for_each(|m| remove_tree(&join(m, path)));
            match result {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other,
            }
        }
    }

    fn mounts(&self) -> Vec<&Path> {
        match &self.hierarchies {
            Hierarchies::V1(all) => all.iter().map(|v1| v1.mount.as_path()).collect(),
            Hierarchies::V2(mount) => vec![mount],
        }
    }

    fn mount_of(&self, controller: &str) -> Option<&Path> {
        match &self.hierarchies {
            Hierarchies::V1(all) => all
                .iter()
                .find(|v1| v1.controllers.iter().any(|c| c == controller))
                .map(|v1| v1.mount.as_path()),
            Hierarchies::V2(mount) => Some(mount),
        }
    }

    fn file(&self, controller: &str, cgroup: &str, name: &str) -> Option<PathBuf> {
        Some(join(self.mount_of(controller)?, cgroup).join(name))
    }

    /// The path of a task, whose name must not lead elsewhere.
    fn checked(&self, task: &str) -> io::Result<String> {
        let plain =
            !task.is_empty() && task.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !plain || self.prefix == "/" {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{task}` cannot name a cgroup"),
            ));
        }
        Ok(self.task_path(task))
    }
}

fn create_v2(mount: &Path, path: &str, limits: TaskLimits) -> io::Result<()> {
    let target = join(mount, path);
    fs::create_dir_all(&target)?;
    // A controller works in a cgroup only when every cgroup above passes it on. One that this kernel lacks is missed
    // below, when a limit needs it.
    let mut parent = mount.to_owned();
    for part in Path::new(path.trim_start_matches('/')) {
        for controller in ["+cpu", "+memory", "+pids"] {
            let _ = write(&parent.join("cgroup.subtree_control"), controller);
        }
        parent.push(part);
    }
    if let Some(bytes) = limits.memory {
        write(&target.join("memory.max"), &bytes.to_string())?;
        // Absent on a kernel without swap, where nothing needs to be said.
        let _ = write(&target.join("memory.swap.max"), "0");
    }
    if let Some(units) = limits.cpu_units {
        write(&target.join("cpu.max"), &format!("{} {CPU_PERIOD}", quota(units)))?;
    }
    if let Some(shares) = limits.cpu_shares {
        write(&target.join("cpu.weight"), &weight(shares).to_string())?;
    }
    Ok(())
}

fn usage_v2(dir: &Path) -> io::Result<Usage> {
    let read = |name: &str| fs::read_to_string(dir.join(name));
    Ok(Usage {
        memory: number(&read("memory.current")?),
        memory_inactive_file: field(&read("memory.stat")?, "inactive_file"),
        memory_limit: read("memory.max")?.trim().parse().ok(),
        cpu_nanos: field(&read("cpu.stat")?, "usage_usec").saturating_mul(1000),
        processes: read("pids.current").map_or(0, |text| number(&text)),
    })
}

/// Microseconds in each period; the kernel takes no less than 1,000.
fn quota(cpu_units: u64) -> u64 {
    (cpu_units.saturating_mul(CPU_PERIOD) / 1024).max(1000)
}

/// Shares (2–262,144) as a weight (1–10,000), as runc converts them.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// The error names the file: a bare "permission denied" helps nobody.
fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)
        .map_err(|e| io::Error::new(e.kind(), format!("write {text} to {}: {e}", path.display())))
}

/// Cgroups are removed as empty directories, from the leaves up.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&dir.join(child))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn children(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn join(mount: &Path, cgroup: &str) -> PathBuf {
    mount.join(cgroup.trim_start_matches('/'))
}

/// The cgroup lines of `/proc/self/mountinfo`. Beside v1 hierarchies there may be a v2 one without controllers, where
/// runc makes directories too.
fn parse_mounts(mountinfo: &str) -> Vec<V1> {
    let parse = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mount = mount.split(' ').nth(4)?;
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
        let controllers = options.split(',').map(ToOwned::to_owned).collect();
        (kind.starts_with("cgroup") && mount.starts_with(ROOT))
            .then(|| V1 { controllers, mount: mount.into() })
    };
    mountinfo.lines().filter_map(parse).collect()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number after `name` in a file of `name number` lines.
fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map_or(0, number)
}

/// The ids of the processes in a cgroup's directory and below it.
fn processes(directory: &Path) -> Vec<i32> {
    let listed = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let own = listed.lines().filter_map(|line| line.parse().ok());
    let below = children(directory).into_iter().flat_map(|child| processes(&directory.join(child)));
    own.chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchies_are_read_from_mountinfo() {
        let text = "30 24 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                    31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    33 24 0:29 / /elsewhere/memory rw - cgroup cgroup rw,memory\n";
        let mounts = parse_mounts(text);
        let shown: Vec<String> =
            mounts.iter().map(|m| format!("{} {}", m.mount.display(), m.controllers.join("+"))).collect();
        assert_eq!(
            shown,
            [
                "/sys/fs/cgroup/memory rw+memory",
                "/sys/fs/cgroup/cpu,cpuacct rw+cpu+cpuacct",
                "/sys/fs/cgroup/unified rw"
            ]
        );
    }

    #[test]
    fn processes_are_found_at_every_depth() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for (path, pids) in [("cgroup.procs", "7\n"), ("a/cgroup.procs", ""), ("a/b/cgroup.procs", "8\n9\n")]
        {
            fs::write(dir.path().join(path), pids).unwrap();
        }
        assert_eq!(processes(dir.path()), [7, 8, 9]);
    }

    #[test]
    fn cpu_units_become_the_kernels_numbers() {
        assert_eq!((quota(1024), quota(256), quota(4096), quota(1)), (100_000, 25_000, 400_000, 1000));
        assert_eq!((weight(2), weight(1024), weight(262_144), weight(0)), (1, 39, 10_000, 1));
    }

    #[test]
    fn version_2_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups =
            Cgroups { prefix: "/longshore-test".into(), hierarchies: Hierarchies::V2(dir.path().to_owned()) };
        let limits = TaskLimits { cpu_units: Some(512), cpu_shares: Some(1024), memory: Some(1 << 20) };
        cgroups.create_task("t", limits).unwrap();
        let task = dir.path().join("longshore-test/t");
        let text = |name: &str| fs::read_to_string(task.join(name)).unwrap();
        assert_eq!((text("cpu.max"), text("cpu.weight")), ("50000 100000".into(), "39".into()));
        assert_eq!((text("memory.max"), text("memory.swap.max")), ("1048576".into(), "0".into()));
        assert!(dir.path().join("cgroup.subtree_control").exists());
        assert!(!task.join("cgroup.subtree_control").exists(), "it has processes below only");

        fs::write(task.join("memory.current"), "4096\n").unwrap();
        fs::write(task.join("memory.stat"), "anon 1\ninactive_file 77\n").unwrap();
        fs::write(task.join("memory.events"), "oom 3\noom_kill 2\n").unwrap();
        fs::write(task.join("cpu.stat"), "usage_usec 5\n").unwrap();
        let path = cgroups.task_path("t");
        let expected = Usage {
            memory: 4096,
            memory_inactive_file: 77,
            memory_limit: Some(1 << 20),
            cpu_nanos: 5000,
            processes: 0,
        };
        assert_eq!((cgroups.usage(&path).unwrap(), cgroups.oom_kills(&path)), (expected, 2));
        fs::write(task.join("memory.max"), "max\n").unwrap();
        assert_eq!(cgroups.usage(&path).unwrap().memory_limit, None);
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "low 0\noom 7\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((field(text, "oom_kill"), field(text, "oom"), field(text, "oom_k")), (2, 7, 0));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let cgroups = Cgroups { prefix: "/longshore-test".into(), hierarchies: Hierarchies::V1(Vec::new()) };
        for wrong in ["", "..", "a/b", "a/../..", "."] {
            assert!(cgroups.create_task(wrong, TaskLimits::default()).is_err(), "{wrong}");
        }
        assert_eq!(cgroups.container_path("t", "c"), "/longshore-test/t/c");
    }
}
