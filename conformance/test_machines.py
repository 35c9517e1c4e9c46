"""`longshore control` and `longshore agent`: machines that join by a token, lose their link, and come back."""

import pytest

from support import machines
from support.aws import Cloud, idle, task_id
from support.host import find_process, find_processes
from support.machines import Agent, Control, network_namespace
from support.server import Failed
from support.waiting import until

CLUSTER = "fleet"


@pytest.fixture(scope="module")
def lan():
    with machines.lan() as made:
        yield made


@pytest.fixture(scope="module")
def control(lan):
    return Control(lan).start()


@pytest.fixture(scope="module")
def cloud(control):
    return Cloud(control)


@pytest.fixture(scope="module")
def agents(lan, control, load):
    made = [
        Agent(lan, [control], CLUSTER, "--availability-zone", f"us-east-1{zone}", "--attributes", f"rack={zone}")
        for zone in "ab"
    ]
    for agent in made:
        load(agent.start(), "busybox:latest")
    return made


@pytest.fixture
def instances(cloud, agents):
    """Container instances by their agents, once both are connected."""

    def connected():
        arns = cloud.ecs.list_container_instances(cluster=CLUSTER, filter="agentConnected == true")
        found = {arn.rpartition("/")[2]: arn for arn in arns["containerInstanceArns"]}
        return [found[agent.instance] for agent in agents if agent.instance in found] if len(found) >= 2 else None

    return until("both agents are connected", connected)


def define(cloud, family, command, mode="host"):
    container = {"name": "main", "image": "busybox:latest", "memory": 32, "command": command, "stopTimeout": 2}
    log = {"awslogs-group": f"/ecs/{family}", "awslogs-region": cloud.region, "awslogs-stream-prefix": "test"}
    container["logConfiguration"] = {"logDriver": "awslogs", "options": log}
    cloud.log_group(f"/ecs/{family}")
    cloud.ecs.register_task_definition(family=family, networkMode=mode, containerDefinitions=[container])
    return family


def start(cloud, family, instance, **settings):
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=[instance], **settings)
    assert answer["failures"] == []
    return answer["tasks"][0]["taskArn"]


def test_tasks_run_on_the_machines_that_joined(cloud, agents, instances, name):
    family = define(cloud, name, ["sh", "-c", "echo from afar; exec sleep 823401"])
    for agent, instance in zip(agents, instances, strict=True):
        arn = start(cloud, family, instance)
        cloud.until_running(CLUSTER, arn)
        process = find_process("823401")
        assert process.namespace("net") == network_namespace(agent.machine)
        cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "from afar")
        cloud.ecs.stop_task(cluster=CLUSTER, task=arn)
        cloud.until_stopped(CLUSTER, arn)
        assert find_processes("823401") == []


def test_an_instance_says_what_it_was_told(cloud, instances):
    found = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=instances)["containerInstances"]
    said = [{each["name"]: each.get("value") for each in instance["attributes"]} for instance in found]
    assert [(each["rack"], each["ecs.availability-zone"]) for each in said] == [
        ("a", "us-east-1a"),
        ("b", "us-east-1b"),
    ]
    assert all(instance["ec2InstanceId"].startswith("i-0") for instance in found)


def test_a_task_with_its_own_interface(cloud, agents, instances, name):
    family = define(cloud, name, idle("823402"), mode="awsvpc")
    arn = start(cloud, family, instances[0], networkConfiguration=cloud.network(cloud.subnets[0]))
    cloud.until_running(CLUSTER, arn)
    addresses = find_process("823402").addresses()
    assert len(addresses) == 1
    cloud.stop_all(CLUSTER)


def test_tasks_outlive_their_agent_and_their_control_plane(cloud, control, agents, instances, name):
    arn = start(cloud, define(cloud, name, idle("823403")), instances[0])
    cloud.until_running(CLUSTER, arn)
    process = find_process("823403")
    agents[0].kill()
    control.kill()
    assert process.alive()
    control.start()
    agents[0].start()
    cloud.ecs.stop_task(cluster=CLUSTER, task=arn)
    task = cloud.until_stopped(CLUSTER, arn)
    assert task["stopCode"] == "UserInitiated"
    assert not process.alive()


