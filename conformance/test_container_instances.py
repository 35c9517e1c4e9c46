"""The EC2 launch type: container instances of a cluster, what runs on them, and how they leave."""

import pytest

from support import server
from support.aws import Cloud, address, idle, refused
from support.host import find_process, find_processes
from support.waiting import until

CLUSTER = "machines"
OTHER = "0" * 32


@pytest.fixture(scope="module")
def cloud(load):
    flags = ["--container-instances", "2", "--cluster", CLUSTER]
    with server.running(*flags) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture
def instances(cloud):
    return sorted(cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"])


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    cloud.stop_all(CLUSTER)
    arns = cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
    if arns:
        cloud.ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=arns, status="ACTIVE")


def define(cloud, family, mode, command, **settings):
    """A definition for instances: sized by its container alone."""
    container = {"name": "main", "image": "busybox:latest", "memory": 64, "cpu": 100, "command": command}
    request = {"family": family, "networkMode": mode, "containerDefinitions": [container | settings]}
    cloud.ecs.register_task_definition(**request)
    return family


def run(cloud, family, **settings):
    """Runs on instances; returns the RUNNING task."""
    answer = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=family, **settings)
    assert answer["failures"] == []
    return cloud.until_running(CLUSTER, answer["tasks"][0]["taskArn"])


def describe(cloud, arn, **settings):
    (found,) = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[arn], **settings)[
        "containerInstances"
    ]
    return found


def resource(described, kind, name):
    (found,) = [each for each in described[kind] if each["name"] == name]
    return found.get("stringSetValue") or found["integerValue"]


def test_instances_are_members_of_their_cluster(cloud, instances):
    assert len(instances) == 2
    described = [describe(cloud, arn) for arn in instances]
    assert {each["status"] for each in described} == {"ACTIVE"}
    assert all(each["agentConnected"] and each["ec2InstanceId"].startswith("i-") for each in described)
    zones = {a["value"] for each in described for a in each["attributes"] if a["name"] == "ecs.availability-zone"}
    assert zones == {"us-east-1a", "us-east-1b"}
    (cluster,) = cloud.ecs.describe_clusters(clusters=[CLUSTER])["clusters"]
    assert cluster["registeredContainerInstancesCount"] == 2
    missing = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[OTHER])["failures"]
    assert [each["reason"] for each in missing] == ["MISSING"]
    with refused("ClusterContainsContainerInstancesException"):
        cloud.ecs.delete_cluster(cluster=CLUSTER)


def test_a_task_in_host_mode_shares_its_instances_network(cloud, name):
    task = run(cloud, define(cloud, name, "host", idle("731501")))
    assert (task["launchType"], task["attachments"]) == ("EC2", [])
    arn = task["containerInstanceArn"]
    assert cloud.ecs.list_tasks(cluster=CLUSTER, containerInstance=arn)["taskArns"] == [task["taskArn"]]
    described = describe(cloud, arn)
    assert described["runningTasksCount"] == 1
    for kind, taken in (("CPU", 100), ("MEMORY", 64)):
        left = resource(described, "remainingResources", kind)
        assert left == resource(described, "registeredResources", kind) - taken
    second = run(cloud, define(cloud, f"{name}-2", "host", idle("731502")))
    own = [find_process(marker).namespace("net") for marker in ("731501", "731502")]
    # Fewest tasks first: the second is on the other instance, and so in another network.
    assert second["containerInstanceArn"] != arn
    assert own[0] != own[1]


def test_a_task_without_a_network_has_a_loopback_alone(cloud, name):
    family = define(cloud, name, "none", ["sh", "-c", "test $(ls /sys/class/net) = lo"])
    (task,) = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=family)["tasks"]
    assert cloud.until_stopped(CLUSTER, task["taskArn"])["containers"][0]["exitCode"] == 0


def test_a_network_interface_is_in_the_zone_of_its_instance(cloud, instances, name):
    family = define(cloud, name, "awsvpc", idle("731503"))
    first, second = cloud.subnets[:2]
    task = run(cloud, family, networkConfiguration=network(second))
    zones = [a["value"] for a in describe(cloud, task["containerInstanceArn"])["attributes"] if "zone" in a["name"]]
    assert zones == [task["availabilityZone"]] == ["us-east-1b"]
    assert address(task)
    there = network(cloud.subnets[2])
    answer = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=family, networkConfiguration=there)
    assert {each["reason"] for each in answer["failures"]} == {"LOCATION"}


