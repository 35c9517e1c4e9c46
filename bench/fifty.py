"""Fifty tasks at once, and what the server takes of the machine while they run and nothing happens."""

import json
import os
import pathlib
import re
import time

from figures import Figure
from ground import Containerd, Unmeasured, Wire, archive, cloud, example, process_ids, register_idle, run, say

NAME = "fifty"
TASKS = 50
# What RunTask starts at most.
AT_ONCE = 10
# How long nothing happens, in seconds.
QUIET = 10
MEBIBYTE = 1 << 20


def measure(folder):
    floor = example("longshore-agent", "containerd_floor")
    with cloud(folder) as target:
        cluster = target.cluster("bench")
        # One before: the first task makes what the others find.
        warm = start(target, cluster, 1)
        stop(target, cluster, warm)
        idle = Processes(target)
        say(f"  nothing for {QUIET} s")
        quiet = idle.cpu_while_quiet()
        say(f"  {TASKS} tasks at once")
        began = time.perf_counter()
        arns = start(target, cluster, TASKS)
        took = time.perf_counter() - began
        busy = Processes(target)
        say(f"  nothing for {QUIET} s beside them")
        quiet_beside = busy.cpu_while_quiet()
        template = Containerd(target).container_ids()[0]
        others = arns[1:]
        kept = [arn for arn in arns if arn.rpartition("/")[2] in template] or arns[:1]
        others = [arn for arn in arns if arn not in kept]
        stop(target, cluster, others)
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
    look = wire.signed("DescribeTasks", cluster=cluster, tasks=arns)

    def all_there(answer):
        found = {task["lastStatus"] for task in answer["tasks"]}
        if "STOPPED" in found - {wanted}:
            raise Unmeasured(f"a task stopped: {answer['tasks']}")
        return found == {wanted}

    wire.until(look, all_there, glance=0.01)


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
        self.longshore = status_bytes(self.pid, "VmRSS") / MEBIBYTE
        self.containerd = status_bytes(containerd, "VmRSS") / MEBIBYTE
        # They share their program's pages: each counts its part.
        self.shims = sum(kilobytes(pid, "smaps_rollup", "Pss") for pid in shims) / MEBIBYTE

    def cpu_while_quiet(self):
        before = self.cpu()
        time.sleep(QUIET)
        return self.cpu() - before

    def cpu(self):
        """Milliseconds of CPU time so far, as fine as the kernel's ticks."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def status_bytes(pid, name):
    return kilobytes(pid, "status", name)


def kilobytes(pid, file, name):
    """A value that the kernel gives in kB, in bytes."""
    text = pathlib.Path(f"/proc/{pid}/{file}").read_text()
    return int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024
