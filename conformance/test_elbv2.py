"""Elastic Load Balancing as its API shows it: load balancers, target groups, listeners, rules, targets."""

import pytest

from support import server
from support.aws import Cloud, refused
from support.waiting import until


@pytest.fixture(scope="module")
def cloud():
    with server.running() as started:
        yield Cloud(started)


@pytest.fixture(scope="module")
def elb(cloud):
    """A client that leaves it to the server to find what is wrong with a request."""
    return cloud.client("elbv2", config={"parameter_validation": False})


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
    unused = health(elb, group)[target["Id"]]
    assert (unused["State"], unused["Reason"]) == ("unused", "Target.NotInUse")
    assert unused["Description"] == "Target group is not configured to receive traffic from the load balancer"
    listen(elb, balancer, forward(group))
    assert health(elb, group)[target["Id"]]["State"] in ("initial", "unhealthy")
    elb.deregister_targets(TargetGroupArn=group, Targets=[target])
    draining = {
        "State": "draining",
        "Reason": "Target.DeregistrationInProgress",
        "Description": "Target deregistration is in progress",
    }
    # It has no requests to wait for, so that it may be gone already.
    assert health(elb, group).get(target["Id"], draining) == draining
    elb.register_targets(TargetGroupArn=group, Targets=[target])
    assert health(elb, group)[target["Id"]]["State"] in ("initial", "unhealthy")
    other = {"Id": "10.99.1.2"}
    assert health(elb, group, other)[other["Id"]]["Reason"] == "Target.NotRegistered"
    elb.deregister_targets(TargetGroupArn=group, Targets=[other])


def test_a_drained_target_goes(cloud, elb, balancer, group):
    elb.modify_target_group_attributes(
        TargetGroupArn=group, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "0"}]
    )
    listen(elb, balancer, forward(group))
    target = {"Id": address_in(cloud, cloud.subnets[0]), "Port": 8080}
    elb.register_targets(TargetGroupArn=group, Targets=[target])
    elb.deregister_targets(TargetGroupArn=group, Targets=[target])
    until("the target is gone", lambda: not health(elb, group))
    elb.get_waiter("target_deregistered").wait(TargetGroupArn=group, Targets=[target])
    assert health(elb, group) == {}


def test_targets_are_addresses_that_the_group_may_reach(cloud, elb, group, vpc, short):
    with refused("ValidationError", "is not a valid IPv4 address"):
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "i-0123456789abcdef0"}])
    with refused("InvalidTarget", "publicly routable"):
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "8.8.8.8", "AvailabilityZone": "all"}])
    with refused("ValidationError", "outside of the VPC"):
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "10.99.1.2"}])
    inside = address_in(cloud, cloud.subnets[1])
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "10.99.1.2", "AvailabilityZone": "all"}, {"Id": inside}])
    shown = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
    zones = {each["Target"]["Id"]: each["Target"]["AvailabilityZone"] for each in shown}
    assert zones == {"10.99.1.2": "all", inside: f"{cloud.region}b"}
    by_instance = elb.create_target_group(Name=f"i{short}"[:32], Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]
    assert by_instance["TargetType"] == "instance"
    with refused("InvalidTarget"):
        elb.register_targets(TargetGroupArn=by_instance["TargetGroupArn"], Targets=[{"Id": "i-0123456789abcdef0"}])


def test_a_load_balancer_is_made_once(cloud, elb, balancer, short):
    again = elb.create_load_balancer(Name=short, Subnets=cloud.subnets[:2], SecurityGroups=[cloud.security_group])
    assert again["LoadBalancers"][0]["LoadBalancerArn"] == balancer
    assert again["LoadBalancers"][0]["State"]["Code"] == "active"
    for other in (
        {"Subnets": cloud.subnets[1:3]},
        {"Subnets": cloud.subnets[:2], "Scheme": "internal"},
        {"Subnets": cloud.subnets[:2], "Tags": [{"Key": "a", "Value": "b"}]},
        {"Subnets": cloud.subnets[:2], "Type": "network"},
    ):
        with refused("DuplicateLoadBalancerName", f"A load balancer with the same name '{short}' exists, but with"):
            elb.create_load_balancer(Name=short, **other)


