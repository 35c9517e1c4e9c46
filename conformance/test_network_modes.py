"""The network mode bridge: ports of an instance that lead into its tasks."""

import contextlib
import ipaddress
import socket
import subprocess
import sys

import pytest

from support import dns, machines, server
from support.aws import Cloud, idle, refused
from support.host import find_process, find_processes
from support.waiting import until

CLUSTER = "ports"
#: Answers each request with a word.
WEB = "trap 'exit 0' TERM; mkdir -p /tmp/www; echo {word} > /tmp/www/index.html; httpd -f -p {port} -h /tmp/www & wait"


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--container-instances", "2", "--cluster", CLUSTER) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    cloud.stop_all(CLUSTER)


@pytest.fixture
def instances(cloud):
    """Container instances and the addresses by which this machine reaches them."""
    arns = sorted(cloud.ecs.list_container_instances(cluster=CLUSTER)["containerInstanceArns"])
    found = cloud.ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)["containerInstances"]
    address = {each["containerInstanceArn"]: attribute(each, "longshore.address") for each in found}
    return [(arn, address[arn]) for arn in arns]


def attribute(instance, name):
    (value,) = [each["value"] for each in instance["attributes"] if each["name"] == name]
    return value


def define(cloud, family, word, ports, mode="bridge", command=None, port=80):
    script = WEB.format(word=word, port=port)
    container = {
        "name": "main",
        "image": "busybox:latest",
        "memory": 32,
        "command": command or ["sh", "-c", script, word],
        "portMappings": ports,
        "stopTimeout": 2,
    }
    settings = {"networkMode": mode} if mode else {}
    cloud.ecs.register_task_definition(family=family, containerDefinitions=[container], **settings)
    return family


def start(cloud, family, *instances):
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=list(instances))
    assert answer["failures"] == []
    return [cloud.until_running(CLUSTER, task["taskArn"]) for task in answer["tasks"]]


def ask(address, port):
    """What answers; None where nothing does."""
    try:
        with socket.create_connection((address, port), timeout=3) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            said = b""
            while chunk := connection.recv(4096):
                said += chunk
            return said.rpartition(b"\r\n\r\n")[2].decode().strip()
    except OSError:
        return None


def bindings(task):
    return task["containers"][0]["networkBindings"]


def test_a_static_port_leads_into_the_task_of_its_instance(cloud, instances, name):
    ports = [{"containerPort": 80, "hostPort": 8081, "protocol": "tcp"}]
    tasks = start(cloud, define(cloud, name, name, ports), *[arn for arn, _ in instances])
    expected = [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": 8081, "protocol": "tcp"}]
    assert [bindings(task) for task in tasks] == [expected] * 2
    for _, address in instances:
        until(f"{address}:8081 answers", lambda address=address: ask(address, 8081) == name)
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=name, containerInstances=[instances[0][0]])
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:PORTS"]
    cloud.ecs.stop_task(cluster=CLUSTER, task=tasks[0]["taskArn"])
    cloud.until_stopped(CLUSTER, tasks[0]["taskArn"])
    assert ask(instances[0][1], 8081) is None
    assert ask(instances[1][1], 8081) == name
    start(cloud, name, instances[0][0])
    until("the port is free for the next task", lambda: ask(instances[0][1], 8081) == name)


def test_a_port_of_the_mode_host_is_the_instances_own(cloud, instances, name):
    ports = [{"containerPort": 8085, "hostPort": 8085}]
    family = define(cloud, name, name, ports, mode="host", port=8085)
    (task,) = start(cloud, family, instances[0][0])
    until("the instance answers", lambda: ask(instances[0][1], 8085) == name)
    assert ask(instances[1][1], 8085) is None
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=[instances[0][0]])
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:PORTS"]
    cloud.ecs.stop_task(cluster=CLUSTER, task=task["taskArn"])
    cloud.until_stopped(CLUSTER, task["taskArn"])
    start(cloud, family, instances[0][0])
    until("the next one answers", lambda: ask(instances[0][1], 8085) == name)


def test_dynamic_ports(cloud, instances, name):
    (arn, address) = instances[0]
    tasks = start(cloud, define(cloud, name, name, [{"containerPort": 80}], mode=None), arn)
    tasks += start(cloud, name, arn)
    chosen = [bindings(task)[0]["hostPort"] for task in tasks]
    assert len(set(chosen)) == 2 and all(49153 <= port <= 65535 for port in chosen)
    for port in chosen:
        until(f"port {port} answers", lambda port=port: ask(address, port) == name)


