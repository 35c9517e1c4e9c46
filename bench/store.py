"""Durable commits a second of the store's engines, beside what the disk and etcd do alone; the program of the store says
what each figure is."""

import json

from figures import Figure
from ground import example, run, say

NAME = "store"
FLOORS = {"embedded commit": "append + fdatasync", "etcd commit": "etcd bare put"}


def measure(_folder):
    program = example("longshore-store", "bench_commits")
    say("  commit to the embedded engine and to an etcd")
    found = json.loads(run(program, "--output", "json"))
    figures = []
    for each in found:
        floor = FLOORS.get(each["what"])
        if floor:
            figures += compared(each, floor_for(found, floor, each["clients"]))
    return figures


def floor_for(found, what, clients):
    """With as many clients, or of the one that there is."""
    floors = [each for each in found if each["what"] == what]
    return next((each for each in floors if each["clients"] == clients), floors[0])


def compared(ours, floor):
    clients = f"{ours['clients']} client{'s' if ours['clients'] > 1 else ''}"
    what, beside = f"{ours['what']}, {clients}", floor["what"]
    if floor["clients"] != ours["clients"]:
        beside += f", {floor['clients']} client"
    return [
        Figure(NAME, what, "/s", ours["per_second"], beside, floor["per_second"]),
        Figure(NAME, f"{what}, p99", "ms", ours["p99_us"] / 1000, beside, floor["p99_us"] / 1000),
    ]
