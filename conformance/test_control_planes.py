"""Two control planes on one etcd: both serve, one dies, and the other goes on; instances that are gone are given up."""

import contextlib
import itertools
import json

import pytest

from support import machines
from support.aws import Cloud, idle
from support.host import find_processes
from support.machines import Agent, Control, Etcd, Wire
from support.waiting import until

CLUSTER = "fleet"


class Fleet:
    """Two control planes, and two agents that know both."""

    def __init__(self, lan, etcd, wire, load):
        flags = ["--instance-lost-after", "5s", "--etcd-endpoints"]
        first = Control(lan, *flags, wire.url)
        # The range of the default VPCs is one for all of them.
        second = Control(lan, *flags, etcd.url, vpc_cidr=first.vpc_cidr)
        self.etcd, self.wire, self.lan, self.controls = etcd, wire, lan, [first.start(), second.start()]
        self.clouds = [Cloud(control) for control in self.controls]
        # Each has its first link to another control plane.
        self.agents = [Agent(lan, order, CLUSTER) for order in (self.controls, self.controls[::-1])]
        for agent in self.agents:
            load(agent.start(), "busybox:latest")

    def relink(self, agent, instance):
        """Has an agent link to the control plane that it knows first; says how many links were told of before."""
        other = self.controls[1]
        agent.kill()
        until("the agent is away", lambda: not connections(other, instance)[-1])
        agent.start()
        until("the agent is back", lambda: connections(other, instance)[-1])
        return len(connections(other, instance))

    def instances(self, cloud):
        """The container instances of the agents, once both are connected."""

        def connected():
            arns = cloud.ecs.list_container_instances(cluster=CLUSTER, filter="agentConnected == true")
            found = {arn.rpartition("/")[2]: arn for arn in arns["containerInstanceArns"]}
            return [found[agent.instance] for agent in self.agents] if len(found) == 2 else None

        return until("both agents are connected", connected)


@pytest.fixture(scope="module")
def fleet(load):
    etcd = Etcd()
    try:
        wire = Wire(int(etcd.url.rpartition(":")[2]))
        with machines.lan() as lan, contextlib.closing(wire):
            yield Fleet(lan, etcd, wire, load)
    finally:
        etcd.clean_up()


def define(cloud, family, marker):
    container = {"name": "main", "image": "busybox:latest", "memory": 32, "command": idle(marker)}
    cloud.ecs.register_task_definition(family=family, networkMode="none", containerDefinitions=[container])
    return family


def start(cloud, family, instances):
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=instances)
    assert answer["failures"] == []
    arns = [task["taskArn"] for task in answer["tasks"]]
    for arn in arns:
        cloud.until_running(CLUSTER, arn)
    return arns


def details(control, arn):
    """What events have told of a task or a container instance, in their order."""
    told = [json.loads(line) for line in control.run("events", "--output", "json").splitlines()]
    return [event["detail"] for event in told if event["resources"] == [arn]]


def versions(control, arn):
    return [detail["version"] for detail in details(control, arn)]


def connections(control, arn):
    """Whether an instance's agent was linked, as it changed: events tell of an instance's tasks as well."""
    return [connected for connected, _ in itertools.groupby(detail["agentConnected"] for detail in details(control, arn))]


def test_both_serve_the_same_records(fleet, name):
    first, second = fleet.clouds
    assert first.exports["AWS_ACCESS_KEY_ID"] == second.exports["AWS_ACCESS_KEY_ID"]
    instances = fleet.instances(first)
    family = define(second, name, "834501")
    known = lambda: first.ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"]  # noqa: E731
    until("the other knows the definition", known)
    arns = start(first, family, instances)
    listed = lambda: sorted(second.ecs.list_tasks(cluster=CLUSTER)["taskArns"])  # noqa: E731
    until("the other lists the tasks", lambda: listed() == sorted(arns))
    assert len(find_processes("834501")) == 2
    second.stop_all(CLUSTER)
    assert find_processes("834501") == []


def test_one_that_is_frozen_for_a_while_does_no_harm(fleet, name):
    first, second = fleet.clouds
    frozen, other = fleet.controls
    instances = fleet.instances(first)
    before = start(first, define(first, name, "834504"), instances)
    told = len(connections(other, instances[1]))
    with frozen.frozen():
        until("its agent's link is taken for gone", lambda: not connections(other, instances[0])[-1])
    assert fleet.instances(second) == instances
    # It wakes with a view of long ago, and takes nobody else for gone.
    after = start(first, name, instances)
    # On a machine at work the other one may lose sight of the store for a moment, and its agent with it: not for good.
    assert connections(other, instances[1])[told:] in ([], [False, True])
    assert {second.task(CLUSTER, arn)["lastStatus"] for arn in (*before, *after)} == {"RUNNING"}
    assert len(find_processes("834504")) == 4
    second.stop_all(CLUSTER)


def test_one_that_does_not_reach_the_store_gives_its_agents_to_the_other(fleet, name):
    first, second = fleet.clouds
    other = fleet.controls[1]
    instances = fleet.instances(first)
    before = start(first, define(first, name, "834505"), instances)
    told = fleet.relink(fleet.agents[0], instances[0])
    with fleet.wire.cut():
        until("its agent links to the other", lambda: connections(other, instances[0])[told:] == [False, True])
        after = start(second, name, instances)
        second.ecs.stop_task(cluster=CLUSTER, task=before[0])
        second.until_stopped(CLUSTER, before[0])
    until("it has caught up", lambda: first.task(CLUSTER, before[0])["lastStatus"] == "STOPPED")
    start(first, name, instances)
    assert len(find_processes("834505")) == 5
    first.stop_all(CLUSTER)
    assert find_processes("834505") == []
    for arn in (*before, *after):
        assert versions(other, arn) == list(range(1, first.task(CLUSTER, arn)["version"] + 1)), "told once"


