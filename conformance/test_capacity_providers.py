"""FARGATE and FARGATE_SPOT: who may use them, how tasks are split between them, and Spot interruptions."""

import collections

import pytest

from support.aws import idle, refused
from support.server import Failed
from support.services import clear
from support.waiting import until

BOTH = ["FARGATE", "FARGATE_SPOT"]
SPLIT = [
    {"capacityProvider": "FARGATE_SPOT", "weight": 70, "base": 0},
    {"capacityProvider": "FARGATE", "weight": 30, "base": 2},
]


@pytest.fixture
def cluster(cloud, name):
    """One with both providers, empty again at its end."""
    cloud.ecs.create_cluster(clusterName=name, capacityProviders=BOTH)
    yield name
    clear(cloud, name)


def providers(cloud, cluster, **filters):
    arns = cloud.ecs.list_tasks(cluster=cluster, **filters)["taskArns"]
    tasks = cloud.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    assert {task["launchType"] for task in tasks} <= {"FARGATE"}
    return dict(collections.Counter(task["capacityProviderName"] for task in tasks))


def create(cloud, cluster, definition, **settings):
    request = {"cluster": cluster, "serviceName": "web", "taskDefinition": definition}
    return cloud.ecs.create_service(**request, networkConfiguration=cloud.network(), **settings)["service"]


def running(cloud, cluster, count):
    def check():
        (found,) = cloud.ecs.describe_services(cluster=cluster, services=["web"])["services"]
        return found if (found["runningCount"], len(found["deployments"])) == (count, 1) else None

    return until(f"{count} tasks run", check)


def test_what_there_is(cloud, cluster):
    found = cloud.aws("ecs", "describe-capacity-providers")["capacityProviders"]
    assert [(each["name"], each["status"]) for each in found] == [("FARGATE", "ACTIVE"), ("FARGATE_SPOT", "ACTIVE")]
    assert found[0]["capacityProviderArn"].endswith(":capacity-provider/FARGATE")
    answer = cloud.ecs.describe_capacity_providers(capacityProviders=["FARGATE", "nothing"])
    assert [each["name"] for each in answer["capacityProviders"]] == ["FARGATE"]
    assert answer["failures"] == [{"arn": "nothing", "reason": "MISSING"}]
    changed = cloud.aws(
        *["ecs", "put-cluster-capacity-providers", "--cluster", cluster, "--capacity-providers", "FARGATE"],
        *["--default-capacity-provider-strategy", "capacityProvider=FARGATE,weight=1,base=1"],
    )["cluster"]
    assert changed["capacityProviders"] == ["FARGATE"]
    (described,) = cloud.ecs.describe_clusters(clusters=[cluster])["clusters"]
    assert described["defaultCapacityProviderStrategy"] == [{"capacityProvider": "FARGATE", "weight": 1, "base": 1}]


