//! The networks of tasks: a namespace with its own interface and VPC address for each.
//!
//! Invariant: the machine is the record. A task's namespace is pinned to a file named after the task, its address is
//! on the interface inside; a new process finds both and goes on, and no connection notices.
//!
//! There is no bridge. Each task's `eth0` is one end of a link whose other end is on the instance, and a route for
//! the one address leads into it, so that every packet between tasks passes the rules of [`rules`]. Inside, `eth0`
//! shows the subnet's prefix, but every packet goes to the subnet's router: its hardware address is entered for good
//! on both sides, thus nobody asks (no ARP, no `proxy_arp`), and a neighbour table never overflows.
//! The subnets' routers answer on an interface of the machine, which is also where its own packets to tasks come from.

mod bridge;
mod conntrack;
mod down;
mod error;
pub mod files;
mod filter;
pub mod forwards;
mod holder;
mod instance;
mod names;
mod namespace;
mod netlink;
mod overlap;
mod pool;
mod rules;

pub use self::down::down;
pub use self::error::Error;
pub use self::holder::Holder;
pub use self::names::ServerId;

use self::error::Attempt;
use self::instance::find;
use self::names::{Paths, task_file};
use self::netlink::{Hop, NEAR_MAC, Netlink, To};
use self::overlap::Machine;
use self::pool::{Near, Pool, Prepared, TASK_INTERFACE};
use bridge::Bridge;
use longshore_model::link::NetworkInterface;
use longshore_model::link::firewall::Firewall;
use longshore_model::task::HostPort;
use longshore_model::vpc::{Cidr, MacAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What a server's networks are to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Part of every name that is left on the machine.
    pub server: ServerId,
    /// Shown to whoever wants the same addresses.
    pub data_dir: PathBuf,
    pub vpc: Cidr,
    /// Where namespaces are pinned: on a tmpfs, since none outlives a reboot. Servers of one machine share it.
    pub state: PathBuf,
    pub instance: Instance,
    /// How many task namespaces are kept ready.
    pub warm: usize,
}

impl Config {
    pub fn new(data_dir: &Path, vpc: Cidr, instance: Instance) -> Self {
        Self {
            server: ServerId::of(data_dir),
            data_dir: data_dir.to_owned(),
            vpc,
            state: PathBuf::from("/run/longshore"),
            instance,
            warm: 4,
        }
    }
}

/// Where an agent's tasks are linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    /// The machine's own namespace.
    Host,
    /// A namespace for this instance, linked to the machine; numbered from 0 to 255.
    Namespaced(u16),
}

impl Instance {
    fn number(self) -> Option<u16> {
        match self {
            Self::Host => None,
            Self::Namespaced(number) => Some(number),
        }
    }
}

/// A task's network interface as AWS calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eni {
    pub address: Ipv4Addr,
    pub subnet: Cidr,
    pub mac: MacAddress,
}

impl Eni {
    /// The subnet's router, as in AWS its first address.
    pub fn router(&self) -> Ipv4Addr {
        self.subnet.nth(1).unwrap_or(self.subnet.base())
    }
}

impl From<&NetworkInterface> for Eni {
    fn from(interface: &NetworkInterface) -> Self {
        Self { address: interface.address, subnet: interface.subnet, mac: interface.mac }
    }
}

/// A namespace to run a task's containers in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNamespace {
    pub path: PathBuf,
}

/// A task that has a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNetwork {
    pub task: String,
    /// `None` for one with only its loopback.
    pub address: Option<Ipv4Addr>,
    pub namespace: PathBuf,
}

/// The networks of one container instance.
pub struct Network {
    server: ServerId,
    tasks_dir: PathBuf,
    /// The process's own namespace.
    machine: Netlink,
    /// The interface that holds the routers' addresses.
    router: u32,
    routers: tokio::sync::Mutex<BTreeSet<Ipv4Addr>>,
    /// The server's own VPC.
    vpc: Cidr,
    /// The link to this instance, when it has its own namespace.
    link: Option<(instance::Link, PathBuf)>,
    near: Arc<Near>,
    pool: Arc<Pool>,
    /// The private network of tasks in the mode `bridge`, once there was one.
    bridge: tokio::sync::OnceCell<Bridge>,
    /// Who chooses an address there does so alone.
    choosing: tokio::sync::Mutex<()>,
    /// Which task has which address there.
    private: Mutex<BTreeMap<String, Ipv4Addr>>,
    refill: tokio::task::AbortHandle,
    tasks: Mutex<BTreeMap<String, Slot>>,
}

