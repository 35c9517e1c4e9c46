"""Services, beside Docker Swarm: until 1, 10 and 50 replicas run, a rolling update of ten at once and one by one, a dead
task replaced, removal."""

import dataclasses
import os
import pathlib
import signal
import statistics
import time

import swarm
from figures import Figure
from ground import Unmeasured, Wire, cloud, process_ids, register_idle, say

NAME = "services"
REPLICAS = [1, 10, 50]
UPDATED = 10
ROUNDS = 3
GLANCE = 0.01
# What of the peer's time ours is to take at most: for the most replicas, an update at once and a replacement.
HALF = 0.5


def measure(folder):
    with cloud(folder) as target:
        ours = rounds(Service(target))
    with swarm.node(folder) as peer:
        theirs = rounds(peer) if peer else {}
    return [figure(what, took, theirs.get(what)) for what, took in ours.items()]


@dataclasses.dataclass
class Took:
    unit: str
    median: float
    is_target: bool = False


def rounds(service):
    """The medians of one of the two, by what was measured."""
    service.create(1)
    service.remove()
    took = {}
    for count in REPLICAS:
        say(f"  {count} replicas")
        machine, started, removed = Cpu(), [], []
        for _ in range(ROUNDS):
            started.append(timed(lambda count=count: service.create(count)))
            removed.append(timed(service.remove))
        each = machine.spent() / (ROUNDS * count)
        took[f"a service to {count} replicas RUNNING"] = median("s", started, count == REPLICAS[-1])
        took[f"{count} replicas, the machine's CPU, start to removal, each"] = Took("ms", each)
    took[f"removal of {REPLICAS[-1]} replicas"] = median("s", removed)
    service.create(UPDATED)
    for what, bounds, is_target in (("at once", service.AT_ONCE, True), ("one by one", service.ONE_BY_ONE, False)):
        say(f"  a rolling update of {UPDATED} {what}")
        updates = [timed(lambda bounds=bounds: service.update(bounds)) for _ in range(ROUNDS)]
        took[f"a rolling update of {UPDATED} {what}"] = median("s", updates, is_target)
    say("  a dead task")
    took["a dead task replaced"] = median("s", [timed(service.replace) for _ in range(ROUNDS)], True)
    service.remove()
    return took


def median(unit, each, is_target=False):
    return Took(unit, statistics.median(each), is_target)


def figure(what, ours, theirs):
    beside = ("Docker Swarm", theirs.median) if theirs else (None, None)
    return Figure(NAME, what, ours.unit, ours.median, *beside, at_most=HALF if ours.is_target else None)


def timed(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Service:
    """One service of tasks that do nothing, asked about over one open connection."""

    # All of them may be replaced at once, or one more than are wanted may be there.
    AT_ONCE = {"minimumHealthyPercent": 0, "maximumPercent": 200}
    ONE_BY_ONE = {"minimumHealthyPercent": 100, "maximumPercent": 110}

    def __init__(self, target):
        self.target, self.wire = target, Wire(target)
        self.cluster = target.cluster("bench")
        # An update is to another revision; both run the same.
        self.definitions = [register_idle(target, "bench") for _ in range(2)]

    def send(self, operation, **members):
        return self.wire.send(self.wire.signed(operation, cluster=self.cluster, **members))

    def until(self, condition):
        request = self.wire.signed("DescribeServices", cluster=self.cluster, services=["bench"])
        return self.wire.until(request, lambda answer: condition(answer["services"][0]), glance=GLANCE)

    def create(self, count):
        network = self.target.network()
        given = {"serviceName": "bench", "taskDefinition": self.definitions[0], "desiredCount": count}
        self.send("CreateService", **given, launchType="FARGATE", networkConfiguration=network)
        self.until(lambda service: service["runningCount"] == count)

    def update(self, bounds):
        self.definitions.reverse()
        self.send(
            "UpdateService", service="bench", taskDefinition=self.definitions[0], deploymentConfiguration=bounds
        )
        self.until(is_done)

    def replace(self):
        """From the death of a container's first process until another task runs in its place."""
        (task, *_) = self.tasks()
        pid = self.first_process(task["containers"][0]["runtimeId"])
        os.kill(pid, signal.SIGKILL)
        while task["taskArn"] in (running := {each["taskArn"] for each in self.tasks()}) or len(running) < UPDATED:
            time.sleep(GLANCE)

    def tasks(self):
        """Those that are RUNNING."""
        arns = self.send("ListTasks", serviceName="bench")["taskArns"]
        found = self.send("DescribeTasks", tasks=arns)["tasks"] if arns else []
        return [task for task in found if task["lastStatus"] == "RUNNING"]

    def first_process(self, container):
        """The process that its shim, which names the container, has started."""
        shims = [pid for pid in process_ids(container) if "shim" in pathlib.Path(f"/proc/{pid}/comm").read_text()]
        if len(shims) != 1:
            raise Unmeasured(f"the shim of {container} is not to be told from others")
        children = pathlib.Path(f"/proc/{shims[0]}/task/{shims[0]}/children").read_text().split()
        threads = pathlib.Path(f"/proc/{shims[0]}/task").iterdir()
        children = children or [pid for thread in threads for pid in (thread / "children").read_text().split()]
        return int(children[0])

    def remove(self):
        self.send("DeleteService", service="bench", force=True)
        self.until(lambda service: service["status"] == "INACTIVE")


def is_done(service):
    (last, *others) = service["deployments"]
    return not others and last["rolloutState"] == "COMPLETED"


class Cpu:
    """What the whole machine has worked since."""

    def __init__(self):
        self.before = busy()

    def spent(self):
        """In milliseconds."""
        return (busy() - self.before) * 1000 / os.sysconf("SC_CLK_TCK")


def busy():
    """Ticks that processors were not idle."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, interrupts, soft, *_ = (int(field) for field in fields)
    return user + nice + system + interrupts + soft
