"""Services: until 1, 10 and 50 replicas run, a rolling update of ten at once and one by one, a dead task replaced, removal."""

import os
import pathlib
import signal
import statistics
import time

from figures import Figure
from ground import Unmeasured, Wire, cloud, process_ids, register_idle, say

NAME = "services"
REPLICAS = [1, 10, 50]
UPDATED = 10
ROUNDS = 3
# All of them may be replaced at once, or one more than are wanted may be there.
AT_ONCE = {"minimumHealthyPercent": 0, "maximumPercent": 200}
ONE_BY_ONE = {"minimumHealthyPercent": 100, "maximumPercent": 110}
GLANCE = 0.01


def measure(folder):
    with cloud(folder) as target:
        service = Service(target)
        service.create(1)
        service.remove()
        figures = []
        for count in REPLICAS:
            say(f"  {count} replicas")
            machine, started, removed = Cpu(), [], []
            for _ in range(ROUNDS):
                started.append(timed(lambda count=count: service.create(count)))
                removed.append(timed(service.remove))
            each = machine.spent() / (ROUNDS * count)
            figures.append(figure(f"a service to {count} replicas RUNNING", "s", started))
            figures.append(Figure(NAME, f"{count} replicas, the machine's CPU, start to removal, each", "ms", each))
        figures.append(figure(f"removal of {REPLICAS[-1]} replicas", "s", removed))
        service.create(UPDATED)
        for what, bounds in (("at once", AT_ONCE), ("one by one", ONE_BY_ONE)):
            say(f"  a rolling update of {UPDATED} {what}")
            took = [timed(lambda bounds=bounds: service.update(bounds)) for _ in range(ROUNDS)]
            figures.append(figure(f"a rolling update of {UPDATED} {what}", "s", took))
        say("  a dead task")
        figures.append(figure("a dead task replaced", "s", [timed(service.replace) for _ in range(ROUNDS)]))
        service.remove()
    return figures


def figure(what, unit, rounds):
    return Figure(NAME, what, unit, statistics.median(rounds))


def timed(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


class Service:
    """One service of tasks that do nothing, asked about over one open connection."""

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
