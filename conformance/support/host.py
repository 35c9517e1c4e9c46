"""A look at the machine from outside Longshore: what the kernel says, not what an API says."""

import contextlib
import hashlib
import ipaddress
import json
import os
import pathlib
import re
import subprocess
import typing

from .server import clean_environment
from .waiting import until

PROC = pathlib.Path("/proc")
CGROUP = pathlib.Path("/sys/fs/cgroup")
# What the links and namespaces of tests' own networks are called, and their addresses: those for benchmarks of network
# devices (RFC 2544), which nobody routes.
LAN_PREFIX = "lsb"
LAN_BLOCK = ipaddress.ip_network("198.18.0.0/15")


class Process:
    """A process of the machine, by its id in the host's PID namespace."""

    def __init__(self, pid):
        self.pid = pid
        self.started = self._started()

    def _started(self):
        """Clock ticks after boot at which it started: with the pid, its identity."""
        stat = (PROC / str(self.pid) / "stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])

    def alive(self):
        try:
            return Process(self.pid).started == self.started and self.state() != "Z"
        except (OSError, IndexError):
            return False

    def state(self):
        return (PROC / str(self.pid) / "stat").read_text().rpartition(")")[2].split()[0]

    def namespace(self, kind):
        return os.readlink(PROC / str(self.pid) / "ns" / kind)

    def environment(self):
        pairs = (PROC / str(self.pid) / "environ").read_bytes().decode().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if "=" in pair)

    def pid_inside(self):
        """Its id in its own, innermost PID namespace."""
        status = (PROC / str(self.pid) / "status").read_text()
        return int(re.search(r"^NSpid:.*?(\d+)$", status, re.MULTILINE)[1])

    def in_network(self, *command):
        """Runs a command of the host in the process's network namespace; returns its output."""
        return run("nsenter", "--target", str(self.pid), "--net", *command)

    def addresses(self):
        """Interface → IPv4 addresses, without loopback."""
        listing = json.loads(self.in_network("ip", "-j", "-4", "address"))
        found = {
            link["ifname"]: [each["local"] for each in link["addr_info"] if each["family"] == "inet"] for link in listing
        }
        found.pop("lo", None)
        return found

    def memory_limit(self):
        """The smallest limit on the way from its cgroup to the root, in bytes."""
        return min(self._limits("memory", "memory.limit_in_bytes", "memory.max"), default=None)

    def own_memory_limit(self):
        """The limit of its own cgroup alone."""
        return next(iter(self._limits("memory", "memory.limit_in_bytes", "memory.max")), None)

    def cpu_limit(self):
        """The smallest quota on the way to the root, in CPUs."""
        quotas = []
        for folder in self._cgroup_folders("cpu"):
            with contextlib.suppress(OSError, ValueError):
                if (folder / "cpu.max").exists():
                    quota, period = (folder / "cpu.max").read_text().split()
                else:
                    quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
                if int(quota) > 0:
                    quotas.append(int(quota) / int(period))
        return min(quotas, default=None)

    def _limits(self, controller, name_v1, name_v2):
        for folder in self._cgroup_folders(controller):
            for name in (name_v1, name_v2):
                with contextlib.suppress(OSError, ValueError):
                    yield int((folder / name).read_text())

    def cgroup_paths(self):
        """Controller → path; the key is empty for version 2."""
        lines = (PROC / str(self.pid) / "cgroup").read_text().splitlines()
        paths = {}
        for line in lines:
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
        return paths

    def _cgroup_folders(self, controller):
        """From its own cgroup up to the root's."""
        paths = self.cgroup_paths()
        if controller in paths:
            top, path = CGROUP / controller, paths[controller]
        else:
            top, path = CGROUP, paths[""]
        folder = top / path.lstrip("/")
        while folder != top:
            yield folder
            folder = folder.parent


def find_processes(marker):
    """Processes that have `marker` as one of their arguments."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if marker.encode() in arguments:
                    found.append(Process(int(entry.name)))
    return [process for process in found if process.alive()]


def find_process(marker):
    """The one process with that argument, once it is there."""

    def exactly_one():
        found = find_processes(marker)
        return found[0] if len(found) == 1 else None

    return until(f"one process with the argument {marker}", exactly_one)


def leftovers(foreign):
    """Everything on the machine that a server could leave behind, as lists by kind, without what the servers in
    `foreign` (a set of `Foreign`) have there."""
    theirs = Marks(foreign).with_lans()
    return {kind: sorted(each for each in found if not theirs.mark(each)) for kind, found in traces(theirs).items()}


def belongings(server):
    """What is on the machine that carries a server's name or lies in its VPC, as lists by kind."""
    own, nobody = Marks({Foreign(str(server.data_dir), server.vpc_cidr)}), Marks(())
    named = {kind: [each for each in found if own.mark(each)] for kind, found in traces(nobody).items()}
    # Of another's process the command line may name the same range.
    own = Marks({Foreign(str(server.data_dir), None)})
    named["processes"] = [command_line(entry) or entry.name for entry in process_entries() if own.mark_process(entry)]
    return {kind: found for kind, found in named.items() if found}


