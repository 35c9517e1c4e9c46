"""`longshore down` leaves the machine as it was, and so do servers that were killed before."""

import hashlib
import os

import pytest

from support.aws import Cloud, idle
from support.host import leftovers
from support.server import Server, live
from support.waiting import until


@pytest.fixture
def before():
    """The machine before the test, and the ids of the servers that other tests share and that go on meanwhile."""
    return leftovers() | {"others": [server_id(server) for server in live]}


def server_id(server):
    """What the names of a server's interfaces, tables and cgroups contain; docs/operations.md."""
    return hashlib.sha256(os.fsencode(server.data_dir.resolve())).hexdigest()[:6]


def new_since(before):
    """What is there now and was not, by kind."""
    now = leftovers()
    new = {kind: [each for each in now[kind] if each not in before[kind]] for kind in now if kind != "processes"}
    for kind, found in new.items():
        new[kind] = [each for each in found if not any(other in each for other in before["others"])]
    counts = before["processes"]
    new["processes"] = [name for name, count in now["processes"].items() if count > counts.get(name, 0)]
    return {kind: found for kind, found in new.items() if found}


def check_nothing_is_left(before):
    """The kernel frees a namespace a moment after its last process; so once more is enough."""
    until("nothing is left", lambda: not new_since(before) or None, deadline=15)


def use(server, load):
    """A bit of everything: tasks that run, one that ended, on a loaded image."""
    load(server, "busybox:latest", "nginx:latest")
    cloud = Cloud(server)
    cloud.cluster("down")
    runs = cloud.register("down", {"command": idle(), "memory": 64}, {"name": "web", "image": "nginx:latest"})
    ends = cloud.register("down-ends", {"command": ["true"]})
    for arn in cloud.run("down", runs, count=2):
        cloud.until_running("down", arn)
    (arn,) = cloud.run("down", ends)
    cloud.until_stopped("down", arn)


@pytest.mark.parametrize("instances", ["1", "3"])
def test_down_while_it_runs_and_after_it_was_killed(before, load, start, instances):
    server = start("--instances", instances)
    use(server, load)
    assert new_since(before), "a server with tasks is seen on the machine"
    server.kill()
    server.down()
    check_nothing_is_left(before)
    assert server.data_dir.is_dir()


def test_down_stops_a_server_that_runs(before, load, start):
    server = start()
    use(server, load)
    server.down()
    until("the server's own end", lambda: server.process.poll() is not None)
    check_nothing_is_left(before)


def test_down_twice_and_down_of_nothing(before, start, tmp_path):
    server = start()
    server.stop()
    server.down()
    server.down()
    fresh = Server()
    try:
        fresh.down()
    finally:
        fresh.clean_up()
    check_nothing_is_left(before)


def test_up_after_down_keeps_the_records(load, start):
    server = start()
    use(server, load)
    server.stop()
    server.down()
    server.start()
    cloud = Cloud(server)
    assert cloud.ecs.describe_clusters(clusters=["down"])["clusters"][0]["status"] == "ACTIVE"
    listed = cloud.ecs.list_tasks(cluster="down", desiredStatus="STOPPED")["taskArns"]
    assert len(listed) == 3
    cloud.run_one("down", "down:1")


def test_the_key_is_the_owner_s_alone(start):
    server = start()
    secret = server.exports()["AWS_SECRET_ACCESS_KEY"].encode()
    holders = [path for path in server.data_dir.rglob("*") if path.is_file() and secret in read(path)]
    assert holders
    assert [oct(path.stat().st_mode & 0o077) for path in holders] == ["0o0"] * len(holders)


def read(path):
    return path.read_bytes() if os.access(path, os.R_OK) else b""