def test_tasks_reach_one_another_by_their_instances_ports(cloud, instances, name):
    (first, _), (_, there) = instances
    start(cloud, define(cloud, name, name, [{"containerPort": 80, "hostPort": 8082}]), instances[1][0])
    until("it answers", lambda: ask(there, 8082) == name)
    start_idle(cloud, name, [], first, instances[1][0])
    for client in find_processes(f"{name}-idle"):
        page = client.in_network("curl", "--silent", "--max-time", "5", f"http://{there}:8082/index.html")
        assert page.strip() == name
        (addresses,) = client.addresses().values()
        assert len(addresses) == 1


#: Sends each datagram back, in whatever network it is started.
ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 5353))
while True:
    said, client = server.recvfrom(2048)
    server.sendto(said, client)
"""


@contextlib.contextmanager
def echoing(marker):
    """The test image has no server for datagrams: one of this machine's serves in the task's network."""
    enter = ["nsenter", f"--target={find_process(marker).pid}", "--net", sys.executable, "-c", ECHO]
    with subprocess.Popen(enter) as echo:
        try:
            yield
        finally:
            echo.kill()


def start_idle(cloud, name, ports, *instances, mode="bridge"):
    """Tasks that do nothing, and are found by the argument NAME-idle."""
    family = define(cloud, f"{name}-idle", name, ports, mode=mode, command=idle(f"{name}-idle"))
    return start(cloud, family, *instances)


def test_udp(cloud, instances, name):
    (arn, address), ports = instances[0], [{"containerPort": 5353, "hostPort": 8083, "protocol": "udp"}]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)

        def echoed():
            client.sendto(b"hello", (address, 8083))
            try:
                return client.recv(100) == b"hello"
            except OSError:
                return None

        # The client keeps its port, so that to the kernel it is one flow; each task has another address.
        for turn in ("first", "next"):
            (task,) = start_idle(cloud, f"{name}-{turn}", ports, arn)
            assert bindings(task)[0]["protocol"] == "udp"
            with echoing(f"{name}-{turn}-idle"):
                until(f"a datagram comes back from the {turn} task", echoed)
            cloud.ecs.stop_task(cluster=CLUSTER, task=task["taskArn"])
            cloud.until_stopped(CLUSTER, task["taskArn"])
            assert echoed() is None


def test_the_loopback_of_an_instance(cloud, instances, name):
    (arn, _) = instances[0]
    start(cloud, define(cloud, name, name, [{"containerPort": 80, "hostPort": 8086}]), arn)
    start_idle(cloud, f"{name}-host", [], arn, mode="host")
    inside = find_process(f"{name}-host-idle")
    ask_it = ["curl", "--silent", "--max-time", "5", "--retry", "30", "--retry-connrefused", "--retry-delay", "1"]
    page = inside.in_network(*ask_it, "http://127.0.0.1:8086/index.html")
    assert page.strip() == name


def test_a_port_that_a_program_of_the_instance_listens_on(cloud, instances, name):
    (arn, address), (other, _) = instances
    start(cloud, define(cloud, name, name, [], mode="host", port=8087), arn)
    until("it listens", lambda: ask(address, 8087) == name)
    family = define(cloud, f"{name}-taken", name, [{"containerPort": 80, "hostPort": 8087}])
    answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=family, containerInstances=[arn])
    stopped = cloud.until_stopped(CLUSTER, answer["tasks"][0]["taskArn"])
    assert "Bind for 0.0.0.0:8087 failed: port is already allocated" in stopped["stoppedReason"]
    start(cloud, family, other)


def test_ports_outlive_the_server(cloud, instances, name):
    (arn, address) = instances[0]
    start(cloud, define(cloud, name, name, [{"containerPort": 80, "hostPort": 8084}]), arn)
    until("it answers", lambda: ask(address, 8084) == name)
    cloud.server.kill()
    assert ask(address, 8084) == name
    cloud.server.start()
    assert ask(address, 8084) == name
    cloud.stop_all(CLUSTER)
    assert ask(address, 8084) is None


def test_the_machine_itself_as_an_instance(start_machine, name):
    """`longshore agent` on this machine's own network: also its loopback leads into the task."""
    cloud, arn = start_machine
    port = server.free_port()
    (task,) = start(cloud, define(cloud, name, name, [{"containerPort": 80, "hostPort": port}]), arn)
    for address in ("127.0.0.1", "127.0.0.2"):
        until(f"{address} answers", lambda address=address: ask(address, port) == name)
    inside = find_process(name)
    refused_by = subprocess.run(
        ["nsenter", f"--target={inside.pid}", "--net", "curl", "--silent", "--max-time", "2", f"127.1.2.3:{port}"],
        capture_output=True,
        env=server.clean_environment(),
    )
    assert refused_by.returncode != 0, "a task has a loopback of its own"
    with socket.socket() as mine:
        mine.bind(("0.0.0.0", 0))
        mine.listen()
        define(cloud, f"{name}-taken", name, [{"containerPort": 80, "hostPort": mine.getsockname()[1]}])
        answer = cloud.ecs.start_task(cluster=CLUSTER, taskDefinition=f"{name}-taken", containerInstances=[arn])
        stopped = cloud.until_stopped(CLUSTER, answer["tasks"][0]["taskArn"])
    assert "failed: port is already allocated" in stopped["stoppedReason"]
    cloud.ecs.stop_task(cluster=CLUSTER, task=task["taskArn"])
    cloud.until_stopped(CLUSTER, task["taskArn"])
    assert ask("127.0.0.1", port) is None


