"""State-change events: every change of a task and of a container instance, in order, in EventBridge's shape."""

import json
import re
import subprocess

import pytest

from support import server
from support.aws import Cloud, idle
from support.waiting import until


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--container-instances", "1", "--cluster", "fleet") as started:
        load(started, "busybox:latest")
        yield Cloud(started)


def events(cloud, arn):
    told = [json.loads(line) for line in cloud.server.run("events", "--output", "json").splitlines()]
    return [event for event in told if event["resources"] == [arn]]


def test_a_task_is_told_of_from_its_first_to_its_last_state(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["sh", "-c", "exit 3"]}))
    task = cloud.until_stopped(cluster, arn)
    told = events(cloud, arn)
    details = [event["detail"] for event in told]
    assert [detail["version"] for detail in details] == list(range(1, task["version"] + 1))
    states = [detail["lastStatus"] for detail in details]
    order = ["PROVISIONING", "PENDING", "RUNNING", "STOPPING", "DEPROVISIONING", "STOPPED"]
    assert states == sorted(states, key=order.index)
    assert (states[0], states[-1]) == ("PROVISIONING", "STOPPED")
    last = told[-1]
    envelope = {key: last[key] for key in ("version", "detail-type", "source", "account", "region", "resources")}
    assert envelope == {
        "version": "0",
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": "123456789012",
        "region": "us-east-1",
        "resources": [arn],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", last["time"])
    assert len({event["id"] for event in told}) == len(told)
    detail = last["detail"]
    assert (detail["taskArn"], detail["stopCode"]) == (arn, "EssentialContainerExited")
    assert detail["clusterArn"].endswith(f":cluster/{cluster}")
    assert detail["containers"][0]["exitCode"] == 3
    assert detail["attachments"][0]["type"] == "eni"
    for time in ("createdAt", "stoppedAt", "updatedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", detail[time]), time
    assert "tags" not in detail


def test_a_container_instance_is_told_of(cloud):
    (arn,) = cloud.ecs.list_container_instances(cluster="fleet")["containerInstanceArns"]
    for status in ("DRAINING", "ACTIVE"):
        cloud.ecs.update_container_instances_state(cluster="fleet", containerInstances=[arn], status=status)
    told = events(cloud, arn)
    assert {event["detail-type"] for event in told} == {"ECS Container Instance State Change"}
    assert [event["detail"]["status"] for event in told] == ["ACTIVE", "DRAINING", "ACTIVE"]
    detail = told[-1]["detail"]
    assert (detail["containerInstanceArn"], detail["agentConnected"]) == (arn, True)
    assert detail["clusterArn"].endswith(":cluster/fleet")
    names = {resource["name"] for resource in detail["registeredResources"]}
    assert names >= {"CPU", "MEMORY", "PORTS"} and detail["remainingResources"]


def test_a_container_instance_is_told_of_what_its_tasks_take(cloud, name):
    (instance,) = cloud.ecs.list_container_instances(cluster="fleet")["containerInstanceArns"]
    settings = {"requiresCompatibilities": ["EC2"], "networkMode": "none", "cpu": "64", "memory": "32"}
    definition = cloud.register(name, {"command": idle()}, **settings)
    before = events(cloud, instance)[-1]["detail"]
    (task,) = cloud.ecs.run_task(cluster="fleet", taskDefinition=definition, launchType="EC2")["tasks"]
    arn = task["taskArn"]
    cloud.until_running("fleet", arn)
    cloud.ecs.stop_task(cluster="fleet", task=arn)
    cloud.until_stopped("fleet", arn)
    after = [event["detail"] for event in events(cloud, instance)]
    after = [detail for detail in after if detail["version"] > before["version"]]
    assert [detail["version"] - before["version"] for detail in after] == [1, 2]

    def left(detail):
        return {each["name"]: each["integerValue"] for each in detail["remainingResources"]}

    assert left(after[0])["CPU"] == left(before)["CPU"] - 64
    assert left(after[0])["MEMORY"] == left(before)["MEMORY"] - 32
    assert left(after[1]) == left(before)
    (shown,) = cloud.ecs.describe_container_instances(cluster="fleet", containerInstances=[instance])[
        "containerInstances"
    ]
    assert shown["version"] == after[1]["version"]


def test_events_are_there_after_a_kill_and_go_on(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": idle()}))
    cloud.until_running(cluster, arn)
    before = [event["id"] for event in events(cloud, arn)]
    cloud.server.kill()
    cloud.server.start()
    assert [event["id"] for event in events(cloud, arn)] == before
    cloud.ecs.stop_task(cluster=cluster, task=arn)
    task = cloud.until_stopped(cluster, arn)
    versions = [event["detail"]["version"] for event in events(cloud, arn)]
    assert versions == list(range(1, task["version"] + 1))


def test_they_can_be_followed(cloud, cluster, name):
    command = cloud.server.command("events", "--follow")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        try:
            (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["true"]}))
            task = arn.partition("/")[2]
            for line in following.stdout:
                words = line.split()
                if words[1:3] == ["task", task] and "STOPPED" in words[4:5]:
                    break
            assert words[3] == f"{name}:1"
            assert line.rstrip().endswith("for EssentialContainerExited: Essential container in task exited")
        finally:
            following.kill()
    until("the last event is kept as well", lambda: events(cloud, arn)[-1]["detail"]["lastStatus"] == "STOPPED")


def test_what_a_service_comes_to_is_told(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    request = {"cluster": cluster, "serviceName": name, "taskDefinition": definition, "desiredCount": 1}
    made = cloud.ecs.create_service(**request, launchType="FARGATE", networkConfiguration=cloud.network())["service"]

    def steady():
        told = events(cloud, made["serviceArn"])
        return told if any(event["detail"]["eventName"] == "SERVICE_STEADY_STATE" for event in told) else None

    told = until("the service is steady", steady)
    assert [(event["detail-type"], event["detail"]["eventName"]) for event in told] == [
        ("ECS Deployment State Change", "SERVICE_DEPLOYMENT_IN_PROGRESS"),
        ("ECS Deployment State Change", "SERVICE_DEPLOYMENT_COMPLETED"),
        ("ECS Service Action", "SERVICE_STEADY_STATE"),
    ]
    assert {event["detail"].get("deploymentId") for event in told} == {made["deployments"][0]["id"], None}
    assert told[2]["detail"]["eventType"] == "INFO"
    cloud.ecs.delete_service(cluster=cluster, service=name, force=True)
    cloud.ecs.get_waiter("services_inactive").wait(cluster=cluster, services=[name])
