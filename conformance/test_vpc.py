"""VPCs of one's own: made as the guide makes them, with tasks in them, and removed again."""

import contextlib
import random
import urllib.request

import pytest

from support import server
from support.aws import Cloud, address, idle, refused
from support.waiting import until


@pytest.fixture(scope="module")
def cloud(load):
    with server.running() as started:
        load(started)
        yield Cloud(started)


@pytest.fixture
def block():
    """The first two numbers of a /16 that is none of the servers' own, and that no other test has by chance."""
    return f"10.{random.randrange(1, 64)}"


@pytest.fixture
def vpc(cloud, block):
    made = cloud.ec2.create_vpc(CidrBlock=f"{block}.0.0/16")["Vpc"]["VpcId"]
    yield made
    remove(cloud, made)


@pytest.fixture
def group(cloud, vpc):
    return cloud.ec2.create_security_group(GroupName="web", Description="for tests", VpcId=vpc)["GroupId"]


def remove(cloud, vpc):
    """Everything of a VPC, from the leaves on."""
    ec2, of_vpc = cloud.ec2, [{"Name": "vpc-id", "Values": [vpc]}]
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc]}]
    for subnet in ec2.describe_subnets(Filters=of_vpc)["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for gateway in ec2.describe_internet_gateways(Filters=attached)["InternetGateways"]:
        ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
        ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    for table in ec2.describe_route_tables(Filters=of_vpc)["RouteTables"]:
        if not any(association["Main"] for association in table["Associations"]):
            ec2.delete_route_table(RouteTableId=table["RouteTableId"])
    groups = [g for g in ec2.describe_security_groups(Filters=of_vpc)["SecurityGroups"] if g["GroupName"] != "default"]
    for each in groups:
        for rule in each["IpPermissions"]:
            ec2.revoke_security_group_ingress(GroupId=each["GroupId"], IpPermissions=[rule])
    for each in groups:
        ec2.delete_security_group(GroupId=each["GroupId"])
    with contextlib.suppress(ec2.exceptions.ClientError):
        ec2.delete_vpc(VpcId=vpc)


def get(host):
    try:
        with urllib.request.urlopen(f"http://{host}/", timeout=5) as answer:
            return answer.status
    except OSError:
        return None


def test_the_guides_network_by_the_cli_with_a_task_in_it(cloud, block, name):
    def said(*words):
        return cloud.aws("ec2", *words)

    tag = f"ResourceType=vpc,Tags=[{{Key=Name,Value={name}}}]"
    made = said("create-vpc", "--cidr-block", f"{block}.0.0/16", "--tag-specifications", tag)["Vpc"]
    vpc = made["VpcId"]
    assert (made["IsDefault"], made["Tags"]) == (False, [{"Key": "Name", "Value": name}])
    for field in ("--enable-dns-support", "--enable-dns-hostnames"):
        said("modify-vpc-attribute", "--vpc-id", vpc, field, '{"Value":true}')
    hostnames = said("describe-vpc-attribute", "--vpc-id", vpc, "--attribute", "enableDnsHostnames")
    assert hostnames["EnableDnsHostnames"] == {"Value": True}
    zones = [f"{cloud.region}a", f"{cloud.region}b"]
    subnets = [
        said(
            *["create-subnet", "--vpc-id", vpc, "--cidr-block", f"{block}.{number}.0/24"],
            *["--availability-zone", zone],
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate(zones, 1)
    ]
    gateway = said("create-internet-gateway")["InternetGateway"]["InternetGatewayId"]
    said("attach-internet-gateway", "--internet-gateway-id", gateway, "--vpc-id", vpc)
    table = said("create-route-table", "--vpc-id", vpc)["RouteTable"]["RouteTableId"]
    route = ["--route-table-id", table, "--destination-cidr-block", "0.0.0.0/0", "--gateway-id", gateway]
    assert said("create-route", *route) == {"Return": True}
    associations = [
        said("associate-route-table", "--route-table-id", table, "--subnet-id", subnet)["AssociationId"]
        for subnet in subnets
    ]
    words = ["--group-name", "web", "--description", "Security group for tasks", "--vpc-id", vpc]
    group = said("create-security-group", *words)["GroupId"]
    said(
        *["authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "80"],
        *["--cidr", "0.0.0.0/0"],
    )

    (shown,) = said("describe-route-tables", "--route-table-ids", table)["RouteTables"]
    routes = {route["DestinationCidrBlock"]: (route["GatewayId"], route["State"]) for route in shown["Routes"]}
    assert routes == {f"{block}.0.0/16": ("local", "active"), "0.0.0.0/0": (gateway, "active")}
    assert [each["RouteTableAssociationId"] for each in shown["Associations"]] == associations

    cluster = cloud.cluster(name)
    network = f"awsvpcConfiguration={{subnets=[{subnets[0]}],securityGroups=[{group}],assignPublicIp=ENABLED}}"
    definition = cloud.register(name, {"image": "nginx:latest"})
    (task,) = cloud.aws(
        *["ecs", "run-task", "--cluster", cluster, "--task-definition", definition, "--launch-type", "FARGATE"],
        *["--network-configuration", network],
    )["tasks"]
    running = cloud.until_running(cluster, task["taskArn"])
    assert address(running).startswith(f"{block}.1.")
    assert until("nginx answers", lambda: get(address(running))) == 200
    (interface,) = said("describe-network-interfaces", "--filters", f"Name=vpc-id,Values={vpc}")["NetworkInterfaces"]
    assert (interface["SubnetId"], interface["PrivateIpAddress"]) == (subnets[0], address(running))
    assert [each["GroupId"] for each in interface["Groups"]] == [group]

    cloud.server.kill()
    cloud.server.start()
    assert until("nginx answers after a kill of the server", lambda: get(address(running))) == 200
    with refused("DependencyViolation", f"The subnet '{subnets[0]}' has dependencies and cannot be deleted."):
        cloud.ec2.delete_subnet(SubnetId=subnets[0])
    with refused("DependencyViolation", f"resource {group} has a dependent object"):
        cloud.ec2.delete_security_group(GroupId=group)
    with refused("DependencyViolation", f"The vpc '{vpc}' has dependencies and cannot be deleted."):
        cloud.ec2.delete_vpc(VpcId=vpc)
    cloud.stop_all(cluster)
    for association in associations:
        said("disassociate-route-table", "--association-id", association)
    for subnet in subnets:
        said("delete-subnet", "--subnet-id", subnet)
    said("delete-security-group", "--group-id", group)
    said("delete-route-table", "--route-table-id", table)
    said("detach-internet-gateway", "--internet-gateway-id", gateway, "--vpc-id", vpc)
    said("delete-internet-gateway", "--internet-gateway-id", gateway)
    said("delete-vpc", "--vpc-id", vpc)
    with refused("InvalidVpcID.NotFound", f"The vpc ID '{vpc}' does not exist"):
        cloud.ec2.describe_vpcs(VpcIds=[vpc])
    left = cloud.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
    assert left == [], "the default group went with its VPC"


def test_tasks_of_two_vpcs_with_the_same_block_have_addresses_of_their_own(cloud, cluster, block, name):
    vpcs = [cloud.ec2.create_vpc(CidrBlock=f"{block}.0.0/16")["Vpc"]["VpcId"] for _ in range(2)]
    definition = cloud.register(name, {"command": idle(name)})
    used = set()
    for vpc in vpcs:
        subnet = cloud.ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.1.0/28")["Subnet"]["SubnetId"]
        (group,) = cloud.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"]
        network = {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group["GroupId"]]}}
        for _ in range(2):
            arn = cloud.run_one(cluster, definition, networkConfiguration=network)["taskArn"]
            used.add(address(cloud.until_running(cluster, arn)))
    assert len(used) == 4 and all(each.startswith(f"{block}.1.") for each in used)
    cloud.stop_all(cluster)
    for vpc in vpcs:
        remove(cloud, vpc)


def test_subnets_are_parts_of_their_vpc(cloud, vpc, block):
    made = cloud.ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.1.9/24")["Subnet"]
    assert (made["CidrBlock"], made["AvailableIpAddressCount"]) == (f"{block}.1.0/24", 251)
    assert made["MapPublicIpOnLaunch"] is False
    cloud.ec2.modify_subnet_attribute(SubnetId=made["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    (shown,) = cloud.ec2.describe_subnets(SubnetIds=[made["SubnetId"]])["Subnets"]
    assert shown["MapPublicIpOnLaunch"] is True
    with refused("InvalidSubnet.Conflict", f"The CIDR '{block}.1.128/25' conflicts with another subnet"):
        cloud.ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.1.128/25")
    with refused("InvalidSubnet.Range", "The CIDR '192.168.0.0/24' is invalid."):
        cloud.ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.0.0/24")
    with refused("InvalidParameterValue", "This is not a valid CIDR block."):
        cloud.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0")
    with refused("InvalidParameterValue", "Value (us-east-1z) for parameter availabilityZone is invalid."):
        cloud.ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.2.0/24", AvailabilityZone="us-east-1z")
    with refused("InvalidVpc.Range", "The CIDR '10.0.0.0/8' is invalid."):
        cloud.ec2.create_vpc(CidrBlock="10.0.0.0/8")


def test_route_tables(cloud, vpc, block):
    ec2 = cloud.ec2
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"{block}.1.0/24")["Subnet"]["SubnetId"]
    main = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
    (table,) = ec2.describe_route_tables(Filters=main)["RouteTables"]
    with refused("DependencyViolation"):
        ec2.delete_route_table(RouteTableId=table["RouteTableId"])
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    other = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    with refused("InvalidParameterValue", "belong to different networks"):
        ec2.create_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    with refused("Resource.AlreadyAssociated"):
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    with refused("RouteAlreadyExists"):
        ec2.create_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    with refused("DependencyViolation"):
        ec2.delete_internet_gateway(InternetGatewayId=gateway)
    first = ec2.associate_route_table(RouteTableId=other, SubnetId=subnet)["AssociationId"]
    third = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    with refused("Resource.AlreadyAssociated"):
        ec2.associate_route_table(RouteTableId=third, SubnetId=subnet)
    moved = ec2.replace_route_table_association(AssociationId=first, RouteTableId=third)["NewAssociationId"]
    (found,) = ec2.describe_route_tables(Filters=[{"Name": "association.subnet-id", "Values": [subnet]}])["RouteTables"]
    assert (found["RouteTableId"], found["Associations"][0]["RouteTableAssociationId"]) == (third, moved)
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    (shown,) = ec2.describe_route_tables(RouteTableIds=[other])["RouteTables"]
    assert [route["State"] for route in shown["Routes"]] == ["active", "blackhole"]
    ec2.delete_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0")
    with refused("InvalidRoute.NotFound"):
        ec2.delete_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0")
    with refused("InvalidParameterValue", "not supported by Longshore yet"):
        ec2.create_route(RouteTableId=other, DestinationCidrBlock="0.0.0.0/0", NatGatewayId="nat-1")
    ec2.delete_internet_gateway(InternetGatewayId=gateway)


def test_rules_of_security_groups(cloud, vpc, group):
    ec2 = cloud.ec2
    tcp = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 81}
    ranges = [{"CidrIp": "10.0.0.0/8", "Description": "inside"}, {"CidrIp": "192.0.2.1/32"}]
    permission = tcp | {"IpRanges": ranges, "UserIdGroupPairs": [{"GroupId": group}]}
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])["SecurityGroupRules"]
    assert len({rule["SecurityGroupRuleId"] for rule in made}) == 3
    with refused(
        "InvalidPermission.Duplicate",
        'the specified rule "peer: 192.0.2.1/32, TCP, from port: 80, to port: 81, ALLOW" already exists',
    ):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[tcp | {"IpRanges": ranges[1:]}])
    (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    (inward,) = shown["IpPermissions"]
    assert (inward["IpRanges"], [p["GroupId"] for p in inward["UserIdGroupPairs"]]) == (ranges, [group])
    assert [each["CidrIp"] for each in shown["IpPermissionsEgress"][0]["IpRanges"]] == ["0.0.0.0/0"]

    first = made[0]["SecurityGroupRuleId"]
    changed = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "CidrIpv4": "10.1.0.0/16", "Description": "names"}
    update = {"SecurityGroupRuleId": first, "SecurityGroupRule": changed}
    ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=[update])
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"]
    assert {field: rule[field] for field in changed} == changed
    ec2.create_tags(Resources=[first], Tags=[{"Key": "team", "Value": "red"}])
    tagged = [{"Name": "group-id", "Values": [group]}, {"Name": "tag:team", "Values": ["red"]}]
    assert [r["SecurityGroupRuleId"] for r in ec2.describe_security_group_rules(Filters=tagged)["SecurityGroupRules"]] == [first]
    ec2.update_security_group_rule_descriptions_ingress(
        GroupId=group, SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": first, "Description": "other"}]
    )
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[first])["SecurityGroupRules"]
    assert rule["Description"] == "other"
    ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[first])
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp | {"IpRanges": ranges[1:]}])
    with refused("InvalidPermission.NotFound", "The specified rule does not exist in this security group."):
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[tcp | {"IpRanges": ranges[1:]}])
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=everything)
    (shown,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert shown["IpPermissionsEgress"] == []
    with refused("InvalidGroup.Duplicate", f"The security group 'web' already exists for VPC '{vpc}'"):
        ec2.create_security_group(GroupName="web", Description="again", VpcId=vpc)
    default = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["default"]}]
    (found,) = ec2.describe_security_groups(Filters=default)["SecurityGroups"]
    with refused("CannotDelete", "cannot be deleted by a user"):
        ec2.delete_security_group(GroupId=found["GroupId"])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"IpProtocol": "tcp", "FromPort": 81, "ToPort": 80}, "Invalid TCP/UDP port range (81:80)"),
        ({"IpProtocol": "tcp"}, "Must specify both from and to ports with TCP/UDP."),
        ({"IpProtocol": "http", "FromPort": 1, "ToPort": 1}, "Invalid value 'http' for IP protocol."),
        ({"IpProtocol": "udp", "FromPort": 0, "ToPort": 65536}, "Invalid TCP/UDP port range (0:65536)"),
        ({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/64"}]}, "CIDR block is malformed"),
        ({"IpProtocol": "-1", "IpRanges": []}, "at least one CIDR block or security group"),
    ],
)
def test_rules_that_cannot_be(cloud, group, rule, message):
    request = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]} | rule
    with refused("InvalidParameterValue", message):
        cloud.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[request])
    (shown,) = cloud.ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    assert shown["IpPermissions"] == []


