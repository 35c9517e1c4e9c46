"""A task's life, by the commands that a new user types."""

import json

import pytest

from support.aws import idle, refused, task_id
from support.host import find_process
from support.waiting import until

ORDER = ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"]


def run_task(cloud, cluster, definition, *words):
    return cloud.aws(
        "ecs",
        "run-task",
        *("--cluster", cluster),
        *("--task-definition", definition),
        *("--launch-type", "FARGATE"),
        *("--network-configuration", cloud.cli_network()),
        *words,
    )


def test_the_whole_life(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()})
    answer = run_task(cloud, cluster, definition)
    assert answer["failures"] == []
    (task,) = answer["tasks"]
    assert task["lastStatus"] == "PROVISIONING"
    assert task["desiredStatus"] == "RUNNING"
    assert task["launchType"] == "FARGATE"
    assert task["group"] == f"family:{name}"
    assert (task["cpu"], task["memory"]) == ("256", "512")
    arn = task["taskArn"]
    assert arn.startswith(f"arn:aws:ecs:{cloud.region}:123456789012:task/{cluster}/")
    assert len(task_id(arn)) == 32

    cloud.aws("ecs", "wait", "tasks-running", "--cluster", cluster, "--tasks", arn)
    (running,) = cloud.aws("ecs", "describe-tasks", "--cluster", cluster, "--tasks", arn)["tasks"]
    assert running["lastStatus"] == "RUNNING"
    assert running["connectivity"] == "CONNECTED"
    assert running["availabilityZone"].startswith(cloud.region)
    assert running["taskDefinitionArn"].endswith(f"task-definition/{definition}")
    (container,) = running["containers"]
    assert container["lastStatus"] == "RUNNING"
    assert container["containerArn"].startswith(f"arn:aws:ecs:{cloud.region}:123456789012:container/{cluster}/")
    assert len(container["runtimeId"]) > 0
    times = [running[each] for each in ("createdAt", "pullStartedAt", "pullStoppedAt", "startedAt")]
    assert times == sorted(times)

    stopping = cloud.aws("ecs", "stop-task", "--cluster", cluster, "--task", arn, "--reason", "Deploying again")["task"]
    assert stopping["desiredStatus"] == "STOPPED"
    cloud.aws("ecs", "wait", "tasks-stopped", "--cluster", cluster, "--tasks", arn)
    (stopped,) = cloud.aws("ecs", "describe-tasks", "--cluster", cluster, "--tasks", arn)["tasks"]
    assert stopped["lastStatus"] == "STOPPED"
    assert stopped["stopCode"] == "UserInitiated"
    assert stopped["stoppedReason"] == "Deploying again"
    times = [stopped[each] for each in ("startedAt", "stoppingAt", "stoppedAt")]
    assert times == sorted(times)


def test_status_never_goes_back(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["sh", "-c", "sleep 0.3"]}))
    seen = []
    while not seen or seen[-1] != "STOPPED":
        seen.append(cloud.task(cluster, arn)["lastStatus"])
    assert seen == sorted(seen, key=ORDER.index)


def test_several_at_once(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()})
    arns = [task["taskArn"] for task in run_task(cloud, cluster, definition, "--count", "3")["tasks"]]
    assert len(set(arns)) == 3
    tasks = [cloud.until_running(cluster, arn) for arn in arns]
    addresses = {task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] for task in tasks}
    assert len(addresses) == 3


def test_overrides(cloud, cluster, name):
    definition = cloud.register(
        name,
        {
            "command": ["echo", "from the definition"],
            "environment": [{"name": "KEPT", "value": "kept"}, {"name": "CHANGED", "value": "before"}],
        },
    )
    overrides = {
        "containerOverrides": [
            {
                "name": "main",
                "command": ["sh", "-c", "echo $KEPT $CHANGED $ADDED; exec sleep 731001"],
                "environment": [{"name": "CHANGED", "value": "after"}, {"name": "ADDED", "value": "added"}],
            }
        ]
    }
    (task,) = run_task(cloud, cluster, definition, "--overrides", json.dumps(overrides))["tasks"]
    (override,) = task["overrides"]["containerOverrides"]
    assert override == overrides["containerOverrides"][0]
    stream = f"test/main/{task_id(task['taskArn'])}"
    assert "kept after added" in cloud.until_line(f"/ecs/{name}", stream, "kept")
    environment = find_process("731001").environment()
    assert environment["CHANGED"] == "after"
    assert environment["KEPT"] == "kept"


def test_entry_point_working_directory_and_user(cloud, cluster, name):
    container = {
        "entryPoint": ["sh", "-c"],
        "command": ["echo at $(pwd) as $(id -u):$(id -g)"],
        "workingDirectory": "/tmp",
        "user": "65534:65534",
    }
    (arn,) = cloud.run(cluster, cloud.register(name, container))
    assert cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "at ") == ["at /tmp as 65534:65534"]


