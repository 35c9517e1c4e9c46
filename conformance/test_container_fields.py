"""Fields of container definitions, each by its effect in the container or on the instance."""

import json
import subprocess

import pytest

from support import server
from support.aws import ROLE, Cloud, container_definition, idle, refused, task_id

# As the kernel numbers them.
CAPABILITIES = {"NET_ADMIN": 12, "SYS_PTRACE": 19, "CHOWN": 0, "MKNOD": 27, "KILL": 5}


CLUSTER = "fields"
ON_FARGATE = {"networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512"}
ON_INSTANCE = {"networkMode": "bridge", "requiresCompatibilities": ["EC2"]}


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--container-instances", "1", "--cluster", CLUSTER) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    cloud.stop_all(CLUSTER)


def run(cloud, name, *containers, where=ON_FARGATE):
    """Runs a task of these containers."""
    group = cloud.log_group(f"/ecs/{name}")
    full = [container_definition(container, group, cloud.region) for container in containers]
    cloud.ecs.register_task_definition(family=name, containerDefinitions=full, executionRoleArn=ROLE, **where)
    fargate = {"launchType": "FARGATE", "networkConfiguration": cloud.network()}
    settings = fargate if where is ON_FARGATE else {"launchType": "EC2"}
    answer = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=name, **settings)
    assert answer["failures"] == []
    return answer["tasks"][0]["taskArn"]


def shell(name, *lines, **settings):
    """A container that prints and ends."""
    return {"name": name, "command": ["sh", "-c", "; ".join(lines)], "essential": False} | settings


def printed(cloud, name, *containers, where=ON_FARGATE):
    """Runs a task of containers that end by themselves; what each printed, by its name."""
    last = {"name": "last", "command": ["true"], "memory": 16}
    last["dependsOn"] = [{"containerName": container["name"], "condition": "SUCCESS"} for container in containers]
    arn = run(cloud, name, *containers, last, where=where)
    task = cloud.until_stopped(CLUSTER, arn)
    exits = {container["name"]: container.get("exitCode") for container in task["containers"]}
    assert exits == {container["name"]: 0 for container in (*containers, last)}, task.get("stoppedReason")
    return {
        container["name"]: cloud.lines(f"/ecs/{name}", f"test/{container['name']}/{task_id(arn)}")
        for container in containers
    }


