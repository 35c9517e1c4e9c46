//! A machine of its own for each test: the test runs again in a child process with new network and mount
//! namespaces, which the kernel removes with the child, however it ends.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const INSIDE: &str = "LONGSHORE_TEST_MACHINE";

/// Runs the test of that name on a machine of its own; it is given an empty directory.
pub fn on_a_machine<F: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> F) {
    if let Some(directory) = std::env::var_os(INSIDE) {
        run("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(test(directory.into()));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    let child = unshare
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, directory.path())
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(child.status.success(), "{said}");
    assert!(said.contains("1 passed"), "no test is named {name}");
}

/// Runs a command line without quoting; returns what it printed.
#[track_caller]
pub fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Loads rules as another program would.
#[track_caller]
pub fn nft(rules: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Somewhere in the network: the machine itself or a namespace.
#[derive(Clone, Debug)]
pub enum At {
    Machine,
    Namespace(PathBuf),
}

impl At {
    pub fn namespace(path: &Path) -> Self {
        Self::Namespace(path.to_owned())
    }

    /// A namespace of its own, found at that path.
    pub fn new_namespace(path: &Path) -> Self {
        std::fs::write(path, "").unwrap();
        let at = path.to_owned();
        let make = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            rustix::mount::mount_bind("/proc/thread-self/ns/net", at).unwrap();
        };
        std::thread::spawn(make).join().unwrap();
        Self::namespace(path)
    }

    /// Does `work` there, on a thread of its own.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let at = self.clone();
        let work = move || {
            if let Self::Namespace(path) = at {
                let namespace = std::fs::File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            }
            work()
        };
        std::thread::spawn(work).join().unwrap()
    }

    /// Answers every connection with the address it came from, then echoes.
    pub fn serve(&self, port: u16) {
        let listener = self.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                std::thread::spawn(move || serve_one(connection.unwrap()));
            }
        });
    }

    pub fn connect(&self, to: Ipv4Addr, port: u16) -> io::Result<Connection> {
        self.run(move || Connection::open(SocketAddr::new(to.into(), port)))
    }

    /// The address that the server at the other end sees.
    #[track_caller]
    pub fn reaches(&self, to: Ipv4Addr, port: u16) -> IpAddr {
        match self.connect(to, port) {
            Ok(connection) => connection.seen_as,
            Err(error) => panic!("{self:?} does not reach {to}:{port}: {error}"),
        }
    }
}

fn serve_one(mut connection: TcpStream) {
    let peer = connection.peer_addr().unwrap().ip().to_string();
    let line = format!("{peer:<15}");
    if connection.write_all(line.as_bytes()).is_err() {
        return;
    }
    let mut buffer = [0; 64];
    while let Ok(n @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}

pub struct Connection {
    stream: TcpStream,
    pub seen_as: IpAddr,
}

impl Connection {
    fn open(to: SocketAddr) -> io::Result<Self> {
        // Long for a busy computer; whatever reaches at all does so in a millisecond.
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut line = [0; 15];
        stream.read_exact(&mut line)?;
        let seen_as = std::str::from_utf8(&line).unwrap().trim().parse().unwrap();
        Ok(Self { stream, seen_as })
    }

    /// Sends a word and gets it back.
    #[track_caller]
    pub fn works(&mut self, word: &str) {
        self.stream.write_all(word.as_bytes()).unwrap();
        let mut back = vec![0; word.len()];
        self.stream.read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    }
}

/// Waits until it is so; the test's own deadline ends a wait in vain.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// What a test finds on its machine before it begins.
pub struct Before {
    traces: String,
    namespaces: BTreeSet<String>,
}

impl Before {
    pub fn now() -> Self {
        Self { traces: traces(), namespaces: namespaces() }
    }

    /// Nothing was added and nothing is gone. Mounts of namespaces were copied from the machine around this one, where
    /// their owners may remove them: of them only new ones count.
    pub fn is_again(&self) -> bool {
        traces() == self.traces && namespaces().is_subset(&self.namespaces)
    }
}

/// Where namespaces are held by mounts.
fn namespaces() -> BTreeSet<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.starts_with("nsfs ")).map(ToOwned::to_owned).collect()
}

/// Everything else about networks that a program can leave on the machine.
fn traces() -> String {
    let commands =
        ["ip -o link", "ip -o addr", "ip route show table all", "ip rule", "ip neigh", "nft list ruleset"];
    let trace = |line: &str| {
        let mut words = line.split_whitespace();
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        format!("# {line}\n{}", String::from_utf8_lossy(&output.stdout))
    };
    commands.map(trace).concat()
}
