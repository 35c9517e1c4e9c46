"""The real binary, started as a user starts it, each time with a data directory, port and VPC of its own."""

import contextlib
import hashlib
import ipaddress
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile

from .waiting import until

BINARY = pathlib.Path(
    os.environ.get("LONGSHORE_BIN") or pathlib.Path(__file__).parents[2] / "target" / "debug" / "longshore"
)

# Every server that this process started and has not yet cleaned up: for logs of failures, and for the end.
live = []
# The data directories of every server that this process ever made.
made = set()


class Failed(Exception):
    """A `longshore` command ended with an error; `args[0]` holds what it said."""


class Server:
    """One data directory, and the process that serves it now, if any."""

    def __init__(self, *flags, auth="strict", vpc_cidr=None, environment=None):
        self.data_dir = pathlib.Path(tempfile.mkdtemp(prefix="longshore-"))
        self.port = free_port()
        self.host = "127.0.0.1"
        self.vpc_cidr = vpc_cidr or free_vpc_cidr()
        self.flags = ["--auth", auth, "--vpc-cidr", self.vpc_cidr, *flags]
        self.environment = environment or {}
        self.process = None
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self.out_path = self.data_dir.with_name(self.data_dir.name + ".out")
        live.append(self)
        made.add(str(self.data_dir))

    @property
    def runtime_dir(self):
        """Where what ends with the machine is; docs/operations.md."""
        digest = hashlib.sha256(os.fsencode(os.path.realpath(self.data_dir))).hexdigest()
        return pathlib.Path("/run/longshore") / digest[:8]

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def start(self):
        """Returns when the server says that it is ready; raises Failed with its output when it ends before."""
        with open(self.out_path, "wb") as out, open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.start_command(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=clean_environment() | self.environment,
                start_new_session=True,
            )
        said = until("the server is ready or ends", self._first_line_or_end)
        if not self.is_ready(said):
            self.kill()
            raise Failed(f"said {said!r}\n{self.log_tail()}")
        return self

    def start_command(self):
        return self.command("up", "--listen", f"{self.host}:{self.port}", *self.flags)

    def is_ready(self, said):
        return said == f"ready {self.url}\n"

    def _first_line_or_end(self):
        ended = self.process.poll() is not None
        said = self.out_path.read_text()
        if said.endswith("\n"):
            return said.splitlines(keepends=True)[0]
        return f"nothing, and ended with status {self.process.returncode}" if ended else None

    def kill(self):
        """As a power cut would: only the server's own process; containers and containerd go on."""
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self._reap()

    @contextlib.contextmanager
    def frozen(self):
        """As a machine that is too busy, or is moved: the process does nothing for a while, and goes on."""
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        """As an operator would; returns the exit status."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"SIGTERM did not end the server within 30 s\n{self.log_tail()}") from None
        return self._reap()

    def _reap(self):
        if not self.process:
            return None
        status = self.process.wait()
        self.process = None
        return status

    def down(self):
        self.run("down")

    def command(self, *arguments):
        return [BINARY, *arguments, "--data-dir", self.data_dir]

    def run(self, *arguments, deadline=120):
        """A `longshore` command on this data directory; returns its standard output."""
        result = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline,
            env=clean_environment() | self.environment,
        )
        if result.returncode != 0:
            raise Failed(f"longshore {' '.join(map(str, arguments))}: {result.stderr or result.stdout}")
        return result.stdout

    def exports(self):
        """What `longshore env` sets, as a shell would see it."""
        variables = {}
        for line in self.run("env").splitlines():
            words = shlex.split(line)
            if words and words[0] == "export":
                name, _, value = words[1].partition("=")
                variables[name] = value
        return variables

    def load_image(self, archive, tag):
        self.run("image", "load", archive, "--tag", tag)

    def log_tail(self, lines=60):
        with contextlib.suppress(OSError):
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        return "(no log)"

    def clean_up(self):
        """Whatever happened before, nothing of this server is left on the machine."""
        if self not in live:
            return
        live.remove(self)
        try:
            with contextlib.suppress(AssertionError):
                self.stop()
            self.down()
        finally:
            self.kill()
            shutil.rmtree(self.data_dir, ignore_errors=True)
            self.log_path.unlink(missing_ok=True)
            self.out_path.unlink(missing_ok=True)


def clean_environment():
    """The machine's environment without what could point a client or the server elsewhere."""
    prefixes = ("AWS_", "LONGSHORE_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    kept["PATH"] = kept.get("PATH", "") + ":/usr/sbin:/sbin"
    return kept


def free_port():
    """A port that stays free while a server is down: not one of those that the kernel gives to connections."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, lowest) if lowest > 11_000 else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]


def free_vpc_cidr():
    """A /16 that no route of this machine and no server of this run uses."""
    taken = [ipaddress.ip_network(server.vpc_cidr) for server in live]
    routes = subprocess.run(["ip", "-o", "-4", "route"], capture_output=True, text=True, env=clean_environment())
    for line in routes.stdout.splitlines():
        # A server's own range is `unreachable 10.1.0.0/16 ...` to the machine.
        for word in line.split()[:2]:
            with contextlib.suppress(ValueError):
                taken.append(ipaddress.ip_network(word, strict=False))
    # Another run on this machine may be choosing at the same time.
    start = random.randrange(100)
    for step in range(100):
        candidate = ipaddress.ip_network(f"10.{100 + (start + step) % 100}.0.0/16")
        if not any(candidate.overlaps(network) for network in taken):
            return str(candidate)
    raise AssertionError("no free VPC range between 10.100.0.0/16 and 10.199.0.0/16")


@contextlib.contextmanager
def running(*flags, **options):
    """A started server, cleaned up at the end whatever happens."""
    server = Server(*flags, **options)
    try:
        yield server.start()
    finally:
        server.clean_up()