def network(subnet):
    return {"awsvpcConfiguration": {"subnets": [subnet]}}


def test_start_task_goes_where_it_is_told(cloud, instances, name):
    family = define(cloud, name, "host", idle("731504"))
    settings = {"cluster": CLUSTER, "taskDefinition": family, "startedBy": "me"}
    answer = cloud.ecs.start_task(containerInstances=[instances[1], OTHER], **settings)
    assert [each["reason"] for each in answer["failures"]] == ["MISSING"]
    (task,) = answer["tasks"]
    assert (task["containerInstanceArn"], task["startedBy"]) == (instances[1], "me")
    cloud.until_running(CLUSTER, task["taskArn"])


def test_a_host_port_is_given_once_on_an_instance(cloud, name):
    family = define(cloud, name, "host", idle("731505"), portMappings=[{"containerPort": 8099}])
    answer = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=family, count=3)
    assert [each["reason"] for each in answer["failures"]] == ["RESOURCE:PORTS"] * 2, "one for each instance"
    tasks = [cloud.until_running(CLUSTER, task["taskArn"]) for task in answer["tasks"]]
    assert len({task["containerInstanceArn"] for task in tasks}) == 2
    (binding,) = tasks[0]["containers"][0]["networkBindings"]
    assert (binding["hostPort"], binding["containerPort"], binding["protocol"]) == (8099, 8099, "tcp")
    assert "8099" in resource(describe(cloud, tasks[0]["containerInstanceArn"]), "remainingResources", "PORTS")


def test_a_draining_instance_takes_no_tasks(cloud, instances, name):
    family = define(cloud, name, "host", idle("731506"))
    drain = {"cluster": CLUSTER, "status": "DRAINING"}
    answer = cloud.ecs.update_container_instances_state(containerInstances=[instances[0], OTHER], **drain)
    assert [each["status"] for each in answer["containerInstances"]] == ["DRAINING"]
    assert [each["reason"] for each in answer["failures"]] == ["MISSING"]
    listed = cloud.ecs.list_container_instances(**drain)["containerInstanceArns"]
    assert listed == [instances[0]]
    arns = {run(cloud, family)["containerInstanceArn"] for _ in range(3)}
    assert arns == {instances[1]}


def test_attributes_are_put_listed_and_deleted(cloud, instances):
    rack = {"name": "rack", "value": "r1", "targetId": instances[0], "targetType": "container-instance"}
    cloud.ecs.put_attributes(cluster=CLUSTER, attributes=[rack])
    query = {"cluster": CLUSTER, "targetType": "container-instance", "attributeName": "rack"}
    (listed,) = cloud.ecs.list_attributes(**query)["attributes"]
    assert (listed["value"], listed["targetId"]) == ("r1", instances[0])
    cloud.server.kill()
    cloud.server.start()
    assert len(cloud.ecs.list_attributes(**query)["attributes"]) == 1
    cloud.ecs.delete_attributes(cluster=CLUSTER, attributes=[rack])
    assert cloud.ecs.list_attributes(**query)["attributes"] == []
    with refused("InvalidParameterException", "The attribute ecs.os-type is the machine's own."):
        cloud.ecs.put_attributes(cluster=CLUSTER, attributes=[rack | {"name": "ecs.os-type"}])
    with refused("TargetNotFoundException"):
        cloud.ecs.put_attributes(cluster=CLUSTER, attributes=[rack | {"targetId": OTHER}])


def test_refusals(cloud, name):
    family = define(cloud, name, "host", idle("731507"))
    with refused("InvalidParameterException", "Network Configuration is not valid for the given networkMode"):
        run(cloud, family, networkConfiguration=network(cloud.subnets[0]))
    with refused("InvalidParameterException", "Task definition does not support launch_type FARGATE."):
        run(cloud, family, launchType="FARGATE")
    with refused("InvalidParameterException", "No Container Instances were found in your cluster."):
        cloud.ecs.run_task(cluster=cloud.cluster(f"{name}-empty"), taskDefinition=family)


