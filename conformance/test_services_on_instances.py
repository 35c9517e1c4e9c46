"""Services on container instances: one task each, instances that drain, and tasks that fit nowhere."""

import pytest

from support import server
from support.aws import Cloud, idle
from support.host import find_processes
from support.waiting import until

CLUSTER = "machines"


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--container-instances", "3", "--cluster", CLUSTER) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture
def instances(cloud):
    return sorted(cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"])


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    arns = cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"]
    cloud.ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=arns, status="ACTIVE")
    for arn in cloud.ecs.list_services(cluster=CLUSTER)["serviceArns"]:
        cloud.ecs.delete_service(cluster=CLUSTER, service=arn, force=True)
        until(f"{arn} is gone", lambda arn=arn: describe(cloud, arn)["status"] == "INACTIVE")


def define(cloud, family, memory=32, **settings):
    container = {"name": "main", "image": "busybox:latest", "memory": memory, "command": idle(family)}
    made = cloud.ecs.register_task_definition(family=family, containerDefinitions=[container | settings])
    return f"{family}:{made['taskDefinition']['revision']}"


def create(cloud, name, definition, **settings):
    request = {"cluster": CLUSTER, "serviceName": name, "taskDefinition": definition, "launchType": "EC2"}
    return cloud.ecs.create_service(**request, **settings)["service"]


def describe(cloud, name):
    (found,) = cloud.ecs.describe_services(cluster=CLUSTER, services=[name])["services"]
    return found


def stable(cloud, name):
    def check():
        found = describe(cloud, name)
        (last, *others) = found["deployments"]
        done = not others and last["rolloutState"] == "COMPLETED" and found["runningCount"] == found["desiredCount"]
        return found if done and found["events"][0]["message"].endswith("has reached a steady state.") else None

    return until(f"{name} is steady", check)


def placed(cloud, name):
    """The instances of the service's tasks."""
    arns = cloud.ecs.list_tasks(cluster=CLUSTER, serviceName=name)["taskArns"]
    tasks = cloud.ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"] if arns else []
    return sorted(task["containerInstanceArn"] for task in tasks)


def drain(cloud, instance, status="DRAINING"):
    cloud.ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[instance], status=status)


def test_a_daemon_runs_once_on_each_instance(cloud, instances, name):
    create(cloud, name, define(cloud, name), schedulingStrategy="DAEMON")
    assert stable(cloud, name)["desiredCount"] == 3
    assert placed(cloud, name) == instances
    drain(cloud, instances[0])
    until("two are left", lambda: placed(cloud, name) == instances[1:])
    drain(cloud, instances[0], "ACTIVE")
    until("it is back", lambda: placed(cloud, name) == instances)
    cloud.ecs.update_service(cluster=CLUSTER, service=name, taskDefinition=define(cloud, name))
    assert stable(cloud, name)["taskDefinition"].endswith(":2")
    assert placed(cloud, name) == instances


def test_a_daemon_only_where_its_constraints_are_met(cloud, instances, name):
    attribute = {"name": "rack", "value": name, "targetId": instances[1]}
    cloud.ecs.put_attributes(cluster=CLUSTER, attributes=[attribute])
    constraint = {"type": "memberOf", "expression": f"attribute:rack == {name}"}
    create(cloud, name, define(cloud, name), schedulingStrategy="DAEMON", placementConstraints=[constraint])
    until("it runs there", lambda: placed(cloud, name) == [instances[1]])
    cloud.ecs.put_attributes(cluster=CLUSTER, attributes=[attribute | {"targetId": instances[2]}])
    until("it runs on both", lambda: placed(cloud, name) == instances[1:])
    assert stable(cloud, name)["desiredCount"] == 2


def test_an_instance_that_drains_is_emptied_and_nothing_is_missed(cloud, instances, name):
    create(cloud, name, define(cloud, name), desiredCount=3)
    stable(cloud, name)
    assert placed(cloud, name) == instances, "spread over the instances"
    drain(cloud, instances[0])
    seen = []

    def emptied():
        seen.append(describe(cloud, name)["runningCount"])
        return instances[0] not in placed(cloud, name)

    until("the instance is empty", emptied, every=0.01)
    assert min(seen) >= 3
    assert stable(cloud, name)["runningCount"] == 3
    assert len(placed(cloud, name)) == 3


def test_what_fits_nowhere_waits_and_says_so(cloud, instances, name):
    port = {"portMappings": [{"containerPort": 80, "hostPort": 18080}]}
    create(cloud, name, define(cloud, name, **port), desiredCount=4)
    wanted = "is already using a port required by your task."

    def said():
        return [event["message"] for event in describe(cloud, name)["events"] if event["message"].endswith(wanted)]

    (message,) = until("it is said", said)
    assert message.startswith(
        f"(service {name}) was unable to place a task because no container instance met all of its requirements. "
        "Reason: The closest matching (container-instance "
    )
    until("three run", lambda: describe(cloud, name)["runningCount"] == 3)
    assert len(said()) == 1, "it is said once"
    why = cloud.server.run("why", describe(cloud, name)["serviceArn"])
    assert wanted in why
    cloud.ecs.update_service(cluster=CLUSTER, service=name, desiredCount=3)
    stable(cloud, name)


def test_a_deadlock_of_bounds_is_said(cloud, name):
    bounds = {"minimumHealthyPercent": 100, "maximumPercent": 100}
    create(cloud, name, define(cloud, name), desiredCount=2, deploymentConfiguration=bounds)
    stable(cloud, name)
    second = define(cloud, name)
    cloud.ecs.update_service(cluster=CLUSTER, service=name, taskDefinition=second)
    wanted = (
        f"(service {name}) was unable to stop or start tasks during a deployment because of the service deployment "
        "configuration. Update the minimumHealthyPercent or maximumPercent value and try again."
    )
    until("it is said", lambda: wanted in [event["message"] for event in describe(cloud, name)["events"]])
    assert describe(cloud, name)["deployments"][0]["runningCount"] == 0
    bounds = {"minimumHealthyPercent": 50, "maximumPercent": 100}
    cloud.ecs.update_service(cluster=CLUSTER, service=name, deploymentConfiguration=bounds)
    assert stable(cloud, name)["taskDefinition"].endswith(second)
    until("only new tasks run", lambda: len([p for p in find_processes(name) if p.pid_inside() == 1]) == 2)
