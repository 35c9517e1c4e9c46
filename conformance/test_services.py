"""Services: they come up, stay up, change and go, with real containers."""

import os
import pathlib
import signal
import threading
import urllib.request

import pytest
from botocore.exceptions import WaiterError

from support.aws import address, idle, refused
from support.host import find_process, find_processes
from support.services import clear, create, describe, events, stable, tasks
from support.waiting import until


@pytest.fixture
def cluster(cloud, name):
    """A cluster of the test's own, without services and tasks again at its end."""
    yield cloud.cluster(name)
    clear(cloud, name)


def test_a_service_by_the_cli(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    made = cloud.aws(
        *["ecs", "create-service", "--cluster", cluster, "--service-name", "web", "--task-definition", definition],
        *["--desired-count", "2", "--launch-type", "FARGATE", "--network-configuration", cloud.cli_network()],
        *["--tags", "key=team,value=red", "--propagate-tags", "SERVICE", "--enable-ecs-managed-tags"],
    )["service"]
    assert (made["status"], made["desiredCount"], made["serviceName"]) == ("ACTIVE", 2, "web")
    assert made["serviceArn"].endswith(f":service/{cluster}/web")
    cloud.aws("ecs", "wait", "services-stable", "--cluster", cluster, "--services", "web")
    found = describe(cloud, cluster, include=["TAGS"])
    assert (found["runningCount"], found["pendingCount"]) == (2, 0)
    assert found["tags"] == [{"key": "team", "value": "red"}]
    (deployment,) = found["deployments"]
    assert (deployment["status"], deployment["rolloutState"]) == ("PRIMARY", "COMPLETED")
    running = tasks(cloud, cluster)
    assert {task["group"] for task in running} == {"service:web"}
    assert {task["startedBy"] for task in running} == {deployment["id"]}
    assert len(find_processes(name)) >= 2
    arn = running[0]["taskArn"]
    tags = cloud.aws("ecs", "list-tags-for-resource", "--resource-arn", arn)["tags"]
    assert {tag["key"]: tag["value"] for tag in tags} == {
        "team": "red",
        "aws:ecs:clusterName": cluster,
        "aws:ecs:serviceName": "web",
    }
    assert cloud.aws("ecs", "list-services", "--cluster", cluster)["serviceArns"] == [found["serviceArn"]]
    (shown,) = cloud.ecs.describe_clusters(clusters=[cluster], include=["STATISTICS"])["clusters"]
    assert shown["activeServicesCount"] == 1
    assert {"name": "activeFargateServiceCount", "value": "1"} in shown["statistics"]
    with refused("ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active."):
        cloud.ecs.delete_cluster(cluster=cluster)


def test_what_happened_is_said_as_aws_says_it(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    create(cloud, cluster, definition)
    found = stable(cloud, cluster)
    (task,) = [each["taskArn"].rsplit("/", 1)[1] for each in tasks(cloud, cluster)]
    deployment = found["deployments"][0]["id"]
    assert events(cloud, cluster) == [
        f"(service web) has started 1 tasks: (task {task}).",
        f"(service web) (deployment {deployment}) deployment completed.",
        "(service web) has reached a steady state.",
    ]
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=0)
    until("the task is told to stop", lambda: not tasks(cloud, cluster))
    stopped = cloud.until_stopped(cluster, f"arn:aws:ecs:{cloud.region}:123456789012:task/{cluster}/{task}")
    assert stopped["stopCode"] == "ServiceSchedulerInitiated"
    assert stopped["stoppedReason"] == f"Scaling activity initiated by (deployment {deployment})"
    assert f"(service web) has stopped 1 running tasks: (task {task})." in events(cloud, cluster)


def test_a_task_that_ends_is_replaced(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    create(cloud, cluster, definition)
    stable(cloud, cluster)
    first = find_process(name)
    (before,) = tasks(cloud, cluster)
    os.kill(first.pid, signal.SIGKILL)
    until("another process runs", lambda: not first.alive() and find_processes(name))
    found = stable(cloud, cluster)
    (after,) = tasks(cloud, cluster)
    assert after["taskArn"] != before["taskArn"]
    assert found["runningCount"] == 1
    ended = cloud.until_stopped(cluster, before["taskArn"])
    assert ended["stopCode"] == "EssentialContainerExited"


def test_a_rolling_update_keeps_enough_tasks(cloud, cluster, name):
    versions = [
        cloud.register(name, {"command": idle(name), "environment": [{"name": "VERSION", "value": version}]})
        for version in ("one", "two")
    ]
    create(cloud, cluster, versions[0], count=2)
    stable(cloud, cluster)
    cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=versions[1])
    seen = []

    def done():
        found = describe(cloud, cluster)
        seen.append(found["runningCount"])
        return len(found["deployments"]) == 1

    until("the deployment is the only one", done, every=0.01)
    assert min(seen) >= 2, f"never fewer than the healthy minimum: {seen}"
    found = stable(cloud, cluster)
    assert found["taskDefinition"].endswith(versions[1])
    assert {task["taskDefinitionArn"] for task in tasks(cloud, cluster)} == {found["taskDefinition"]}
    assert {process.environment()["VERSION"] for process in find_processes(name) if process.pid_inside() == 1} == {"two"}


def test_scaling_out_and_in(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    create(cloud, cluster, definition)
    stable(cloud, cluster)
    updated = cloud.aws("ecs", "update-service", "--cluster", cluster, "--service", "web", "--desired-count", "4")
    assert (updated["service"]["desiredCount"], len(updated["service"]["deployments"])) == (4, 1)
    assert stable(cloud, cluster)["runningCount"] == 4
    assert len({address(task) for task in tasks(cloud, cluster)}) == 4
    protected = tasks(cloud, cluster)[0]["taskArn"]
    answer = cloud.ecs.update_task_protection(cluster=cluster, tasks=[protected], protectionEnabled=True)
    assert answer["protectedTasks"][0]["protectionEnabled"] is True
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    stable(cloud, cluster)
    assert [task["taskArn"] for task in tasks(cloud, cluster)] == [protected]
    cloud.ecs.update_task_protection(cluster=cluster, tasks=[protected], protectionEnabled=False)
    (shown,) = cloud.ecs.get_task_protection(cluster=cluster, tasks=[protected])["protectedTasks"]
    assert shown["protectionEnabled"] is False


def test_the_circuit_breaker_rolls_back(cloud, cluster, name):
    good = cloud.register(name, {"command": idle(name)})
    bad = cloud.register(name, {"command": ["/does/not/exist"]})
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": True}}
    create(cloud, cluster, good, deploymentConfiguration=breaker)
    before = stable(cloud, cluster)["deployments"][0]["id"]
    cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=bad)

    def rolled_back():
        return any("rolling back to deployment" in message for message in events(cloud, cluster))

    until("the deployment is given up", rolled_back)
    found = stable(cloud, cluster)
    assert found["taskDefinition"].endswith(good)
    assert found["deployments"][0]["id"] == before
    failed = [message for message in events(cloud, cluster) if message.endswith("deployment failed: tasks failed to start.")]
    assert len(failed) == 1
    assert f"(service web) rolling back to deployment {before}." in events(cloud, cluster)
    assert len(find_processes(name)) == 1


def test_an_unhealthy_task_is_replaced(cloud, cluster, name):
    check = {"command": ["CMD-SHELL", "test ! -e /sick"], "interval": 5, "timeout": 2, "retries": 1}
    definition = cloud.register(name, {"command": idle(name), "healthCheck": check})
    create(cloud, cluster, definition)
    until("the task is healthy", lambda: [t for t in tasks(cloud, cluster) if t["healthStatus"] == "HEALTHY"])
    (before,) = tasks(cloud, cluster)
    (pathlib.Path(f"/proc/{find_process(name).pid}") / "root" / "sick").touch()
    ended = cloud.until_stopped(cluster, before["taskArn"])
    assert ended["stoppedReason"] == "Task failed container health checks"
    task = before["taskArn"].rsplit("/", 1)[1]
    assert f"(service web) (task {task}) failed container health checks." in events(cloud, cluster)
    (after,) = tasks(cloud, cluster)
    assert after["lastStatus"] == "RUNNING"


def test_a_service_goes_with_its_tasks(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    create(cloud, cluster, definition, count=2)
    stable(cloud, cluster)
    with refused("InvalidParameterException", "The service cannot be stopped while it is scaled above 0."):
        cloud.ecs.delete_service(cluster=cluster, service="web")
    deleted = cloud.ecs.delete_service(cluster=cluster, service="web", force=True)["service"]
    assert deleted["status"] == "DRAINING"
    cloud.aws("ecs", "wait", "services-inactive", "--cluster", cluster, "--services", "web")
    assert not find_processes(name)
    assert cloud.ecs.list_services(cluster=cluster)["serviceArns"] == []
    with refused("ServiceNotActiveException", "Service was not ACTIVE."):
        cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    create(cloud, cluster, definition)
    assert stable(cloud, cluster)["runningCount"] == 1
    assert len(events(cloud, cluster)) == 3, "the new one has events of its own"


def test_creating_twice(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    first = create(cloud, cluster, definition)
    assert create(cloud, cluster, definition)["createdAt"] == first["createdAt"]
    with refused("InvalidParameterException", "Creation of service was not idempotent."):
        create(cloud, cluster, definition, count=2)


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ({"taskDefinition": "nowhere"}, "ClientException", "TaskDefinition not found."),
        ({"cluster": "nowhere"}, "ClusterNotFoundException", "Cluster not found."),
        ({"desiredCount": -1}, "InvalidParameterException", "desiredCount"),
        ({"desiredCount": None}, "InvalidParameterException", "desired count is required"),
        ({"networkConfiguration": None}, "InvalidParameterException", "Network Configuration must be provided"),
        ({"schedulingStrategy": "DAEMON"}, "InvalidParameterException", "not supported for Fargate"),
        ({"serviceName": "a/b"}, "InvalidParameterException", "serviceName"),
        ({"platformVersion": "9.9.9"}, "PlatformUnknownException", "does not exist"),
        ({"loadBalancers": [{"targetGroupArn": "arn"}]}, "InvalidParameterException", "containerName can not be blank"),
        (
            {"deploymentConfiguration": {"minimumHealthyPercent": 101}},
            "InvalidParameterException",
            "minimumHealthyPercent must be at most 100",
        ),
    ],
)
def test_what_cannot_be_is_refused(cloud, cluster, name, settings, code, message):
    definition = cloud.register(name, {"command": idle(name)})
    with refused(code, message):
        create(cloud, **({"cluster": cluster, "definition": definition} | settings))
    assert cloud.ecs.list_services(cluster=cluster)["serviceArns"] == []


def test_what_is_missing_is_said_in_failures(cloud, cluster):
    answer = cloud.ecs.describe_services(cluster=cluster, services=["nowhere"])
    assert answer["services"] == []
    assert answer["failures"] == [
        {"arn": f"arn:aws:ecs:{cloud.region}:123456789012:service/{cluster}/nowhere", "reason": "MISSING"}
    ]
    with refused("ServiceNotFoundException", "Service not found."):
        cloud.ecs.update_service(cluster=cluster, service="nowhere", desiredCount=1)
    with refused("ServiceNotFoundException", "Service not found."):
        cloud.ecs.delete_service(cluster=cluster, service="nowhere")
    with refused("ServiceNotFoundException", "Service not found."):
        cloud.ecs.list_tasks(cluster=cluster, serviceName="nowhere")
    with pytest.raises(WaiterError):
        cloud.ecs.get_waiter("services_stable").wait(cluster=cluster, services=["nowhere"])


def test_the_groups_of_services_are_theirs(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle(name)})
    with refused("InvalidParameterException", "group"):
        cloud.run(cluster, definition, group="service:web")