def test_an_instance_is_deregistered(start, load, name):
    own = start("--container-instances", "1")
    load(own, "busybox:latest")
    cloud = Cloud(own)
    (arn,) = cloud.ecs.list_container_instances()["containerInstanceArns"]
    family = define(cloud, name, "host", idle("731509"))
    (task,) = cloud.ecs.run_task(taskDefinition=family)["tasks"]
    cloud.until_running("default", task["taskArn"])
    with refused("InvalidParameterException", "Found running tasks on the instance."):
        cloud.ecs.deregister_container_instance(containerInstance=arn)
    gone = cloud.ecs.deregister_container_instance(containerInstance=arn, force=True)["containerInstance"]
    assert gone["status"] == "INACTIVE"
    assert cloud.ecs.list_container_instances()["containerInstanceArns"] == []
    stopped = cloud.until_stopped("default", task["taskArn"])
    assert stopped["stoppedReason"] == "Container instance deregistration forced by user"
    until("its process is gone", lambda: not find_processes("731509"))


def test_an_instance_without_an_agent_is_registered_and_takes_no_tasks(cloud, cluster, name):
    number = lambda name, amount: {"name": name, "type": "INTEGER", "integerValue": amount}
    given = {
        "cluster": cluster,
        "instanceIdentityDocument": '{"instanceId": "i-0123456789abcdef0", "region": "us-east-1"}',
        "totalResources": [
            number("CPU", 2048),
            number("MEMORY", 4096),
            {"name": "PORTS", "type": "STRINGSET", "stringSetValue": ["22", "2376"]},
        ],
        "versionInfo": {"agentVersion": "1.0.0", "dockerVersion": "containerd"},
        "attributes": [{"name": "ecs.os-type", "value": "linux"}, {"name": "rack", "value": "r1"}],
        "tags": [{"key": "team", "value": "payments"}],
    }
    registered = cloud.ecs.register_container_instance(**given)["containerInstance"]
    arn = registered["containerInstanceArn"]
    assert (registered["status"], registered["agentConnected"], registered["version"]) == ("ACTIVE", False, 1)
    assert registered["ec2InstanceId"] == "i-0123456789abcdef0"
    assert registered["tags"] == given["tags"]
    assert [resource(registered, kind, "CPU") for kind in ("registeredResources", "remainingResources")] == [2048] * 2
    assert resource(registered, "remainingResources", "PORTS") == ["22", "2376"]
    assert cloud.ecs.list_container_instances(cluster=cluster)["containerInstanceArns"] == [arn]
    define(cloud, name, "host", idle())
    answer = cloud.ecs.run_task(cluster=cluster, taskDefinition=name)
    assert (answer["tasks"], answer["failures"][0]["reason"]) == ([], "AGENT")
    given["totalResources"][0]["integerValue"] = 1024
    again = cloud.ecs.register_container_instance(**given, containerInstanceArn=arn)["containerInstance"]
    assert (again["containerInstanceArn"], resource(again, "registeredResources", "CPU")) == (arn, 1024)
    gone = cloud.ecs.deregister_container_instance(cluster=cluster, containerInstance=arn)["containerInstance"]
    assert gone["status"] == "INACTIVE"


def test_what_cannot_be_registered_or_updated(cloud, instances, cluster):
    cpu = [{"name": "CPU", "type": "INTEGER", "integerValue": 1}]
    memory = cpu[0] | {"name": "MEMORY"}
    for given, message in (
        ({}, "totalResources must have CPU"),
        ({"totalResources": cpu}, "totalResources must have MEMORY"),
        ({"totalResources": [cpu[0] | {"integerValue": -1}]}, "CPU needs an integerValue above 0"),
        ({"totalResources": [cpu[0] | {"name": "DISK"}]}, "'DISK' is not supported"),
        ({"instanceIdentityDocument": "x"}, ""),
    ):
        with refused("InvalidParameterException", message):
            cloud.ecs.register_container_instance(cluster=cluster, **given)
    with refused("InvalidParameterException", "not found"):
        arn = instances[0].replace(instances[0].rpartition("/")[2], OTHER)
        cloud.ecs.register_container_instance(
            cluster=CLUSTER, totalResources=[*cpu, memory], containerInstanceArn=arn
        )
    with refused("ClientException", "is connected"):
        cloud.ecs.register_container_instance(
            cluster=CLUSTER, totalResources=[*cpu, memory], containerInstanceArn=instances[0]
        )
    with refused("NoUpdateAvailableException", "no update available"):
        cloud.ecs.update_container_agent(cluster=CLUSTER, containerInstance=instances[0])
