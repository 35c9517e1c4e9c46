"""Chaos in seeded order: servers, containerd and containers are killed while tasks come and go, and disks fill up.

Every acknowledged task is there once in the end, or has ended with a reason; at no time does one run twice; nothing is
used by two; nothing is left behind. CI takes a few seeds; more by LONGSHORE_CHAOS_SEEDS, a list such as `1,7,20-29`.
"""

import contextlib
import hashlib
import os
import random
import signal

import pytest

from support import images, machines, server
from support.aws import Cloud, address, idle
from support.host import PROC, belongings, command_line, find_process, find_processes, run
from support.leaks import check_nothing_of
from support.machines import Agent, Control
from support.registry import serving
from support.server import Server
from support.waiting import until

STEPS = 20
CLUSTER = "chaos"


def seeds():
    for each in os.environ.get("LONGSHORE_CHAOS_SEEDS", "1-4").split(","):
        first, _, last = each.partition("-")
        yield from range(int(first), int(last or first) + 1)


@pytest.fixture(params=seeds())
def seed(request):
    return request.param


@pytest.fixture
def chaos(load, seed):
    """One process with two Fargate instances and a container instance."""
    flags = ["--instances", "2", "--container-instances", "1", "--cluster", CLUSTER]
    with server.running(*flags) as started:
        load(started, "busybox:latest")
        yield Chaos(Cloud(started), seed, [started])


@pytest.fixture
def fleet(load, seed):
    """A control plane, and two container instances with agents of their own."""
    with machines.lan() as lan:
        control = Control(lan).start()
        agents = [Agent(lan, [control], CLUSTER) for _ in range(2)]
        for agent in agents:
            load(agent.start(), "busybox:latest")
        yield Fleet(Cloud(control), seed, agents, lan)


