"""Task definitions: families, revisions, and their end."""

import json

import pytest

from support.aws import ROLE, refused


def document(family, **changes):
    """As the practical guide's first example writes it."""
    container = {
        "name": "nginx",
        "image": "nginx:alpine",
        "essential": True,
        "portMappings": [{"containerPort": 80, "protocol": "tcp"}],
        "environment": [{"name": "ENV", "value": "production"}],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": "/ecs/web-app",
                "awslogs-region": "us-east-1",
                "awslogs-stream-prefix": "nginx",
            },
        },
    }
    return {
        "family": family,
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "256",
        "memory": "512",
        "executionRoleArn": ROLE,
        "containerDefinitions": [container],
    } | changes


def register(cloud, tmp_path, content):
    path = tmp_path / "task-definition.json"
    path.write_text(json.dumps(content))
    answer = cloud.aws("ecs", "register-task-definition", "--cli-input-json", f"file://{path}")
    return answer["taskDefinition"]


def test_revisions_count_up(cloud, name, tmp_path):
    revisions = [register(cloud, tmp_path, document(name)) for _ in range(3)]
    assert [each["revision"] for each in revisions] == [1, 2, 3]
    arn = f"arn:aws:ecs:{cloud.region}:123456789012:task-definition/{name}"
    assert [each["taskDefinitionArn"] for each in revisions] == [f"{arn}:{i}" for i in (1, 2, 3)]
    listed = cloud.aws("ecs", "list-task-definitions", "--family-prefix", name)["taskDefinitionArns"]
    assert listed == [f"{arn}:{i}" for i in (1, 2, 3)]
    newest = cloud.ecs.list_task_definitions(familyPrefix=name, sort="DESC")["taskDefinitionArns"]
    assert newest == listed[::-1]


def test_what_was_registered_comes_back_whole(cloud, name, tmp_path):
    sent = document(name)
    registered = register(cloud, tmp_path, sent)
    for field in ("family", "networkMode", "requiresCompatibilities", "cpu", "memory", "executionRoleArn"):
        assert registered[field] == sent[field]
    (container,) = registered["containerDefinitions"]
    for field in ("name", "image", "essential", "environment", "logConfiguration"):
        assert container[field] == sent["containerDefinitions"][0][field]
    assert container["portMappings"] == [{"containerPort": 80, "hostPort": 80, "protocol": "tcp"}]
    assert registered["status"] == "ACTIVE"
    assert set(registered["compatibilities"]) == {"EC2", "FARGATE"}
    assert registered["registeredBy"].startswith("arn:aws:")
    described = cloud.aws("ecs", "describe-task-definition", "--task-definition", f"{name}:1")["taskDefinition"]
    assert described == registered


def test_describe_by_family_is_the_newest_active(cloud, name, tmp_path):
    for _ in range(2):
        register(cloud, tmp_path, document(name))
    newest = cloud.aws("ecs", "describe-task-definition", "--task-definition", name)["taskDefinition"]
    assert newest["revision"] == 2
    cloud.ecs.deregister_task_definition(taskDefinition=f"{name}:2")
    assert cloud.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]["revision"] == 1


def test_families(cloud, name, tmp_path):
    register(cloud, tmp_path, document(f"{name}-a"))
    register(cloud, tmp_path, document(f"{name}-b"))
    families = cloud.aws("ecs", "list-task-definition-families", "--family-prefix", name)["families"]
    assert families == [f"{name}-a", f"{name}-b"]
    cloud.ecs.deregister_task_definition(taskDefinition=f"{name}-b:1")
    active = cloud.ecs.list_task_definition_families(familyPrefix=name, status="ACTIVE")["families"]
    inactive = cloud.ecs.list_task_definition_families(familyPrefix=name, status="INACTIVE")["families"]
    assert (active, inactive) == ([f"{name}-a"], [f"{name}-b"])


def test_deregister_then_delete(cloud, name, tmp_path):
    arn = register(cloud, tmp_path, document(name))["taskDefinitionArn"]
    deregistered = cloud.aws("ecs", "deregister-task-definition", "--task-definition", f"{name}:1")["taskDefinition"]
    assert deregistered["status"] == "INACTIVE"
    assert "deregisteredAt" in deregistered
    assert cloud.ecs.list_task_definitions(familyPrefix=name)["taskDefinitionArns"] == []
    assert cloud.ecs.list_task_definitions(familyPrefix=name, status="INACTIVE")["taskDefinitionArns"] == [arn]
    deleted = cloud.aws("ecs", "delete-task-definitions", "--task-definitions", f"{name}:1")
    assert deleted["failures"] == []
    assert [each["status"] for each in deleted["taskDefinitions"]] == ["DELETE_IN_PROGRESS"]


def test_an_active_revision_is_not_deleted(cloud, name, tmp_path):
    arn = register(cloud, tmp_path, document(name))["taskDefinitionArn"]
    answer = cloud.ecs.delete_task_definitions(taskDefinitions=[f"{name}:1"])
    assert answer["taskDefinitions"] == []
    assert [failure["arn"] for failure in answer["failures"]] == [arn]


def test_a_revision_is_never_given_twice(cloud, name, tmp_path):
    register(cloud, tmp_path, document(name))
    cloud.ecs.deregister_task_definition(taskDefinition=f"{name}:1")
    cloud.ecs.delete_task_definitions(taskDefinitions=[f"{name}:1"])
    assert register(cloud, tmp_path, document(name))["revision"] == 2


@pytest.mark.parametrize("cpu, memory", [("0.5 vCPU", "1 GB"), (".5 vcpu", "1GB")])
def test_sizes_in_words(cloud, name, tmp_path, cpu, memory):
    registered = register(cloud, tmp_path, document(name, cpu=cpu, memory=memory))
    assert (registered["cpu"], registered["memory"]) == ("512", "1024")


def container(**changes):
    return [{"name": "main", "image": "busybox:latest", "essential": True} | changes]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"networkMode": "bridge"}, "Fargate only supports network mode ‘awsvpc’."),
        (
            {"cpu": "300"},
            "No Fargate configuration exists for given values: 300 CPU, 512 memory. "
            "See the Amazon ECS documentation for the valid values.",
        ),
        ({"containerDefinitions": []}, "Container list cannot be empty."),
        ({"containerDefinitions": container(image="")}, "Container.image should not be null or empty."),
        ({"containerDefinitions": container(name="")}, "Container.name should not be null or empty."),
        ({"family": "not a name!"}, ""),
        ({"containerDefinitions": container(name="not a name!")}, ""),
        ({"containerDefinitions": container() * 2}, ""),
        ({"containerDefinitions": container(essential=False)}, ""),
    ],
    ids=[
        "bridge on Fargate",
        "no such size",
        "no container",
        "no image",
        "no name",
        "bad family",
        "bad container name",
        "one name twice",
        "nothing essential",
    ],
)
def test_what_is_refused(cloud, name, changes, message):
    unchecked = cloud.client("ecs", config={"parameter_validation": False})
    with refused("ClientException", message):
        unchecked.register_task_definition(**document(name) | changes)
    assert cloud.ecs.list_task_definitions(familyPrefix=name)["taskDefinitionArns"] == []


@pytest.mark.parametrize(
    "field, value",
    [
        ("interactive", True),
        ("links", ["other"]),
        ("disableNetworking", True),
    ],
)
def test_what_is_not_honoured_yet_is_refused_by_name(cloud, name, field, value):
    with refused("ClientException", field):
        cloud.ecs.register_task_definition(**document(name, containerDefinitions=container(**{field: value})))


def test_more_than_ten_containers(cloud, name):
    many = [each for i in range(11) for each in container(name=f"c{i}")]
    with refused("ClientException"):
        cloud.ecs.register_task_definition(**document(name, containerDefinitions=many))


def test_what_is_not_there(cloud, name, tmp_path):
    register(cloud, tmp_path, document(name))
    for absent in (f"{name}-gone", f"{name}:2"):
        with refused("ClientException", "Unable to describe task definition."):
            cloud.ecs.describe_task_definition(taskDefinition=absent)
    with refused("ClientException"):
        cloud.ecs.deregister_task_definition(taskDefinition=f"{name}:2")
    with refused("ClientException", "Revision is missing."):
        cloud.ecs.deregister_task_definition(taskDefinition=name)
