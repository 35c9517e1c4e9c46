"""Auto Scaling groups, and the capacity providers of ECS that scale them by what tasks need."""

import base64

import pytest
from botocore.exceptions import ClientError

from support import server
from support.aws import Cloud, idle
from support.services import clear
from support.waiting import until

IMAGE = "ami-0c55b159cbfafe1f0"
SCALE_IN = "2s"


@pytest.fixture(scope="module")
def cloud(load):
    with server.running("--scale-in-after", SCALE_IN) as started:
        load(started, "busybox:latest")
        yield Cloud(started)


@pytest.fixture
def asg(cloud):
    return cloud.client("autoscaling")


@pytest.fixture
def template(cloud, name):
    """A launch template whose instances join the cluster of the test's name."""
    user_data = f"#!/bin/bash\necho ECS_CLUSTER={name} >> /etc/ecs/ecs.config\n"
    data = {
        "ImageId": IMAGE,
        "InstanceType": "t3.micro",
        "UserData": base64.b64encode(user_data.encode()).decode(),
    }
    cloud.cluster(name)
    made = cloud.ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    yield made["LaunchTemplate"]["LaunchTemplateId"]
    cloud.ec2.delete_launch_template(LaunchTemplateName=name)


@pytest.fixture
def group(cloud, asg, name, template):
    """Makes the test's group; it is gone at the end, with its instances."""

    def make(**settings):
        request = {
            "AutoScalingGroupName": name,
            "MinSize": 0,
            "MaxSize": 4,
            "LaunchTemplate": {"LaunchTemplateId": template, "Version": "$Latest"},
            "VPCZoneIdentifier": ",".join(cloud.subnets),
        }
        asg.create_auto_scaling_group(**request | settings)
        return described(asg, name)

    yield make
    if described(asg, name):
        asg.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        until("the group is gone", lambda: not described(asg, name), deadline=60)


@pytest.fixture
def provider(cloud, name, group):
    """Makes the test's capacity provider, the only one of its cluster."""

    def make(termination_protection="DISABLED", draining="ENABLED", **scaling):
        managed = {"status": "ENABLED", "targetCapacity": 100, "instanceWarmupPeriod": 0} | scaling
        made = cloud.ecs.create_capacity_provider(
            name=name,
            autoScalingGroupProvider={
                "autoScalingGroupArn": group(NewInstancesProtectedFromScaleIn=termination_protection == "ENABLED")[
                    "AutoScalingGroupARN"
                ],
                "managedScaling": managed,
                "managedTerminationProtection": termination_protection,
                "managedDraining": draining,
            },
        )["capacityProvider"]
        associate(cloud, name, [name])
        return made

    yield make
    clear(cloud, name)
    associate(cloud, name, [])
    cloud.ecs.delete_capacity_provider(capacityProvider=name)


def associate(cloud, cluster, names):
    strategy = [{"capacityProvider": name, "weight": 1} for name in names]
    cloud.ecs.put_cluster_capacity_providers(
        cluster=cluster, capacityProviders=names, defaultCapacityProviderStrategy=strategy
    )


def described(asg, name):
    found = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return found[0] if found else None


def in_service(asg, name, count):
    def check():
        instances = described(asg, name)["Instances"]
        ready = [one for one in instances if one["LifecycleState"] == "InService"]
        return instances if len(instances) == len(ready) == count else None

    return until(f"{name} has {count} instances", check, deadline=60) if count else until(
        f"{name} is empty", lambda: described(asg, name)["Instances"] == [], deadline=60
    )


def define(cloud, family, memory=400, **settings):
    container = {"name": "main", "image": "busybox:latest", "memory": memory, "command": idle(family)} | settings
    made = cloud.ecs.register_task_definition(family=family, containerDefinitions=[container])
    return f"{family}:{made['taskDefinition']['revision']}"