/// One task's state; locked while it changes.
type Slot = Arc<tokio::sync::Mutex<Option<Attached>>>;

#[derive(Clone, Copy, Debug)]
struct Attached {
    /// The address, and the interface of the near namespace that leads to it.
    interface: Option<(Ipv4Addr, u32)>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.refill.abort();
    }
}

impl Network {
    /// Makes what the server's networks need, or finds it, and adopts the tasks that are there.
    /// Leaves forwarding of IPv4 switched on, also after [`down`].
    pub async fn open(config: Config) -> Result<Self, Error> {
        let server = config.server.clone();
        let paths = Paths::new(&config.state, &server);
        let tasks_dir = paths.tasks(config.instance.number());
        let _turn = lock(&paths).await?;
        fs::create_dir_all(&tasks_dir).attempt(|| format!("make {}", tasks_dir.display()))?;

        let machine = Netlink::open_here()?;
        let router = claim(&machine, &config).await?;
        namespace::sysctl("net/ipv4/ip_forward", "1")?;
        let (near, link) = match config.instance {
            Instance::Host => {
                rules::load(&server, config.vpc, &[config.vpc]).await?;
                (Near { netlink: Netlink::open_here()?, is_machine: true, server: server.clone() }, None)
            }
            Instance::Namespaced(number) => {
                let links = Machine::read(&machine, &server).await?.links(&server)?;
                rules::load(&server, config.vpc, &[config.vpc, links]).await?;
                let (namespace, link) = instance::ensure(&machine, &server, &paths, number, links).await?;
                let near = Near { netlink: namespace.netlink, is_machine: false, server: server.clone() };
                (near, Some((link, paths.instance(number))))
            }
        };
        rules::join_forwarding(&server).await?;

        let near = Arc::new(near);
        let pool = Arc::new(Pool::new(near.clone(), config.warm)?);
        let refilled = pool.clone();
        let refill = tokio::spawn(async move { refilled.refill().await }).abort_handle();
        let network = Self {
            server,
            tasks_dir,
            machine,
            router,
            routers: tokio::sync::Mutex::default(),
            vpc: config.vpc,
            link,
            near,
            pool,
            bridge: tokio::sync::OnceCell::new(),
            choosing: tokio::sync::Mutex::default(),
            private: Mutex::default(),
            refill,
            tasks: Mutex::default(),
        };
        network.adopt().await?;
        Ok(network)
    }

    /// Gives the task its interface. Doing it again with the same address keeps the interface; with another one, the
    /// task gets a new namespace.
    pub async fn attach(&self, task: &str, eni: &Eni) -> Result<TaskNamespace, Error> {
        let path = task_file(&self.tasks_dir, task)?;
        let slot = self.slot(task);
        let mut slot = slot.lock().await;
        match slot.and_then(|attached| attached.interface) {
            Some((address, veth)) if address == eni.address => self.publish(eni, veth).await?,
            _ => {
                self.remove(&path, slot.take()).await?;
                let prepared = self.pool.take().await?;
                // First on record, then in use: whatever happens from here, it is found and removed.
                namespace::pin(&prepared.namespace.file, &path)?;
                configure(&prepared, eni).await?;
                self.publish(eni, prepared.veth).await?;
                *slot = Some(Attached { interface: Some((eni.address, prepared.veth)) });
            }
        }
        Ok(TaskNamespace { path })
    }

    /// Gives the task an address that is private to the instance, and makes ports of the instance lead to it (network
    /// mode `bridge`). Doing it again keeps the address.
    pub async fn bridge(&self, task: &str, ports: &[HostPort]) -> Result<TaskNamespace, Error> {
        let path = task_file(&self.tasks_dir, task)?;
        let bridge = self.bridge.get_or_try_init(|| self.open_bridge()).await?;
        let slot = self.slot(task);
        let mut slot = slot.lock().await;
        let present =
            slot.and_then(|attached| attached.interface).filter(|(at, _)| bridge.block.contains(*at));
        let address = match present {
            Some((address, veth)) => {
                self.lead_to_private(bridge, address, veth).await?;
                address
            }
            None => {
                self.remove(&path, slot.take()).await?;
                let prepared = self.pool.take().await?;
                let _alone = self.choosing.lock().await;
                let taken = self.private().values().copied().collect();
                let eni = bridge.interface(task, &taken).ok_or(Error::NoFreeAddress)?;
                namespace::pin(&prepared.namespace.file, &path)?;
                configure(&prepared, &eni).await?;
                *slot = Some(Attached { interface: Some((eni.address, prepared.veth)) });
                self.private().insert(task.to_owned(), eni.address);
                self.lead_to_private(bridge, eni.address, prepared.veth).await?;
                eni.address
            }
        };
        bridge.publish(ports, address).await?;
        Ok(TaskNamespace { path })
    }

