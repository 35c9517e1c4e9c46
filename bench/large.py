"""5,000 services with 1,000,000 tasks on 10,000 instances, decided on one thread; the program of the simulator checks at
every commit what may never happen, and ends with an error where it does."""

import json

from figures import Figure
from ground import example, run, say

NAME = "large"
MICROSECONDS = 50


def measure(_folder):
    program = example("longshore-sim", "large")
    say("  1,000,000 tasks on 10,000 instances (some minutes)")
    found = json.loads(run(program))
    what = f"{found['tasks']:,} tasks on 10,000 instances"
    median = found["placement_median_us"]
    return [
        Figure(NAME, f"{what}, a placement", "µs", median, "target", MICROSECONDS, at_most=1),
        Figure(NAME, f"{what}, a placement, p99", "µs", found["placement_p99_us"], "median", median),
        Figure(NAME, f"{what}, all RUNNING", "s", found["start_seconds"]),
        Figure(NAME, f"{what}, state of each in memory", "B", found["resident_of_task"]),
        Figure(NAME, "a look at 5,000 services when nothing has changed", "s", found["look_seconds"]),
        Figure(NAME, "a rolling deployment of 5,000 tasks", "s", found["deployment_seconds"]),
        Figure(NAME, f"a zone fails with {found['lost']:,} tasks, until others run", "s", found["zone_lost_seconds"]),
        Figure(NAME, "the zone comes back", "s", found["zone_back_seconds"]),
    ]