def test_a_sidecar_ends_and_the_task_goes_on(cloud, cluster, name):
    definition = cloud.register(
        name,
        {"name": "app", "command": idle()},
        {"name": "sidecar", "command": ["sh", "-c", "exit 4"], "essential": False},
    )
    task = cloud.run_one(cluster, definition)

    def sidecar_ended():
        task_now = cloud.task(cluster, task["taskArn"])
        assert task_now["lastStatus"] == "RUNNING"
        return {each["name"]: each for each in task_now["containers"]}["sidecar"].get("exitCode") == 4

    assert until("the sidecar's exit code is seen", sidecar_ended)


def test_list_tasks_filters(cloud, cluster, name):
    one = cloud.register(f"{name}-one", {"command": idle()})
    two = cloud.register(f"{name}-two", {"command": idle()})
    (first,) = cloud.run(cluster, one, startedBy="tester")
    (second,) = cloud.run(cluster, two)
    for arn in (first, second):
        cloud.until_running(cluster, arn)

    def listed(*words):
        return set(cloud.aws("ecs", "list-tasks", "--cluster", cluster, *words)["taskArns"])

    assert listed() == {first, second}
    assert listed("--family", f"{name}-one") == {first}
    assert listed("--launch-type", "FARGATE") == {first, second}
    assert listed("--launch-type", "EC2") == set()
    assert listed("--started-by", "tester") == {first}
    assert listed("--desired-status", "PENDING") == set()
    cloud.ecs.stop_task(cluster=cluster, task=first)
    cloud.until_stopped(cluster, first)
    assert listed("--desired-status", "RUNNING") == {second}
    assert listed("--desired-status", "STOPPED") == {first}


def test_a_client_token_runs_a_task_once(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()})
    first = cloud.run(cluster, definition, clientToken="again-and-again")
    assert cloud.run(cluster, definition, clientToken="again-and-again") == first
    assert cloud.ecs.list_tasks(cluster=cluster)["taskArns"] == first


def test_describe_what_is_missing(cloud, cluster):
    arn = f"arn:aws:ecs:{cloud.region}:123456789012:task/{cluster}/{'0' * 32}"
    answer = cloud.ecs.describe_tasks(cluster=cluster, tasks=[arn])
    assert answer["tasks"] == []
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


def test_what_cannot_be_placed_is_a_failure(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()}, cpu="16384", memory="122880")
    answer = cloud.ecs.run_task(
        cluster=cluster, taskDefinition=definition, count=10, launchType="FARGATE", networkConfiguration=cloud.network()
    )
    assert answer["failures"], "this machine cannot hold 1,200 GiB of tasks"
    assert len(answer["tasks"]) + len(answer["failures"]) == 10
    assert {failure["reason"] for failure in answer["failures"]} <= {"RESOURCE:CPU", "RESOURCE:MEMORY"}


@pytest.mark.parametrize(
    "changes, code, message",
    [
        ({"cluster": "never-was"}, "ClusterNotFoundException", "Cluster not found."),
        ({"taskDefinition": "never-was"}, "ClientException", "TaskDefinition not found."),
        ({"count": 11}, "InvalidParameterException", ""),
        ({"count": 0}, "InvalidParameterException", ""),
        (
            {"networkConfiguration": None},
            "InvalidParameterException",
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        ),
        (
            {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-00000000"]}}},
            "InvalidParameterException",
            "The subnet ID 'subnet-00000000' does not exist",
        ),
        (
            {"overrides": {"containerOverrides": [{"name": "never-was", "command": ["true"]}]}},
            "InvalidParameterException",
            "never-was",
        ),
        ({"startedBy": "x" * 129}, "InvalidParameterException", ""),
        ({"launchType": "MOON"}, "InvalidParameterException", ""),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_is_refused(cloud, cluster, name, changes, code, message):
    definition = cloud.register(name, {"command": ["true"]})
    request = {
        "cluster": cluster,
        "taskDefinition": definition,
        "launchType": "FARGATE",
        "networkConfiguration": cloud.network(),
    } | changes
    unchecked = cloud.client("ecs", config={"parameter_validation": False})
    with refused(code, message):
        unchecked.run_task(**{key: value for key, value in request.items() if value is not None})
    assert cloud.ecs.list_tasks(cluster=cluster)["taskArns"] == []


def test_stopping_what_is_not_there(cloud, cluster):
    with refused("InvalidParameterException", "The referenced task was not found."):
        cloud.ecs.stop_task(cluster=cluster, task="0" * 32)


def test_an_inactive_definition_starts_nothing_new(cloud, cluster, name):
    definition = cloud.register(name, {"command": ["true"]})
    cloud.ecs.deregister_task_definition(taskDefinition=definition)
    with refused("ClientException", "TaskDefinition is inactive"):
        cloud.run(cluster, definition)