    /// Gives the task a namespace with nothing but its loopback (network mode `none`).
    pub async fn isolated(&self, task: &str) -> Result<TaskNamespace, Error> {
        let path = task_file(&self.tasks_dir, task)?;
        let slot = self.slot(task);
        let mut slot = slot.lock().await;
        if !matches!(*slot, Some(Attached { interface: None })) {
            self.remove(&path, slot.take()).await?;
            let namespace = namespace::create_for_task().await?;
            namespace::pin(&namespace.file, &path)?;
            *slot = Some(Attached { interface: None });
        }
        Ok(TaskNamespace { path })
    }

    /// Removes everything of the task's network. Removing what is not there succeeds.
    pub async fn detach(&self, task: &str) -> Result<(), Error> {
        let path = task_file(&self.tasks_dir, task)?;
        let slot = self.slot(task);
        let mut slot = slot.lock().await;
        self.remove(&path, *slot).await?;
        *slot = None;
        drop(slot);
        self.forget(task);
        Ok(())
    }

    /// The tasks that have a namespace on this instance.
    pub async fn list(&self) -> Vec<TaskNetwork> {
        let tasks: Vec<(String, Slot)> =
            self.tasks().iter().map(|(t, slot)| (t.clone(), slot.clone())).collect();
        let mut found = Vec::with_capacity(tasks.len());
        for (task, slot) in tasks {
            let Some(attached) = *slot.lock().await else { continue };
            let namespace = self.tasks_dir.join(&task);
            found.push(TaskNetwork {
                task,
                address: attached.interface.map(|(address, _)| address),
                namespace,
            });
        }
        found
    }

    /// Removes the networks of all tasks but these, also what an attach that never ended has left.
    pub async fn gc(&self, keep: &BTreeSet<String>) -> Result<(), Error> {
        let mut there: BTreeSet<String> = files_in(&self.tasks_dir)?;
        there.extend(self.tasks().keys().cloned());
        for task in there.difference(keep) {
            self.detach(task).await?;
        }
        Ok(())
    }

    /// Lets pass to and from the instance's tasks what this says, and nothing else.
    pub async fn filter(&self, firewall: &Firewall) -> Result<(), Error> {
        filter::load(self.instance_namespace(), &self.server.filter_table(), firewall).await
    }

    /// Sets again what other programs may have undone, such as Docker when it starts later than this server.
    /// Cheap enough for once a minute: it starts one process.
    pub async fn refresh(&self) -> Result<(), Error> {
        namespace::sysctl("net/ipv4/ip_forward", "1")?;
        rules::join_forwarding(&self.server).await
    }

    /// The instance's own namespace; `None` when that is the machine's.
    pub fn instance_namespace(&self) -> Option<&Path> {
        self.link.as_ref().map(|(_, path)| path.as_path())
    }

    /// The instance's own address, when it has its own namespace.
    pub fn instance_address(&self) -> Option<Ipv4Addr> {
        self.link.as_ref().map(|(link, _)| link.instance)
    }

    /// The machine's address as the instance's namespace sees it.
    pub fn machine_address(&self) -> Option<Ipv4Addr> {
        self.link.as_ref().map(|(link, _)| link.machine)
    }

    /// Makes the instance's own network interface answer at its address in a VPC.
    pub async fn hold(&self, eni: &Eni) -> Result<(), Error> {
        let Some((link, _)) = &self.link else { return Ok(()) };
        let source = Some(self.ensure_router(eni).await?);
        let uplink = find(&self.near.netlink, instance::UPLINK).await?;
        self.near.netlink.add_address(uplink, eni.address, 32).await?;
        let to = To::address(eni.address);
        self.machine.set_route(to, Hop::Router(link.interface, link.instance), source).await
    }

