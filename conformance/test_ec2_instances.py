"""EC2 instances: launched by calls and templates, joined to the cluster of their user data, and gone when they are terminated."""

import base64
import urllib.request

import pytest
from botocore.exceptions import ClientError

from support import server
from support.aws import Cloud, idle
from support.host import find_processes
from support.waiting import until

IMAGE = "ami-0c55b159cbfafe1f0"


@pytest.fixture(scope="module")
def cloud(load):
    with server.running() as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture(autouse=True)
def clean(cloud):
    yield
    alive = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    ids = [one["InstanceId"] for one in found(cloud, Filters=alive)]
    if ids:
        cloud.client("ec2").terminate_instances(InstanceIds=ids)
        cloud.client("ec2").get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})


def user_data(cluster, *more):
    lines = ["#!/bin/bash", f'echo "ECS_CLUSTER={cluster}" >> /etc/ecs/ecs.config', *more]
    return "\n".join(lines)


def run(cloud, cluster, **settings):
    request = {"ImageId": IMAGE, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, **settings}
    request.setdefault("UserData", user_data(cluster))
    return cloud.client("ec2").run_instances(**request)["Instances"]


def found(cloud, **settings):
    reservations = cloud.client("ec2").describe_instances(**settings)["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def members(cloud, cluster, count):
    def check():
        arns = cloud.ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
        return len(arns) == count and arns

    arns = until(f"{cluster} has {count} instances", check)
    return cloud.ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"]


def define(cloud, family, **settings):
    container = {"name": "main", "image": "busybox:latest", "memory": 32, "command": idle(family)} | settings
    made = cloud.ecs.register_task_definition(family=family, containerDefinitions=[container])
    return f"{family}:{made['taskDefinition']['revision']}"


def test_an_instance_joins_its_cluster_and_runs_its_tasks(cloud, name):
    cloud.ecs.create_cluster(clusterName=name)
    more = ["echo ECS_INSTANCE_ATTRIBUTES='{\"disk\": \"ssd\"}' >> /etc/ecs/ecs.config", "echo ECS_RESERVED_MEMORY=24 >> /etc/ecs/ecs.config"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "red"}]}]
    (launched,) = run(cloud, name, UserData=user_data(name, *more), TagSpecifications=tags)
    id = launched["InstanceId"]
    assert launched["State"]["Name"] in ("pending", "running")
    cloud.client("ec2").get_waiter("instance_running").wait(InstanceIds=[id], WaiterConfig={"Delay": 1})
    (instance,) = found(cloud, InstanceIds=[id])
    assert instance["InstanceType"] == "t3.micro" and instance["ImageId"] == IMAGE
    assert instance["Tags"] == [{"Key": "team", "Value": "red"}]
    interface = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    (described,) = cloud.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    assert described["Attachment"]["InstanceId"] == id
    assert described["PrivateIpAddress"] == instance["PrivateIpAddress"]

    (member,) = members(cloud, name, 1)
    assert member["ec2InstanceId"] == id
    amounts = {one["name"]: one.get("integerValue") for one in member["registeredResources"]}
    assert (amounts["CPU"], amounts["MEMORY"]) == (2048, 1000)
    attributes = {one["name"]: one.get("value") for one in member["attributes"]}
    assert attributes["ecs.instance-type"] == "t3.micro" and attributes["disk"] == "ssd"
    assert attributes["ecs.availability-zone"] == instance["Placement"]["AvailabilityZone"]

    (task,) = cloud.ecs.run_task(cluster=name, taskDefinition=define(cloud, name))["tasks"]
    until("the task runs", lambda: cloud.task(name, task["taskArn"])["lastStatus"] == "RUNNING")
    assert find_processes(name)
    cloud.client("ec2").terminate_instances(InstanceIds=[id])
    ended = until("the task ended", lambda: (t := cloud.task(name, task["taskArn"]))["lastStatus"] == "STOPPED" and t)
    assert ended["stoppedReason"] == f"Host EC2 (instance {id}) terminated"
    assert ended["stopCode"] == "TerminationNotice"
    cloud.client("ec2").get_waiter("instance_terminated").wait(InstanceIds=[id], WaiterConfig={"Delay": 1})
    assert not find_processes(name), "its processes are gone"
    assert cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"] == []
    (gone,) = found(cloud, InstanceIds=[id])
    assert gone["State"] == {"Code": 48, "Name": "terminated"}
    assert gone["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    with pytest.raises(ClientError, match="InvalidNetworkInterfaceID.NotFound"):
        cloud.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])


def test_a_port_of_an_instance_is_reached_at_its_private_address(cloud, name):
    cloud.ecs.create_cluster(clusterName=name)
    (launched,) = run(cloud, name)
    members(cloud, name, 1)
    command = ["sh", "-c", f"mkdir /www && echo {name} > /www/index.html && exec httpd -f -p 80 -h /www"]
    definition = define(cloud, name, command=command, portMappings=[{"containerPort": 80, "hostPort": 8080}])
    (task,) = cloud.ecs.run_task(cluster=name, taskDefinition=definition)["tasks"]
    until("the task runs", lambda: cloud.task(name, task["taskArn"])["lastStatus"] == "RUNNING")
    with urllib.request.urlopen(f"http://{launched['PrivateIpAddress']}:8080/", timeout=10) as answer:
        assert answer.read().decode().strip() == name