def test_a_group_keeps_as_many_instances_as_are_desired(cloud, asg, name, group):
    made = group(DesiredCapacity=2, Tags=[{"Key": "team", "Value": "red", "PropagateAtLaunch": True}])
    assert made["AvailabilityZones"] and made["DesiredCapacity"] == 2
    instances = in_service(asg, name, 2)
    assert len({one["AvailabilityZone"] for one in instances}) == 2, "spread over the zones"
    until("both joined", lambda: len(cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"]) == 2)
    ids = [one["InstanceId"] for one in instances]
    (reservation, *_) = cloud.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    tags = {tag["Key"]: tag["Value"] for tag in reservation["Instances"][0]["Tags"]}
    assert tags["team"] == "red" and tags["aws:autoscaling:groupName"] == name

    cloud.ec2.terminate_instances(InstanceIds=ids[:1])

    def replaced():
        now = [one["InstanceId"] for one in described(asg, name)["Instances"] if one["LifecycleState"] == "InService"]
        return len(now) == 2 and ids[0] not in now and now

    kept = until("another took its place", replaced, deadline=60)
    assert ids[1] in kept
    asg.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)
    in_service(asg, name, 1)
    activities = asg.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
    until("all is done", lambda: all(
        one["StatusCode"] == "Successful"
        for one in asg.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
    ))
    assert len(activities) == 4
    assert activities[0]["Description"].startswith("Terminating EC2 instance: i-")
    assert activities[-1]["Cause"].endswith("increasing the capacity from 0 to 2.")

    with pytest.raises(ClientError, match="ResourceInUse"):
        asg.delete_auto_scaling_group(AutoScalingGroupName=name)
    with pytest.raises(ClientError, match="ValidationError.*must be below or equal to max size"):
        asg.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=9)
    with pytest.raises(ClientError, match="AlreadyExists"):
        group()
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        cloud.ec2.delete_launch_template(LaunchTemplateName=name)


def test_protected_instances_stay(asg, name, group):
    group(DesiredCapacity=2)
    ids = [one["InstanceId"] for one in in_service(asg, name, 2)]
    asg.set_instance_protection(AutoScalingGroupName=name, InstanceIds=ids[:1], ProtectedFromScaleIn=True)
    asg.update_auto_scaling_group(AutoScalingGroupName=name, DesiredCapacity=0)
    (left,) = in_service(asg, name, 1)
    assert left["InstanceId"] == ids[0] and left["ProtectedFromScaleIn"] is True
    ended = asg.terminate_instance_in_auto_scaling_group(InstanceId=ids[0], ShouldDecrementDesiredCapacity=False)
    assert ended["Activity"]["StatusCode"] == "InProgress"
    in_service(asg, name, 0)


def test_a_launch_that_fails_is_told_and_tried_again(cloud, asg, name, template, group):
    cloud.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"InstanceType": "p4d.24xlarge"}
    )
    group(DesiredCapacity=1)

    def failed():
        found = asg.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
        return found and found[0]["StatusCode"] == "Failed" and found[0]

    assert "p4d.24xlarge" in until("the launch failed", failed)["StatusMessage"]
    asg.update_auto_scaling_group(
        AutoScalingGroupName=name, LaunchTemplate={"LaunchTemplateId": template, "Version": "1"}
    )
    in_service(asg, name, 1)


def test_tasks_wait_for_the_instances_that_are_launched_for_them(cloud, asg, name, provider):
    made = provider()
    assert made["status"] == "ACTIVE" and made["type"] == "EC2_AUTOSCALING"
    definition = define(cloud, name)
    started = cloud.ecs.run_task(cluster=name, taskDefinition=definition, count=4)
    assert started["failures"] == []
    assert {task["lastStatus"] for task in started["tasks"]} == {"PROVISIONING"}
    assert all("containerInstanceArn" not in task for task in started["tasks"])
    arns = [task["taskArn"] for task in started["tasks"]]
    for arn in arns:
        cloud.until_running(name, arn)
    assert len(in_service(asg, name, 2)) == 2, "two tasks fit on an instance"
    tasks = cloud.ecs.describe_tasks(cluster=name, tasks=arns)["tasks"]
    assert {(task["capacityProviderName"], task["launchType"]) for task in tasks} == {(name, "EC2")}
    instances = cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"]
    shown = cloud.ecs.describe_container_instances(cluster=name, containerInstances=instances)["containerInstances"]
    assert {one["capacityProviderName"] for one in shown} == {name}
    metrics = cloud.client("cloudwatch")
    dimensions = [{"Name": "ClusterName", "Value": name}, {"Name": "CapacityProviderName", "Value": name}]
    until("it is measured", lambda: metrics.list_metrics(
        Namespace="AWS/ECS/ManagedScaling", MetricName="CapacityProviderReservation", Dimensions=dimensions
    )["Metrics"])
    for arn in arns:
        cloud.ecs.stop_task(cluster=name, task=arn)
    in_service(asg, name, 0)


def test_a_task_that_waits_can_be_stopped(cloud, asg, name, provider):
    provider()
    (task,) = cloud.ecs.run_task(cluster=name, taskDefinition=define(cloud, name, memory=4000))["tasks"]
    assert cloud.task(name, task["taskArn"])["lastStatus"] == "PROVISIONING"
    stopped = cloud.ecs.stop_task(cluster=name, task=task["taskArn"])["task"]
    assert (stopped["lastStatus"], stopped["stopCode"]) == ("STOPPED", "UserInitiated")
    assert described(asg, name)["DesiredCapacity"] == 0, "no instance of the type could take it"