def test_nothing_is_lost_while_the_store_is_away(fleet, name):
    first, _ = fleet.clouds
    instances = fleet.instances(first)
    arns = start(first, define(first, name, "834506"), instances)
    with fleet.etcd.frozen():
        said = "this control plane does not reach its store"
        logs = [control.log_path for control in fleet.controls]
        marks = [len(log.read_text()) for log in logs]

        def given_up():
            # One of them may have had no link to give up.
            return any(said in log.read_text()[mark:] for log, mark in zip(logs, marks, strict=True))

        until("links are given up", given_up)
        assert len(find_processes("834506")) == 2, "tasks go on"
    for cloud in fleet.clouds:
        assert fleet.instances(cloud) == instances
        assert {cloud.task(CLUSTER, arn)["lastStatus"] for arn in arns} == {"RUNNING"}
    first.stop_all(CLUSTER)
    assert find_processes("834506") == []


def test_one_dies_and_the_other_goes_on(fleet, name):
    first, second = fleet.clouds
    instances = fleet.instances(first)
    before = start(first, define(first, name, "834502"), instances)
    fleet.controls[0].kill()
    # Acknowledged is kept, and what is asked of the other is done on both instances.
    assert {second.task(CLUSTER, arn)["lastStatus"] for arn in before} == {"RUNNING"}
    assert fleet.instances(second) == instances
    after = start(second, name, instances)
    assert len(find_processes("834502")) == 4, "each task runs once"
    second.ecs.stop_task(cluster=CLUSTER, task=before[0])
    second.until_stopped(CLUSTER, before[0])
    fleet.controls[0].start()
    first.stop_all(CLUSTER)
    assert find_processes("834502") == []
    for arn in (*before, *after):
        told = versions(fleet.controls[1], arn)
        assert told == list(range(1, first.task(CLUSTER, arn)["version"] + 1)), "each change is told once"


def test_an_instance_that_is_gone_loses_its_tasks_and_may_come_back(fleet, name):
    (_, cloud), (gone, _) = fleet.clouds, fleet.agents
    instances = fleet.instances(cloud)
    lost, stays = start(cloud, define(cloud, name, "834503"), instances)
    with fleet.lan.cut(gone.machine):
        task = cloud.until_stopped(CLUSTER, lost)
        ec2 = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=instances[:1])
        ec2 = ec2["containerInstances"][0]["ec2InstanceId"]
        assert task["stoppedReason"] == f"Host EC2 (instance {ec2}) terminated"
        assert len(find_processes("834503")) == 2, "behind the cut it goes on"
    assert fleet.instances(cloud) == instances
    until("what was given up is removed where it ran on", lambda: len(find_processes("834503")) == 1)
    assert cloud.task(CLUSTER, stays)["lastStatus"] == "RUNNING"
    start(cloud, name, instances[:1])
    cloud.stop_all(CLUSTER)


def test_services_go_on_when_their_control_plane_dies(fleet):
    """In the middle of a rolling update: nothing is lost, nothing is done twice, the bounds hold."""
    first, second = fleet.clouds
    family = {"family": "svc", "networkMode": "bridge"}
    container = {"name": "main", "image": "busybox:latest", "memory": 16, "command": idle("svc-one")}
    first.ecs.register_task_definition(**family, containerDefinitions=[container])
    slow = container | {"command": idle("svc-two")}
    first.ecs.register_task_definition(**family, containerDefinitions=[slow])
    bounds = {"minimumHealthyPercent": 100, "maximumPercent": 150}
    service = {"cluster": CLUSTER, "serviceName": "svc", "taskDefinition": "svc:1", "desiredCount": 4}
    first.ecs.create_service(**service, launchType="EC2", deploymentConfiguration=bounds)

    def described(cloud):
        (found,) = cloud.ecs.describe_services(cluster=CLUSTER, services=["svc"])["services"]
        return found

    until("four tasks run", lambda: described(second)["deployments"][0]["rolloutState"] == "COMPLETED")
    second.ecs.update_service(cluster=CLUSTER, service="svc", taskDefinition="svc:2")
    fleet.controls[0].kill()
    try:
        seen = []

        def done():
            found = described(second)
            seen.append((found["runningCount"], found["runningCount"] + found["pendingCount"]))
            (last, *others) = found["deployments"]
            return not others and last["rolloutState"] == "COMPLETED" and last["runningCount"] == 4

        until("the update is done by the other", done, every=0.02)
        assert min(running for running, _ in seen) >= 4
        assert max(total for _, total in seen) <= 6
        until("only new tasks run", lambda: not first_of("svc-one") and len(first_of("svc-two")) == 4)
        said = [event["message"] for event in described(second)["events"]]
        assert sum("deployment completed" in message for message in said) == 2
        tasks = second.ecs.list_tasks(cluster=CLUSTER, serviceName="svc")["taskArns"]
        assert len(tasks) == 4
        second.ecs.delete_service(cluster=CLUSTER, service="svc", force=True)
        until("its tasks are gone", lambda: described(second)["status"] == "INACTIVE" and not first_of("svc-two"))
    finally:
        fleet.controls[0].start()


def first_of(marker):
    """The first processes of containers with that argument."""
    found = []
    for process in find_processes(marker):
        with contextlib.suppress(OSError):
            if process.pid_inside() == 1:
                found.append(process)
    return found