def test_a_cut_link_is_made_good(cloud, lan, agents, instances, name):
    family = define(cloud, name, ["sh", "-c", "sleep 2; echo out of reach; exec sleep 823404"])
    stays, goes = (start(cloud, family, instances[1]) for _ in range(2))
    for arn in (stays, goes):
        cloud.until_running(CLUSTER, arn)
    with lan.cut(agents[1].machine):
        cloud.ecs.stop_task(cluster=CLUSTER, task=goes)

        def away():
            described = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[instances[1]])
            return not described["containerInstances"][0]["agentConnected"]

        until("the agent is seen to be away", away)
        assert len(find_processes("823404")) == 2, "tasks go on without a link"
        answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=[instances[1]])
        assert [failure["reason"] for failure in answer["failures"]] == ["AGENT"]
    assert cloud.until_stopped(CLUSTER, goes)["stopCode"] == "UserInitiated"
    cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(stays)}", "out of reach")
    assert cloud.task(CLUSTER, stays)["lastStatus"] == "RUNNING"
    assert len(find_processes("823404")) == 1
    cloud.stop_all(CLUSTER)


def test_who_has_no_right_does_not_join(cloud, lan, control, agents):
    used = agents[0].environment["LONGSHORE_TOKEN"]
    with pytest.raises(Failed) as refused:
        Agent(lan, [control], CLUSTER, token=used).start()
    assert "the token was used already" in str(refused.value)
    with pytest.raises(Failed) as refused:
        Agent(lan, [control], CLUSTER, "--cluster", "other").start()
    assert "the token is for the cluster fleet" in str(refused.value)
    secret = used.split("-")[2]
    for one in (control, *agents):
        assert secret not in one.log_path.read_text()


def test_a_deregistered_instance_stays_out(cloud, lan, control, load, name):
    agent = Agent(lan, [control], name)
    (agent.data_dir / "ecs.config").write_text(
        f"ECS_CLUSTER={name}\n"
        'ECS_INSTANCE_ATTRIBUTES={"disk": "ssd"}\n'
        "ECS_RESERVED_PORTS=[22]\n"
        "ECS_CONTAINER_STOP_TIMEOUT=1s\n"
        "ECS_DATADIR=/data\n"
    )
    agent.start()

    def registered():
        return cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"]

    arn = until("it is registered", lambda: name in str(cloud.ecs.list_clusters()) and registered())[0]
    described = cloud.ecs.describe_container_instances(cluster=name, containerInstances=[arn])["containerInstances"][0]
    assert {"name": "disk", "value": "ssd"} in described["attributes"]
    assert "these keys have no effect here: ECS_DATADIR" in agent.log_path.read_text()
    load(agent, "busybox:latest")
    # A shell as the first process of a container takes no notice of SIGTERM.
    deaf = {"name": "main", "image": "busybox:latest", "memory": 32, "command": ["sh", "-c", "while :; do sleep 1; done"]}
    cloud.ecs.register_task_definition(family=name, networkMode="none", containerDefinitions=[deaf])
    task = cloud.ecs.start_task(cluster=name, taskDefinition=name, containerInstances=[arn])["tasks"][0]["taskArn"]
    cloud.until_running(name, task)
    cloud.ecs.stop_task(cluster=name, task=task)
    stopped = cloud.until_stopped(name, task)
    assert (stopped["executionStoppedAt"] - stopped["stoppingAt"]).total_seconds() < 30, "ECS waits for so long"
    cloud.ecs.deregister_container_instance(cluster=name, containerInstance=arn)
    agent.kill()
    agent.start()
    until("it hears why it stays out", lambda: "was deregistered" in agent.log_path.read_text())
    assert registered() == []
