"""Three hundred tasks on three instances of one machine: until all run, and what they take of it while nothing changes."""

import time

from fifty import QUIET, Processes, start, stop
from figures import Figure
from ground import cloud, say

NAME = "three-hundred"
TASKS = 300
INSTANCES = 3
# More than the machine has: each task asks for a quarter of a processor and 512 MiB, and uses next to nothing of them.
ROOM = ["--overcommit-cpu", "1000", "--overcommit-memory", "1000"]
# What the server may take of one core while nothing changes.
QUIET_SHARE = 0.01


def measure(folder):
    with cloud(folder, "--instances", str(INSTANCES), *ROOM) as target:
        cluster = target.cluster("bench")
        # One on each instance before: the first task makes what the others find.
        stop(target, cluster, start(target, cluster, INSTANCES))
        idle = Processes(target)
        say(f"  {TASKS} tasks at once on {INSTANCES} instances")
        began = time.perf_counter()
        arns = start(target, cluster, TASKS)
        took = time.perf_counter() - began
        busy = Processes(target)
        say(f"  nothing for {QUIET} s beside them")
        quiet, quiet_beside = busy.cpu_while_quiet()
        began = time.perf_counter()
        stop(target, cluster, arns)
        stopped = time.perf_counter() - began
    share = f"{QUIET_SHARE:.0%} of a core"
    return [
        Figure(NAME, f"{TASKS} tasks on {INSTANCES} instances, all RUNNING", "s", took),
        Figure(NAME, "tasks a second", "/s", TASKS / took),
        Figure(NAME, f"{TASKS} tasks, all STOPPED", "s", stopped),
        Figure(NAME, "longshore, resident, no task", "MiB", idle.longshore),
        Figure(NAME, "longshore, resident, each task", "MiB", (busy.longshore - idle.longshore) / TASKS),
        Figure(NAME, "containerd, resident, each task", "MiB", (busy.containerd - idle.containerd) / TASKS),
        Figure(NAME, "containerd's shims, proportional, each task", "MiB", busy.shims / TASKS),
        Figure(NAME, f"longshore, CPU over {QUIET} s", "ms", quiet, share, QUIET * 1000 * QUIET_SHARE, at_most=1),
        Figure(NAME, f"containerd and its shims, CPU over {QUIET} s", "ms", quiet_beside),
    ]

