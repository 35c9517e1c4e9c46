"""Each way to end says what happened: exit code, stop code, and both reasons."""

import pytest

from support.aws import idle, task_id

EXITED = "Essential container in task exited"


def ended(cloud, cluster, name, **container):
    """Runs one container to its end; returns the task and the container."""
    (arn,) = cloud.run(cluster, cloud.register(name, container))
    task = cloud.until_stopped(cluster, arn)
    return task, task["containers"][0]


@pytest.mark.parametrize("status", [0, 1, 42])
def test_the_container_exits(cloud, cluster, name, status):
    task, container = ended(cloud, cluster, name, command=["sh", "-c", f"echo bye; exit {status}"])
    assert container["exitCode"] == status
    assert container["lastStatus"] == "STOPPED"
    assert "reason" not in container
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == EXITED
    assert task["desiredStatus"] == "STOPPED"
    assert cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(task['taskArn'])}", "bye") == ["bye"]


def test_killed_by_memory(cloud, cluster, name):
    command = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]
    task, container = ended(cloud, cluster, name, command=command, memory=32)
    assert container["exitCode"] == 137
    assert container["reason"] == "OutOfMemoryError: Container killed due to memory usage"
    assert task["stopCode"] == "EssentialContainerExited"
    assert task["stoppedReason"] == EXITED


def test_stopped_by_the_user(cloud, cluster, name):
    definition = cloud.register(name, {"command": ["sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"]})
    task = cloud.run_one(cluster, definition)
    cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(task['taskArn'])}", "up")
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    stopped = cloud.until_stopped(cluster, task["taskArn"])
    assert stopped["stopCode"] == "UserInitiated"
    assert stopped["stoppedReason"] == "Task stopped by user"
    assert stopped["containers"][0]["exitCode"] == 5


def test_killed_after_the_stop_timeout(cloud, cluster, name):
    command = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"]
    task = cloud.run_one(cluster, cloud.register(name, {"command": command, "stopTimeout": 2}))
    cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(task['taskArn'])}", "up")
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"], reason="enough")
    stopped = cloud.until_stopped(cluster, task["taskArn"])
    assert stopped["containers"][0]["exitCode"] == 137
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "enough")


def test_stopped_before_it_ran(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": idle()}))
    cloud.ecs.stop_task(cluster=cluster, task=arn, reason="changed my mind")
    stopped = cloud.until_stopped(cluster, arn)
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("UserInitiated", "changed my mind")


def test_the_image_is_missing(cloud, cluster, name):
    # Nothing listens on port 1 of the loopback address.
    task, container = ended(cloud, cluster, name, image="127.0.0.1:1/never-was:latest")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert container["reason"].startswith("CannotPullContainerError: ")
    assert "127.0.0.1:1/never-was:latest" in task["stoppedReason"]
    assert "exitCode" not in container


def test_the_command_is_missing(cloud, cluster, name):
    task, container = ended(cloud, cluster, name, command=["/never/was"])
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotStartContainerError: ")
    assert "/never/was" in task["stoppedReason"]
    assert container["reason"].startswith("CannotStartContainerError: ")


def test_the_user_is_missing(cloud, cluster, name):
    task, _ = ended(cloud, cluster, name, command=["true"], user="never-was")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith(("CannotStartContainerError: ", "CannotCreateContainerError: "))
    assert "never-was" in task["stoppedReason"]


def test_the_log_group_is_missing(cloud, cluster, name):
    options = {"awslogs-group": "/never/was", "awslogs-region": cloud.region, "awslogs-stream-prefix": "x"}
    log = {"logDriver": "awslogs", "options": options}
    task, _ = ended(cloud, cluster, name, command=["true"], logConfiguration=log)
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("ResourceInitializationError: ")


def test_one_essential_container_ends_the_others(cloud, cluster, name):
    definition = cloud.register(
        name,
        {"name": "first", "command": ["sh", "-c", "exit 3"]},
        {"name": "second", "command": ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"]},
    )
    (arn,) = cloud.run(cluster, definition)
    task = cloud.until_stopped(cluster, arn)
    containers = {each["name"]: each for each in task["containers"]}
    assert containers["first"]["exitCode"] == 3
    assert containers["second"]["lastStatus"] == "STOPPED"
    assert task["stoppedReason"] == EXITED


def test_a_stopped_task_stays_visible(cloud, cluster, name):
    task, _ = ended(cloud, cluster, name, command=["true"])
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"], reason="too late")
    again = cloud.task(cluster, task["taskArn"])
    assert again["stoppedReason"] == EXITED
    assert again["stoppedAt"] == task["stoppedAt"]