def test_tags_and_what_there_is_by_default(cloud, vpc, group):
    ec2 = cloud.ec2
    gateway = ec2.create_internet_gateway(
        TagSpecifications=[{"ResourceType": "internet-gateway", "Tags": [{"Key": "a", "Value": "1"}]}]
    )["InternetGateway"]["InternetGatewayId"]
    tags = [{"Key": "team", "Value": "red"}, {"Key": "cost", "Value": "7"}]
    ec2.create_tags(Resources=[vpc, group, gateway], Tags=tags)
    with refused("InvalidID", "The ID 'vpc-1' is not valid"):
        ec2.create_tags(Resources=[group, "vpc-1"], Tags=[{"Key": "b", "Value": ""}])
    ec2.delete_tags(Resources=[vpc], Tags=[{"Key": "team", "Value": "blue"}, {"Key": "cost"}])
    (shown,) = ec2.describe_vpcs(Filters=[{"Name": "tag:team", "Values": ["red"]}])["Vpcs"]
    assert (shown["VpcId"], shown["Tags"]) == (vpc, tags[:1])
    (found,) = ec2.describe_internet_gateways(InternetGatewayIds=[gateway])["InternetGateways"]
    assert {tag["Key"] for tag in found["Tags"]} == {"a", "team", "cost"}
    with refused("InvalidParameterValue", "must name the type of the resource"):
        ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}])
    ec2.delete_internet_gateway(InternetGatewayId=gateway)
    (acl,) = ec2.describe_network_acls(Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "default", "Values": ["true"]}])["NetworkAcls"]
    assert [entry["RuleAction"] for entry in acl["Entries"]] == ["allow", "deny"] * 2
    assert cloud.region in [region["RegionName"] for region in ec2.describe_regions()["Regions"]]
    (default,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    of_default = [{"Name": "vpc-id", "Values": [default["VpcId"]]}]
    (table,) = ec2.describe_route_tables(Filters=of_default)["RouteTables"]
    assert [route["State"] for route in table["Routes"]] == ["active", "active"]