def test_why_a_service_does_not_go_on(cloud, cluster, name):
    definition = cloud.register(name, {"command": ["/does/not/exist"]})
    arn = create(cloud, cluster, definition)["serviceArn"]
    until("it is said", lambda: any("consistently" in message for message in events(cloud, cluster)))
    said = cloud.server.run("why", arn)
    assert "1 tasks are wanted on FARGATE" in said
    assert "tasks have failed in a row" in said
    assert "is unable to consistently start tasks successfully." in said


def test_service_deployments_and_revisions(cloud, cluster, name):
    versions = [cloud.register(name, {"command": idle(name)}) for _ in range(2)]
    create(cloud, cluster, versions[0])
    stable(cloud, cluster)
    updated = cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=versions[1])["service"]
    stable(cloud, cluster)
    listed = cloud.aws("ecs", "list-service-deployments", "--cluster", cluster, "--service", "web")["serviceDeployments"]
    assert [each["status"] for each in listed] == ["SUCCESSFUL", "SUCCESSFUL"]
    assert listed[0]["serviceDeploymentArn"] == updated["currentServiceDeployment"]
    assert f":service-deployment/{cluster}/web/" in listed[0]["serviceDeploymentArn"]
    arn = listed[0]["serviceDeploymentArn"]
    (found,) = cloud.ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"]
    assert found["targetServiceRevision"]["runningTaskCount"] == 1
    assert [source["arn"] for source in found["sourceServiceRevisions"]] == [listed[1]["targetServiceRevisionArn"]]
    revisions = [each["targetServiceRevisionArn"] for each in listed]
    described = cloud.ecs.describe_service_revisions(serviceRevisionArns=revisions)["serviceRevisions"]
    assert [each["taskDefinition"].rsplit("/", 1)[1] for each in described] == versions[::-1]
    pages = cloud.ecs.list_service_deployments(cluster=cluster, service="web", maxResults=1)
    more = {"maxResults": 1, "nextToken": pages["nextToken"]}
    rest = cloud.ecs.list_service_deployments(cluster=cluster, service="web", **more)["serviceDeployments"]
    assert [each["serviceDeploymentArn"] for each in rest] == [listed[1]["serviceDeploymentArn"]]
    with refused("ConflictException", "not in progress"):
        cloud.ecs.stop_service_deployment(serviceDeploymentArn=arn)
    missing = arn[:-3] + "xxx"
    assert cloud.ecs.describe_service_deployments(serviceDeploymentArns=[missing])["failures"][0]["reason"] == "MISSING"