    /// Removes the instance's own namespace with all that is in it. Nothing of this network is used afterwards.
    pub async fn end(&self) -> Result<(), Error> {
        let Some((link, path)) = &self.link else { return Ok(()) };
        self.refill.abort();
        self.gc(&BTreeSet::new()).await?;
        self.machine.remove_link(link.interface).await?;
        namespace::unpin(path)?;
        let removed = namespace::ignore(std::io::ErrorKind::NotFound, fs::remove_dir_all(&self.tasks_dir));
        removed.attempt(|| format!("remove {}", self.tasks_dir.display()))
    }

    /// How many task namespaces are ready.
    pub fn warm(&self) -> usize {
        self.pool.ready()
    }

    /// Takes over the tasks of an earlier process. What it had not finished is removed: no container is in it.
    async fn adopt(&self) -> Result<(), Error> {
        for task in files_in(&self.tasks_dir)? {
            let path = task_file(&self.tasks_dir, &task)?;
            match inspect(&path).await? {
                Some(attached) => {
                    if let Some((address, _)) = attached.interface.filter(|(at, _)| overlap::is_private(*at))
                    {
                        self.private().insert(task.clone(), address);
                    }
                    *self.slot(&task).lock().await = Some(attached);
                }
                None => namespace::unpin(&path)?,
            }
        }
        if Machine::read(&self.machine, &self.server).await?.has_private_block() {
            let bridge = self.bridge.get_or_try_init(|| self.open_bridge()).await?;
            let kept = self.private().values().copied().collect();
            bridge.keep_only(&kept).await?;
        }
        Ok(())
    }

    /// Takes the block for private addresses; the router's interface says so to the next process and to other servers.
    async fn open_bridge(&self) -> Result<Bridge, Error> {
        let instance = self.link.as_ref().map(|(link, path)| (path.as_path(), link.instance));
        let block = Machine::read(&self.machine, &self.server).await?.private_block(&self.server)?;
        let gateway = block.nth(1).unwrap_or(block.base());
        self.machine.add_address(self.router, gateway, block.prefix()).await?;
        Bridge::open(&self.server, block, instance).await
    }

    /// Makes a private address lead to its task, on the instance alone.
    async fn lead_to_private(&self, bridge: &Bridge, address: Ipv4Addr, veth: u32) -> Result<(), Error> {
        let near = &self.near.netlink;
        near.set_neighbour(veth, address, MacAddress::of(address)).await?;
        near.set_route(To::address(address), Hop::Interface(veth), Some(bridge.source)).await?;
        // What the instance sends to its own loopback may leave by this link, where a port leads to the task.
        let setting = format!("net/ipv4/conf/{}/route_localnet", near.name_of(veth).await?);
        namespace::within(self.instance_namespace(), move || namespace::sysctl(&setting, "1")).await
    }

    /// Makes the address lead to the task, from everywhere.
    async fn publish(&self, eni: &Eni, veth: u32) -> Result<(), Error> {
        self.near.netlink.set_neighbour(veth, eni.address, eni.mac).await?;
        let to = To::address(eni.address);
        let source = Some(self.ensure_router(eni).await?);
        match &self.link {
            None => self.machine.set_route(to, Hop::Interface(veth), source).await,
            Some((link, _)) => {
                self.near.netlink.set_route(to, Hop::Interface(veth), None).await?;
                self.machine.set_route(to, Hop::Router(link.interface, link.instance), source).await
            }
        }
    }

    /// Makes the machine answer at the address of the subnet's router. A subnet of a VPC that is not the server's own is
    /// taken first, unless somebody else uses it here.
    async fn ensure_router(&self, eni: &Eni) -> Result<Ipv4Addr, Error> {
        let router = eni.router();
        let mut routers = self.routers.lock().await;
        if routers.contains(&router) {
            return Ok(router);
        }
        if self.vpc.covers(eni.subnet) {
            self.machine.add_address(self.router, router, 32).await?;
        } else {
            Machine::read(&self.machine, &self.server).await?.admit_subnet(eni.subnet)?;
            rules::add_inside(&self.server, eni.subnet).await?;
            self.machine.add_address(self.router, router, eni.subnet.prefix()).await?;
            self.machine.set_unreachable(eni.subnet).await?;
        }
        routers.insert(router);
        Ok(router)
    }

