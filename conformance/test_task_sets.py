"""Services of the deployment controller EXTERNAL: task sets, with real containers."""

import pytest

from support.aws import idle, refused
from support.host import find_processes
from support.services import clear, create, describe, tasks
from support.waiting import until

ONLY_EXTERNAL = (
    "Amazon ECS only supports task set management on services configured to use external deployment controllers."
)


@pytest.fixture
def cluster(cloud, name):
    yield cloud.cluster(name)
    clear(cloud, name)


def external(cloud, cluster, count=2, **settings):
    bare = {"launchType": None, "networkConfiguration": None, "deploymentController": {"type": "EXTERNAL"}}
    return create(cloud, cluster, None, count, **(bare | settings))


def task_set(cloud, cluster, definition, percent=100, **settings):
    scale = {"value": percent, "unit": "PERCENT"}
    request = {"cluster": cluster, "service": "web", "taskDefinition": definition, "launchType": "FARGATE"} | settings
    return cloud.ecs.create_task_set(**request, networkConfiguration=cloud.network(), scale=scale)["taskSet"]


def steady(cloud, cluster, arn):
    def check():
        (found,) = cloud.ecs.describe_task_sets(cluster=cluster, service="web", taskSets=[arn])["taskSets"]
        return found if found["stabilityStatus"] == "STEADY_STATE" else None

    return until("the task set is steady", check)


def test_a_deployment_of_ones_own_by_the_cli(cloud, cluster, name):
    made = cloud.aws(
        *["ecs", "create-service", "--cluster", cluster, "--service-name", "web", "--desired-count", "2"],
        *["--deployment-controller", "type=EXTERNAL"],
    )["service"]
    assert (made["deploymentController"], made["deployments"]) == ({"type": "EXTERNAL"}, [])
    blue, green = (cloud.register(name, {"command": idle(f"{name}-{color}")}) for color in ("blue", "green"))
    first = cloud.aws(
        *["ecs", "create-task-set", "--cluster", cluster, "--service", "web", "--task-definition", blue],
        *["--launch-type", "FARGATE", "--network-configuration", cloud.cli_network(), "--external-id", "one"],
        *["--scale", "value=100,unit=PERCENT", "--tags", "key=color,value=blue"],
    )["taskSet"]
    assert first["taskSetArn"].endswith(f":task-set/{cluster}/web/{first['id']}")
    assert (first["status"], first["computedDesiredCount"], first["externalId"]) == ("ACTIVE", 2, "one")
    assert first["tags"] == [{"key": "color", "value": "blue"}]
    found = steady(cloud, cluster, first["taskSetArn"])
    assert (found["runningCount"], found["pendingCount"]) == (2, 0)
    assert len(find_processes(f"{name}-blue")) == 2
    assert {task["startedBy"] for task in tasks(cloud, cluster)} == {first["id"]}

    words = ["--cluster", cluster, "--service", "web"]
    primary = cloud.aws("ecs", "update-service-primary-task-set", *words, "--primary-task-set", first["id"])["taskSet"]
    assert primary["status"] == "PRIMARY"
    shown = describe(cloud, cluster)
    assert (shown["runningCount"], shown["taskDefinition"].rsplit("/", 1)[1]) == (2, blue)

    second = task_set(cloud, cluster, green, percent=50)
    assert second["computedDesiredCount"] == 1
    steady(cloud, cluster, second["id"])
    assert f"{second['id']} of {name}:2 is a task set, ACTIVE: 1 tasks are wanted" in cloud.server.run("why", made["serviceArn"])
    assert (len(find_processes(f"{name}-blue")), len(find_processes(f"{name}-green"))) == (2, 1)
    cloud.aws("ecs", "update-task-set", *words, "--task-set", second["id"], "--scale", "value=100,unit=PERCENT")
    steady(cloud, cluster, second["id"])
    cloud.ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=second["id"])
    with refused("InvalidParameterException", "while it is scaled above 0"):
        cloud.ecs.delete_task_set(cluster=cluster, service="web", taskSet=first["id"])
    deleted = cloud.aws("ecs", "delete-task-set", *words, "--task-set", first["id"], "--force")["taskSet"]
    assert deleted["status"] == "DRAINING"
    until("blue is gone", lambda: not find_processes(f"{name}-blue"))
    left = until("one is left", lambda: len(sets := describe(cloud, cluster)["taskSets"]) == 1 and sets)
    assert (left[0]["id"], left[0]["status"], left[0]["runningCount"]) == (second["id"], "PRIMARY", 2)
    answer = cloud.ecs.describe_task_sets(cluster=cluster, service="web", taskSets=[first["id"]])
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]


def test_a_task_of_a_task_set_is_replaced_and_the_count_follows_the_service(cloud, cluster, name):
    external(cloud, cluster, count=1)
    made = task_set(cloud, cluster, cloud.register(name, {"command": idle(name)}), clientToken="once")
    assert task_set(cloud, cluster, f"{name}:1", clientToken="once")["id"] == made["id"]
    steady(cloud, cluster, made["id"])
    (process,) = find_processes(name)
    (task,) = tasks(cloud, cluster)
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    until("another one runs", lambda: {p.pid for p in find_processes(name)} - {process.pid})
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=3)
    found = until("three run", lambda: (d := describe(cloud, cluster))["runningCount"] == 3 and d)
    assert found["taskSets"][0]["computedDesiredCount"] == 3


def test_what_cannot_be(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    with refused("InvalidParameterException", "Unable to set a task definition on services with an EXTERNAL"):
        create(cloud, cluster, definition, deploymentController={"type": "EXTERNAL"})
    external(cloud, cluster, count=0)
    with refused("InvalidParameterException", "Unable to set a task definition on services with an EXTERNAL"):
        cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=definition)
    with refused("InvalidParameterException", "scale must be between 0 and 100 percent"):
        task_set(cloud, cluster, definition, percent=100.5)
    with refused("TaskSetNotFoundException"):
        cloud.ecs.update_task_set(cluster=cluster, service="web", taskSet="ecs-svc/1", scale={"value": 1})
    create(cloud, cluster, definition, count=0, serviceName="rolling")
    with refused("InvalidParameterException", ONLY_EXTERNAL):
        task_set(cloud, cluster, definition, service="rolling")
    with refused("InvalidParameterException", "The deployment controller of a service cannot be changed."):
        cloud.ecs.update_service(cluster=cluster, service="rolling", deploymentController={"type": "EXTERNAL"})