def test_a_service_scales_its_instances_and_drains_them(cloud, asg, name, provider):
    provider()
    definition = define(cloud, name)
    cloud.ecs.create_service(cluster=name, serviceName="web", taskDefinition=definition, desiredCount=3)

    def count():
        (service,) = cloud.ecs.describe_services(cluster=name, services=["web"])["services"]
        return service["runningCount"]

    until("three run", lambda: count() == 3, deadline=60)
    in_service(asg, name, 2)
    cloud.ecs.update_service(cluster=name, service="web", desiredCount=1)
    until("one is left", lambda: count() == 1)
    in_service(asg, name, 1)
    assert count() == 1
    # An instance that is taken away gives its tasks to the others first.
    cloud.ecs.update_service(cluster=name, service="web", desiredCount=4)
    until("four run", lambda: count() == 4, deadline=60)
    in_service(asg, name, 2)
    asg.update_auto_scaling_group(AutoScalingGroupName=name, MaxSize=1, DesiredCapacity=1)

    def drains():
        return any(one["LifecycleState"] == "Terminating:Wait" for one in described(asg, name)["Instances"])

    until("one drains", drains)
    draining = cloud.ecs.list_container_instances(cluster=name, status="DRAINING")["containerInstanceArns"]
    assert len(draining) == 1


def test_instances_with_tasks_are_protected(cloud, asg, name, provider):
    provider(termination_protection="ENABLED", draining="DISABLED")
    definition = define(cloud, name, memory=600)
    tasks = [task["taskArn"] for task in cloud.ecs.run_task(cluster=name, taskDefinition=definition, count=3)["tasks"]]
    for task in tasks:
        cloud.until_running(name, task)
    instances = in_service(asg, name, 3)
    assert {one["ProtectedFromScaleIn"] for one in instances} == {True}
    kept = cloud.task(name, tasks[1])["containerInstanceArn"]
    for task in tasks[:1] + tasks[2:]:
        cloud.ecs.stop_task(cluster=name, task=task)
    in_service(asg, name, 1)
    assert cloud.task(name, tasks[1])["lastStatus"] == "RUNNING"
    assert cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"] == [kept]


def test_providers_are_updated_and_deleted(cloud, asg, name, provider, group):
    made = provider(targetCapacity=80)
    again = {"autoScalingGroupArn": made["autoScalingGroupProvider"]["autoScalingGroupArn"]}
    with pytest.raises(ClientError, match="ClientException.*already exists"):
        cloud.ecs.create_capacity_provider(name=name, autoScalingGroupProvider=again)
    with pytest.raises(ClientError, match="already being used by another capacity provider"):
        cloud.ecs.create_capacity_provider(name=f"{name}-2", autoScalingGroupProvider=again)
    for wrong in ("aws-own", "fargate-mine", "with space"):
        with pytest.raises(ClientError, match="capacity provider name is invalid"):
            cloud.ecs.create_capacity_provider(name=wrong, autoScalingGroupProvider=again)
    updated = cloud.ecs.update_capacity_provider(
        name=name, autoScalingGroupProvider={"managedScaling": {"targetCapacity": 50}, "managedDraining": "DISABLED"}
    )["capacityProvider"]
    assert updated["updateStatus"] == "UPDATE_COMPLETE"
    scaling = updated["autoScalingGroupProvider"]["managedScaling"]
    assert (scaling["status"], scaling["targetCapacity"], scaling["maximumScalingStepSize"]) == ("ENABLED", 50, 10000)
    assert updated["autoScalingGroupProvider"]["managedDraining"] == "DISABLED"
    with pytest.raises(ClientError, match="instance protection from scale in enabled"):
        protection = {"managedTerminationProtection": "ENABLED"}
        cloud.ecs.update_capacity_provider(name=name, autoScalingGroupProvider=protection)
    with pytest.raises(ClientError, match="associated with cluster"):
        cloud.ecs.delete_capacity_provider(capacityProvider=name)
    cloud.ecs.create_service(
        cluster=name, serviceName="web", taskDefinition=define(cloud, f"{name}-web"), desiredCount=0
    )
    with pytest.raises(ClientError, match="ResourceInUseException.*in use and cannot be removed"):
        associate(cloud, name, [])
    with pytest.raises(ClientError, match="cannot contain a mix"):
        associate(cloud, name, [name, "FARGATE"])
        cloud.ecs.run_task(cluster=name, taskDefinition=define(cloud, name))
    associate(cloud, name, [name])
    with pytest.raises(ClientError, match="not found"):
        associate(cloud, name, [name, "missing"])
    cloud.ecs.tag_resource(resourceArn=made["capacityProviderArn"], tags=[{"key": "team", "value": "red"}])
    (shown,) = cloud.ecs.describe_capacity_providers(capacityProviders=[name], include=["TAGS"])["capacityProviders"]
    assert shown["tags"] == [{"key": "team", "value": "red"}]
