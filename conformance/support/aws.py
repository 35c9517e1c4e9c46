"""The clients: the real aws CLI as a process, and boto3, both set up by `longshore env` and nothing else."""

import contextlib
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import boto3
import botocore.config
import botocore.exceptions
import pytest

from .server import clean_environment
from .waiting import until

CLI_ERROR = re.compile(r"\((?P<code>[^)]+)\) when calling the \w+ operation(?: \([^)]*\))?: (?P<message>.*)", re.DOTALL)
ROLE = "arn:aws:iam::123456789012:role/ecsTaskExecutionRole"


class CliError(Exception):
    """The aws CLI ended with an error of the service."""

    def __init__(self, code, message, stderr):
        super().__init__(stderr)
        self.code, self.message = code, message


class Cloud:
    """One server, as one user of it sees it."""

    def __init__(self, server):
        self.server = server
        self.exports = server.exports()
        self.region = self.exports["AWS_REGION"]

    def aws(self, *words, region=None):
        """What the command printed, parsed; raises CliError."""
        environment = clean_environment() | self.exports | {"AWS_PAGER": "", "HOME": str(self.server.data_dir)}
        command = [cli(), *words, "--output", "json", *(["--region", region] if region else [])]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=700, env=environment
        )
        if result.returncode != 0:
            match = CLI_ERROR.search(result.stderr.strip())
            assert match, f"{' '.join(words)}: {result.stderr}"
            raise CliError(match["code"], match["message"], result.stderr)
        return json.loads(result.stdout) if result.stdout.strip() else None

    def client(self, service, region=None, **settings):
        """A boto3 client; `settings` replace keys and configuration."""
        return boto3.client(service, **self.client_settings(region, **settings))

    def client_settings(self, region=None, **settings):
        config = {"retries": {"total_max_attempts": 1}, "inject_host_prefix": False, "read_timeout": 60}
        config |= settings.pop("config", {})
        return {
            "endpoint_url": self.exports["AWS_ENDPOINT_URL"],
            "region_name": region or self.region,
            "aws_access_key_id": self.exports["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": self.exports["AWS_SECRET_ACCESS_KEY"],
            "config": botocore.config.Config(**config),
        } | settings

    @functools.cached_property
    def ecs(self):
        return self.client("ecs")

    @functools.cached_property
    def logs(self):
        return self.client("logs")

    @functools.cached_property
    def ec2(self):
        return self.client("ec2")

    @functools.cached_property
    def elbv2(self):
        return self.client("elbv2")

    @property
    def subnets(self):
        """The default subnets' ids, by availability zone."""
        by_default = [{"Name": "default-for-az", "Values": ["true"]}]
        subnets = self.ec2.describe_subnets(Filters=by_default)["Subnets"]
        return [subnet["SubnetId"] for subnet in sorted(subnets, key=lambda subnet: subnet["AvailabilityZone"])]

    @property
    def security_group(self):
        """The default VPC's own, which lets in whatever comes from here on: it would let only its own members in."""
        (vpc,) = self.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        own = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}, {"Name": "group-name", "Values": ["default"]}]
        (group,) = self.ec2.describe_security_groups(Filters=own)["SecurityGroups"]
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        if not any(rule.get("IpRanges") for rule in group["IpPermissions"]):
            self.ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[everything])
        return group["GroupId"]

    def network(self, *subnets):
        """A network configuration, as run-task takes it."""
        configuration = {
            "subnets": list(subnets) or self.subnets[:1],
            "securityGroups": [self.security_group],
            "assignPublicIp": "ENABLED",
        }
        return {"awsvpcConfiguration": configuration}

    def cli_network(self):
        """The same in the CLI's shorthand, as the practical guide writes it."""
        return (
            f"awsvpcConfiguration={{subnets=[{self.subnets[0]}],"
            f"securityGroups=[{self.security_group}],assignPublicIp=ENABLED}}"
        )

    def cluster(self, name):
        self.ecs.create_cluster(clusterName=name)
        return name

    def log_group(self, name):
        with contextlib.suppress(self.logs.exceptions.ResourceAlreadyExistsException):
            self.logs.create_log_group(logGroupName=name)
        return name

    def register(self, family, *containers, **settings):
        """Registers a Fargate task definition; a container is a dict with at least a command. Returns `family:revision`."""
        group = self.log_group(f"/ecs/{family}")
        full = [container_definition(container, group, self.region) for container in containers]
        request = {
            "family": family,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "executionRoleArn": ROLE,
            "containerDefinitions": full,
        } | settings
        definition = self.ecs.register_task_definition(**request)["taskDefinition"]
        return f"{definition['family']}:{definition['revision']}"

    def run(self, cluster, definition, count=1, **settings):
        """Runs tasks and returns their ARNs."""
        request = {
            "cluster": cluster,
            "taskDefinition": definition,
            "count": count,
            "launchType": "FARGATE",
            "networkConfiguration": self.network(),
        } | settings
        answer = self.ecs.run_task(**request)
        assert answer["failures"] == []
        assert len(answer["tasks"]) == count
        return [task["taskArn"] for task in answer["tasks"]]

    def run_one(self, cluster, definition, **settings):
        """Runs one task and returns its description once it is RUNNING."""
        (arn,) = self.run(cluster, definition, **settings)
        return self.until_running(cluster, arn)

    def task(self, cluster, arn):
        (task,) = self.ecs.describe_tasks(cluster=cluster, tasks=[arn])["tasks"]
        return task

    def until_running(self, cluster, arn):
        def running():
            task = self.task(cluster, arn)
            assert task["lastStatus"] != "STOPPED", f"stopped: {task.get('stoppedReason')} {task['containers']}"
            return task if task["lastStatus"] == "RUNNING" else None

        return until(f"{arn} is RUNNING", running)

    def until_stopped(self, cluster, arn):
        def stopped():
            task = self.task(cluster, arn)
            return task if task["lastStatus"] == "STOPPED" else None

        return until(f"{arn} is STOPPED", stopped)

    def stop_all(self, cluster):
        """Stops every task of a cluster, so that the next test finds the instance empty."""
        arns = self.ecs.list_tasks(cluster=cluster)["taskArns"]
        for arn in arns:
            self.ecs.stop_task(cluster=cluster, task=arn)
        for arn in arns:
            self.until_stopped(cluster, arn)

    def lines(self, group, stream):
        """Every message of a log stream, oldest first."""
        messages, token = [], None
        while True:
            paging = {"nextToken": token} if token else {"startFromHead": True}
            page = self.logs.get_log_events(logGroupName=group, logStreamName=stream, **paging)
            messages += [event["message"] for event in page["events"]]
            if page["nextForwardToken"] == token:
                return messages
            token = page["nextForwardToken"]

    def until_line(self, group, stream, wanted):
        """All lines of a stream, once one of them contains `wanted`."""

        def found():
            with contextlib.suppress(self.logs.exceptions.ResourceNotFoundException):
                lines = self.lines(group, stream)
                return lines if any(wanted in line for line in lines) else None

        return until(f"{wanted!r} in {group} {stream}", found)