@pytest.fixture
def start_machine(load):
    """A control plane, and an agent on the machine's own network."""
    with machines.lan() as lan:
        control = machines.Control(lan).start()
        agent = machines.Agent(lan, [control], CLUSTER, here=True)
        load(agent.start(), "busybox:latest")
        cloud = Cloud(control)

        def registered():
            found = cloud.ecs.list_container_instances(cluster=CLUSTER, filter="agentConnected == true")
            return found["containerInstanceArns"]

        yield cloud, until("the agent is connected", lambda: CLUSTER in str(cloud.ecs.list_clusters()) and registered())[0]
        cloud.stop_all(CLUSTER)


def test_fargate_has_no_bridge(cloud, name):
    with refused("ClientException", "Fargate only supports network mode"):
        cloud.ecs.register_task_definition(
            family=name,
            networkMode="bridge",
            requiresCompatibilities=["FARGATE"],
            cpu="256",
            memory="512",
            containerDefinitions=[{"name": "main", "image": "busybox:latest"}],
        )


def test_a_service_on_instances_is_found_by_its_ports(cloud, instances):
    discovery = cloud.client("servicediscovery")
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    answer = discovery.create_private_dns_namespace(Name="ports.internal", Vpc=vpc["VpcId"])
    namespace = discovery.get_operation(OperationId=answer["OperationId"])["Operation"]["Targets"]["NAMESPACE"]
    made = {}
    for kind in ("A", "SRV"):
        config = {"DnsRecords": [{"Type": kind, "TTL": 5}]}
        made[kind] = discovery.create_service(Name=kind.lower(), NamespaceId=namespace, DnsConfig=config)["Service"]["Arn"]
    define(cloud, "found", "found", [{"containerPort": 80}])
    service = {"cluster": CLUSTER, "serviceName": "found", "taskDefinition": "found", "desiredCount": 2}
    place = {"containerName": "main", "containerPort": 80}
    with refused("InvalidParameterException", "When specifying 'host' or 'bridge' for networkMode"):
        cloud.ecs.create_service(**service, serviceRegistries=[{"registryArn": made["SRV"]}])
    with refused("InvalidParameterException", "supports DNS records of the type SRV only"):
        cloud.ecs.create_service(**service, serviceRegistries=[{"registryArn": made["A"]} | place])
    cloud.ecs.create_service(**service, serviceRegistries=[{"registryArn": made["SRV"]} | place])
    resolver = str(ipaddress.ip_network(vpc["CidrBlock"])[2])

    def places():
        found = dns.ask(resolver, "srv.ports.internal", "SRV").answers
        return {(address, record.data[0][2]) for record in found for address in dns.ask(resolver, record.data[1]).addresses()}

    until("both tasks are found", lambda: len(places()) == 2)
    assert {address for address, _ in places()} <= {address for _, address in instances}
    for address, port in places():
        until("it answers where it is found", lambda address=address, port=port: ask(address, port) == "found")
    # Tasks of the mode bridge ask the VPC's resolver, too.
    client = define(cloud, "asking", "asking", [], command=["sh", "-c", "nslookup -type=srv srv.ports.internal"])
    (arn,) = [task["taskArn"] for task in cloud.ecs.run_task(cluster=CLUSTER, taskDefinition=client)["tasks"]]
    assert cloud.until_stopped(CLUSTER, arn)["containers"][0]["exitCode"] == 0
    cloud.ecs.delete_service(cluster=CLUSTER, service="found", force=True)
    until("nothing is found", lambda: dns.ask(resolver, "srv.ports.internal", "SRV").code == "NXDOMAIN")