class Chaos:
    def __init__(self, cloud, seed, workers):
        self.cloud, self.seed, self.random = cloud, seed, random.Random(seed)
        # Those that have a containerd.
        self.workers = workers
        self.steps = []
        # Acknowledged tasks by the argument that marks their process.
        self.tasks = {}
        self.stopped = set()
        self.own = cloud.register("chaos-own", {"command": idle()}, requiresCompatibilities=["EC2", "FARGATE"])
        container = {"name": "main", "image": "busybox:latest", "memory": 32, "command": idle()}
        cloud.ecs.register_task_definition(family="chaos-host", networkMode="host", containerDefinitions=[container])
        container["portMappings"] = [{"containerPort": 80}]
        cloud.ecs.register_task_definition(family="chaos-port", networkMode="bridge", containerDefinitions=[container])

    @property
    def possible(self):
        kills = [self.kill_server, self.kill_containerd, self.kill_process]
        return [self.run, self.run, self.run, self.stop, *kills, self.freeze_containerd, self.thaw]

    @property
    def launch_type(self):
        """Of the tasks with a network interface of their own."""
        return "FARGATE"

    def step(self):
        step = self.random.choice(self.possible)
        self.steps.append(step.__name__)
        step()

    def run(self):
        for _ in range(self.random.randint(1, 3)):
            marker = f"chaos-{self.seed}-{len(self.tasks)}"
            override = {"containerOverrides": [{"name": "main", "command": idle(marker)}]}
            settings = {"cluster": CLUSTER, "overrides": override}
            if self.random.random() < 0.4:
                family = self.random.choice(["chaos-host", "chaos-port"])
                answer = self.cloud.ecs.run_task(taskDefinition=family, **settings)
            else:
                network = {"awsvpcConfiguration": {"subnets": self.cloud.subnets[:1]}}
                settings |= {"launchType": self.launch_type, "networkConfiguration": network}
                answer = self.cloud.ecs.run_task(taskDefinition=self.own, **settings)
            # An instance whose agent has not come back yet takes no tasks; that is no loss.
            for task in answer["tasks"]:
                self.tasks[marker] = task["taskArn"]

    def stop(self):
        if wanted := self.wanted():
            marker = self.random.choice(wanted)
            self.cloud.ecs.stop_task(cluster=CLUSTER, task=self.tasks[marker])
            self.stopped.add(marker)

    def kill_server(self):
        # A start gives one that does not answer some seconds, and then starts another.
        self.thaw()
        self.cloud.server.kill()
        self.cloud.server.start()

    def kill_containerd(self):
        worker = self.random.choice(self.workers)
        # One that was just killed is on its way back.
        for pid in until("containerd runs", lambda: containerds(worker)):
            # Two kills can be closer to each other than the process's end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze_containerd(self):
        """It is there, and does not answer."""
        for pid in containerds(self.random.choice(self.workers)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for worker in self.workers:
            for pid in containerds(worker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def kill_process(self):
        """A container that dies by itself: its task ends. One that is not known to have started may be made again."""
        wanted = self.wanted()
        marker = self.random.choice(wanted) if wanted else None
        if marker and self.cloud.task(CLUSTER, self.tasks[marker])["lastStatus"] == "RUNNING":
            self.stopped.add(marker)
            for process in first_processes(marker):
                os.kill(process.pid, signal.SIGKILL)

    def wanted(self):
        return sorted(set(self.tasks) - self.stopped)

    def check_none_runs_twice(self):
        for marker in self.tasks:
            found = first_processes(marker)
            assert len(found) < 2, f"{marker} runs as {[process.pid for process in found]} after {self.steps}"

    def unsettled(self):
        """Tasks that are not where they were last wanted: with one process when they run, and none when not."""
        self.check_none_runs_twice()
        return [marker for marker in self.tasks if not self.is_settled(marker)]

    def is_settled(self, marker):
        status = "STOPPED" if marker in self.stopped else "RUNNING"
        task = self.cloud.task(CLUSTER, self.tasks[marker])
        return task["lastStatus"] == status and len(first_processes(marker)) == (status == "RUNNING")

    def settle(self):
        self.thaw()
        try:
            until("every task is where it was last wanted", lambda: not self.unsettled(), deadline=60)
        except AssertionError as error:
            why = [self.why(marker) for marker in self.unsettled()]
            raise AssertionError("\n".join([f"after {self.steps}: {error}", *why])) from None

    def finish(self):
        """What comes before `down`, which stops the tasks of a server."""

    def why(self, marker):
        arn = self.tasks[marker]
        processes = [f"{each.pid} {command_line(PROC / str(each.pid))}" for each in find_processes(marker)]
        wanted = "STOPPED" if marker in self.stopped else "RUNNING"
        said = self.cloud.server.run("why", arn)
        return f"{marker} should be {wanted}; processes {processes}; {self.cloud.task(CLUSTER, arn)}\n{said}"


class Fleet(Chaos):
    """The same where control planes, agents and the network between them fail one by one."""

    def __init__(self, cloud, seed, agents, lan):
        super().__init__(cloud, seed, agents)
        self.lan, self.cut = lan, contextlib.ExitStack()
        self.away = set()

    @property
    def possible(self):
        return [*super().possible, self.kill_agent, self.cut_link, self.mend_links]

    @property
    def launch_type(self):
        return "EC2"

    def kill_agent(self):
        agent = self.random.choice(self.workers)
        # One that finds no control plane is not ready before it does.
        if agent.machine not in self.away:
            self.thaw()
            agent.kill()
            agent.start()

    def cut_link(self):
        machine = self.random.choice(self.workers).machine
        if machine not in self.away:
            self.away.add(machine)
            self.cut.enter_context(self.lan.cut(machine))

    def mend_links(self):
        self.cut.close()
        self.away.clear()

    def settle(self):
        self.mend_links()
        super().settle()

    def finish(self):
        """`down` of an agent keeps the files of tasks that its control plane has not seen ending: there may be lines in
        them that it has not got yet."""
        self.cloud.stop_all(CLUSTER)
        for worker in self.workers:
            until("every task's files are gone", lambda worker=worker: not task_files(worker))


def first_processes(marker):
    """The first processes of containers with that argument: what they start has it too until it runs another program."""
    found = []
    for process in find_processes(marker):
        with contextlib.suppress(OSError):
            if process.pid_inside() == 1:
                found.append(process)
    return found


def containerds(of):
    """The processes of a server's own containerd; shims have another name."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = command_line(entry).split()
                if words and words[0].endswith("containerd") and any(str(of.data_dir) in word for word in words):
                    found.append(int(entry.name))
    return found


def check_nothing_is_lost_or_done_twice(chaos):
    chaos.run()
    for _ in range(STEPS):
        chaos.step()
        chaos.check_none_runs_twice()
    assert chaos.tasks, "the seed ran no task"
    chaos.settle()
    tasks = {marker: chaos.cloud.task(CLUSTER, arn) for marker, arn in chaos.tasks.items()}
    own = {m: each for m, each in tasks.items() if each["attachments"] and m not in chaos.stopped}
    addresses = [address(task) for task in own.values()]
    assert len(set(addresses)) == len(addresses)
    for marker, task in own.items():
        assert [address(task)] in find_process_of(marker).addresses().values()
    ports = [each for marker, task in tasks.items() if marker not in chaos.stopped for each in host_ports(task)]
    assert len(set(ports)) == len(ports)
    for marker in chaos.stopped:
        assert tasks[marker]["stopCode"] and tasks[marker]["stoppedReason"]
    # What has ended has given back what it held.
    used = chaos.cloud.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert len(used) == len(addresses)
    chaos.finish()
    containers = [each for task in tasks.values() for each in task["containers"]]
    # A task that was stopped early has none.
    ids = [each["runtimeId"] for each in containers if "runtimeId" in each]
    for worker in chaos.workers:
        check_down_leaves_nothing(worker, ids)


def check_down_leaves_nothing(worker, containers):
    assert belongings(worker)
    sockets = shim_sockets(worker, containers)
    worker.stop()
    worker.down()
    check_nothing_of(worker)
    assert [path for path in sockets if os.path.exists(path)] == []
    assert task_files(worker) == []


def test_nothing_is_lost_or_done_twice(chaos):
    check_nothing_is_lost_or_done_twice(chaos)


def test_nothing_is_lost_in_a_fleet(fleet):
    check_nothing_is_lost_or_done_twice(fleet)


def test_a_containerd_that_hangs_is_replaced(load, name):
    with server.running() as started:
        load(started, "busybox:latest")
        cloud = Cloud(started)
        cloud.cluster(CLUSTER)
        cloud.run_one(CLUSTER, cloud.register(f"{name}-before", {"command": idle(f"{name}-before")}))
        before = find_process(f"{name}-before")
        (hung,) = containerds(started)
        os.kill(hung, signal.SIGSTOP)
        cloud.run_one(CLUSTER, cloud.register(name, {"command": idle(name)}))
        find_process(name)
        assert hung not in containerds(started)
        assert before.alive(), "containers go on"


def host_ports(task):
    """Each with the instance that it is on."""
    bindings = [binding for container in task["containers"] for binding in container["networkBindings"]]
    assert bool(bindings) == (task["group"] == "family:chaos-port")
    return [(task["containerInstanceArn"], binding["hostPort"]) for binding in bindings]


def find_process_of(marker):
    (process,) = first_processes(marker)
    return process


def shim_sockets(of, containers):
    """Where the shims of all these listened, on whichever instance: the names are hashes, as containerd makes them."""
    namespaces = (of.runtime_dir / "containerd" / "io.containerd.runtime.v2.task").iterdir()
    names = [of.runtime_dir / "containerd.sock" / each.name / container for each in namespaces for container in containers]
    return [f"/run/containerd/s/{hashlib.sha256(os.fsencode(name)).hexdigest()}" for name in names]


def task_files(of):
    """What belongs to single tasks in the data directory, which nobody asks for once they are gone."""
    containers = of.data_dir / "containerd" / "root" / "io.containerd.runtime.v2.task"
    found = [*of.data_dir.glob("instances/*/tasks/*"), *containers.glob("*/*")]
    return [str(path) for path in found]


MIB = 1 << 20


@pytest.fixture
def small_disk():
    """A server whose images lie on a disk of their own, and a way to give it more room."""
    one = Server(auth="any")
    disk = one.data_dir / "containerd"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "longshore-test", disk)

    def resize(size):
        run("mount", "-o", f"remount,size={size}", disk)

    try:
        yield one.start(), resize
    finally:
        with contextlib.suppress(AssertionError):
            one.stop()
        one.down()
        run("umount", "--lazy", disk)
        one.clean_up()


# The disk has room for the download but not for what is in it, or not even for the download.
@pytest.mark.parametrize("size", [14, 28])
def test_a_disk_that_is_full_while_pulling(small_disk, name, size):
    started, resize = small_disk
    cloud = Cloud(started)
    cloud.cluster(CLUSTER)
    layer = images.Layer()
    # What does not get smaller: once in the store, and as much again unpacked.
    layer.file("/data", random.Random(1).randbytes(size * MIB))
    with serving() as (registry, port):
        registry.images["team/big:1.0"] = images.Image([images.busybox_layer(), layer], {"Env": ["PATH=/bin"]})
        reference = f"127.0.0.1:{port}/team/big:1.0"
        script = f"wc -c </data; {idle()[2]}"
        definition = cloud.register(name, {"image": reference, "command": ["sh", "-c", script, name]})
        for _ in range(2):
            (arn,) = cloud.run(CLUSTER, definition)
            task = cloud.until_stopped(CLUSTER, arn)
            assert task["stopCode"] == "TaskFailedToStart", task
            assert task["stoppedReason"].startswith("CannotPullContainerError: "), task
            assert "no space left on device" in task["stoppedReason"], task
            assert cloud.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
            assert half_made(started) == []
        # The disk has room again for what is small.
        registry.images["team/small:1.0"] = images.busybox()
        small = cloud.register(f"{name}-small", {"image": f"127.0.0.1:{port}/team/small:1.0", "command": idle()})
        cloud.run_one(CLUSTER, small)
        resize("96m")
        (arn,) = cloud.run(CLUSTER, definition)
        cloud.until_running(CLUSTER, arn)
        assert cloud.until_line(f"/ecs/{name}", f"test/main/{arn.rpartition('/')[2]}", "")[0] == str(size * MIB)
        find_process(name)


def half_made(of):
    """What containerd holds of pulls that have not come to their end."""
    words = ["ctr", "--address", of.runtime_dir / "containerd.sock", "--namespace", f"longshore-{of.runtime_dir.name}-0"]
    downloads = run(*words, "content", "active").splitlines()[1:]
    leases = run(*words, "leases", "ls", "-q").splitlines()
    snapshots = [line for line in run(*words, "snapshots", "ls").splitlines() if line.startswith("extract-")]
    return downloads + leases + snapshots