def test_a_service_is_split_as_its_strategy_says(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    made = create(cloud, cluster, definition, desiredCount=5, capacityProviderStrategy=SPLIT)
    assert "launchType" not in made
    assert made["capacityProviderStrategy"] == SPLIT
    running(cloud, cluster, 5)
    assert providers(cloud, cluster, serviceName="web") == {"FARGATE": 3, "FARGATE_SPOT": 2}
    # A task that ends is replaced by one of the same provider, since that is the one that is short.
    arns = cloud.ecs.list_tasks(cluster=cluster, serviceName="web")["taskArns"]
    spot = [
        task["taskArn"]
        for task in cloud.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"]
        if task["capacityProviderName"] == "FARGATE_SPOT"
    ]
    cloud.ecs.stop_task(cluster=cluster, task=spot[0])
    cloud.until_stopped(cluster, spot[0])
    running(cloud, cluster, 5)
    assert providers(cloud, cluster, serviceName="web") == {"FARGATE": 3, "FARGATE_SPOT": 2}


def test_a_strategy_is_changed_by_a_deployment(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    create(cloud, cluster, definition, desiredCount=2, launchType="FARGATE")
    running(cloud, cluster, 2)
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    changed = cloud.ecs.update_service(
        cluster=cluster, service="web", capacityProviderStrategy=spot, forceNewDeployment=True
    )["service"]
    assert len(changed["deployments"]) == 2
    assert running(cloud, cluster, 2)["capacityProviderStrategy"] == spot
    assert providers(cloud, cluster, serviceName="web") == {"FARGATE_SPOT": 2}


def test_tasks_take_the_strategy_of_their_cluster(cloud, cluster, name):
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    cloud.ecs.put_cluster_capacity_providers(
        cluster=cluster, capacityProviders=BOTH, defaultCapacityProviderStrategy=strategy
    )
    definition = cloud.register(name, {"command": idle(name)})
    request = {"cluster": cluster, "taskDefinition": definition, "networkConfiguration": cloud.network()}
    (task,) = cloud.ecs.run_task(**request)["tasks"]
    assert (task["capacityProviderName"], task["launchType"]) == ("FARGATE_SPOT", "FARGATE")
    (task,) = cloud.ecs.run_task(**request, launchType="FARGATE")["tasks"]
    assert "capacityProviderName" not in task
    tasks = cloud.ecs.run_task(**request, count=5, capacityProviderStrategy=SPLIT)["tasks"]
    assert collections.Counter(task["capacityProviderName"] for task in tasks) == {"FARGATE": 3, "FARGATE_SPOT": 2}


def test_a_spot_task_is_interrupted_and_replaced(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    create(cloud, cluster, definition, desiredCount=1, capacityProviderStrategy=spot)
    running(cloud, cluster, 1)
    (arn,) = cloud.ecs.list_tasks(cluster=cluster, serviceName="web")["taskArns"]
    cloud.server.run("interrupt", arn)
    ended = cloud.until_stopped(cluster, arn)
    assert (ended["stopCode"], ended["stoppedReason"]) == ("SpotInterruption", "Your Spot Task was interrupted.")
    assert ended["containers"][0]["exitCode"] == 0, "it was told by SIGTERM"
    running(cloud, cluster, 1)
    (other,) = cloud.ecs.list_tasks(cluster=cluster, serviceName="web")["taskArns"]
    assert other != arn
    (plain,) = cloud.run(cluster, definition)
    with pytest.raises(Failed, match="is not on FARGATE_SPOT"):
        cloud.server.run("interrupt", plain)
    with pytest.raises(Failed, match="no task has the ARN"):
        cloud.server.run("interrupt", arn[:-4] + "0000")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ([{"capacityProvider": "nothing", "weight": 1}], "The specified capacity provider was not found."),
        ([{"capacityProvider": "FARGATE", "weight": 0}], "at least one capacity provider with a weight greater than 0"),
        (
            [{"capacityProvider": name, "weight": 1, "base": 1} for name in BOTH],
            "Only one capacity provider in a capacity provider strategy can have a base",
        ),
        ([{"capacityProvider": "FARGATE", "weight": 1001}], "weight"),
    ],
)
def test_strategies_that_cannot_be(cloud, cluster, name, strategy, message):
    definition = cloud.register(name, {"command": idle(name)})
    request = {"cluster": cluster, "taskDefinition": definition, "networkConfiguration": cloud.network()}
    with refused("InvalidParameterException", message):
        cloud.ecs.run_task(**request, capacityProviderStrategy=strategy)


def test_both_a_launch_type_and_a_strategy(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    with refused("InvalidParameterException", "Specifying both a launch type and capacity provider strategy"):
        cloud.run(cluster, definition, capacityProviderStrategy=SPLIT)
    cloud.ecs.put_cluster_capacity_providers(
        cluster=cluster, capacityProviders=["FARGATE"], defaultCapacityProviderStrategy=[]
    )
    with refused("InvalidParameterException", "The capacity provider FARGATE_SPOT is not associated"):
        create(cloud, cluster, definition, desiredCount=1, capacityProviderStrategy=SPLIT)
