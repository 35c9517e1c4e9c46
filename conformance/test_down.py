"""`longshore down` leaves the machine as it was, and so do servers that were killed before."""

import os

import pytest

from support.aws import Cloud, idle
from support.leaks import Machine
from support.server import Server
from support.waiting import until


@pytest.fixture
def machine():
    return Machine()


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
def test_down_while_it_runs_and_after_it_was_killed(machine, load, start, instances):
    server = start("--instances", instances)
    use(server, load)
    assert machine.new(), "a server with tasks is seen on the machine"
    server.kill()
    server.down()
    machine.check_nothing_is_left()
    assert server.data_dir.is_dir()


def test_down_stops_a_server_that_runs(machine, load, start):
    server = start()
    use(server, load)
    server.down()
    until("the server's own end", lambda: server.process.poll() is not None)
    machine.check_nothing_is_left()


def test_down_twice_and_down_of_nothing(machine, start):
    server = start()
    server.stop()
    server.down()
    server.down()
    fresh = Server()
    try:
        fresh.down()
    finally:
        fresh.clean_up()
    machine.check_nothing_is_left()


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
