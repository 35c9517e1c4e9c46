"""Clusters: the guide's three ways to create one, and its life up to INACTIVE."""

import pytest

from support.aws import idle, refused

EVERYTHING = ("TAGS", "SETTINGS", "STATISTICS", "ATTACHMENTS", "CONFIGURATIONS")


def test_create_plain(cloud, name):
    created = cloud.aws("ecs", "create-cluster", "--cluster-name", name)["cluster"]
    assert created["clusterName"] == name
    assert created["clusterArn"] == f"arn:aws:ecs:{cloud.region}:123456789012:cluster/{name}"
    assert created["status"] == "ACTIVE"
    counts = ("registeredContainerInstancesCount", "runningTasksCount", "pendingTasksCount", "activeServicesCount")
    assert [created[count] for count in counts] == [0, 0, 0, 0]
    assert created["settings"] == [{"name": "containerInsights", "value": "disabled"}]


def test_create_with_tags(cloud, name):
    created = cloud.aws(
        "ecs", "create-cluster", "--cluster-name", name, "--tags", "key=Environment,value=Production", "key=Team,value=DevOps"
    )["cluster"]
    tags = [{"key": "Environment", "value": "Production"}, {"key": "Team", "value": "DevOps"}]
    assert sorted(created["tags"], key=lambda tag: tag["key"]) == tags


def test_create_with_settings(cloud, name):
    created = cloud.aws(
        "ecs", "create-cluster", "--cluster-name", name, "--settings", "name=containerInsights,value=enabled"
    )["cluster"]
    assert created["settings"] == [{"name": "containerInsights", "value": "enabled"}]


def test_creating_it_again_gives_the_same_cluster(cloud, name):
    first = cloud.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "b"}])["cluster"]
    second = cloud.ecs.create_cluster(clusterName=name)["cluster"]
    assert second["clusterArn"] == first["clusterArn"]
    described = cloud.ecs.describe_clusters(clusters=[name], include=["TAGS"])["clusters"][0]
    assert described["tags"] == [{"key": "a", "value": "b"}]


def test_create_without_a_name_makes_the_default_cluster(cloud):
    assert cloud.ecs.create_cluster()["cluster"]["clusterName"] == "default"
    assert cloud.ecs.describe_clusters()["clusters"][0]["clusterName"] == "default"


def test_list(cloud, name):
    arn = cloud.ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    assert arn in cloud.aws("ecs", "list-clusters")["clusterArns"]


def test_list_in_pages(cloud, name):
    arns = {cloud.ecs.create_cluster(clusterName=f"{name}-{i}")["cluster"]["clusterArn"] for i in range(5)}
    pages = list(cloud.ecs.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 2}))
    found = [arn for page in pages for arn in page["clusterArns"]]
    assert all(len(page["clusterArns"]) <= 2 for page in pages)
    assert len(found) == len(set(found))
    assert arns <= set(found)


def test_describe_with_everything(cloud, name):
    cloud.ecs.create_cluster(
        clusterName=name,
        tags=[{"key": "a", "value": "b"}],
        settings=[{"name": "containerInsights", "value": "enhanced"}],
    )
    answer = cloud.aws("ecs", "describe-clusters", "--clusters", name, "--include", *EVERYTHING)
    assert answer["failures"] == []
    (described,) = answer["clusters"]
    assert described["tags"] == [{"key": "a", "value": "b"}]
    assert described["settings"] == [{"name": "containerInsights", "value": "enhanced"}]
    statistics = {each["name"]: each["value"] for each in described["statistics"]}
    assert statistics["runningFargateTasksCount"] == "0"
    assert statistics["pendingEC2TasksCount"] == "0"


def test_what_is_not_honoured_yet_is_refused_by_name(cloud, name):
    with refused("InvalidParameterException", "configuration"):
        cloud.ecs.create_cluster(
            clusterName=name, configuration={"executeCommandConfiguration": {"logging": "DEFAULT"}}
        )
    assert cloud.ecs.describe_clusters(clusters=[name])["clusters"] == []


def test_describe_leaves_out_what_was_not_asked_for(cloud, name):
    cloud.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "b"}])
    (described,) = cloud.ecs.describe_clusters(clusters=[name])["clusters"]
    assert described["tags"] == []
    assert described["statistics"] == []


def test_describe_by_arn_and_what_is_missing(cloud, name):
    arn = cloud.ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    answer = cloud.ecs.describe_clusters(clusters=[arn, f"{name}-gone"])
    assert [cluster["clusterName"] for cluster in answer["clusters"]] == [name]
    missing = arn + "-gone"
    assert answer["failures"] == [{"arn": missing, "reason": "MISSING"}]


def test_statistics_count_running_tasks(cloud, cluster, name):
    cloud.run_one(cluster, cloud.register(name, {"command": idle()}))
    (described,) = cloud.ecs.describe_clusters(clusters=[cluster], include=["STATISTICS"])["clusters"]
    assert described["runningTasksCount"] == 1
    assert {"name": "runningFargateTasksCount", "value": "1"} in described["statistics"]


def test_delete(cloud, name):
    cloud.ecs.create_cluster(clusterName=name)
    deleted = cloud.aws("ecs", "delete-cluster", "--cluster", name)["cluster"]
    assert deleted["status"] == "INACTIVE"
    (described,) = cloud.ecs.describe_clusters(clusters=[name])["clusters"]
    assert described["status"] == "INACTIVE"
    listed = cloud.ecs.get_paginator("list_clusters").paginate().build_full_result()["clusterArns"]
    assert deleted["clusterArn"] not in listed
    with refused("ClusterNotFoundException", "The referenced cluster was inactive."):
        cloud.ecs.list_tasks(cluster=name)


def test_a_deleted_name_can_be_used_again(cloud, name):
    cloud.ecs.create_cluster(clusterName=name, tags=[{"key": "a", "value": "b"}])
    cloud.ecs.delete_cluster(cluster=name)
    assert cloud.ecs.create_cluster(clusterName=name)["cluster"]["status"] == "ACTIVE"
    (described,) = cloud.ecs.describe_clusters(clusters=[name], include=["TAGS"])["clusters"]
    assert described["tags"] == []


def test_a_cluster_with_tasks_is_not_deleted(cloud, cluster, name):
    cloud.run_one(cluster, cloud.register(name, {"command": idle()}))
    with refused("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active."):
        cloud.ecs.delete_cluster(cluster=cluster)


def test_regions_are_apart(cloud, name):
    cloud.ecs.create_cluster(clusterName=name)
    elsewhere = cloud.client("ecs", region="eu-west-1")
    assert elsewhere.describe_clusters(clusters=[name])["clusters"] == []
    created = elsewhere.create_cluster(clusterName=name)["cluster"]
    assert created["clusterArn"] == f"arn:aws:ecs:eu-west-1:123456789012:cluster/{name}"


@pytest.mark.parametrize("operation", ["delete_cluster", "list_tasks"])
def test_a_cluster_that_never_was(cloud, operation):
    with refused("ClusterNotFoundException", "Cluster not found."):
        getattr(cloud.ecs, operation)(cluster="never-was")
