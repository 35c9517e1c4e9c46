"""Fifty tasks at once, and what the server takes of the machine while they run and nothing happens."""

import contextlib
import json
import pathlib
import re
import time

from figures import Figure
from ground import Containerd, Unmeasured, Wire, archive, cloud, example, process_ids, register_idle, run, say

NAME = "fifty"
TASKS = 50
# What RunTask starts at most.
AT_ONCE = 10
# What DescribeTasks takes at most.
DESCRIBED_AT_ONCE = 100
# How long nothing happens, in seconds.
QUIET = 10


def measure(folder):
    floor = example("longshore-agent", "containerd_floor")
    with cloud(folder) as target:
        cluster = target.cluster("bench")
        # One before: the first task makes what the others find.
        warm = start(target, cluster, 1)
        stop(target, cluster, warm)
        idle = Processes(target)
        say(f"  nothing for {QUIET} s")
        quiet, _ = idle.cpu_while_quiet()
        say(f"  {TASKS} tasks at once")
        began = time.perf_counter()
        arns = start(target, cluster, TASKS)
        took = time.perf_counter() - began
        busy = Processes(target)
        say(f"  nothing for {QUIET} s beside them")
        quiet_beside, _ = busy.cpu_while_quiet()
        # The floor makes its containers like this one.
        stop(target, cluster, arns[1:])
        template = Containerd(target).only_container()
        say(f"  {TASKS} containers at once without Longshore")
        alone = at_once_without(target, folder, floor, template)
    return [
        figure(f"{TASKS} tasks, all RUNNING", "s", took, "containerd, all started", alone),
        figure(f"{TASKS} tasks, tasks a second", "/s", TASKS / took, "containerd", TASKS / alone),
        figure("longshore, resident, no task", "MiB", idle.longshore),
        figure(f"longshore, resident, {TASKS} tasks", "MiB", busy.longshore),
        figure("longshore, resident, each task", "MiB", (busy.longshore - idle.longshore) / TASKS),
        figure("containerd, resident, no task", "MiB", idle.containerd),
        figure("containerd, resident, each task", "MiB", (busy.containerd - idle.containerd) / TASKS),
        figure("containerd's shims, proportional, each task", "MiB", busy.shims / TASKS),
        figure(f"longshore, CPU over {QUIET} s, no task", "ms", quiet),
        figure(f"longshore, CPU over {QUIET} s, {TASKS} tasks", "ms", quiet_beside),
    ]


def figure(what, unit, ours, beside=None, theirs=None):
    return Figure(NAME, what, unit, ours, beside, theirs)


def start(target, cluster, count):
    """ARNs of that many tasks once all are seen to be RUNNING."""
    wire = Wire(target)
    request = {
        "cluster": cluster,
        "taskDefinition": register_idle(target, "bench"),
        "launchType": "FARGATE",
        "networkConfiguration": target.network(),
    }
    calls = [min(AT_ONCE, count - done) for done in range(0, count, AT_ONCE)]
    requests = [wire.signed("RunTask", **request, count=each) for each in calls]
    arns = []
    for each in requests:
        answer = wire.send(each)
        if answer["failures"]:
            raise Unmeasured(f"RunTask places not all tasks: {answer['failures']}")
        arns += [task["taskArn"] for task in answer["tasks"]]
    until_all(wire, cluster, arns, "RUNNING")
    return arns


def stop(target, cluster, arns):
    wire = Wire(target)
    for arn in arns:
        wire.send(wire.signed("StopTask", cluster=cluster, task=arn))
    until_all(wire, cluster, arns, "STOPPED")


def until_all(wire, cluster, arns, wanted):
    def all_there(answer):
        found = {task["lastStatus"] for task in answer["tasks"]}
        if "STOPPED" in found - {wanted}:
            raise Unmeasured(f"a task stopped: {answer['tasks']}")
        return found == {wanted}

    for first in range(0, len(arns), DESCRIBED_AT_ONCE):
        some = arns[first : first + DESCRIBED_AT_ONCE]
        wire.until(wire.signed("DescribeTasks", cluster=cluster, tasks=some), all_there, glance=0.01)


def at_once_without(target, folder, program, template):
    """Seconds that containerd alone needs for as many containers."""
    containerd = Containerd(target)
    words = [containerd.socket, containerd.namespace, template, archive(folder), TASKS, "--at-once"]
    found = json.loads(run(program, *words, environment={"TMPDIR": str(folder)}))
    return found["all_started"][0] / 1000


class Processes:
    """The server's processes and their memory in MiB."""

    def __init__(self, target):
        self.pid = target.server.process.pid
        address = Containerd(target).socket
        (containerd,) = process_ids(str(target.server.data_dir / "containerd" / "config.toml"))
        shims = [pid for pid in process_ids(address) if pid != containerd]
        self.beside = [containerd, *shims]
        self.longshore = memory(self.pid, "status", "VmRSS")
        self.containerd = memory(containerd, "status", "VmRSS")
        # They share their program's pages: each counts its part.
        self.shims = sum(memory(pid, "smaps_rollup", "Pss") for pid in shims)

    def cpu_while_quiet(self):
        """Milliseconds of the server's own, and of containerd and its shims together."""
        before = cpu([self.pid]), cpu(self.beside)
        time.sleep(QUIET)
        after = cpu([self.pid]), cpu(self.beside)
        return tuple(spent(*each) for each in zip(before, after, strict=True))


def cpu(pids):
    """Milliseconds of CPU time so far by thread: of those that live, and finer than a process's own sum in ticks."""
    found = {}
    for pid in pids:
        # A process or a thread may end while it is looked at.
        with contextlib.suppress(OSError):
            for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    found[thread.name] = int((thread / "schedstat").read_text().split()[0]) / 1e6
    return found


def spent(before, after):
    return sum(now - before.get(thread, 0) for thread, now in after.items())


def memory(pid, file, name):
    """A value that the kernel gives in kB, in MiB."""
    text = pathlib.Path(f"/proc/{pid}/{file}").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024
