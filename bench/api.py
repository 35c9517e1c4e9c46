"""Requests a second of the API beside moto's server, from one load generator with the same requests."""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

from figures import Figure
from ground import Cloud, Unmeasured, Wire, cloud, example, register_idle, run, say, server, signed

NAME = "api"
CONNECTIONS = [1, 16]
WARM_UP = 1
SECONDS = 5
# Of different families, as different users register them.
FAMILIES = 64
AT_LEAST = 20


def measure(folder):
    load = example("longshore-control", "load")
    with cloud(folder) as ours, moto(folder) as theirs:
        refuses_forgery(ours)
        sides = [Side(ours, load, folder), Side(theirs, load, folder)]
        # Moto's task says STOPPED from the first look on; nothing runs there.
        ours.until_running(sides[0].cluster, sides[0].task)
        figures = []
        for operation in ("DescribeTasks", "RegisterTaskDefinition"):
            for connections in CONNECTIONS:
                say(f"  {operation}, connections: {connections}")
                # One after the other: the machine is for each alone.
                figures += compared(operation, connections, *(side.load(operation, connections) for side in sides))
        return figures


def compared(operation, connections, ours, theirs):
    what = f"{operation}, {connections} connection{'s' if connections > 1 else ''}"
    rate = Figure(NAME, what, "/s", ours["per_second"], "moto_server", theirs["per_second"], at_least=AT_LEAST)
    return [rate, Figure(NAME, f"{what}, p99", "ms", ours["p99_ms"], "moto_server", theirs["p99_ms"])]


class Side:
    """A server with one task, and the requests for it."""

    def __init__(self, target, program, folder):
        self.target, self.program, self.folder = target, program, folder
        self.cluster = target.cluster("bench")
        definition = register_idle(target, "bench")
        (self.task,) = target.run(self.cluster, definition)
        self.definition = target.ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]

    def load(self, operation, connections):
        requests = getattr(self, operation)()
        answer = Wire(self.target).send(requests[0])
        # A task that is not there is answered with 200, too.
        if not (answer.get("tasks") or answer.get("taskDefinition")):
            raise Unmeasured(f"{operation} at {self.target.server.url} answers {answer}")
        path = self.folder / "requests.json"
        path.write_text(json.dumps(requests))
        address = f"127.0.0.1:{self.target.server.port}"
        return json.loads(run(self.program, address, connections, WARM_UP, SECONDS, path))

    def DescribeTasks(self):
        members = {"cluster": self.cluster, "tasks": [self.task]}
        return [signed(self.target, "DescribeTasks", members)] * FAMILIES

    def RegisterTaskDefinition(self):
        names = ["networkMode", "requiresCompatibilities", "cpu", "memory", "executionRoleArn", "containerDefinitions"]
        members = {name: self.definition[name] for name in names}
        return [
            signed(self.target, "RegisterTaskDefinition", members | {"family": f"load-{number}"})
            for number in range(FAMILIES)
        ]


def refuses_forgery(target):
    """What does not verify signatures has less to do."""
    wire = Wire(target)
    request = wire.signed("ListClusters")
    wire.send(request)
    with contextlib.suppress(Unmeasured):
        wire.send(request | {"body": request["body"] + " "})
        raise AssertionError("the server took a request whose body was not the signed one")


class Moto:
    """As much of a server as `Cloud` wants to know."""

    def __init__(self, folder):
        self.port = server.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = folder

    def exports(self):
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1"} | keys


@contextlib.contextmanager
def moto(folder):
    """A moto_server on a port of its own."""
    say("  start moto_server")
    one = Moto(folder)
    program = pathlib.Path(sys.executable).with_name("moto_server")
    command = [program, "--host", "127.0.0.1", "--port", str(one.port)]
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **silent, env=server.clean_environment(), start_new_session=True)
    try:
        until_answers(Cloud(one), process)
        yield Cloud(one)
    finally:
        process.kill()
        process.wait()


def until_answers(target, process):
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, Unmeasured):
            return Wire(target).send(signed(target, "ListClusters", {}))
        time.sleep(0.1)
    raise Unmeasured("moto_server does not answer")