def test_a_deployment_is_stopped_by_its_user(cloud, cluster, name):
    """One that cannot go on, because its task never becomes healthy."""
    good = cloud.register(name, {"command": idle(name)})
    check = {"command": ["CMD", "false"], "interval": 300, "timeout": 2, "retries": 10}
    never = cloud.register(name, {"command": idle(f"{name}-never"), "healthCheck": check})
    create(cloud, cluster, good)
    stable(cloud, cluster)
    arn = cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=never)["service"]["currentServiceDeployment"]
    until("the new task runs", lambda: find_processes(f"{name}-never"))
    cloud.aws("ecs", "stop-service-deployment", "--service-deployment-arn", arn, "--stop-type", "ROLLBACK")
    found = stable(cloud, cluster)
    assert found["taskDefinition"].endswith(good)
    (ended,) = cloud.ecs.describe_service_deployments(serviceDeploymentArns=[arn])["serviceDeployments"]
    assert ended["status"] == "ROLLBACK_SUCCESSFUL"
    assert ended["rollback"]["serviceRevisionArn"] == ended["sourceServiceRevisions"][0]["arn"]
    until("only the old task runs", lambda: not find_processes(f"{name}-never") and find_processes(name))


class Client:
    """Asks every task that it has heard of, again and again, and counts how many answered in each round."""

    def __init__(self, cloud, cluster):
        self.cloud, self.cluster, self.answered, self.stopping = cloud, cluster, [], threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.go_on)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def go_on(self):
        while not self.stopping.is_set():
            running = [task for task in tasks(self.cloud, self.cluster) if task["lastStatus"] == "RUNNING"]
            self.answered.append(sum(self.answers(address(task)) for task in running))

    def answers(self, host):
        try:
            with urllib.request.urlopen(f"http://{host}/", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False


def test_no_request_finds_too_few_tasks_during_a_rolling_update(cloud, cluster, name):
    web = {"image": "nginx:latest"}
    versions = [cloud.register(name, web | {"environment": [{"name": "V", "value": v}]}) for v in ("1", "2")]
    bounds = {"minimumHealthyPercent": 100, "maximumPercent": 150}
    create(cloud, cluster, versions[0], count=2, deploymentConfiguration=bounds)
    stable(cloud, cluster)

    def all_answer():
        with Client(cloud, cluster) as client:
            until("it has asked", lambda: client.answered)
        return client.answered[0] == 2

    until("both answer", all_answer)
    with Client(cloud, cluster) as client:
        cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=versions[1])
        found = stable(cloud, cluster)
    assert found["taskDefinition"].endswith(versions[1])
    # A task may be told to stop between being heard of and being asked, when another one runs already.
    assert len(client.answered) > 3 and min(client.answered) >= 1, client.answered
    assert client.answered.count(1) <= 1, client.answered
    assert client.answered[-1] == 2