def idle(marker="idle"):
    """A command that does nothing until SIGTERM; as the first process of its world, `sleep` would not hear it.
    `marker` is an argument by which `host.find_process` finds it."""
    return ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done", marker]


def container_definition(container, group, region):
    options = {"awslogs-group": group, "awslogs-region": region, "awslogs-stream-prefix": "test"}
    return {
        "name": "main",
        "image": "busybox:latest",
        "essential": True,
        "stopTimeout": 2,
        "logConfiguration": {"logDriver": "awslogs", "options": options},
    } | container


def task_id(arn):
    return arn.rpartition("/")[2]


def detail(task, name):
    """A value of the task's network interface attachment."""
    (attachment,) = [each for each in task["attachments"] if each["type"] == "ElasticNetworkInterface"]
    values = [each["value"] for each in attachment["details"] if each["name"] == name]
    assert len(values) == 1, f"{name} stands {len(values)} times in {attachment}"
    return values[0]


def address(task):
    return detail(task, "privateIPv4Address")


@contextlib.contextmanager
def refused(code, message=""):
    """The call inside is refused with this code, and a message that contains `message`."""
    with pytest.raises((botocore.exceptions.ClientError, CliError)) as caught:
        yield caught
    error = caught.value
    if isinstance(error, CliError):
        found = error.code, error.message
    else:
        found = error.response["Error"]["Code"], error.response["Error"]["Message"]
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] < 500, "refusals are never the server's failure"
    assert found[0] == code, f"expected {code}, got {found[0]}: {found[1]}"
    assert message in found[1], f"expected {message!r} in {found[1]!r}"


@functools.cache
def cli():
    """The aws CLI of the environment that runs these tests, so that its version is the pinned one."""
    beside = pathlib.Path(sys.executable).with_name("aws")
    assert os.access(beside, os.X_OK), f"no aws CLI beside {sys.executable}; run the tests by ./dev test"
    return str(beside)
