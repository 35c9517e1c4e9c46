"""Many machines on this one: control planes, and agents in network namespaces that one bridge joins."""

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid

from .host import LAN_BLOCK, LAN_PREFIX, run
from .server import Failed, Server, clean_environment, free_port, live
from .waiting import until


class Lan:
    """A bridge, and a network namespace for each machine on it."""

    def __init__(self):
        self.name = f"{LAN_PREFIX}{uuid.uuid4().hex[:6]}"
        self.block = random.choice(list(LAN_BLOCK.subnets(new_prefix=24)))
        self.machines = []
        run("ip", "link", "add", self.name, "type", "bridge")
        run("ip", "address", "add", f"{self.address}/24", "dev", self.name)
        run("ip", "link", "set", self.name, "up")

    @property
    def address(self):
        """This machine's own."""
        return str(self.block[1])

    def machine(self):
        """The name of a new machine's network namespace."""
        number = len(self.machines) + 2
        name = f"{self.name}m{number}"
        self.machines.append(name)
        run("ip", "netns", "add", name)
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", self.name, "up")
        run("ip", "-n", name, "address", "add", f"{self.block[number]}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", link, "up")
        run("ip", "-n", name, "route", "add", "default", "via", self.address)
        return name

    @contextlib.contextmanager
    def cut(self, machine):
        """As when somebody pulls the cable."""
        run("ip", "link", "set", machine, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", machine, "up")

    def clean_up(self):
        for machine in self.machines:
            subprocess.run(["ip", "netns", "delete", machine], env=clean_environment(), check=False)
        subprocess.run(["ip", "link", "delete", self.name], env=clean_environment(), check=False)


class Control(Server):
    """A control plane alone."""

    def __init__(self, lan, *flags, **options):
        super().__init__(*flags, **options)
        self.agents_url = f"https://{lan.address}:{free_port()}"

    def start_command(self):
        agents = self.agents_url.removeprefix("https://")
        return self.command("control", "--listen", f"{self.host}:{self.port}", "--agents-listen", agents, *self.flags)

    def token(self, cluster, launch_type="ec2"):
        words = ["token", "create", "--cluster", cluster, "--launch-type", launch_type, "--output", "json"]
        return json.loads(self.run(*words))["token"]


class Agent(Server):
    """An agent on a machine of its own."""

    def __init__(self, lan, controls, cluster, *flags, launch_type="ec2", token=None, here=False):
        super().__init__(vpc_cidr=controls[0].vpc_cidr)
        # With `here` it is this machine itself.
        self.machine = None if here else lan.machine()
        joins = ",".join(control.agents_url for control in controls)
        self.flags = ["--join", joins, "--ecs-config", self.data_dir / "ecs.config", *flags]
        self.environment = {"LONGSHORE_TOKEN": token or controls[0].token(cluster, launch_type)}

    def command(self, *arguments):
        # Not `ip netns exec`, which hides the cgroups.
        elsewhere = ["nsenter", f"--net=/run/netns/{self.machine}"] if self.machine else []
        return [*elsewhere, *super().command(*arguments)]

    def start_command(self):
        return self.command("agent", *self.flags)

    def is_ready(self, said):
        return bool(said) and said.startswith("ready ")

    @property
    def instance(self):
        return json.loads((self.data_dir / "agent.json").read_text())["instance"]


class Etcd:
    """A real etcd of one member."""

    def __init__(self):
        self.data_dir = tempfile.mkdtemp(prefix="longshore-etcd-")
        self.url, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        command = ["etcd", "--data-dir", self.data_dir, "--log-level", "error", "--listen-client-urls", self.url]
        command += ["--advertise-client-urls", self.url, "--listen-peer-urls", peers]
        command += ["--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"]
        # Its files are thrown away: nothing is gained by waiting for the disk.
        self.process = subprocess.Popen([*command, "--unsafe-no-fsync"], env=clean_environment())
        until("etcd answers", self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            raise Failed(f"etcd ended with status {self.process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", int(self.url.rpartition(":")[2]), timeout=5)
        try:
            connection.request("GET", "/health")
            return json.loads(connection.getresponse().read())["health"] == "true"
        except OSError:
            return False
        finally:
            connection.close()

    @contextlib.contextmanager
    def frozen(self):
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def clean_up(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.data_dir, ignore_errors=True)


class Wire:
    """A way to a port of this machine that can be cut: nothing passes then, and no end hears that it is cut."""

    def __init__(self, port):
        self.port = port
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    @contextlib.contextmanager
    def cut(self):
        self._whole.clear()
        try:
            yield
        finally:
            self._whole.set()

    def close(self):
        self._whole.set()
        # Closing alone does not wake a thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._spawn(self._join, near)

    def _join(self, near):
        self._whole.wait()
        with contextlib.suppress(OSError), near, socket.create_connection(("127.0.0.1", self.port)) as far:
            back = self._spawn(self._carry, far, near)
            self._carry(near, far)
            back.join()

    def _carry(self, source, sink):
        with contextlib.suppress(OSError):
            while taken := source.recv(1 << 16):
                self._whole.wait()
                sink.sendall(taken)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work, *given):
        thread = threading.Thread(target=work, args=given, daemon=True)
        thread.start()
        return thread


@contextlib.contextmanager
def lan():
    """A network that is gone at the end, after every server of it."""
    made = Lan()
    before = list(live)
    try:
        yield made
    finally:
        try:
            for one in [one for one in reversed(live) if one not in before]:
                one.clean_up()
        finally:
            made.clean_up()


def network_namespace(machine):
    """What `readlink /proc/PID/ns/net` says of processes of the machine."""
    return f"net:[{os.stat(f'/run/netns/{machine}').st_ino}]"