def test_zones_are_evened_out_again(cloud, cluster, name):
    subnets = cloud.ec2.describe_subnets(SubnetIds=cloud.subnets[:2])["Subnets"]
    zones = sorted(subnet["AvailabilityZone"] for subnet in subnets)
    network = cloud.network(*(subnet["SubnetId"] for subnet in subnets))
    made = create(cloud, cluster, cloud.register(name, {"command": idle(name)}), count=4, networkConfiguration=network)
    assert made["availabilityZoneRebalancing"] == "ENABLED", "as AWS has it where nothing is said"
    stable(cloud, cluster)

    def spread():
        return sorted(task["availabilityZone"] for task in tasks(cloud, cluster))

    assert spread() == sorted([*zones, *zones])
    kept = [task["taskArn"] for task in tasks(cloud, cluster) if task["availabilityZone"] == zones[0]]
    cloud.ecs.update_task_protection(cluster=cluster, tasks=kept, protectionEnabled=True)
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    until("one more is started where there is none", lambda: spread() == [zones[0], zones[0], zones[1]])
    said = f"(service web) is not AZ balanced with 2 tasks in {zones[0]} and 0 tasks in {zones[1]}. AZ Rebalancing in progress."
    assert said in events(cloud, cluster)
    cloud.ecs.update_task_protection(cluster=cluster, tasks=kept, protectionEnabled=False)
    until("they are even", lambda: spread() == zones)
    balanced = f"(service web) is AZ balanced with 1 tasks in {zones[0]} and 1 tasks in {zones[1]}."
    until("it is said", lambda: balanced in events(cloud, cluster))
    update = cloud.ecs.update_service(cluster=cluster, service="web", availabilityZoneRebalancing="DISABLED")
    assert update["service"]["availabilityZoneRebalancing"] == "DISABLED"
    with refused("InvalidParameterException", "Availability Zone rebalancing needs"):
        cloud.ecs.update_service(
            cluster=cluster,
            service="web",
            availabilityZoneRebalancing="ENABLED",
            deploymentConfiguration={"maximumPercent": 100, "minimumHealthyPercent": 0},
        )
