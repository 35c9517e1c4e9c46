"""A clock that jumps, by an hour and back, under a server with tasks: libfaketime stands between it and the machine's."""

import pathlib

import pytest

from support import server
from support.aws import Cloud, idle
from support.host import find_processes
from support.services import clear, create, stable, tasks
from support.waiting import until

HOUR = 3600


class Clock:
    """What the server, and what it starts, take for the time of day: the machine's and some seconds."""

    def __init__(self, folder):
        libraries = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        assert libraries, "libfaketime is not there: apt-get install faketime, or ./dev test, which does it"
        self.offset = folder / "offset"
        self.jump(0)
        self.environment = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            # The kernel's monotonic clock does not jump either.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds):
        """Whoever reads meanwhile reads the one or the other."""
        new = self.offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.offset)


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def cloud(load, clock):
    # Signatures are of the machine's time, from which a strict server would be too far.
    with server.running(auth="any", environment=clock.environment) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture
def cluster(cloud, clock, name):
    yield cloud.cluster(name)
    clock.jump(0)
    clear(cloud, name)


def pids(marker):
    return {process.pid for process in find_processes(marker)}


def test_nothing_is_lost_or_done_twice_when_the_clock_jumps(cloud, cluster, clock, name):
    definition = cloud.register(name, {"command": idle(name), "stopTimeout": 2})
    create(cloud, cluster, definition, count=2)
    before = stable(cloud, cluster)
    kept, processes = {task["taskArn"] for task in tasks(cloud, cluster)}, pids(name)
    assert len(processes) == 2
    told = [before["createdAt"]]
    for number, seconds in enumerate((HOUR, -HOUR, 30 * 24 * HOUR, 0)):
        clock.jump(seconds)
        marker = f"{name}-{number}"
        one = cloud.run_one(cluster, cloud.register(marker, {"command": idle(marker), "stopTimeout": 2}))
        running = cloud.until_running(cluster, one["taskArn"])
        assert running["startedAt"] >= running["createdAt"]
        told.append(running["createdAt"])
        cloud.ecs.stop_task(cluster=cluster, task=one["taskArn"])
        stopped = cloud.until_stopped(cluster, one["taskArn"])
        assert stopped["stopCode"] == "UserInitiated"
        until("its process is gone", lambda marker=marker: not pids(f"{marker}"))
        assert {task["taskArn"] for task in tasks(cloud, cluster)} == kept
        assert pids(name) == processes, "the service's tasks were not touched"
    assert told[1] > told[0] > told[2], "the clock did jump"
    # And what is to be done is done: a dead task is replaced after all of it.
    gone = sorted(kept)[0]
    cloud.ecs.stop_task(cluster=cluster, task=gone)
    until("another one runs", lambda: len({task["taskArn"] for task in tasks(cloud, cluster)} - {gone}) == 2)
    assert stable(cloud, cluster)["runningCount"] == 2


def test_a_server_that_starts_in_the_past_goes_on(cloud, cluster, clock, name):
    create(cloud, cluster, cloud.register(name, {"command": idle(name), "stopTimeout": 2}))
    stable(cloud, cluster)
    processes = pids(name)
    cloud.server.kill()
    clock.jump(-24 * HOUR)
    cloud.server.start()
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    assert stable(cloud, cluster)["runningCount"] == 2
    assert pids(name) > processes
