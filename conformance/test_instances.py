"""Many instances on one machine: each with its own network and containerd namespace, and one VPC over all."""

import pytest

from support import server
from support.aws import address, Cloud, idle, refused, task_id
from support.host import find_process

INSTANCES = 3


@pytest.fixture(scope="module")
def fleet(load):
    with server.running("--instances", str(INSTANCES)) as started:
        load(started)
        cloud = Cloud(started)
        cloud.cluster("fleet")
        yield cloud


@pytest.fixture(scope="module")
def spread(fleet):
    """Nine sleeping tasks with their processes."""
    tasks = []
    for number in range(9):
        definition = fleet.register("spread", {"command": idle(f"73140{number}")})
        tasks.append((fleet.run_one("fleet", definition), find_process(f"73140{number}")))
    return tasks


def test_tasks_spread_over_the_instances(fleet, spread):
    # Fargate shows no instance; the parent of a container, its shim, belongs to one instance's containerd namespace.
    namespaces = {shim_namespace(process) for _, process in spread}
    assert len(namespaces) == INSTANCES


def shim_namespace(process):
    """The -namespace argument of the containerd shim above a container's process."""
    pid = process.pid
    while pid > 1:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode().split("\0")
        if "containerd-shim" in words[0] and "-namespace" in words:
            return words[words.index("-namespace") + 1]
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
    raise AssertionError(f"no containerd shim above process {process.pid}")


def test_addresses_are_unique_over_all_instances(spread):
    addresses = [address(task) for task, _ in spread]
    assert len(set(addresses)) == len(addresses)


def test_every_task_reaches_every_instance(fleet, spread, name):
    web = fleet.register(f"{name}-web", {"image": "nginx:latest"})
    servers = [fleet.run_one("fleet", web) for _ in range(INSTANCES)]
    urls = " ".join(f"http://{address(task)}/health" for task in servers)
    # Without -T: Debian's busybox crashes on it.
    script = f"for url in {urls}; do until wget -qO- $url; do sleep 0.1; done; done"
    clients = fleet.run("fleet", fleet.register(name, {"command": ["sh", "-c", script]}), count=INSTANCES)
    for arn in clients:
        assert fleet.until_stopped("fleet", arn)["containers"][0]["exitCode"] == 0
        lines = fleet.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "healthy")
        assert lines == ["healthy"] * INSTANCES


def test_an_image_is_on_every_instance(fleet, name):
    definition = fleet.register(name, {"command": ["true"]})
    for arn in fleet.run("fleet", definition, count=INSTANCES * 2):
        assert fleet.until_stopped("fleet", arn)["containers"][0]["exitCode"] == 0


def test_restart_adopts_all_instances(fleet, spread):
    fleet.server.kill()
    assert all(process.alive() for _, process in spread)
    fleet.server.start()
    for task, process in spread:
        assert fleet.task("fleet", task["taskArn"])["lastStatus"] == "RUNNING"
        assert process.alive()
    with refused("ClusterNotFoundException"):
        fleet.ecs.list_tasks(cluster="never-was")
