"""The network that every region of a new account has: a default VPC, its subnets and its security group."""

import ipaddress

import pytest

from support.aws import refused


@pytest.mark.parametrize("region", [None, "eu-central-1"])
def test_default_vpc(cloud, region):
    (vpc,) = cloud.aws("ec2", "describe-vpcs", region=region)["Vpcs"]
    assert vpc["IsDefault"] is True
    assert vpc["State"] == "available"
    assert vpc["OwnerId"] == "123456789012"
    assert vpc["VpcId"].startswith("vpc-")
    if region is None:
        assert vpc["CidrBlock"] == cloud.server.vpc_cidr


@pytest.mark.parametrize("region", [None, "eu-central-1"])
def test_one_default_subnet_per_zone(cloud, region):
    (vpc,) = cloud.client("ec2", region=region).describe_vpcs()["Vpcs"]
    subnets = cloud.aws("ec2", "describe-subnets", region=region)["Subnets"]
    zones = [subnet["AvailabilityZone"] for subnet in subnets]
    assert len(zones) >= 3
    assert len(zones) == len(set(zones))
    assert all(zone[:-1] == (region or cloud.region) for zone in zones)
    networks = [ipaddress.ip_network(subnet["CidrBlock"]) for subnet in subnets]
    assert all(network.subnet_of(ipaddress.ip_network(vpc["CidrBlock"])) for network in networks)
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    for subnet in subnets:
        assert subnet["DefaultForAz"] is True
        assert subnet["MapPublicIpOnLaunch"] is True
        assert subnet["VpcId"] == vpc["VpcId"]
        assert subnet["State"] == "available"


def test_default_security_group(cloud):
    (vpc,) = cloud.ec2.describe_vpcs()["Vpcs"]
    (group,) = cloud.aws("ec2", "describe-security-groups")["SecurityGroups"]
    assert group["GroupName"] == "default"
    assert group["Description"] == "default VPC security group"
    assert group["VpcId"] == vpc["VpcId"]
    (inward,) = group["IpPermissions"]
    assert inward["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in inward["UserIdGroupPairs"]] == [group["GroupId"]]
    (outward,) = group["IpPermissionsEgress"]
    assert [each["CidrIp"] for each in outward["IpRanges"]] == ["0.0.0.0/0"]


def test_filters_and_ids(cloud):
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["false"]}])["Vpcs"] == []
    zone = f"{cloud.region}a"
    filters = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}, {"Name": "availability-zone", "Values": [zone]}]
    (subnet,) = cloud.ec2.describe_subnets(Filters=filters)["Subnets"]
    assert subnet["AvailabilityZone"] == zone
    assert cloud.ec2.describe_subnets(SubnetIds=[subnet["SubnetId"]])["Subnets"] == [subnet]
    groups = cloud.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["default"]}])
    assert [group["VpcId"] for group in groups["SecurityGroups"]] == [vpc["VpcId"]]


def test_the_network_is_the_same_at_every_call(cloud):
    first, second = cloud.ec2.describe_subnets(), cloud.ec2.describe_subnets()
    assert [each["SubnetId"] for each in first["Subnets"]] == [each["SubnetId"] for each in second["Subnets"]]


@pytest.mark.parametrize(
    "operation, arguments, code, message",
    [
        ("describe_vpcs", {"VpcIds": ["vpc-00000000"]}, "InvalidVpcID.NotFound", "The vpc ID 'vpc-00000000' does not exist"),
        (
            "describe_subnets",
            {"SubnetIds": ["subnet-00000000"]},
            "InvalidSubnetID.NotFound",
            "The subnet ID 'subnet-00000000' does not exist",
        ),
        (
            "describe_security_groups",
            {"GroupIds": ["sg-00000000"]},
            "InvalidGroup.NotFound",
            "The security group 'sg-00000000' does not exist",
        ),
        ("describe_vpcs", {"Filters": [{"Name": "colour", "Values": ["red"]}]}, "InvalidParameterValue", "colour"),
    ],
)
def test_what_does_not_exist(cloud, operation, arguments, code, message):
    with refused(code, message):
        getattr(cloud.ec2, operation)(**arguments)
