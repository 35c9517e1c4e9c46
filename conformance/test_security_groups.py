"""Security groups, by packets: what they allow arrives, and what they do not is dropped."""

import contextlib
import pathlib
import socket
import subprocess
import sys

import pytest

from support.aws import Cloud, idle
from support.waiting import until

ANYWHERE = "0.0.0.0/0"
# What does not arrive is waited for this long, in seconds.
PATIENCE = 0.5

# Answers each line with the same, over one protocol.
ECHO = """
import socket, sys
kind, port = sys.argv[1], int(sys.argv[2])
if kind == "udp":
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    print("ready", flush=True)
    while True:
        data, peer = server.recvfrom(100)
        server.sendto(data, peer)
import threading
server = socket.create_server(("0.0.0.0", port))
print("ready", flush=True)
def serve(connection):
    while data := connection.recv(100):
        connection.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
ASK = """
import socket, sys
kind, address, port, patience = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
client.settimeout(patience)
client.connect((address, port))
client.sendall(b"hello")
assert client.recv(100) == b"hello"
"""


class Place:
    """A network namespace: a task's, or the machine's own."""

    def __init__(self, address=None, namespace=None):
        self.address, self.namespace = address, namespace

    def command(self, *words):
        enter = ["nsenter", f"--net={self.namespace}"] if self.namespace else []
        return [*enter, *map(str, words)]

    @contextlib.contextmanager
    def serving(self, kind, port):
        server = subprocess.Popen(self.command(sys.executable, "-c", ECHO, kind, port), stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()
            server.wait()

    def reaches(self, other, port, kind="tcp"):
        words = self.command(sys.executable, "-c", ASK, kind, other.address, port, PATIENCE)
        return subprocess.run(words, capture_output=True).returncode == 0

    def pings(self, other):
        words = self.command("busybox", "ping", "-c", 1, "-W", 1, other.address)
        return subprocess.run(words, capture_output=True).returncode == 0


MACHINE = Place()


class Groups:
    """Security groups of a test, and tasks in them."""

    def __init__(self, cloud, cluster, name):
        self.cloud, self.cluster, self.name, self.ec2, self.made = cloud, cluster, name, cloud.ec2, []
        self.vpc = self.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        self.definition = cloud.register(name, {"command": idle()})

    def make(self, suffix):
        group = self.ec2.create_security_group(GroupName=f"{self.name}-{suffix}", Description="a test", VpcId=self.vpc)
        self.made.append(group["GroupId"])
        return group["GroupId"]

    def allow(self, group, protocol, ports=None, cidr=None, source=None):
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission(protocol, ports, cidr, source)])

    def task(self, *groups):
        network = self.cloud.network()
        network["awsvpcConfiguration"]["securityGroups"] = list(groups)
        task = self.cloud.run_one(self.cluster, self.definition, networkConfiguration=network)
        return place(self.cloud, task)

    def clear(self):
        self.cloud.stop_all(self.cluster)
        for group in reversed(self.made):
            for side in ("ingress", "egress"):
                shown = self.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
                rules = shown["IpPermissions" if side == "ingress" else "IpPermissionsEgress"]
                if rules:
                    getattr(self.ec2, f"revoke_security_group_{side}")(GroupId=group, IpPermissions=rules)
        for group in reversed(self.made):
            self.ec2.delete_security_group(GroupId=group)


def permission(protocol, ports=None, cidr=None, source=None):
    asked = {"IpProtocol": protocol}
    if ports:
        asked |= {"FromPort": ports[0], "ToPort": ports[1]}
    if source:
        return asked | {"UserIdGroupPairs": [{"GroupId": source}]}
    return asked | {"IpRanges": [{"CidrIp": cidr or ANYWHERE}]}


def place(cloud, task):
    """Where a task's network is; its namespace is pinned to a file of the task's name."""
    address = task["containers"][0]["networkInterfaces"][0]["privateIpv4Address"]
    identity = task["taskArn"].rpartition("/")[2]
    (namespace,) = pathlib.Path("/run/longshore").glob(f"*/netns/tasks*/{identity}")
    return Place(address, namespace)


@pytest.fixture
def groups(cloud, cluster, name):
    made = Groups(cloud, cluster, name)
    yield made
    made.clear()


def soon(what, condition):
    """Within what a user would wait: AWS has no word for it, and the guide says a second."""
    return until(what, condition)


def test_a_group_without_rules_lets_nothing_in_and_everything_out(groups):
    closed, open_ = groups.make("closed"), groups.make("open")
    groups.allow(open_, "-1")
    inside, other = groups.task(closed), groups.task(open_)
    with inside.serving("tcp", 80), other.serving("tcp", 80):
        assert not MACHINE.reaches(inside, 80)
        assert not other.reaches(inside, 80)
        assert not other.pings(inside)
        assert inside.reaches(other, 80)
        assert MACHINE.reaches(other, 80)
        assert inside.pings(other)


def test_protocols_ports_and_blocks_are_told_apart(groups):
    group, free = groups.make("rules"), groups.make("free")
    groups.allow(group, "tcp", (8000, 8010))
    groups.allow(group, "udp", (53, 53))
    groups.allow(group, "icmp", (8, -1))
    inside, other = groups.task(group), groups.task(free)
    with contextlib.ExitStack() as servers:
        for kind, port in (("tcp", 8000), ("tcp", 8010), ("tcp", 8011), ("tcp", 53), ("udp", 53), ("udp", 8000)):
            servers.enter_context(inside.serving(kind, port))
        reached = {
            (kind, port): other.reaches(inside, port, kind)
            for kind, port in (("tcp", 8000), ("tcp", 8010), ("tcp", 8011), ("tcp", 53), ("udp", 53), ("udp", 8000))
        }
        assert reached == {
            ("tcp", 8000): True,
            ("tcp", 8010): True,
            ("tcp", 8011): False,
            ("tcp", 53): False,
            ("udp", 53): True,
            ("udp", 8000): False,
        }
        assert other.pings(inside)
    narrow = groups.make("narrow")
    groups.allow(narrow, "tcp", (80, 80), cidr=f"{other.address}/32")
    guarded, stranger = groups.task(narrow), groups.task(free)
    with guarded.serving("tcp", 80):
        assert other.reaches(guarded, 80)
        assert not stranger.reaches(guarded, 80)
        assert not MACHINE.reaches(guarded, 80)


def test_a_group_that_is_named_lets_its_members_in(groups):
    clients, servers = groups.make("clients"), groups.make("servers")
    groups.allow(servers, "tcp", (80, 80), source=clients)
    server, stranger = groups.task(servers), groups.task(servers)
    with server.serving("tcp", 80):
        assert not stranger.reaches(server, 80), "being in the same group allows nothing by itself"
        # A member that comes later is one at once.
        client = groups.task(clients)
        assert client.reaches(server, 80)
        both = groups.task(clients, servers)
        assert both.reaches(server, 80)


def test_what_may_go_out_is_limited(groups):
    limited, free = groups.make("limited"), groups.make("free")
    groups.allow(free, "-1")
    groups.ec2.revoke_security_group_egress(GroupId=limited, IpPermissions=[permission("-1")])
    groups.ec2.authorize_security_group_egress(GroupId=limited, IpPermissions=[permission("tcp", (80, 80), source=free)])
    inside, other = groups.task(limited), groups.task(free)
    with other.serving("tcp", 80), other.serving("tcp", 81), other.serving("udp", 80):
        assert inside.reaches(other, 80)
        assert not inside.reaches(other, 81)
        assert not inside.reaches(other, 80, "udp")
        assert not inside.pings(other)
        assert other.reaches(other, 81)


def test_rules_change_for_tasks_that_run_and_flows_go_on(groups):
    group = groups.make("live")
    inside = groups.task(group)
    rule = permission("tcp", (80, 80))
    with inside.serving("tcp", 80):
        assert not MACHINE.reaches(inside, 80)
        groups.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        soon("what is allowed now arrives", lambda: MACHINE.reaches(inside, 80))
        with socket.create_connection((inside.address, 80), timeout=5) as flow:
            groups.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
            soon("what is not allowed any more is dropped", lambda: not MACHINE.reaches(inside, 80))
            flow.sendall(b"hello")
            assert flow.recv(100) == b"hello"


def test_the_rules_hold_while_the_server_is_down_and_after(start, load, name):
    server = start("--instances", "2")
    load(server, "busybox:latest")
    cloud = Cloud(server)
    groups = Groups(cloud, cloud.cluster(name), name)
    clients, servers = groups.make("clients"), groups.make("servers")
    groups.allow(servers, "tcp", (80, 80), source=clients)
    # On both instances, so that packets cross from one to the other.
    targets = [groups.task(servers) for _ in range(4)]
    client, stranger = groups.task(clients), groups.task(servers)
    assert len({target.namespace.parent for target in targets}) == 2

    def holds():
        with contextlib.ExitStack() as running:
            for target in targets:
                running.enter_context(target.serving("tcp", 80))
            return [
                (client.reaches(target, 80), stranger.reaches(target, 80), MACHINE.reaches(target, 80))
                for target in targets
            ] == [(True, False, False)] * 4

    assert holds()
    server.kill()
    assert holds()
    server.start()
    assert holds()
    late = groups.task(servers)
    with late.serving("tcp", 80):
        assert (client.reaches(late, 80), stranger.reaches(late, 80)) == (True, False)
