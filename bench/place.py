"""What a placement takes in clusters of 100, 1,000 and 10,000 instances with a hundred tasks each; the program of the engine
says what each figure is."""

import json

from figures import Figure
from ground import example, run, say

NAME = "placement"
# What a placement may take at the median, and a task's state in memory at most.
MICROSECONDS = 50
BYTES = 2048


def measure(_folder):
    program = example("longshore-engine", "bench_placement")
    say("  placements on 100, 1,000 and 10,000 instances")
    found = json.loads(run(program, "--output", "json"))
    figures, smaller = [], {}
    for each in found["placements"]:
        what, median = f"{each['what']}, {each['instances']:,} instances", each["median_us"]
        figures += [
            Figure(NAME, what, "µs", median, "target", MICROSECONDS, at_most=1),
            Figure(NAME, f"{what}, p99", "µs", each["p99_us"], "median", median),
            Figure(NAME, f"{what}, placements of one core", "/s", 1e6 / each["cpu_us"] if each["cpu_us"] else 0),
        ]
        if each["what"] in smaller:
            figures.append(Figure(NAME, f"{what}, growth", "µs", median, "a tenth", smaller[each["what"]]))
        smaller[each["what"]] = median
    for each in found["states"]:
        what = f"state of each of {each['tasks']:,} tasks"
        figures += [
            Figure(NAME, f"{what}, in memory", "B", each["resident_bytes"], "target", BYTES, at_most=1),
            Figure(NAME, f"{what}, in the store", "B", each["record_bytes"], "target", BYTES, at_most=1),
        ]
    return figures
