//! Network namespaces: made, entered, pinned to files.
//! Invariant: only threads made here ever change their namespace, and they end right after; no thread of the
//! runtime is ever in another namespace than the process.

use super::error::{Attempt, Error};
use super::netlink::Netlink;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A namespace and a netlink socket inside it. It lives as long as this value unless it is pinned.
pub struct Namespace {
    pub file: File,
    pub netlink: Netlink,
}

/// A new namespace for a task: only `lo`, which is up, and IPv6 off on what comes besides.
pub async fn create_for_task() -> Result<Namespace, Error> {
    let namespace = create(|| {
        sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        // As Docker does for containers with their own network: any user may listen on port 80, and ping.
        sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
        match sysctl("net/ipv4/ping_group_range", "0 2147483647") {
            // In a user namespace that lacks some of the groups.
            Err(Error::Machine { cause, .. }) if cause.kind() == ErrorKind::InvalidInput => Ok(()),
            set => set,
        }
    });
    namespace.await
}

/// A new namespace for an instance: it forwards, and takes from each task only what that task may send.
pub async fn create_for_instance() -> Result<Namespace, Error> {
    let namespace = create(|| {
        sysctl("net/ipv4/ip_forward", "1")?;
        sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        sysctl("net/ipv4/conf/default/rp_filter", "1")
    });
    namespace.await
}

async fn create(settings: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<Namespace, Error> {
    let namespace = on_thread(move || {
        unshare(CloneFlags::CLONE_NEWNET).attempt(|| "make a network namespace".to_owned())?;
        settings()?;
        let file =
            File::open("/proc/thread-self/ns/net").attempt(|| "open a network namespace".to_owned())?;
        Ok(Namespace { file, netlink: Netlink::open_here()? })
    });
    let namespace = namespace.await?;
    namespace.netlink.set_up(LOOPBACK).await?;
    Ok(namespace)
}

/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;

/// The namespace pinned at `path`; `None` when nothing is pinned there.
pub async fn open(path: &Path) -> Result<Option<Namespace>, Error> {
    if !is_pinned(path)? {
        return Ok(None);
    }
    let pinned = path.to_owned();
    let namespace = within(Some(path), move || {
        let file = File::open(&pinned).attempt(|| format!("open {}", pinned.display()))?;
        Ok(Namespace { file, netlink: Netlink::open_here()? })
    });
    namespace.await.map(Some)
}

/// Does `work` in the namespace pinned at `path`; `None` is the process's own.
pub async fn within<T: Send + 'static>(
    path: Option<&Path>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let path = path.map(Path::to_owned);
    let inside = on_thread(move || {
        if let Some(path) = path {
            let file = File::open(&path).attempt(|| format!("open {}", path.display()))?;
            setns(&file, CloneFlags::CLONE_NEWNET).attempt(|| format!("enter {}", path.display()))?;
        }
        work()
    });
    inside.await
}

/// Keeps the namespace under a file of that name until [`unpin`], whatever becomes of this process.
pub fn pin(namespace: &File, path: &Path) -> Result<(), Error> {
    let attempt = || format!("pin a network namespace to {}", path.display());
    File::create(path).attempt(attempt)?;
    mount_bind(format!("/proc/self/fd/{}", namespace.as_raw_fd()), path).attempt(attempt)
}

/// Removes the file. The namespace ends with its last process and socket.
pub fn unpin(path: &Path) -> Result<(), Error> {
    // Mounted twice when a process was killed between a mount and its record: unmount until nothing is left.
    while is_pinned(path)? {
        unmount(path, UnmountFlags::DETACH).attempt(|| format!("unmount {}", path.display()))?;
    }
    ignore(ErrorKind::NotFound, fs::remove_file(path)).attempt(|| format!("remove {}", path.display()))
}

pub fn is_pinned(path: &Path) -> Result<bool, Error> {
    /// `NSFS_MAGIC` of linux/magic.h.
    const NAMESPACE: u64 = 0x6e73_6673;
    match rustix::fs::statfs(path) {
        Ok(found) => Ok(found.f_type as u64 == NAMESPACE),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error).attempt(|| format!("look at {}", path.display())),
    }
}

/// Sets a kernel parameter of the calling thread's namespace. One that this kernel lacks is none to set.
pub fn sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    let written = match fs::read_to_string(&path) {
        Ok(now) if now.trim() == value => Ok(()),
        _ => fs::write(&path, value),
    };
    ignore(ErrorKind::NotFound, written).attempt(|| format!("set {name} to {value}"))
}

pub fn ignore(kind: ErrorKind, result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == kind { Ok(()) } else { Err(error) })
}

/// Runs `work` on a thread of its own, within the runtime's context so that it can open sockets for it.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Handle::current();
    let (send, receive) = tokio::sync::oneshot::channel();
    let run = move || {
        let _context = runtime.enter();
        // Nobody waits any more when the caller was cancelled: then what was made is dropped here.
        let _ = send.send(work());
    };
    std::thread::Builder::new()
        .name("longshore-netns".to_owned())
        .spawn(run)
        .attempt(|| "start a thread".to_owned())?;
    let gone = || io::Error::other("the thread ended without an answer");
    receive.await.map_err(|_| gone()).attempt(|| "work in a network namespace".to_owned())?
}
