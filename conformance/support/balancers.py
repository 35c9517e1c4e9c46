"""Load balancers as tests make them, and clients that ask them all the time."""

import collections
import concurrent.futures
import contextlib
import http.client
import threading

PORT = 80


def page(text):
    """nginx with a page of its own."""
    command = f"echo {text} > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'"
    return {
        "name": "web",
        "image": "nginx:latest",
        "command": ["sh", "-c", command],
        "portMappings": [{"containerPort": PORT}],
        "stopTimeout": 5,
    }


class Balancer:
    """An application load balancer, with a listener at port 80 that sends to the group `name`."""

    def __init__(self, cloud, name, kind="application", **settings):
        self.cloud, self.name, self.elb = cloud, name, cloud.elbv2
        self.vpc = cloud.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        request = {"Name": name, "Subnets": cloud.subnets[:2], "Type": kind} | settings
        (made,) = self.elb.create_load_balancer(**request)["LoadBalancers"]
        self.arn, self.protocol = made["LoadBalancerArn"], "HTTP" if kind == "application" else "TCP"
        self.group = self.make_group(name)
        forward = [{"Type": "forward", "TargetGroupArn": self.group}]
        (listener,) = self.elb.create_listener(
            LoadBalancerArn=self.arn, Protocol=self.protocol, Port=PORT, DefaultActions=forward
        )["Listeners"]
        self.listener = listener["ListenerArn"]

    def make_group(self, name):
        check = {"HealthCheckIntervalSeconds": 5, "HealthCheckTimeoutSeconds": 2, "HealthyThresholdCount": 2}
        (group,) = self.elb.create_target_group(
            Name=name, Protocol=self.protocol, Port=PORT, VpcId=self.vpc, TargetType="ip", **check
        )["TargetGroups"]
        return group["TargetGroupArn"]

    @property
    def addresses(self):
        """Of its interfaces, as EC2 shows them."""
        filters = [{"Name": "description", "Values": [f"ELB {self.arn.partition(':loadbalancer/')[2]}"]}]
        found = self.cloud.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        return [interface["PrivateIpAddress"] for interface in found]

    def health(self, group=None):
        found = self.elb.describe_target_health(TargetGroupArn=group or self.group)["TargetHealthDescriptions"]
        return [target["TargetHealth"]["State"] for target in found]

    def serves(self, **settings):
        balancer = {"targetGroupArn": self.group, "containerName": "web", "containerPort": PORT}
        return {"loadBalancers": [balancer | settings]}

    def get(self, path="/"):
        return get(self.addresses[0], path)

    def remove(self):
        self.elb.delete_load_balancer(LoadBalancerArn=self.arn)
        for group in self.elb.describe_target_groups()["TargetGroups"]:
            if group["TargetGroupName"].startswith(self.name):
                self.elb.delete_target_group(TargetGroupArn=group["TargetGroupArn"])


def get(address, path="/", port=PORT):
    connection = http.client.HTTPConnection(address, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode().strip()


class Load:
    """Clients that ask all the time, each on a connection that it keeps."""

    def __init__(self, address, clients=4):
        self.address, self.answers, self.done = address, collections.Counter(), threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.running = [self.pool.submit(self.ask) for _ in range(clients)]

    def ask(self):
        connection = http.client.HTTPConnection(self.address, PORT, timeout=10)
        with contextlib.closing(connection):
            while not self.done.is_set():
                connection.request("GET", "/")
                response = connection.getresponse()
                self.answers[response.status, response.read().decode().strip()] += 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done.set()
        self.pool.shutdown()

    def end(self):
        """All answers, by status and text; raises what a client met."""
        self.done.set()
        for client in self.running:
            client.result()
        return self.answers

    def pages(self):
        return {text for _, text in list(self.answers)}
