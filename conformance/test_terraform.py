"""Terraform's AWS provider, unmodified: what it makes is there, a second plan is empty, and nothing is left in the end."""

import ipaddress
import json
import random
import uuid

from support.dns import ask
from support.host import find_processes
from support.waiting import until


def test_a_service_by_terraform(terraform, cloud, name):
    terraform = terraform("service.tf", subnets=cloud.subnets[:2])
    terraform.apply(revision="one", desired=2)
    (service,) = cloud.ecs.describe_services(cluster=name, services=["app"])["services"]
    assert (service["runningCount"], service["desiredCount"]) == (2, 2)
    assert service["deploymentConfiguration"]["alarms"]["alarmNames"] == [name]
    (alarm,) = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    assert (alarm["Threshold"], alarm["AlarmDescription"]) == (2, "Too many errors")
    assert first_processes(f"{name}-one") == 2
    terraform.apply(revision="two", desired=3)
    (service,) = cloud.ecs.describe_services(cluster=name, services=["app"])["services"]
    assert (service["runningCount"], len(service["deployments"])) == (3, 1)
    until("only new tasks run", lambda: first_processes(f"{name}-one") == 0 and first_processes(f"{name}-two") == 3)
    status, said = terraform.run("destroy", "-auto-approve", revision="two", desired=3)
    assert status == 0, said
    assert first_processes(f"{name}-two") == 0
    (cluster,) = cloud.ecs.describe_clusters(clusters=[name])["clusters"]
    assert cluster["status"] == "INACTIVE"
    assert cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"] == []


def test_a_network_by_terraform(terraform, cloud, name):
    block = f"10.{random.randrange(1, 64)}.0.0/16"
    terraform = terraform("network.tf", block=block)
    terraform.apply()
    of_name = [{"Name": "tag:Name", "Values": [name]}]
    (vpc,) = cloud.ec2.describe_vpcs(Filters=of_name)["Vpcs"]
    assert vpc["CidrBlock"] == block
    of_vpc = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]

    def rules():
        groups = cloud.ec2.describe_security_groups(Filters=of_vpc)["SecurityGroups"]
        (group,) = [group for group in groups if group["GroupName"] == "tasks"]
        return {(rule["FromPort"], len(rule["UserIdGroupPairs"])) for rule in group["IpPermissions"]}

    assert rules() == {(80, 1)}
    public = [{"Name": "map-public-ip-on-launch", "Values": ["true"]}, *of_vpc]
    assert len(cloud.ec2.describe_subnets(Filters=public)["Subnets"]) == 2
    terraform.apply(port=8080)
    assert rules() == {(8080, 1)}
    status, said = terraform.run("destroy", "-auto-approve", port=8080)
    assert status == 0, said
    assert cloud.ec2.describe_vpcs(Filters=of_name)["Vpcs"] == []


def test_load_balancers_by_terraform(terraform, cloud, name):
    subnets = cloud.ec2.describe_subnets(SubnetIds=cloud.subnets[:2])["Subnets"]
    subnets.sort(key=lambda subnet: subnet["AvailabilityZone"])
    short = uuid.uuid4().hex[:12]
    variables = {
        "name": short,
        "subnets": [subnet["SubnetId"] for subnet in subnets],
        "vpc": subnets[0]["VpcId"],
        "target": str(ipaddress.ip_network(subnets[0]["CidrBlock"])[2000]),
    }
    terraform = terraform("load_balancer.tf", **variables)
    terraform.apply()
    elb = cloud.elbv2
    (balancer,) = elb.describe_load_balancers(Names=[short])["LoadBalancers"]
    (listener,) = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]

    def weights():
        (default,) = elb.describe_listeners(ListenerArns=[listener["ListenerArn"]])["Listeners"][0]["DefaultActions"]
        return sorted(group["Weight"] for group in default["ForwardConfig"]["TargetGroups"])

    assert weights() == [10, 90]
    rules = elb.describe_rules(ListenerArn=listener["ListenerArn"])["Rules"]
    assert [rule["Priority"] for rule in rules][0] == "10" and len(rules) == 4
    terraform.apply(weight=30, idle=90, path="/up")
    assert weights() == [30, 70]
    (blue,) = elb.describe_target_groups(Names=[f"b{short}"])["TargetGroups"]
    assert blue["HealthCheckPath"] == "/up"
    status, said = terraform.run("destroy", "-auto-approve")
    assert status == 0, said
    names = {group["TargetGroupName"] for group in elb.describe_target_groups()["TargetGroups"]}
    assert not names & {f"{letter}{short}" for letter in "bgt"}


def test_service_discovery_by_terraform(terraform, cloud, name):
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    terraform = terraform("discovery.tf", subnets=cloud.subnets[:1], vpc=vpc["VpcId"])
    terraform.apply()
    resolver = str(ipaddress.ip_network(vpc["CidrBlock"])[2])
    answers = ask(resolver, f"api.{name}.internal").answers
    assert [record.ttl for record in answers] == [10, 10]
    discovery = cloud.client("servicediscovery")
    (instance,) = discovery.discover_instances(NamespaceName=name, ServiceName="db")["Instances"]
    assert instance["Attributes"]["role"] == "primary"
    terraform.apply(ttl=20, team="blue")
    assert {record.ttl for record in ask(resolver, f"api.{name}.internal").answers} == {20}
    status, said = terraform.run("destroy", "-auto-approve", ttl=20, team="blue")
    assert status == 0, said
    left = [one["Name"] for one in discovery.list_namespaces()["Namespaces"]]
    assert not [one for one in left if one.startswith(name)]


def first_processes(marker):
    return len([process for process in find_processes(marker) if process.pid_inside() == 1])


def test_secrets_by_terraform(terraform, cloud, name):
    terraform = terraform("secrets.tf")
    secrets, ssm = cloud.client("secretsmanager"), cloud.client("ssm")
    for word in ("one", "two"):
        terraform.apply(word=word)
        assert json.loads(secrets.get_secret_value(SecretId=name)["SecretString"]) == {"password": word}
        found = ssm.get_parameters_by_path(Path=f"/{name}", WithDecryption=True)["Parameters"]
        assert [parameter["Value"] for parameter in found] == [f"{word}.example", word]
    status, said = terraform.run("destroy", "-auto-approve", word="two")
    assert status == 0, said
    assert secrets.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"] == []
    assert ssm.get_parameters_by_path(Path=f"/{name}")["Parameters"] == []


def test_auto_scaling_by_terraform(terraform, cloud, name):
    terraform = terraform("auto_scaling.tf", subnets=cloud.subnets[:2])
    asg = cloud.client("autoscaling")

    def members():
        return cloud.ecs.list_container_instances(cluster=name)["containerInstanceArns"]

    terraform.apply()
    until("the group's instance joined", lambda: len(members()) == 1)
    (instance,) = asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]["Instances"]
    assert instance["ProtectedFromScaleIn"] is True
    (provider,) = cloud.ecs.describe_capacity_providers(capacityProviders=[name])["capacityProviders"]
    assert provider["autoScalingGroupProvider"]["managedScaling"]["maximumScalingStepSize"] == 2
    terraform.apply(target=80, team="blue")
    (provider,) = cloud.ecs.describe_capacity_providers(capacityProviders=[name])["capacityProviders"]
    assert provider["autoScalingGroupProvider"]["managedScaling"]["targetCapacity"] == 80
    latest = cloud.ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Latest"])
    assert latest["LaunchTemplateVersions"][0]["VersionNumber"] == 2, "its tags of instances are a version of their own"
    status, said = terraform.run("destroy", "-auto-approve")
    assert status == 0, said
    assert asg.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"] == []