def test_load_balancers_that_cannot_be(cloud, elb, short):
    subnets = cloud.subnets
    own = cloud.ec2.create_vpc(CidrBlock="10.77.0.0/16")["Vpc"]["VpcId"]
    a = cloud.ec2.create_subnet(VpcId=own, CidrBlock="10.77.1.0/24", AvailabilityZone=f"{cloud.region}a")["Subnet"]
    b = cloud.ec2.create_subnet(VpcId=own, CidrBlock="10.77.2.0/24", AvailabilityZone=f"{cloud.region}b")["Subnet"]
    c = cloud.ec2.create_subnet(VpcId=own, CidrBlock="10.77.3.0/24", AvailabilityZone=f"{cloud.region}b")["Subnet"]
    ids = [subnet["SubnetId"] for subnet in (a, b, c)]
    cases = [
        ("ValidationError", "At least two subnets in two different Availability Zones", {"Subnets": subnets[:1]}),
        ("ValidationError", "At least two subnets", {}),
        ("SubnetNotFound", "The subnet ID 'subnet-0' does not exist", {"Subnets": [subnets[0], "subnet-0"]}),
        ("InvalidConfigurationRequest", "multiple subnets in the same Availability Zone", {"Subnets": ids}),
        ("InvalidConfigurationRequest", "same VPC", {"Subnets": [subnets[0], ids[1]]}),
        ("InvalidSubnet", f"VPC {own} has no internet gateway", {"Subnets": ids[:2]}),
        (
            "InvalidConfigurationRequest",
            "One or more security groups are invalid",
            {"Subnets": ids[:2], "Scheme": "internal", "SecurityGroups": [cloud.security_group]},
        ),
        ("ValidationError", "not supported by Longshore", {"Subnets": subnets[:2], "IpAddressType": "dualstack"}),
        ("ValidationError", "not supported by Longshore", {"Subnets": subnets[:2], "Type": "gateway"}),
        (
            "ValidationError",
            "AllocationId is not supported by Longshore",
            {"SubnetMappings": [{"SubnetId": subnets[0], "AllocationId": "eipalloc-1"}], "Type": "network"},
        ),
    ]
    for code, message, request in cases:
        with refused(code, message):
            elb.create_load_balancer(Name=short, **request)
    for name in ("-a", "a_b", "internal-a", "a" * 33):
        with refused("ValidationError", name):
            elb.create_load_balancer(Name=name, Subnets=subnets[:2])
    for subnet in ids:
        cloud.ec2.delete_subnet(SubnetId=subnet)
    cloud.ec2.delete_vpc(VpcId=own)


def test_what_a_load_balancer_uses_is_not_deleted(cloud, elb, vpc, short):
    ec2 = cloud.ec2
    group = ec2.create_security_group(GroupName=short, Description="for tests", VpcId=vpc)["GroupId"]
    made = elb.create_load_balancer(Name=short, Subnets=cloud.subnets[:2], SecurityGroups=[group])
    arn = made["LoadBalancers"][0]["LoadBalancerArn"]
    with refused("DependencyViolation"):
        ec2.delete_security_group(GroupId=group)
    with refused("DependencyViolation"):
        ec2.delete_subnet(SubnetId=cloud.subnets[0])
    set_to = elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=[cloud.security_group])
    assert set_to["SecurityGroupIds"] == [cloud.security_group]
    ec2.delete_security_group(GroupId=group)
    moved = elb.set_subnets(LoadBalancerArn=arn, Subnets=cloud.subnets[1:3])["AvailabilityZones"]
    assert [zone["SubnetId"] for zone in moved] == cloud.subnets[1:3]
    of_elb = [{"Name": "description", "Values": [f"ELB app/{short}/*"]}]
    interfaces = ec2.describe_network_interfaces(Filters=of_elb)["NetworkInterfaces"]
    assert {each["SubnetId"] for each in interfaces} == set(cloud.subnets[1:3])
    assert {each["Groups"][0]["GroupId"] for each in interfaces} == {cloud.security_group}
    with refused("ValidationError", "At least two subnets"):
        elb.set_subnets(LoadBalancerArn=arn, Subnets=cloud.subnets[:1])
    assert elb.set_ip_address_type(LoadBalancerArn=arn, IpAddressType="ipv4")["IpAddressType"] == "ipv4"
    with refused("ValidationError", "not supported by Longshore"):
        elb.set_ip_address_type(LoadBalancerArn=arn, IpAddressType="dualstack")
    elb.delete_load_balancer(LoadBalancerArn=arn)


def test_a_network_load_balancer_takes_the_address_that_it_is_given(cloud, elb, short):
    subnet = cloud.subnets[0]
    wanted = address_in(cloud, subnet, 99)
    mapping = {"SubnetId": subnet, "PrivateIPv4Address": wanted}
    made = elb.create_load_balancer(Name=short, Type="network", Scheme="internal", SubnetMappings=[mapping])
    (made,) = made["LoadBalancers"]
    (zone,) = made["AvailabilityZones"]
    assert zone["LoadBalancerAddresses"] == [{"PrivateIPv4Address": wanted}]
    assert "SecurityGroups" not in made
    assert made["DNSName"].startswith(f"{short}-") and ".elb." in made["DNSName"]
    with refused("InvalidConfigurationRequest", "already in use"):
        elb.create_load_balancer(Name=f"{short[:30]}-2", Type="network", Scheme="internal", SubnetMappings=[mapping])
    with refused("InvalidConfigurationRequest", "internal network load balancers"):
        elb.create_load_balancer(Name=f"{short[:30]}-2", Type="network", SubnetMappings=[mapping])
    with refused("InvalidConfigurationRequest", "created without any"):
        elb.set_security_groups(LoadBalancerArn=made["LoadBalancerArn"], SecurityGroups=[cloud.security_group])
    elb.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])


CHECKS = {
    "HTTP": ("HTTP", 30, 5, 5, 2, "/", {"HttpCode": "200"}),
    "HTTPS": ("HTTP", 30, 5, 5, 2, "/", {"HttpCode": "200"}),
    "TCP": ("TCP", 30, 10, 5, 2, None, None),
    "TLS": ("TCP", 30, 10, 5, 2, None, None),
    "UDP": ("TCP", 30, 10, 5, 2, None, None),
    "TCP_UDP": ("TCP", 30, 10, 5, 2, None, None),
}


@pytest.mark.parametrize("protocol", CHECKS)
def test_health_checks_have_the_defaults_of_their_protocol(elb, vpc, short, protocol):
    made = elb.create_target_group(Name=short, Protocol=protocol, Port=80, VpcId=vpc, TargetType="ip")
    (made,) = made["TargetGroups"]
    keys = (
        *("HealthCheckProtocol", "HealthCheckIntervalSeconds", "HealthCheckTimeoutSeconds", "HealthyThresholdCount"),
        *("UnhealthyThresholdCount", "HealthCheckPath", "Matcher"),
    )
    assert tuple(made.get(key) for key in keys) == CHECKS[protocol]
    assert made["HealthCheckPort"] == "traffic-port" and made["HealthCheckEnabled"] is True
    assert made.get("ProtocolVersion") == ("HTTP1" if protocol.startswith("HTTP") else None)
    assert made["IpAddressType"] == "ipv4" and made["LoadBalancerArns"] == []
    elb.delete_target_group(TargetGroupArn=made["TargetGroupArn"])


def test_health_checks_that_cannot_be(elb, vpc, short):
    base = {"Name": short, "Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"}
    tcp = {"Protocol": "TCP"}
    cases = [
        ("timeout '30' must be smaller than the interval '30'", {"HealthCheckTimeoutSeconds": 30}),
        ("smaller than or equal", tcp | {"HealthCheckTimeoutSeconds": 31}),
        ("must begin with a '/'", {"HealthCheckPath": "health"}),
        ("'500' must be within '200-499'", {"Matcher": {"HttpCode": "500"}}),
        ("'200-' must be within", {"Matcher": {"HttpCode": "200-"}}),
        ("'299-200' must be within", {"Matcher": {"HttpCode": "299-200"}}),
        ("GRPC", {"Matcher": {"GrpcCode": "0"}}),
        ("GRPC code '100' must be", {"ProtocolVersion": "GRPC", "Matcher": {"GrpcCode": "100"}}),
        ("path cannot be specified", tcp | {"HealthCheckPath": "/"}),
        ("protocol 'TCP' is not supported", {"HealthCheckProtocol": "TCP"}),
        ("must be one of 'HTTP, HTTPS, TCP'", tcp | {"HealthCheckProtocol": "UDP"}),
        ("port '0' must be", {"HealthCheckPort": "0"}),
        ("must be true", {"HealthCheckEnabled": False}),
        ("Protocol version", tcp | {"ProtocolVersion": "HTTP2"}),
        ("must be one of 'GRPC, HTTP1, HTTP2'", {"ProtocolVersion": "HTTP9"}),
        ("'healthCheckIntervalSeconds'", {"HealthCheckIntervalSeconds": 4}),
        ("not supported by Longshore", {"TargetType": "lambda"}),
        ("not supported by Longshore", {"TargetType": "alb", "Protocol": "TCP"}),
        ("not supported by Longshore", {"Protocol": "GENEVE"}),
        ("not supported by Longshore", {"IpAddressType": "ipv6"}),
        ("The VPC ID 'vpc-0' is not found", {"VpcId": "vpc-0"}),
        ("cannot begin or end with '-'", {"Name": "-a"}),
    ]
    for message, request in cases:
        with refused("ValidationError", message):
            elb.create_target_group(**(base | request))
    for left_out, message in (("Port", "A port"), ("Protocol", "A protocol"), ("VpcId", "A VPC ID")):
        with refused("ValidationError", f"{message} must be specified"):
            elb.create_target_group(**{key: value for key, value in base.items() if key != left_out})


def test_a_target_group_is_made_once_and_its_check_can_change(elb, group, vpc, short):
    base = {"Name": short, "Protocol": "HTTP", "Port": 80, "VpcId": vpc, "TargetType": "ip"}
    assert elb.create_target_group(**base)["TargetGroups"][0]["TargetGroupArn"] == group
    with refused("DuplicateTargetGroupName", f"A target group with the same name '{short}' exists, but with"):
        elb.create_target_group(**(base | {"Port": 81}))
    changed = elb.modify_target_group(
        TargetGroupArn=group, HealthCheckPath="/up", Matcher={"HttpCode": "200,204-299"}, HealthCheckPort="81"
    )
    (changed,) = changed["TargetGroups"]
    assert (changed["HealthCheckPath"], changed["HealthCheckPort"]) == ("/up", "81")
    assert (changed["Matcher"], changed["HealthCheckIntervalSeconds"]) == ({"HttpCode": "200,204-299"}, 30)
    assert elb.describe_target_groups(Names=[short])["TargetGroups"] == [changed]
    grpc = elb.create_target_group(**(base | {"Name": f"g{short}"[:32], "ProtocolVersion": "GRPC"}))
    assert grpc["TargetGroups"][0]["Matcher"] == {"GrpcCode": "12"}
    assert grpc["TargetGroups"][0]["HealthCheckPath"] == "/AWS.ALB/healthcheck"


def test_actions_come_back_whole(elb, balancer, group, vpc, short):
    made = elb.create_target_group(Name=f"b{short}"[:32], Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")
    other = made["TargetGroups"][0]["TargetGroupArn"]
    weighted = {
        "TargetGroups": [{"TargetGroupArn": group, "Weight": 9}, {"TargetGroupArn": other, "Weight": 0}],
        "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60},
    }
    listener = listen(elb, balancer, [{"Type": "forward", "Order": 7, "ForwardConfig": weighted}])
    (shown,) = elb.describe_listeners(LoadBalancerArn=balancer)["Listeners"]
    assert shown["DefaultActions"] == [{"Type": "forward", "Order": 7, "ForwardConfig": weighted}]
    redirect = {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}
    changed = elb.modify_listener(ListenerArn=listener, Port=81, DefaultActions=[redirect])["Listeners"][0]
    whole = redirect["RedirectConfig"] | {"Host": "#{host}", "Path": "/#{path}", "Query": "#{query}"}
    assert changed["DefaultActions"] == [{"Type": "redirect", "RedirectConfig": whole}]
    assert (changed["ListenerArn"], changed["Port"]) == (listener, 81)
    (default,) = elb.describe_rules(ListenerArn=listener)["Rules"]
    assert (default["Priority"], default["IsDefault"], default["Conditions"]) == ("default", True, [])
    assert default["Actions"] == changed["DefaultActions"]
    for group in (group, other):
        elb.delete_target_group(TargetGroupArn=group)


def test_actions_that_cannot_be(cloud, elb, balancer, network_balancer, group, vpc, short):
    def tried(code, message, actions, to=balancer, **settings):
        with refused(code, message):
            listen(elb, to, actions, **settings)

    made = elb.create_target_group(Name=f"t{short}"[:32], Protocol="TCP", Port=80, VpcId=vpc, TargetType="ip")
    tcp = made["TargetGroups"][0]["TargetGroupArn"]
    grpc = elb.create_target_group(
        Name=f"g{short}"[:32], Protocol="HTTP", ProtocolVersion="GRPC", Port=80, VpcId=vpc, TargetType="ip"
    )["TargetGroups"][0]["TargetGroupArn"]
    loop = [{"Type": "redirect", "RedirectConfig": {"StatusCode": "HTTP_302"}}]
    twice = {"TargetGroups": [{"TargetGroupArn": group}, {"TargetGroupArn": group}]}
    heavy = {"TargetGroups": [{"TargetGroupArn": group, "Weight": 1000}]}
    sticky = {"TargetGroups": [{"TargetGroupArn": group}], "TargetGroupStickinessConfig": {"Enabled": True}}
    css = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "200", "ContentType": "image/png"}}]
    odd = [{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "302"}}]
    tried("InvalidLoadBalancerAction", "Exactly one action", fixed() + fixed())
    tried("InvalidLoadBalancerAction", "creates a loop", loop)
    tried("InvalidLoadBalancerAction", "ContentType must be one of", css)
    tried("ValidationError", "statusCode", odd)
    tried("ValidationError", "can only be specified once", [{"Type": "forward", "ForwardConfig": twice}])
    tried("ValidationError", "must be between '0-999'", [{"Type": "forward", "ForwardConfig": heavy}])
    tried("ValidationError", "duration must be specified", [{"Type": "forward", "ForwardConfig": sticky}])
    tried("TargetGroupNotFound", "not found", forward(f"{group[:-1]}{'1' if group[-1] == '0' else '0'}"))
    tried("ValidationError", "is not a valid target group ARN", forward("tg"))
    tried("IncompatibleProtocols", "have incompatible protocols: 'HTTP' and 'TCP'", forward(tcp))
    tried("InvalidConfigurationRequest", "protocol-version 'GRPC'", forward(grpc))
    tried("ValidationError", "must be one of 'HTTPS, HTTP'", fixed(), protocol="TCP")
    tried("ValidationError", "must be one of 'TLS, TCP, TCP_UDP, UDP'", forward(tcp), network_balancer)
    tried("InvalidLoadBalancerAction", "'forward' only", fixed(), network_balancer, protocol="TCP")
    tried("ValidationError", "not supported by Longshore", [{"Type": "authenticate-oidc"}])
    listen(elb, balancer, forward(group))
    listen(elb, network_balancer, forward(tcp), protocol="TCP")
    second = elb.create_load_balancer(Name=f"s{short}"[:32], Subnets=cloud.subnets[:2])["LoadBalancers"][0]
    tried("TargetGroupAssociationLimit", group, forward(group), second["LoadBalancerArn"])
    elb.delete_load_balancer(LoadBalancerArn=second["LoadBalancerArn"])


def test_a_group_of_another_vpc_is_refused(cloud, elb, balancer, short):
    own = cloud.ec2.create_vpc(CidrBlock="10.78.0.0/16")["Vpc"]["VpcId"]
    made = elb.create_target_group(Name=short, Protocol="HTTP", Port=80, VpcId=own, TargetType="ip")
    group = made["TargetGroups"][0]["TargetGroupArn"]
    with refused("InvalidConfigurationRequest", f"is in a different VPC than load balancer '{balancer}'"):
        listen(elb, balancer, forward(group))
    elb.delete_target_group(TargetGroupArn=group)
    cloud.ec2.delete_vpc(VpcId=own)


def test_a_listener_is_made_once(elb, balancer):
    listener = listen(elb, balancer, fixed())
    assert listen(elb, balancer, fixed()) == listener
    with refused("DuplicateListener", "A listener already exists on this port for this load balancer"):
        listen(elb, balancer, fixed("500"))


def condition(**config):
    (name,) = config
    field = {"HostHeaderConfig": "host-header", "PathPatternConfig": "path-pattern", "HttpHeaderConfig": "http-header"}
    field |= {"HttpRequestMethodConfig": "http-request-method", "QueryStringConfig": "query-string"}
    field |= {"SourceIpConfig": "source-ip"}
    return {"Field": field[name], **config}


def path(*values):
    return condition(PathPatternConfig={"Values": list(values)})


def test_rules_are_shown_in_the_order_in_which_they_are_tried(elb, balancer, group):
    listener = listen(elb, balancer, fixed())

    def add(priority, *conditions, actions=None):
        request = {"ListenerArn": listener, "Priority": priority, "Conditions": list(conditions)}
        return elb.create_rule(**request, Actions=actions or fixed())["Rules"][0]["RuleArn"]

    def priorities():
        shown = elb.describe_rules(ListenerArn=listener)["Rules"]
        return {rule["RuleArn"]: rule["Priority"] for rule in shown}

    old = {"Field": "path-pattern", "Values": ["/old/*"]}
    second = add(1000, old, actions=forward(group))
    first = add(9, path("/a", "/b"), condition(HttpHeaderConfig={"HttpHeaderName": "X-A", "Values": ["1"]}))
    query = condition(QueryStringConfig={"Values": [{"Key": "v", "Value": "1"}, {"Value": "x*"}]})
    third = add(2000, query, condition(SourceIpConfig={"Values": ["10.0.0.0/8"]}))
    fourth = add(2001, condition(HttpRequestMethodConfig={"Values": ["GET"]}), condition(
        HostHeaderConfig={"Values": ["*.example.com"]}
    ))
    rules = elb.describe_rules(ListenerArn=listener)["Rules"]
    assert [rule["Priority"] for rule in rules] == ["9", "1000", "2000", "2001", "default"]
    assert rules[1]["Conditions"] == [old | {"PathPatternConfig": {"Values": ["/old/*"]}}]
    assert rules[2]["Conditions"][0] == query
    default = rules[4]["RuleArn"]
    (page,) = elb.describe_rules(ListenerArn=listener, PageSize=1)["Rules"]
    assert page == rules[0]
    pages = elb.get_paginator("describe_rules").paginate(ListenerArn=listener, PaginationConfig={"PageSize": 2})
    assert [rule["Priority"] for page in pages for rule in page["Rules"]] == list(priorities().values())
    with refused("PriorityInUse", "Priority '9' is currently in use"):
        add(9, path("/c"))
    with refused("ResourceInUse"):
        elb.delete_target_group(TargetGroupArn=group)

    swapped = [{"RuleArn": first, "Priority": 1000}, {"RuleArn": second, "Priority": 9}]
    elb.set_rule_priorities(RulePriorities=swapped)
    assert (priorities()[first], priorities()[second]) == ("1000", "9")
    with refused("PriorityInUse", "Priority '2000' is currently in use"):
        elb.set_rule_priorities(RulePriorities=[{"RuleArn": first, "Priority": 2000}])
    with refused("ValidationError", "Priority '5' was provided multiple times"):
        elb.set_rule_priorities(
            RulePriorities=[{"RuleArn": first, "Priority": 5}, {"RuleArn": second, "Priority": 5}]
        )
    with refused("OperationNotPermitted", "Default rule"):
        elb.set_rule_priorities(RulePriorities=[{"RuleArn": default, "Priority": 5}])
    with refused("OperationNotPermitted", f"Default rule '{default}' cannot be deleted"):
        elb.delete_rule(RuleArn=default)
    with refused("OperationNotPermitted", "cannot be modified"):
        elb.modify_rule(RuleArn=default, Actions=fixed())

    (changed,) = elb.modify_rule(RuleArn=second, Conditions=[path("/new")])["Rules"]
    assert changed["Conditions"][0]["Values"] == ["/new"]
    assert changed["Actions"][0]["TargetGroupArn"] == group
    elb.modify_rule(RuleArn=second, Actions=fixed())
    elb.delete_target_group(TargetGroupArn=group)
    with refused("ValidationError", "Either conditions or actions must be specified"):
        elb.modify_rule(RuleArn=second)
    elb.delete_rule(RuleArn=fourth)
    with refused("RuleNotFound", "One or more rules not found"):
        elb.describe_rules(RuleArns=[fourth])
    elb.delete_listener(ListenerArn=listener)
    with refused("RuleNotFound"):
        elb.describe_rules(RuleArns=[third])


def test_conditions_that_cannot_be(elb, balancer, network_balancer):
    listener = listen(elb, balancer, fixed())
    host = {"Field": "host-header", "Values": ["a.example.com"]}
    header = condition(HttpHeaderConfig={"HttpHeaderName": "X", "Values": ["1"]})
    cases = [
        ("A condition must be specified", []),
        ("Condition field 'nothing' must be one of", [{"Field": "nothing", "Values": ["a"]}]),
        ("A condition value must be specified", [{"Field": "path-pattern"}]),
        ("You cannot provide both Values", [host | {"HostHeaderConfig": {"Values": ["b.example.com"]}}]),
        ("'Values' field is not compatible with 'http-header'", [header | {"Values": ["a"]}]),
        ("A 'SourceIpConfig' must be specified with 'source-ip'", [{"Field": "source-ip"}]),
        ("cannot specify 'PathPatternConfig'", [host | {"PathPatternConfig": {"Values": ["/"]}}]),
        ("only have one 'path-pattern' condition", [path("/a"), path("/b")]),
        ("only have '5' condition values", [path("/a", "/b", "/c"), header, host, header]),
        ("only have '5' wildcards", [path("/*/*/*"), host | {"Values": ["*.*.*.example.com"]}]),
        ("too long; the limit is '128'", [path("/" * 129)]),
        ("invalid characters", [path("/ ")]),
        ("the allowed characters are A-Z", [condition(HttpRequestMethodConfig={"Values": ["get"]})]),
        ("must be a CIDR block", [condition(SourceIpConfig={"Values": ["10.0.0.1"]})]),
        ("not supported by Longshore", [condition(PathPatternConfig={"RegexValues": ["a"]})]),
    ]
    for message, conditions in cases:
        with refused("ValidationError", message):
            elb.create_rule(ListenerArn=listener, Priority=1, Conditions=conditions, Actions=fixed())
    with refused("ValidationError", "priority"):
        elb.create_rule(ListenerArn=listener, Priority=50001, Conditions=[path("/")], Actions=fixed())
    with refused("ListenerNotFound"):
        missing = f"{listener[:-1]}{'1' if listener[-1] == '0' else '0'}"
        elb.create_rule(ListenerArn=missing, Priority=1, Conditions=[path("/")], Actions=fixed())


def attributes(answer):
    return {each["Key"]: each["Value"] for each in answer["Attributes"]}


def test_attributes_have_defaults_and_can_be_set(elb, balancer, network_balancer, group):
    def change(arn, key, value):
        pairs = [{"Key": key, "Value": value}]
        if ":targetgroup/" in arn:
            return attributes(elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=pairs))[key]
        return attributes(elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=pairs))[key]

    of_balancer = attributes(elb.describe_load_balancer_attributes(LoadBalancerArn=balancer))
    assert of_balancer["idle_timeout.timeout_seconds"] == "60"
    assert of_balancer["routing.http2.enabled"] == "true"
    assert of_balancer["access_logs.s3.bucket"] == ""
    of_network = attributes(elb.describe_load_balancer_attributes(LoadBalancerArn=network_balancer))
    assert of_network["load_balancing.cross_zone.enabled"] == "false"
    assert "idle_timeout.timeout_seconds" not in of_network
    of_group = attributes(elb.describe_target_group_attributes(TargetGroupArn=group))
    assert of_group["deregistration_delay.timeout_seconds"] == "300"
    assert of_group["stickiness.type"] == "lb_cookie"
    assert change(balancer, "idle_timeout.timeout_seconds", "120") == "120"
    assert change(balancer, "access_logs.s3.enabled", "false") == "false"
    assert change(group, "load_balancing.algorithm.type", "least_outstanding_requests") == "least_outstanding_requests"
    for arn, code, message, key, value in [
        (balancer, "ValidationError", "must be between '1-4000'", "idle_timeout.timeout_seconds", "0"),
        (balancer, "ValidationError", "key 'nothing' is not recognized", "nothing", "0"),
        (network_balancer, "ValidationError", "is not recognized", "idle_timeout.timeout_seconds", "60"),
        (balancer, "ValidationError", "not supported by Longshore", "access_logs.s3.enabled", "true"),
        (balancer, "ValidationError", "must be one of", "routing.http.xff_header_processing.mode", "maybe"),
        (group, "ValidationError", "must be between '0-3600'", "deregistration_delay.timeout_seconds", "3601"),
        (group, "ValidationError", "not supported by Longshore", "load_balancing.algorithm.type", "weighted_random"),
        (group, "InvalidConfigurationRequest", "Stickiness type 'source_ip'", "stickiness.type", "source_ip"),
        (group, "InvalidConfigurationRequest", "Slow start", "slow_start.duration_seconds", "30"),
    ]:
        with refused(code, message):
            change(arn, key, value)
    listener = listen(elb, balancer, fixed())
    of_listener = attributes(elb.describe_listener_attributes(ListenerArn=listener))
    assert of_listener["routing.http.response.server.enabled"] == "true"
    same = [{"Key": "routing.http.response.server.enabled", "Value": "true"}]
    assert attributes(elb.modify_listener_attributes(ListenerArn=listener, Attributes=same)) == of_listener


def test_a_protected_load_balancer_stays(elb, balancer):
    def protect(value):
        pair = {"Key": "deletion_protection.enabled", "Value": value}
        elb.modify_load_balancer_attributes(LoadBalancerArn=balancer, Attributes=[pair])

    protect("true")
    with refused("OperationNotPermitted", "cannot be deleted because deletion protection is enabled"):
        elb.delete_load_balancer(LoadBalancerArn=balancer)
    protect("false")
    elb.delete_load_balancer(LoadBalancerArn=balancer)


def test_everything_has_tags(elb, balancer, group):
    listener = listen(elb, balancer, fixed(), Tags=[{"Key": "at", "Value": "start"}])
    rule = elb.create_rule(ListenerArn=listener, Priority=1, Conditions=[path("/")], Actions=fixed())
    everything = [balancer, group, listener, rule["Rules"][0]["RuleArn"]]

    def tags():
        described = elb.describe_tags(ResourceArns=everything)["TagDescriptions"]
        assert [each["ResourceArn"] for each in described] == everything
        return [{tag["Key"]: tag.get("Value") for tag in each["Tags"]} for each in described]

    assert tags() == [{}, {}, {"at": "start"}, {}]
    elb.add_tags(ResourceArns=everything, Tags=[{"Key": "env", "Value": "test"}, {"Key": "bare"}])
    assert all(each.items() >= {"env": "test", "bare": ""}.items() for each in tags())
    elb.remove_tags(ResourceArns=everything, TagKeys=["env", "at"])
    assert tags() == [{"bare": ""}] * 4
    with refused("DuplicateTagKeys"):
        elb.add_tags(ResourceArns=[group], Tags=[{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}])
    with refused("TooManyTags"):
        elb.add_tags(ResourceArns=[group], Tags=[{"Key": f"k{n}"} for n in range(50)])
    elb.delete_target_group(TargetGroupArn=group)
    with refused("TargetGroupNotFound"):
        elb.describe_tags(ResourceArns=[group])


def test_a_load_balancer_goes_with_all_that_it_has(cloud, elb, balancer, group):
    listener = listen(elb, balancer, forward(group))
    rule = elb.create_rule(ListenerArn=listener, Priority=1, Conditions=[path("/")], Actions=forward(group))
    elb.delete_load_balancer(LoadBalancerArn=balancer)
    with refused("ListenerNotFound"):
        elb.describe_listeners(ListenerArns=[listener])
    with refused("RuleNotFound"):
        elb.describe_rules(RuleArns=[rule["Rules"][0]["RuleArn"]])
    with refused("LoadBalancerNotFound"):
        elb.describe_listeners(LoadBalancerArn=balancer)
    elb.delete_target_group(TargetGroupArn=group)


def test_lists_come_in_pages(cloud, elb, vpc, short):
    names = [f"{short[:28]}-{n}" for n in range(3)]
    for each in names:
        elb.create_target_group(Name=each, Protocol="HTTP", Port=80, VpcId=vpc, TargetType="ip")
    shown = []
    for page in elb.get_paginator("describe_target_groups").paginate(PaginationConfig={"PageSize": 2}):
        assert len(page["TargetGroups"]) <= 2
        shown += [each["TargetGroupName"] for each in page["TargetGroups"]]
    assert sorted(shown) == shown and set(names) <= set(shown)
    with refused("ValidationError", "pageSize"):
        elb.describe_target_groups(PageSize=401)
    with refused("TargetGroupNotFound"):
        elb.describe_target_groups(Names=[*names, "no-such-group"])


def test_the_cli_makes_what_the_guide_makes(cloud, vpc, short):
    aws = cloud.aws
    made = aws("elbv2", "create-load-balancer", "--name", short, "--subnets", *cloud.subnets[:2])
    balancer = made["LoadBalancers"][0]["LoadBalancerArn"]
    made = aws(
        *("elbv2", "create-target-group", "--name", short, "--protocol", "HTTP", "--port", "80", "--vpc-id", vpc),
        *("--target-type", "ip", "--health-check-path", "/"),
    )
    group = made["TargetGroups"][0]["TargetGroupArn"]
    action = f"Type=forward,TargetGroupArn={group}"
    base = ("--load-balancer-arn", balancer, "--protocol", "HTTP", "--port", "80")
    aws("elbv2", "create-listener", *base, "--default-actions", action)
    assert aws("elbv2", "describe-target-health", "--target-group-arn", group)["TargetHealthDescriptions"] == []
    aws("elbv2", "delete-load-balancer", "--load-balancer-arn", balancer)
    aws("elbv2", "wait", "load-balancers-deleted", "--load-balancer-arns", balancer)
    aws("elbv2", "delete-target-group", "--target-group-arn", group)