def traces(theirs):
    """What there is, by kind."""
    return {
        "links": re.findall(r"^\d+: ([^:@]+)", run("ip", "-o", "link"), re.MULTILINE),
        "routes": run("ip", "-4", "route", "show", "table", "all").splitlines(),
        "rules": run("ip", "rule").splitlines(),
        "nftables": nftables(theirs),
        "mounts": [line.split()[1] for line in (PROC / "mounts").read_text().splitlines()],
        "network namespaces": network_namespaces(theirs),
        "named namespaces": entries("/run/netns"),
        "runtime files": entries("/run/longshore"),
        "runc's records": entries("/run/containerd/runc"),
        "cgroups": [str(path) for path in cgroup_folders()],
        "processes": processes(theirs),
    }


class Foreign(typing.NamedTuple):
    """A server that this run of the tests did not start."""

    data_dir: str
    vpc_cidr: str | None


class Marks:
    """What names and addresses tell of whom something on the machine is."""

    def __init__(self, servers):
        self.texts = [mark for each in servers for mark in (each.data_dir, server_id(each.data_dir))]
        self.networks = [ipaddress.ip_network(each.vpc_cidr) for each in servers if each.vpc_cidr]

    def with_lans(self):
        """The networks between machines too: they are the tests' own, and those that make them remove them."""
        self.texts.append(LAN_PREFIX)
        self.networks.append(LAN_BLOCK)
        return self

    def mark(self, text):
        return any(mark in text for mark in self.texts) or any(self._inside(word) for word in text.split())

    def _inside(self, word):
        with contextlib.suppress(ValueError):
            network = ipaddress.ip_network(word, strict=False)
            return any(network.version == 4 and network.subnet_of(own) for own in self.networks)
        return False

    def mark_process(self, entry):
        with contextlib.suppress(OSError):
            return self.mark(command_line(entry)) or self.mark((entry / "cgroup").read_text())
        return False


def server_id(data_dir):
    """What the names of a server's interfaces, tables and cgroups contain; docs/operations.md."""
    return hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:6]


def foreign_servers(own):
    """Servers on this machine whose data directories are not in `own`, by their processes' command lines."""
    found = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = command_line(entry)
                directory = re.search(r"(?:longshore\S* (?:up|control|agent) .*--data-dir |containerd --config )(\S+)", words)
                cidr = re.search(r"--vpc-cidr (\d\S+/\d+)", words)
                if directory:
                    path = directory[1].removesuffix("/containerd/config.toml")
                    found.add(Foreign(path, cidr[1] if cidr else joined_vpc(path)))
    return {each for each in found if each.data_dir not in own}


def joined_vpc(data_dir):
    """The range that an agent heard of when it joined."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((pathlib.Path(data_dir) / "agent.json").read_text())["vpc_cidr"]


def command_line(entry):
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()


def nftables(theirs):
    """Tables that are not `theirs`, line by line."""
    tables = re.findall(r"^table (\S+ \S+)", run("nft", "list", "tables"), re.MULTILINE)
    own = [table for table in tables if not theirs.mark(table)]
    return [f"{table}: {line}" for table in own for line in table_lines(table)]


def table_lines(table):
    # Somebody else's table may go between the two calls.
    with contextlib.suppress(AssertionError):
        return run("nft", "list", "table", *table.split()).splitlines()
    return []


def cgroup_folders():
    for folder, children, _ in os.walk(CGROUP):
        yield from (pathlib.Path(folder) / child for child in children)


def network_namespaces(theirs):
    found = set()
    for entry in PROC.iterdir():
        if entry.name.isdigit() and not theirs.mark_process(entry):
            with contextlib.suppress(OSError):
                found.add(os.readlink(entry / "ns" / "net"))
    return found


def processes(theirs):
    """The kinds of process that a server starts; what else the machine does is not its business."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text().strip()
                if re.match(r"longshore|containerd|runc|nginx", name) and not theirs.mark_process(entry):
                    found.append(f"{entry.name} {name} {command_line(entry)}")
    return found


def process_entries():
    return [entry for entry in PROC.iterdir() if entry.name.isdigit()]


def entries(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []


def run(*command):
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=clean_environment()
    )
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout
