"""Elastic Load Balancing as its API shows it: load balancers, target groups, listeners, rules, targets."""

import pytest

from support import server
from support.aws import Cloud, refused
from support.waiting import until


@pytest.fixture(scope="module")
def cloud():
    with server.running() as started:
        yield Cloud(started)


@pytest.fixture
def elb(cloud):
    return cloud.elbv2


@pytest.fixture
def short(name):
    """A name for what may have 32 letters."""
    return f"{name[:20].strip('-')}-{name[-6:]}"


@pytest.fixture
def balancer(cloud, elb, short):
    """The ARN of an application load balancer of the test's own."""
    made = elb.create_load_balancer(Name=short, Subnets=cloud.subnets[:2])["LoadBalancers"][0]["LoadBalancerArn"]
    yield made
    elb.delete_load_balancer(LoadBalancerArn=made)


@pytest.fixture
def network_balancer(cloud, elb, short):
    made = elb.create_load_balancer(Name=f"n-{short}"[:32].strip("-"), Type="network", Subnets=cloud.subnets[:1])
    arn = made["LoadBalancers"][0]["LoadBalancerArn"]
    yield arn
    elb.delete_load_balancer(LoadBalancerArn=arn)


@pytest.fixture
def vpc(cloud):
    return cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0]["VpcId"]


@pytest.fixture
def group(elb, vpc, short):
    """The ARN of a target group for addresses, of the test's own."""
    made = elb.create_target_group(Name=short, Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")
    return made["TargetGroups"][0]["TargetGroupArn"]


def forward(group):
    return [{"Type": "forward", "TargetGroupArn": group}]


def fixed(status="404"):
    return [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": status, "ContentType": "text/plain"}}]


def listen(elb, balancer, actions, port=80, protocol="HTTP", **settings):
    made = elb.create_listener(
        LoadBalancerArn=balancer, Port=port, Protocol=protocol, DefaultActions=actions, **settings
    )
    return made["Listeners"][0]["ListenerArn"]


def health(elb, group, *targets):
    wanted = {"Targets": list(targets)} if targets else {}
    found = elb.describe_target_health(TargetGroupArn=group, **wanted)["TargetHealthDescriptions"]
    return {each["Target"]["Id"]: each["TargetHealth"] for each in found}


def address_in(cloud, subnet, at=77):
    block = cloud.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["CidrBlock"]
    return f"{block.rpartition('.')[0]}.{at}"


def test_a_load_balancer_has_an_address_in_each_zone(cloud, elb, short):
    (made,) = elb.create_load_balancer(Name=short, Subnets=cloud.subnets[:2])["LoadBalancers"]
    arn = made["LoadBalancerArn"]
    assert made["State"]["Code"] == "provisioning"
    assert f"loadbalancer/app/{short}/" in arn
    assert made["DNSName"].startswith(f"{short}-") and made["DNSName"].endswith(".elb.amazonaws.com")
    assert made["SecurityGroups"] == [cloud.security_group]
    assert made["Scheme"] == "internet-facing" and made["IpAddressType"] == "ipv4"
    assert [zone["SubnetId"] for zone in made["AvailabilityZones"]] == cloud.subnets[:2]
    elb.get_waiter("load_balancer_available").wait(Names=[short])
    of_elb = [{"Name": "description", "Values": [f"ELB app/{short}/*"]}]
    interfaces = cloud.ec2.describe_network_interfaces(Filters=of_elb)["NetworkInterfaces"]
    assert sorted(each["SubnetId"] for each in interfaces) == sorted(cloud.subnets[:2])
    assert all([group["GroupId"] for group in each["Groups"]] == made["SecurityGroups"] for each in interfaces)
    elb.delete_load_balancer(LoadBalancerArn=arn)
    elb.get_waiter("load_balancers_deleted").wait(LoadBalancerArns=[arn])
    assert cloud.ec2.describe_network_interfaces(Filters=of_elb)["NetworkInterfaces"] == []
    elb.delete_load_balancer(LoadBalancerArn=arn)
    with refused("LoadBalancerNotFound", f"Load balancers '[{short}]' not found"):
        elb.describe_load_balancers(Names=[short])


def test_a_listener_sends_to_its_target_group(cloud, elb, balancer, group):
    listener = listen(elb, balancer, forward(group))
    (shown,) = elb.describe_listeners(ListenerArns=[listener])["Listeners"]
    (action,) = shown["DefaultActions"]
    assert (shown["Protocol"], shown["Port"], shown["LoadBalancerArn"]) == ("HTTP", 80, balancer)
    assert action["TargetGroupArn"] == group
    assert action["ForwardConfig"]["TargetGroups"] == [{"TargetGroupArn": group, "Weight": 1}]
    (used,) = elb.describe_target_groups(LoadBalancerArn=balancer)["TargetGroups"]
    assert used["LoadBalancerArns"] == [balancer]
    with refused("ResourceInUse", f"Target group '{group}' is currently in use by a listener or a rule"):
        elb.delete_target_group(TargetGroupArn=group)
    with refused("DuplicateListener"):
        listen(elb, balancer, fixed())
    elb.delete_listener(ListenerArn=listener)
    with refused("ListenerNotFound"):
        elb.describe_listeners(ListenerArns=[listener])
    elb.delete_target_group(TargetGroupArn=group)
    elb.delete_target_group(TargetGroupArn=group)
    with refused("TargetGroupNotFound", "One or more target groups not found"):
        elb.describe_target_groups(TargetGroupArns=[group])


def test_targets_come_and_go(cloud, elb, balancer, group):
    target = {"Id": address_in(cloud, cloud.subnets[0])}
    elb.register_targets(TargetGroupArn=group, Targets=[target])
    assert health(elb, group)[target["Id"]]["Reason"] == "Target.NotInUse"
    listen(elb, balancer, forward(group))
    assert health(elb, group)[target["Id"]]["State"] == "initial"
    elb.deregister_targets(TargetGroupArn=group, Targets=[target])
    assert health(elb, group)[target["Id"]] == {
        "State": "draining",
        "Reason": "Target.DeregistrationInProgress",
        "Description": "Target deregistration is in progress",
    }
    elb.register_targets(TargetGroupArn=group, Targets=[target])
    assert health(elb, group)[target["Id"]]["State"] == "initial"
    other = {"Id": "10.99.1.2"}
    assert health(elb, group, other)[other["Id"]]["Reason"] == "Target.NotRegistered"