def capabilities(lines):
    """Those of `/proc/self/status` that the tests look for."""
    (effective,) = (int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    return {name for name, bit in CAPABILITIES.items() if effective >> bit & 1}


def test_on_fargate(cloud, name):
    status = "grep -E 'CapEff|NoNewPrivs' /proc/self/status"
    containers = [
        shell("ulimits", "ulimit -n; ulimit -Hn", ulimits=[{"name": "nofile", "softLimit": 512, "hardLimit": 1000}]),
        shell("usual", status, "df -k /dev/shm | tail -1"),
        shell("changed", status, linuxParameters={"capabilities": {"add": ["SYS_PTRACE"], "drop": ["MKNOD", "CHOWN"]}}),
        shell("none", status, linuxParameters={"capabilities": {"drop": ["ALL"]}}),
        shell(
            "controls",
            "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/tcp_keepalive_time",
            systemControls=[
                {"namespace": "kernel.msgmax", "value": "16384"},
                {"namespace": "net.ipv4.tcp_keepalive_time", "value": "500"},
            ],
        ),
        shell("unlike", "cat /proc/sys/kernel/msgmax"),
    ]
    said = printed(cloud, name, *containers)
    assert said["ulimits"] == ["512", "1000"]
    assert capabilities(said["usual"]) == {"CHOWN", "MKNOD", "KILL"}
    assert capabilities(said["changed"]) == {"SYS_PTRACE", "KILL"}
    assert capabilities(said["none"]) == set()
    assert said["controls"] == ["16384", "500"]
    assert said["unlike"] == ["8192"], "what a container has for itself is not the others'"


def test_on_an_instance(cloud, name):
    memory = {"memory": 64}
    containers = [
        shell("shm", "df -k /dev/shm | tail -1", linuxParameters={"sharedMemorySize": 16}, **memory),
        shell(
            "tmpfs",
            "df -k /scratch | tail -1; grep ' /scratch ' /proc/mounts; cp /proc/self/exe /scratch/busybox; /scratch/busybox true",
            linuxParameters={"tmpfs": [{"containerPath": "/scratch", "size": 8, "mountOptions": ["exec", "noatime"]}]},
            **memory,
        ),
        shell(
            "device",
            "ls -l /dev/nothing; echo x > /dev/nothing",
            linuxParameters={"devices": [{"hostPath": "/dev/null", "containerPath": "/dev/nothing"}]},
            **memory,
        ),
        shell("privileged", "grep CapEff /proc/self/status", "mkdir /mnt; mount -t tmpfs x /mnt && echo mounted", privileged=True, **memory),
        shell("unprivileged", "grep CapEff /proc/self/status", "mkdir /mnt; mount -t tmpfs x /mnt || echo refused", **memory),
        shell("no-new", "grep NoNewPrivs /proc/self/status", dockerSecurityOptions=["no-new-privileges"], **memory),
        shell(
            "names",
            "hostname; cat /etc/hosts /etc/resolv.conf",
            hostname="front",
            dnsServers=["192.0.2.53"],
            dnsSearchDomains=["shop.example"],
            extraHosts=[{"hostname": "db.example", "ipAddress": "192.0.2.7"}],
            **memory,
        ),
        shell("usual", "hostname; cat /etc/hosts", **memory),
    ]
    said = printed(cloud, name, *containers, where=ON_INSTANCE)
    assert said["shm"][0].split()[1] == str(16 << 10)
    assert said["tmpfs"][0].split()[1] == str(8 << 10)
    assert "noatime" in said["tmpfs"][1] and "noexec" not in said["tmpfs"][1]
    assert said["device"][0].startswith("crw") and "1,   3" in said["device"][0]
    assert "NET_ADMIN" in capabilities(said["privileged"]) and said["privileged"][1] == "mounted"
    assert "NET_ADMIN" not in capabilities(said["unprivileged"]) and "refused" in said["unprivileged"]
    assert said["no-new"] == ["NoNewPrivs:\t1"]
    assert said["names"][0] == "front"
    assert "192.0.2.7 db.example" in said["names"]
    assert [line for line in said["names"] if line.startswith(("nameserver", "search"))] == [
        "search shop.example",
        "nameserver 192.0.2.53",
    ]
    assert said["usual"][0] != "front" and "192.0.2.7 db.example" not in said["usual"]


def test_labels_are_the_containers_in_its_runtime(cloud, name):
    arn = run(cloud, name, {"name": "main", "command": idle(name), "dockerLabels": {"team": "red", "a.b/c": "1"}})
    (container,) = cloud.until_running(CLUSTER, arn)["containers"]
    words = ["ctr", "--address", cloud.server.runtime_dir / "containerd.sock"]
    listed = subprocess.run([*words, "namespaces", "list", "--quiet"], capture_output=True, text=True, check=True).stdout

    def info(namespace):
        found = subprocess.run(
            [*words, "--namespace", namespace, "containers", "info", container["runtimeId"]], capture_output=True, text=True
        )
        return json.loads(found.stdout)["Labels"] if found.returncode == 0 else None

    (labels,) = filter(None, map(info, listed.split()))
    assert (labels["team"], labels["a.b/c"]) == ("red", "1")


@pytest.mark.parametrize("label", ["longshore.task", "containerd.io/restart.status"])
def test_labels_of_the_runtime_are_refused(cloud, name, label):
    container = {"name": "main", "image": "busybox:latest", "memory": 64, "dockerLabels": {label: "x"}}
    with refused("ClientException", f"The docker label '{label}' is not valid"):
        cloud.ecs.register_task_definition(family=name, containerDefinitions=[container])


def test_what_is_said_is_shown(cloud, name):
    said = {
        "name": "main",
        "image": "busybox:latest",
        "memory": 64,
        "privileged": True,
        "dockerSecurityOptions": ["no-new-privileges"],
        "hostname": "front",
        "dnsServers": ["192.0.2.53"],
        "dnsSearchDomains": ["shop.example"],
        "extraHosts": [{"hostname": "db.example", "ipAddress": "192.0.2.7"}],
        "dockerLabels": {"team": "red"},
        "ulimits": [{"name": "nofile", "softLimit": 10, "hardLimit": -1}],
        "systemControls": [{"namespace": "net.core.somaxconn", "value": "100"}],
        "linuxParameters": {
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["KILL"]},
            "devices": [{"hostPath": "/dev/null", "containerPath": "/dev/x", "permissions": ["read"]}],
            "sharedMemorySize": 16,
            "tmpfs": [{"containerPath": "/scratch", "size": 8, "mountOptions": ["noatime"]}],
        },
    }
    made = cloud.ecs.register_task_definition(family=name, containerDefinitions=[said])["taskDefinition"]
    (shown,) = made["containerDefinitions"]
    assert {field: shown[field] for field in said} == said
    assert made["compatibilities"] == ["EXTERNAL", "EC2"]
    names = [attribute["name"] for attribute in made["requiresAttributes"]]
    assert "com.amazonaws.ecs.capability.privileged-container" in names


@pytest.mark.parametrize(
    "settings",
    [
        {"privileged": True},
        {"dockerSecurityOptions": ["no-new-privileges"]},
        {"linuxParameters": {"devices": [{"hostPath": "/dev/null"}]}},
        {"linuxParameters": {"sharedMemorySize": 16}},
        {"linuxParameters": {"tmpfs": [{"containerPath": "/x", "size": 8}]}},
        {"linuxParameters": {"capabilities": {"add": ["NET_ADMIN"]}}},
        {"ulimits": [{"name": "nproc", "softLimit": 1, "hardLimit": 1}]},
        {"hostname": "front"},
        {"dnsServers": ["192.0.2.53"]},
        {"dnsSearchDomains": ["shop.example"]},
        {"extraHosts": [{"hostname": "db", "ipAddress": "192.0.2.7"}]},
        {"ulimits": [{"name": "nofile", "softLimit": 2, "hardLimit": 1}]},
        {"systemControls": [{"namespace": "kernel.panic", "value": "1"}]},
        {"systemControls": [{"namespace": "net/../kernel.panic", "value": "1"}]},
        {"dockerLabels": {"longshore.task": "mine"}},
    ],
    ids=str,
)
def test_what_fargate_does_not_give_is_refused(cloud, name, settings):
    with refused("ClientException"):
        cloud.register(name, {"command": ["true"]} | settings)


def test_a_device_that_is_not_there_is_named(cloud, name):
    device = {"linuxParameters": {"devices": [{"hostPath": "/dev/no-such-device"}]}}
    arn = run(cloud, name, {"name": "main", "command": ["true"], "memory": 32} | device, where=ON_INSTANCE)
    task = cloud.until_stopped(CLUSTER, arn)
    assert task["stoppedReason"].startswith("CannotCreateContainerError")
    assert "/dev/no-such-device" in task["stoppedReason"]
