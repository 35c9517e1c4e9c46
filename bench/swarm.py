"""Docker Swarm of one node, as the peer of services: a dockerd of the bench's own, started, asked over its socket and
removed again with all that it made."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse

from ground import DEADLINE, IDLE, IMAGE, Unmeasured, say
from support import images
from support.server import clean_environment

GLANCE = 0.01
# What dockerd and a swarm leave on the machine.
INTERFACES = ["docker0", "docker_gwbridge"]
# Dockers of the machine that are at work already share these names with ours.
IS_THERE = [pathlib.Path("/sys/class/net", name) for name in INTERFACES]


@contextlib.contextmanager
def node(folder):
    """A swarm that can run the image; None where there is no Docker."""
    if not shutil.which("dockerd"):
        say("  Docker is not installed, thus there is no peer: apt-get install docker.io, without starting it")
        yield None
        return
    taken = [str(path) for path in IS_THERE if path.exists()]
    if taken:
        raise Unmeasured(f"another Docker is at work on this machine: {', '.join(taken)} is there")
    say("  start a dockerd, and a swarm")
    home = folder / "docker"
    home.mkdir()
    command = [
        *["dockerd", "--data-root", home / "data", "--exec-root", home / "exec", "--pidfile", home / "pid"],
        *["--host", f"unix://{home}/sock", "--iptables=false", "--ip-masq=false", "--ip-forward=false"],
    ]
    # Registries are asked for nothing: the image is there.
    environment = clean_environment() | {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1"}
    with open(home / "log", "wb") as log:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        docker = Docker(home / "sock")
        docker.await_ready(daemon, home / "log")
        docker.load(images.busybox().write_docker_archive(folder / "docker.tar", IMAGE))
        docker.init()
        yield Service(docker)
    finally:
        clear(daemon, home)


def clear(daemon, home):
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(timeout=60)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    # Shims outlive a dockerd that was killed.
    subprocess.run(["pkill", "--signal", "KILL", "--full", str(home)], check=False)
    for name in INTERFACES:
        subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL, check=False)


class Docker:
    """The Engine API over its socket."""

    def __init__(self, path):
        self.path, self.connection = path, None

    def ask(self, method, target, body=None, kind="application/json"):
        if self.connection is None:
            self.connection = OverSocket(self.path)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        self.connection.request(method, target, body=data, headers={"Content-Type": kind})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise Unmeasured(f"{method} {target}: {answer.status} {text.decode(errors='replace')}")
        is_json = answer.headers.get_content_type() == "application/json"
        return json.loads(text) if text.strip() and is_json else None

    def list(self, what, **filters):
        query = {"filters": json.dumps(filters)} | ({"all": "1"} if what == "containers/json" else {})
        return self.ask("GET", f"/{what}?{urllib.parse.urlencode(query)}")

    def await_ready(self, daemon, log):
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and daemon.poll() is None:
            with contextlib.suppress(OSError, Unmeasured):
                return self.ask("GET", "/info")
            self.connection = None
            time.sleep(0.1)
        raise Unmeasured(f"dockerd does not start: {log.read_text(errors='replace')[-2000:]}")

    def load(self, image):
        self.ask("POST", "/images/load?quiet=1", image.read_bytes(), "application/x-tar")
        self.ask("GET", f"/images/{IMAGE}/json")

    def init(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        at = "127.0.0.1"
        self.ask("POST", "/swarm/init", {"ListenAddr": f"{at}:{port}", "AdvertiseAddr": at, "DataPathAddr": at})


class OverSocket(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class Service:
    """One service of tasks that do nothing."""

    # What is the equal of our bounds: new tasks first, of all at once or of one after the other.
    AT_ONCE = {"Parallelism": 0, "Delay": 0, "Order": "start-first"}
    ONE_BY_ONE = {"Parallelism": 1, "Delay": 0, "Order": "start-first"}

    def __init__(self, docker):
        self.docker, self.round, self.count = docker, 0, 0

    def specification(self, bounds):
        container = {"Image": IMAGE, "Command": IDLE[:1], "Args": IDLE[1:]}
        restart = {"Condition": "any", "Delay": 0}
        return {
            "Name": "bench",
            "TaskTemplate": {"ContainerSpec": container, "RestartPolicy": restart, "ForceUpdate": self.round},
            "Mode": {"Replicated": {"Replicas": self.count}},
            "UpdateConfig": bounds,
        }

    def create(self, count):
        self.count = count
        self.docker.ask("POST", "/services/create", self.specification(self.ONE_BY_ONE))
        until(lambda: len(self.running()) == count)

    def running(self):
        """The tasks that are."""
        tasks = self.docker.list("tasks", service=["bench"])
        return [task for task in tasks if task["Status"]["State"] == "running"]

    def update(self, bounds):
        """Until all that run are new, and as many as there are to be."""
        self.round += 1
        present = self.docker.ask("GET", "/services/bench")
        version = present["Version"]["Index"]
        self.docker.ask("POST", f"/services/bench/update?version={version}", self.specification(bounds))

        def is_done():
            running = self.running()
            rounds = {task["Spec"].get("ForceUpdate", 0) for task in running}
            return len(running) == self.count and rounds == {self.round}

        until(is_done)

    def replace(self):
        """From the death of a container's first process until another task runs in its place."""
        task = self.running()[0]
        os.kill(task["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)

        def is_replaced():
            running = [other["ID"] for other in self.running()]
            return task["ID"] not in running and len(running) == self.count

        until(is_replaced)

    def remove(self):
        self.docker.ask("DELETE", "/services/bench")
        until(lambda: not self.docker.list("containers/json"))


def until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise Unmeasured(f"Docker has not come to it within {DEADLINE} s")
        time.sleep(GLANCE)