def test_launch_templates_have_versions_and_launch_instances(cloud, name):
    ec2 = cloud.client("ec2")
    cloud.ecs.create_cluster(clusterName=name)
    data = {
        "ImageId": IMAGE,
        "InstanceType": "t3.small",
        "UserData": base64.b64encode(user_data(name).encode()).decode(),
        "IamInstanceProfile": {"Name": "ecsInstanceRole"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "Encrypted": True}}],
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "template"}]}],
    }
    tags = [{"ResourceType": "launch-template", "Tags": [{"Key": "team", "Value": "red"}]}]
    made = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=tags)
    template = made["LaunchTemplate"]
    id = template["LaunchTemplateId"]
    assert (template["DefaultVersionNumber"], template["LatestVersionNumber"]) == (1, 1)
    assert template["Tags"] == [{"Key": "team", "Value": "red"}]
    with pytest.raises(ClientError, match="InvalidLaunchTemplateName.AlreadyExistsException"):
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)

    second = ec2.create_launch_template_version(
        LaunchTemplateId=id, SourceVersion="1", VersionDescription="smaller", LaunchTemplateData={"InstanceType": "t3.nano"}
    )["LaunchTemplateVersion"]
    assert second["VersionNumber"] == 2 and second["LaunchTemplateData"] == data | {"InstanceType": "t3.nano"}
    latest = ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Latest"])
    assert [version["VersionNumber"] for version in latest["LaunchTemplateVersions"]] == [2]
    every = ec2.describe_launch_template_versions(LaunchTemplateId=id)["LaunchTemplateVersions"]
    assert [(version["VersionNumber"], version["DefaultVersion"]) for version in every] == [(2, False), (1, True)]
    assert every[1]["LaunchTemplateData"] == data

    one = {"LaunchTemplate": {"LaunchTemplateId": id, "Version": "2"}, "MinCount": 1, "MaxCount": 1}
    (launched,) = ec2.run_instances(**one, ClientToken=name)["Instances"]
    assert launched["InstanceType"] == "t3.nano"
    assert launched["IamInstanceProfile"]["Arn"].endswith(":instance-profile/ecsInstanceRole")
    assert launched["Tags"] == [{"Key": "from", "Value": "template"}]
    again = ec2.run_instances(**one, ClientToken=name)["Instances"]
    assert [instance["InstanceId"] for instance in again] == [launched["InstanceId"]], "a repeated call launches nothing"
    assert members(cloud, name, 1)[0]["ec2InstanceId"] == launched["InstanceId"]

    ec2.modify_launch_template(LaunchTemplateId=id, DefaultVersion="2")
    (described,) = ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
    assert described["DefaultVersionNumber"] == 2
    ec2.delete_launch_template(LaunchTemplateId=id)
    with pytest.raises(ClientError, match="InvalidLaunchTemplateId.NotFound"):
        ec2.describe_launch_templates(LaunchTemplateIds=[id])


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ImageId": "image"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "p4d.24xlarge"}, "InvalidParameterValue"),
        ({"InstanceType": "t4g.small"}, "Unsupported"),
        ({"SubnetId": "subnet-missing"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-missing"]}, "InvalidGroup.NotFound"),
        ({"MinCount": 2}, "InvalidParameterValue"),
        ({"MinCount": 200, "MaxCount": 200}, "InstanceLimitExceeded"),
        ({"InstanceMarketOptions": {"MarketType": "spot"}}, "InvalidParameterValue|UnsupportedOperation"),
        ({"LaunchTemplate": {"LaunchTemplateName": "missing"}}, "InvalidLaunchTemplateName.NotFoundException"),
    ],
)
def test_what_cannot_be_launched_is_refused(cloud, name, settings, code):
    with pytest.raises(ClientError, match=code):
        run(cloud, name, **settings)
    assert found(cloud, Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]) == []


def pids(name):
    return sorted(process.pid for process in find_processes(name))


def test_instances_outlive_the_server(start, load, name):
    started = start()
    load(started, "busybox:latest")
    cloud = Cloud(started)
    cloud.ecs.create_cluster(clusterName=name)
    first, second = run(cloud, name, MinCount=2, MaxCount=2)
    members(cloud, name, 2)
    definition = define(cloud, name)
    request = {"cluster": name, "taskDefinition": definition, "placementConstraints": [{"type": "distinctInstance"}]}
    tasks = [task["taskArn"] for task in cloud.ecs.run_task(count=2, **request)["tasks"]]
    for task in tasks:
        until("the task runs", lambda task=task: cloud.task(name, task)["lastStatus"] == "RUNNING")
    before = pids(name)
    started.kill()
    started.start()
    members(cloud, name, 2)
    until("both run", lambda: {one["State"]["Name"] for one in found(cloud)} == {"running"})
    assert pids(name) == before, "the same processes go on"
    assert {cloud.task(name, task)["lastStatus"] for task in tasks} == {"RUNNING"}
    cloud.client("ec2").terminate_instances(InstanceIds=[first["InstanceId"]])
    until("one is gone", lambda: len(pids(name)) == len(before) // 2)
    assert [one["ec2InstanceId"] for one in members(cloud, name, 1)] == [second["InstanceId"]]
