"""Tags of ECS resources."""

import pytest

from support.aws import idle, refused


def tags_of(cloud, arn):
    tags = cloud.aws("ecs", "list-tags-for-resource", "--resource-arn", arn)["tags"]
    return {tag["key"]: tag["value"] for tag in tags}


def test_tag_untag_and_list_on_a_cluster(cloud, name):
    arn = cloud.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "1"}])["cluster"]["clusterArn"]
    cloud.aws("ecs", "tag-resource", "--resource-arn", arn, "--tags", "key=a,value=2", "key=b,value=3")
    assert tags_of(cloud, arn) == {"a": "2", "b": "3"}
    cloud.aws("ecs", "untag-resource", "--resource-arn", arn, "--tag-keys", "a", "never-was")
    assert tags_of(cloud, arn) == {"b": "3"}


def test_tags_of_a_task_definition(cloud, name):
    definition = cloud.register(name, {"command": ["true"]}, tags=[{"key": "a", "value": "1"}])
    described = cloud.ecs.describe_task_definition(taskDefinition=definition, include=["TAGS"])
    assert described["tags"] == [{"key": "a", "value": "1"}]
    arn = described["taskDefinition"]["taskDefinitionArn"]
    cloud.ecs.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": ""}])
    assert tags_of(cloud, arn) == {"a": "1", "b": ""}


def test_tags_of_a_task(cloud, cluster, name):
    definition = cloud.register(name, {"command": idle()}, tags=[{"key": "from", "value": "definition"}])
    tags = [{"key": "from", "value": "run-task"}]
    (arn,) = cloud.run(cluster, definition, tags=tags, propagateTags="TASK_DEFINITION")
    (task,) = cloud.ecs.describe_tasks(cluster=cluster, tasks=[arn], include=["TAGS"])["tasks"]
    assert task["tags"] == tags
    cloud.ecs.untag_resource(resourceArn=arn, tagKeys=["from"])
    assert cloud.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == []


@pytest.mark.parametrize(
    "tags, code",
    [
        ([{"key": "aws:mine", "value": "x"}], "InvalidParameterException"),
        ([{"key": f"k{i}", "value": "x"} for i in range(51)], "InvalidParameterException"),
        ([{"key": "k" * 129, "value": "x"}], "InvalidParameterException"),
    ],
    ids=["reserved prefix", "more than 50", "a long key"],
)
def test_tags_that_are_refused(cloud, name, tags, code):
    arn = cloud.ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    unchecked = cloud.client("ecs", config={"parameter_validation": False})
    with refused(code):
        unchecked.tag_resource(resourceArn=arn, tags=tags)
    assert cloud.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == []


def test_a_resource_that_is_not_there(cloud):
    arn = f"arn:aws:ecs:{cloud.region}:123456789012:cluster/never-was"
    with refused("ClusterNotFoundException"):
        cloud.ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "b"}])
