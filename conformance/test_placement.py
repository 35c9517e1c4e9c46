"""Which container instance a task goes to: strategies, constraints, the cluster query language, and `why`."""

from collections import Counter

import pytest

from support import server
from support.aws import Cloud, idle, refused

CLUSTER = "fleet"


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--container-instances", "4", "--cluster", CLUSTER) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture
def instances(cloud):
    arns = cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
    found = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)["containerInstances"]
    assert len(found) == 4
    return {each["containerInstanceArn"]: each for each in found}


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    cloud.stop_all(CLUSTER)


def attribute(instance, name):
    (value,) = [each["value"] for each in instance["attributes"] if each["name"] == name]
    return value


def define(cloud, family, **settings):
    """Tasks of 64 MiB without a network."""
    container = {"name": "main", "image": "busybox:latest", "memory": 64, "cpu": 10, "command": idle()}
    request = {"family": family, "networkMode": "none", "containerDefinitions": [container]}
    cloud.ecs.register_task_definition(**request | settings)
    return family


def run(cloud, family, count=1, **settings):
    """The instances that the tasks went to, and the failures."""
    answer = cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=family, count=count, **settings)
    return [task["containerInstanceArn"] for task in answer["tasks"]], answer["failures"]


def by(*strategies):
    fields = [strategy.partition(" ")[::2] for strategy in strategies]
    return {"placementStrategy": [{"type": kind} | ({"field": field} if field else {}) for kind, field in fields]}


def member_of(expression):
    return {"placementConstraints": [{"type": "memberOf", "expression": expression}]}


def test_spread_over_instances(cloud, name, instances):
    placed, _ = run(cloud, define(cloud, name), 8, **by("spread instanceId"))
    assert Counter(placed) == dict.fromkeys(instances, 2)


def test_spread_over_zones(cloud, name, instances):
    placed, _ = run(cloud, define(cloud, name), 6, **by("spread attribute:ecs.availability-zone"))
    zones = Counter(attribute(instances[arn], "ecs.availability-zone") for arn in placed)
    assert zones == {"us-east-1a": 2, "us-east-1b": 2, "us-east-1c": 2}


def test_binpack(cloud, name):
    placed, _ = run(cloud, define(cloud, name), 5, **by("binpack memory"))
    assert len(set(placed)) == 1
    again, _ = run(cloud, name, 5, **by("binpack cpu"))
    assert set(again) == set(placed)


def test_random_places_all(cloud, name, instances):
    placed, failures = run(cloud, define(cloud, name), 10, **by("random"))
    assert (len(placed), failures) == (10, []) and set(placed) <= set(instances)


def test_distinct_instances(cloud, name, instances):
    distinct = {"placementConstraints": [{"type": "distinctInstance"}]}
    placed, failures = run(cloud, define(cloud, name), 6, **distinct)
    assert sorted(placed) == sorted(instances)
    assert {failure["arn"] for failure in failures} == set(instances)
    assert {failure["reason"] for failure in failures} == {"DistinctInstance placement constraint unsatisfied."}


def test_members_of_an_expression(cloud, name, instances):
    ssd = sorted(instances)[:2]
    given = [{"name": "disk", "value": "ssd", "targetId": arn} for arn in ssd]
    cloud.ecs.put_attributes(cluster=CLUSTER, attributes=given)
    define(cloud, name)
    placed, _ = run(cloud, name, 4, **member_of("attribute:disk == ssd"))
    assert set(placed) == set(ssd)
    placed, _ = run(cloud, name, 4, **member_of("attribute:disk !exists and attribute:ecs.os-type == linux"))
    assert set(placed) == set(instances) - set(ssd)
    placed, _ = run(cloud, name, 1, **member_of(f"not(task:group == family:{name})"))
    assert placed == []
    placed, failures = run(cloud, name, 1, **member_of("attribute:disk == tape"))
    assert placed == []
    assert {failure["reason"] for failure in failures} == {"MemberOf placement constraint unsatisfied."}


def test_constraints_of_a_definition(cloud, name, instances):
    zone = "attribute:ecs.availability-zone == us-east-1b"
    define(cloud, name, placementConstraints=[{"type": "memberOf", "expression": zone}])
    shown = cloud.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["placementConstraints"]
    assert shown == [{"type": "memberOf", "expression": zone}]
    placed, _ = run(cloud, name, 2)
    assert {attribute(instances[arn], "ecs.availability-zone") for arn in placed} == {"us-east-1b"}


def test_instances_are_listed_by_an_expression(cloud, name, instances):
    def listed(expression):
        return cloud.ecs.list_container_instances(cluster=CLUSTER, filter=expression)["containerInstanceArns"]

    (first, *_) = sorted(instances)
    ec2 = instances[first]["ec2InstanceId"]
    assert listed(f"ec2InstanceId == {ec2}") == [first]
    assert len(listed("agentConnected == true and registeredAt > 2020-01-01")) == 4
    assert listed("runningTasksCount > 0") == []
    cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=define(cloud, name), containerInstances=[first], group="db")
    assert listed("task:group == db") == [first]


def test_what_is_not_understood(cloud, name):
    define(cloud, name)
    with refused("InvalidParameterException", "'color == red' is not valid: a subject was expected"):
        run(cloud, name, **member_of("color == red"))
    with refused("InvalidParameterException", "is not valid"):
        cloud.ecs.list_container_instances(cluster=CLUSTER, filter="attribute:a ==")
    with refused("InvalidParameterException", "instanceId, host or attribute:NAME"):
        run(cloud, name, **by("spread zone"))
    with refused("InvalidParameterException", "at most 5"):
        run(cloud, name, **by(*["random"] * 6))
    with refused("InvalidParameterException", "'distinctInstance' at 'placementConstraints.1.member.type'"):
        define(cloud, name, placementConstraints=[{"type": "distinctInstance"}])


def test_why_says_where_a_task_could_go(cloud, name, instances):
    define(cloud, name)
    definition = cloud.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["taskDefinitionArn"]
    said = cloud.server.run("why", definition, "--cluster", CLUSTER).splitlines()
    assert len(said) == 4 and all(line.endswith("would take it") for line in said)
    define(cloud, name, memory="100000000")
    said = cloud.server.run("why", definition.removesuffix(":1") + ":2", "--cluster", CLUSTER).splitlines()
    assert all("it has insufficient memory available" in line and "of 100000000" in line for line in said)
    arn = sorted(instances)[0]
    cloud.ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[arn], status="DRAINING")
    try:
        said = cloud.server.run("why", definition, "--cluster", CLUSTER)
        assert said.count("it is DRAINING") == 1
    finally:
        cloud.ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[arn], status="ACTIVE")
