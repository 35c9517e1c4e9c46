"""`longshore why`: the causes of a task's state, for people and for programs."""

import json

import pytest

from support.server import Failed


def test_why_a_task_has_stopped(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["sh", "-c", "exit 7"]}))
    cloud.until_stopped(cluster, arn)
    lines = cloud.server.run("why", arn).splitlines()
    assert lines[0] == f"1. FARGATE of {name}:1 was asked for"
    assert any(line.endswith("container main exited with 7") for line in lines)
    assert lines[-1].endswith("it stops for EssentialContainerExited: Essential container in task exited")
    said = json.loads(cloud.server.run("why", arn, "--output", "json"))
    assert (said["arn"], len(said["causes"])) == (arn, len(lines))


def test_why_a_task_did_not_start(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["never-was"]}))
    cloud.until_stopped(cluster, arn)
    last = cloud.server.run("why", arn).splitlines()[-1]
    assert "it stops for TaskFailedToStart: CannotStartContainerError:" in last


def test_refusals(cloud):
    with pytest.raises(Failed, match="is not the ARN of a task"):
        cloud.server.run("why", "web")
    with pytest.raises(Failed, match="no task has the ARN"):
        cloud.server.run("why", f"arn:aws:ecs:us-east-1:123456789012:task/default/{'0' * 32}")