    /// Removes a task's network, asking the machine when nothing is known of it. The address leads nowhere at once;
    /// the kernel then removes namespace and link together, many tasks' in one go, which takes it as long as one.
    async fn remove(&self, path: &Path, known: Option<Attached>) -> Result<(), Error> {
        let attached = match known {
            Some(attached) => Some(attached),
            None => inspect(path).await?,
        };
        if let Some((address, veth)) = attached.and_then(|attached| attached.interface) {
            if let Some(bridge) = self.bridge.get().filter(|bridge| bridge.block.contains(address)) {
                bridge.withdraw(address).await?;
                self.private().retain(|_, held| *held != address);
            }
            let to = To::address(address);
            self.near.netlink.remove_route_through(to, veth).await?;
            if let Some((link, _)) = &self.link {
                self.machine.remove_route_through(to, link.interface).await?;
            }
        }
        namespace::unpin(path)
    }

    fn slot(&self, task: &str) -> Slot {
        self.tasks().entry(task.to_owned()).or_default().clone()
    }

    /// Drops the task's slot unless somebody holds it to attach again.
    fn forget(&self, task: &str) {
        let mut tasks = self.tasks();
        let unused =
            |slot: &Slot| slot.try_lock().is_ok_and(|slot| slot.is_none()) && Arc::strong_count(slot) <= 2;
        if tasks.get(task).is_some_and(unused) {
            tasks.remove(task);
        }
    }

    fn private(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Ipv4Addr>> {
        self.private.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Slot>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inside the task: its addresses and the way out. The address is last: who finds it knows that the rest is there.
async fn configure(prepared: &Prepared, eni: &Eni) -> Result<(), Error> {
    let (netlink, interface) = (&prepared.namespace.netlink, prepared.interface);
    netlink.set_mac(interface, eni.mac).await?;
    netlink.set_neighbour(interface, eni.router(), NEAR_MAC).await?;
    netlink.set_route(To::EVERYWHERE, Hop::Router(interface, eni.router()), None).await?;
    netlink.add_address(interface, eni.address, eni.subnet.prefix()).await
}

/// Takes the VPC's block for this server; the router's interface says so to other servers.
async fn claim(machine: &Netlink, config: &Config) -> Result<u32, Error> {
    Machine::read(machine, &config.server).await?.admit(config.vpc)?;
    let name = config.server.router();
    machine.add_holder(&name).await?;
    let router = find(machine, &name).await?;
    machine.without_ipv6(router).await?;
    let alias: String = config.data_dir.to_string_lossy().chars().take(200).collect();
    machine.set_alias(router, &alias).await?;
    let first = config.vpc.nth(1).unwrap_or(config.vpc.base());
    machine.add_address(router, first, config.vpc.prefix()).await?;
    machine.set_up(router).await?;
    machine.set_unreachable(config.vpc).await?;
    Ok(router)
}

/// What a task's file leads to; `None` when its attach was never finished.
async fn inspect(path: &Path) -> Result<Option<Attached>, Error> {
    let Some(namespace) = namespace::open(path).await? else { return Ok(None) };
    let Some(link) = namespace.netlink.link(TASK_INTERFACE).await? else {
        return Ok(Some(Attached { interface: None }));
    };
    let addresses = namespace.netlink.addresses().await?;
    let address = addresses.into_iter().find(|address| address.interface == link.index);
    let interface = address.zip(link.peer).map(|(address, veth)| (address.address, veth));
    Ok(interface.is_some().then_some(Attached { interface }))
}

/// One at a time looks for free addresses and takes them, whichever server it belongs to.
async fn lock(paths: &Paths) -> Result<File, Error> {
    let path = paths.lock();
    let attempt = format!("lock {}", path.display());
    let locked = tokio::task::spawn_blocking(move || {
        loop {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let file = File::create(&path)?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
            // The last server to go removes the file, perhaps while this one waited for it.
            match fs::metadata(&path) {
                Ok(there) if there.ino() == file.metadata()?.ino() => return Ok(file),
                _ => {}
            }
        }
    });
    locked.await.map_err(std::io::Error::other).and_then(|locked| locked).attempt(|| attempt)
}

fn files_in(directory: &Path) -> Result<BTreeSet<String>, Error> {
    let names = fs::read_dir(directory).and_then(|entries| {
        let name =
            |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        entries.map(name).collect()
    });
    names.attempt(|| format!("list {}", directory.display()))
}
