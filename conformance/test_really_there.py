"""A task that the API calls RUNNING is a process on this machine: isolated, limited, addressed and reachable."""

import ipaddress
import json
import os
import urllib.request

import pytest

from support.aws import address, detail, idle, task_id
from support.host import PROC, Process, find_process
from support.waiting import until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster(cloud):
    yield cloud.cluster("really-there")
    cloud.stop_all("really-there")


@pytest.fixture(scope="module")
def sleeper(cloud, cluster):
    """One task for all tests that only look: its description and its process."""
    definition = cloud.register("really-there", {"command": idle("731101"), "memory": 128})
    task = cloud.run_one(cluster, definition)
    return task, find_process("731101")


def host():
    return Process(os.getpid())


@pytest.mark.parametrize("kind", ["net", "pid", "mnt", "uts", "ipc"])
def test_namespaces_are_its_own(sleeper, kind):
    _, process = sleeper
    assert process.namespace(kind) != host().namespace(kind)


def test_it_is_the_first_process_of_its_world(sleeper):
    _, process = sleeper
    assert process.pid_inside() == 1


def test_its_files_are_the_image_s(sleeper):
    _, process = sleeper
    root = PROC / str(process.pid) / "root"
    assert (root / "bin" / "busybox").exists()
    assert "nogroup" in (root / "etc" / "group").read_text()
    assert not (root / "usr" / "bin" / "python3").exists()


def test_memory_is_limited_for_container_and_task(sleeper):
    _, process = sleeper
    assert process.own_memory_limit() == 128 * MIB
    assert process.memory_limit() == 128 * MIB


def test_a_container_without_a_limit_has_the_task_s(cloud, cluster, name):
    cloud.run_one(cluster, cloud.register(name, {"command": idle("731102")}))
    assert find_process("731102").memory_limit() == 512 * MIB


def test_cpu_is_capped_at_the_task_s_size(sleeper):
    _, process = sleeper
    assert process.cpu_limit() == pytest.approx(0.25)


def test_the_address_is_the_subnet_s_and_on_its_own_interface(cloud, sleeper):
    task, process = sleeper
    (subnet,) = cloud.ec2.describe_subnets(SubnetIds=[detail(task, "subnetId")])["Subnets"]
    found = ipaddress.ip_address(address(task))
    network = ipaddress.ip_network(subnet["CidrBlock"])
    assert found in network
    # The first four addresses of a subnet, and the last, are not given out.
    assert int(found) - int(network.network_address) >= 4
    assert found != network.broadcast_address
    assert [str(found)] in process.addresses().values()
    (interface,) = task["containers"][0]["networkInterfaces"]
    assert interface["privateIpv4Address"] == str(found)


def test_the_interface_has_the_mac_address_that_is_told(sleeper):
    task, process = sleeper
    links = json.loads(process.in_network("ip", "-j", "link"))
    assert detail(task, "macAddress") in [link.get("address") for link in links]


def test_the_subnet_is_the_one_asked_for(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()})
    task = cloud.run_one(cluster, definition, networkConfiguration=cloud.network(cloud.subnets[1]))
    assert detail(task, "subnetId") == cloud.subnets[1]
    (subnet,) = cloud.ec2.describe_subnets(SubnetIds=[cloud.subnets[1]])["Subnets"]
    assert task["availabilityZone"] == subnet["AvailabilityZone"]


@pytest.fixture(scope="module")
def web(cloud, cluster):
    container = {"image": "nginx:latest", "portMappings": [{"containerPort": 80}]}
    return cloud.run_one(cluster, cloud.register("really-there-web", container))


def fetch(url):
    def answer():
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read().decode()
        except OSError:
            return None

    return until(f"an answer from {url}", answer)


def test_reachable_from_the_host(web):
    assert "Welcome to nginx!" in fetch(f"http://{address(web)}/")
    assert fetch(f"http://{address(web)}/address").strip() == address(web)


def test_reachable_from_another_task(cloud, cluster, web, name):
    fetch(f"http://{address(web)}/")
    definition = cloud.register(name, {"command": ["wget", "-qO-", f"http://{address(web)}/"]})
    (arn,) = cloud.run(cluster, definition)
    stopped = cloud.until_stopped(cluster, arn)
    assert stopped["containers"][0]["exitCode"] == 0
    lines = cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "nginx")
    assert any("Welcome to nginx!" in line for line in lines)


def test_a_task_sees_its_own_address_as_the_source(cloud, cluster, web, name):
    definition = cloud.register(name, {"command": ["wget", "-qO-", f"http://{address(web)}/"]})
    (arn,) = cloud.run(cluster, definition)
    client = address(cloud.until_stopped(cluster, arn))
    lines = cloud.until_line("/ecs/really-there-web", f"test/main/{task_id(web['taskArn'])}", client)
    assert any(line.startswith(f"{client} ") for line in lines)


def test_containers_of_one_task_share_its_network(cloud, cluster, name):
    definition = cloud.register(
        name,
        {"name": "web", "image": "nginx:latest"},
        {
            "name": "client",
            "command": ["sh", "-c", "until wget -qO- http://127.0.0.1/health; do sleep 0.1; done"],
            "essential": False,
        },
    )
    task = cloud.run_one(cluster, definition)
    stream = f"test/client/{task_id(task['taskArn'])}"
    assert cloud.until_line(f"/ecs/{name}", stream, "healthy")[-1] == "healthy"


def test_containers_are_told_their_world(sleeper):
    task, process = sleeper
    environment = process.environment()
    assert environment["PATH"] == "/bin"
    assert environment["HOSTNAME"]
    root = PROC / str(process.pid) / "root"
    assert address(task) in (root / "etc" / "hosts").read_text()
    assert "nameserver" in (root / "etc" / "resolv.conf").read_text()


def test_the_address_is_free_again_after_the_end(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle("731103")})
    task = cloud.run_one(cluster, definition)
    process = find_process("731103")
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    stopped = cloud.until_stopped(cluster, task["taskArn"])
    assert not process.alive()
    (attachment,) = stopped["attachments"]
    assert attachment["status"] == "DELETED"


def test_its_processes_end_with_it(cloud, cluster, name):
    command = ["sh", "-c", "sleep 731104 & sleep 731105 & wait"]
    task = cloud.run_one(cluster, cloud.register(name, {"command": command, "stopTimeout": 2}))
    children = [find_process("731104"), find_process("731105")]
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    cloud.until_stopped(cluster, task["taskArn"])
    assert not any(child.alive() for child in children)
