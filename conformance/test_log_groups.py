"""Log groups and their retention."""

import uuid

import pytest

from support.aws import refused


@pytest.fixture
def group():
    return f"/ecs/{uuid.uuid4().hex[:8]}"


def described(cloud, group):
    groups = cloud.aws("logs", "describe-log-groups", "--log-group-name-prefix", group)["logGroups"]
    (found,) = groups
    return found


def test_create_and_describe(cloud, group):
    assert cloud.aws("logs", "create-log-group", "--log-group-name", group) is None
    found = described(cloud, group)
    assert found["logGroupName"] == group
    assert found["arn"] == f"arn:aws:logs:{cloud.region}:123456789012:log-group:{group}:*"
    assert isinstance(found["creationTime"], int)
    assert "retentionInDays" not in found


def test_retention(cloud, group):
    cloud.logs.create_log_group(logGroupName=group)
    cloud.aws("logs", "put-retention-policy", "--log-group-name", group, "--retention-in-days", "7")
    assert described(cloud, group)["retentionInDays"] == 7


def test_prefix_and_pages(cloud, group):
    names = [f"{group}/{i}" for i in range(5)]
    for each in names:
        cloud.logs.create_log_group(logGroupName=each)
    pages = list(
        cloud.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=group, PaginationConfig={"PageSize": 2})
    )
    assert [len(page["logGroups"]) for page in pages] == [2, 2, 1]
    assert [each["logGroupName"] for page in pages for each in page["logGroups"]] == names


def test_refusals(cloud, group):
    cloud.logs.create_log_group(logGroupName=group)
    with refused("ResourceAlreadyExistsException", "The specified log group already exists"):
        cloud.logs.create_log_group(logGroupName=group)
    with refused("ResourceNotFoundException", "The specified log group does not exist."):
        cloud.logs.put_retention_policy(logGroupName=f"{group}-gone", retentionInDays=7)
    with refused("InvalidParameterException"):
        cloud.logs.put_retention_policy(logGroupName=group, retentionInDays=8)
    with refused("InvalidParameterException"):
        cloud.logs.create_log_group(logGroupName="not a name!")
    with refused("ResourceNotFoundException", "The specified log group does not exist."):
        cloud.logs.describe_log_streams(logGroupName=f"{group}-gone")
