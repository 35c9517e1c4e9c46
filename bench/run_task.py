"""RunTask, one task after the other, beside containerd's own API, `ctr run` and bare runc in turns: what the machine does
meanwhile is the same for all of them."""

import copy
import gzip
import io
import json
import tarfile
import time

from figures import Figure, median, p99
from ground import IMAGE, Containerd, Wire, archive, cloud, example, images, register_idle, run, say

NAME = "run-task"
ROUNDS = 4
EACH = 10
AT_MOST = 1.3


def measure(folder):
    floor = example("longshore-agent", "containerd_floor")
    with cloud(folder) as target:
        tasks = Tasks(target)
        containerd = Containerd(target)
        # The floors make their containers like this one, which runs until the end.
        tasks.run()
        template = containerd.only_container()
        for _ in range(3):
            tasks.run_and_stop()
        tasks.forget()
        floors = Floors(folder, containerd, template, floor)
        for number in range(ROUNDS):
            say(f"  round {number + 1} of {ROUNDS}: {EACH} tasks, and {EACH} containers of each floor")
            for _ in range(EACH):
                tasks.run_and_stop()
            floors.round(EACH)
        return figures(tasks, floors)


def figures(tasks, floors):
    def figure(what, ours, beside=None, theirs=None, **target):
        return Figure(NAME, what, "ms", ours, beside, theirs, **target)

    running = median(tasks.running)
    containerd, network = median(floors.containerd), median(floors.network)
    ctr, runc = median(floors.ctr), median(floors.runc)
    return [
        figure("RunTask answered, median", median(tasks.answered)),
        figure("RunTask answered, p99", p99(tasks.answered)),
        figure("RunTask → RUNNING, median", running, "containerd, create and start", containerd, at_most=AT_MOST),
        figure("RunTask → RUNNING, median", running, "the same and an empty network", containerd + network),
        figure("RunTask → RUNNING, median", running, "ctr run -d", ctr),
        figure("RunTask → RUNNING, median", running, "runc create, runc start", runc),
        figure("RunTask → RUNNING, p99", p99(tasks.running), "containerd, create and start", p99(floors.containerd)),
        figure("createdAt → startedAt, median", median(tasks.told)),
        figure("createdAt → startedAt, p99", p99(tasks.told)),
        figure("StopTask → STOPPED, median", median(tasks.stopped)),
        figure("StopTask → STOPPED, p99", p99(tasks.stopped)),
    ]


class Tasks:
    """Runs and stops tasks, and notes how many milliseconds each step took."""

    def __init__(self, target):
        self.wire = Wire(target)
        self.cluster = target.cluster("bench")
        definition = register_idle(target, "bench")
        self.request = {
            "cluster": self.cluster,
            "taskDefinition": definition,
            "launchType": "FARGATE",
            "networkConfiguration": target.network(),
        }
        self.forget()

    def forget(self):
        self.answered, self.running, self.told, self.stopped = [], [], [], []

    def run_and_stop(self):
        arn = self.run()
        stop = self.wire.signed("StopTask", cluster=self.cluster, task=arn)
        look = self.wire.signed("DescribeTasks", cluster=self.cluster, tasks=[arn])
        start = time.perf_counter()
        self.wire.send(stop)
        self.wire.until(look, lambda answer: status(answer) == "STOPPED")
        self.stopped.append(since(start))

    def run(self):
        """Returns the task's ARN once it is seen to be RUNNING."""
        request = self.wire.signed("RunTask", **self.request)
        start = time.perf_counter()
        answer = self.wire.send(request)
        self.answered.append(since(start))
        arn = answer["tasks"][0]["taskArn"]
        look = self.wire.signed("DescribeTasks", cluster=self.cluster, tasks=[arn])
        # What has stopped will never run: seen in the status, not after a deadline.
        answer = self.wire.until(look, lambda answer: status(answer) in ("RUNNING", "STOPPED"))
        self.running.append(since(start))
        (task,) = answer["tasks"]
        self.told.append((task["startedAt"] - task["createdAt"]) * 1000)
        return arn


class Floors:
    """The same container without Longshore, each way in milliseconds."""

    def __init__(self, folder, containerd, template, program):
        self.folder, self.server, self.template, self.program = folder, containerd, template, program
        self.containerd, self.network, self.ctr, self.runc = [], [], [], []
        info = containerd.container(template)
        self.snapshotter, self.image, self.spec = info["Snapshotter"], info["Image"], info["Spec"]
        self.root = unpack(folder)
        self.made = 0

    def round(self, count):
        self.through_containerd(count)
        for _ in range(count):
            self.through_ctr()
            self.through_runc()

    def through_containerd(self, count):
        found = json.loads(
            run(
                self.program,
                *(self.server.socket, self.server.namespace, self.template, archive(self.folder), count),
                environment={"TMPDIR": str(self.folder)},
            )
        )
        self.containerd += found["create_start"]
        self.network += found["network_namespace"]

    def through_ctr(self):
        name, server = self._name("ctr"), self.server
        options = ["--detach", "--null-io", "--snapshotter", self.snapshotter, "--cgroup", self._cgroup(name)]
        start = time.perf_counter()
        server.ctr(server.beside, "run", *options, self.image, name, *self.spec["process"]["args"])
        self.ctr.append(since(start))
        server.ctr(server.beside, "task", "rm", "--force", name)
        server.ctr(server.beside, "containers", "rm", name)

    def through_runc(self):
        name = self._name("runc")
        bundle = self.folder / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._bundle_spec(name)))
        runc = ["runc", "--root", self.folder / "runc"]
        with open(bundle / "output", "wb") as output:
            # Its container inherits them: a pipe would be read until the container ends.
            to_file = {"stdout": output, "stderr": output, "capture_output": False}
            try:
                start = time.perf_counter()
                run(*runc, "create", "--bundle", bundle, name, **to_file)
                run(*runc, "start", name, **to_file)
                self.runc.append(since(start))
            finally:
                run(*runc, "delete", "--force", name)

    def _bundle_spec(self, name):
        spec = copy.deepcopy(self.spec)
        spec["root"]["path"] = str(self.root)
        spec["linux"]["cgroupsPath"] = self._cgroup(name)
        for namespace in spec["linux"]["namespaces"]:
            if namespace["type"] == "network":
                # One of its own, made by runc.
                namespace.pop("path", None)
        return spec

    def _name(self, way):
        self.made += 1
        return f"floor-{way}-{self.made}"

    def _cgroup(self, name):
        # Below the server's own, which `longshore down` removes.
        return f"/longshore-{self.server.server_hash}/floor/{name}"


def unpack(folder):
    """The image's files in a folder."""
    image, root = images.busybox(), folder / "rootfs"
    for layer in image.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(image.blobs[layer]))) as files:
            files.extractall(root)
    return root


def status(answer):
    return answer["tasks"][0]["lastStatus"]


def since(start):
    return (time.perf_counter() - start) * 1000
