"""Secrets and parameters: kept sealed, and given to the containers that name them."""

import json

import pytest

from support import server
from support.aws import CliError, Cloud, refused, task_id


@pytest.fixture
def secrets(cloud):
    return cloud.client("secretsmanager")


@pytest.fixture
def ssm(cloud):
    return cloud.client("ssm")


def reader(*variables, **references):
    """A container that prints variables and ends."""
    lines = "; ".join(f'echo "{name}=${name}"' for name in variables or references)
    return {
        "command": ["sh", "-c", lines],
        "secrets": [{"name": name, "valueFrom": source} for name, source in references.items()],
    }


def read(cloud, cluster, name, container):
    """What a container of a task printed."""
    (arn,) = cloud.run(cluster, cloud.register(name, container))
    task = cloud.until_stopped(cluster, arn)
    assert task["containers"][0].get("exitCode") == 0, task["stoppedReason"]
    return cloud.lines(f"/ecs/{name}", f"test/main/{task_id(arn)}")


def test_a_secret_by_the_cli(cloud, name):
    made = cloud.aws("secretsmanager", "create-secret", "--name", name, "--secret-string", "one")
    assert made["ARN"].startswith(f"arn:aws:secretsmanager:{cloud.region}:123456789012:secret:{name}-")
    assert len(made["ARN"].rpartition("-")[2]) == 6
    for identifier in (name, made["ARN"], made["ARN"][:-7]):
        found = cloud.aws("secretsmanager", "get-secret-value", "--secret-id", identifier)
        assert (found["SecretString"], found["VersionStages"]) == ("one", ["AWSCURRENT"])
    cloud.aws("secretsmanager", "put-secret-value", "--secret-id", name, "--secret-string", "two")
    previous = ["--version-stage", "AWSPREVIOUS"]
    assert cloud.aws("secretsmanager", "get-secret-value", "--secret-id", name, *previous)["SecretString"] == "one"
    cloud.aws("secretsmanager", "delete-secret", "--secret-id", name, "--force-delete-without-recovery")
    with pytest.raises(CliError) as error:
        cloud.aws("secretsmanager", "get-secret-value", "--secret-id", name)
    assert error.value.code == "ResourceNotFoundException"


def test_versions_and_stages(secrets, name):
    token = "00000000-0000-4000-8000-000000000001"
    first = secrets.create_secret(Name=name, SecretBinary=b"\x00\xff", ClientRequestToken=token)
    again = secrets.create_secret(Name=name, SecretBinary=b"\x00\xff", ClientRequestToken=token)
    assert (again["ARN"], again["VersionId"]) == (first["ARN"], token)
    with refused("ResourceExistsException"):
        secrets.create_secret(Name=name, SecretBinary=b"other")
    assert secrets.get_secret_value(SecretId=name)["SecretBinary"] == b"\x00\xff"
    second = secrets.put_secret_value(SecretId=name, SecretString="new", VersionStages=["AWSPENDING"])["VersionId"]
    assert secrets.get_secret_value(SecretId=name)["VersionId"] == token
    secrets.update_secret_version_stage(
        SecretId=name, VersionStage="AWSCURRENT", RemoveFromVersionId=token, MoveToVersionId=second
    )
    stages = secrets.describe_secret(SecretId=name)["VersionIdsToStages"]
    assert {version: sorted(of) for version, of in stages.items()} == {
        token: ["AWSPREVIOUS"],
        second: ["AWSCURRENT", "AWSPENDING"],
    }
    with refused("ResourceNotFoundException", "staging label: NONE"):
        secrets.get_secret_value(SecretId=name, VersionStage="NONE")
    secrets.update_secret(SecretId=name, Description="of the shop", SecretString="newest")
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "newest"
    listed = secrets.list_secrets(Filters=[{"Key": "name", "Values": [name]}])["SecretList"]
    assert [(secret["Name"], secret["Description"]) for secret in listed] == [(name, "of the shop")]
    secrets.delete_secret(SecretId=name, RecoveryWindowInDays=7)
    with refused("InvalidRequestException", "marked for deletion"):
        secrets.get_secret_value(SecretId=name)
    secrets.restore_secret(SecretId=name)
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "newest"
    secrets.tag_resource(SecretId=name, Tags=[{"Key": "team", "Value": "red"}])
    assert secrets.describe_secret(SecretId=name)["Tags"] == [{"Key": "team", "Value": "red"}]
    secrets.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def test_parameters(ssm, name):
    path = f"/{name}/db"
    made = ssm.put_parameter(Name=f"{path}/host", Value="db.example", Type="String", Tags=[{"Key": "team", "Value": "red"}])
    assert (made["Version"], made["Tier"]) == (1, "Standard")
    ssm.put_parameter(Name=f"{path}/pass", Value="hunter2", Type="SecureString")
    with refused("ParameterAlreadyExists"):
        ssm.put_parameter(Name=f"{path}/host", Value="other", Type="String")
    assert ssm.put_parameter(Name=f"{path}/host", Value="new.example", Overwrite=True)["Version"] == 2
    ssm.label_parameter_version(Name=f"{path}/host", ParameterVersion=1, Labels=["old"])

    def value(identifier, **settings):
        return ssm.get_parameter(Name=identifier, **settings)["Parameter"]["Value"]

    assert value(f"{path}/host") == "new.example"
    assert value(f"{path}/host:1") == value(f"{path}/host:old") == "db.example"
    assert value(f"{path}/pass", WithDecryption=True) == "hunter2"
    assert "hunter2" not in value(f"{path}/pass")
    found = ssm.get_parameters(Names=[f"{path}/pass", "/none"], WithDecryption=True)
    assert ([p["Value"] for p in found["Parameters"]], found["InvalidParameters"]) == (["hunter2"], ["/none"])
    assert ssm.get_parameters_by_path(Path=f"/{name}")["Parameters"] == []
    below = ssm.get_parameters_by_path(Path=f"/{name}", Recursive=True, MaxResults=1)
    assert [p["Name"] for p in below["Parameters"]] == [f"{path}/host"]
    rest = ssm.get_parameters_by_path(Path=f"/{name}", Recursive=True, MaxResults=1, NextToken=below["NextToken"])
    assert [p["Name"] for p in rest["Parameters"]] == [f"{path}/pass"] and "NextToken" not in rest
    history = ssm.get_parameter_history(Name=f"{path}/host")["Parameters"]
    assert [(v["Version"], v["Value"], v["Labels"]) for v in history] == [
        (1, "db.example", ["old"]),
        (2, "new.example", []),
    ]
    filters = [{"Key": "Type", "Values": ["SecureString"]}, {"Key": "Path", "Option": "Recursive", "Values": [f"/{name}"]}]
    (described,) = ssm.describe_parameters(ParameterFilters=filters)["Parameters"]
    assert (described["Name"], described["KeyId"]) == (f"{path}/pass", "alias/aws/ssm")
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=f"{path}/host")["TagList"]
    assert tags == [{"Key": "team", "Value": "red"}]
    for settings, code in [
        ({"Name": f"{path}/x", "Value": "5", "Type": "String", "AllowedPattern": "[a-z]+"}, "ParameterPatternMismatchException"),
        ({"Name": "/aws/x", "Value": "5", "Type": "String"}, "ValidationException"),
        ({"Name": f"{path}/x", "Value": "5" * 4097, "Type": "String"}, "ValidationException"),
    ]:
        with refused(code):
            ssm.put_parameter(**settings)
    gone = ssm.delete_parameters(Names=[f"{path}/host", f"{path}/pass", "/none"])
    assert (sorted(gone["DeletedParameters"]), gone["InvalidParameters"]) == ([f"{path}/host", f"{path}/pass"], ["/none"])
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name=f"{path}/host")


def test_containers_are_given_what_they_name(cloud, cluster, secrets, ssm, name):
    value = json.dumps({"user": "shop", "port": 5432})
    arn = secrets.create_secret(Name=name, SecretString=value)["ARN"]
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps({"user": "new"}))
    ssm.put_parameter(Name=f"/{name}", Value="hunter2", Type="SecureString")
    container = reader(
        USER=f"{arn}:user::",
        OLD=f"{arn}:port:AWSPREVIOUS:",
        WHOLE=arn,
        PASS=f"/{name}",
        BY_ARN=f"arn:aws:ssm:{cloud.region}:123456789012:parameter/{name}",
    )
    assert read(cloud, cluster, name, container) == [
        "USER=new",
        "OLD=5432",
        'WHOLE={"user": "new"}',
        "PASS=hunter2",
        "BY_ARN=hunter2",
    ]
    shown = cloud.ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
    assert shown["containerDefinitions"][0]["secrets"] == container["secrets"]
    told = json.dumps([shown, cloud.ecs.list_tasks(cluster=cluster, desiredStatus="STOPPED")], default=str)
    assert "hunter2" not in told + cloud.server.run("events", "--output", "json") + cloud.server.log_tail()


@pytest.mark.parametrize(
    "source, why",
    [
        ("/no/such", "unable to retrieve secrets from ssm: service call has been retried 1 time(s): invalid ssm parameters"),
        ("{arn}:nothing::", "did not contain json key nothing"),
        ("{arn}::NONE:", "can't find the specified secret value for staging label: NONE"),
        ("arn:aws:secretsmanager:us-east-1:123456789012:secret:none-AbCdEf", "can't find the specified secret."),
    ],
    ids=["parameter", "key", "stage", "secret"],
)
def test_what_is_missing_ends_the_task(cloud, cluster, secrets, name, source, why):
    arn = secrets.create_secret(Name=name, SecretString="{}")["ARN"]
    (task,) = cloud.run(cluster, cloud.register(name, reader(X=source.format(arn=arn))))
    ended = cloud.until_stopped(cluster, task)
    assert ended["stopCode"] == "TaskFailedToStart"
    assert ended["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth: ")
    assert why in ended["stoppedReason"]


@pytest.mark.parametrize(
    "changes",
    [
        {"secrets": [{"name": "X", "valueFrom": "/x"}], "environment": [{"name": "X", "value": "1"}]},
        {"secrets": [{"name": "X", "valueFrom": "/x"}, {"name": "X", "valueFrom": "/y"}]},
        {"secrets": [{"name": "", "valueFrom": "/x"}]},
        {"secrets": [{"name": "X", "valueFrom": ""}]},
    ],
    ids=["also in environment", "twice", "no name", "no source"],
)
def test_wrong_secrets_are_refused(cloud, name, changes):
    with refused("ClientException"):
        cloud.register(name, {"command": ["true"]} | changes)
    with refused("ClientException", "executionRoleArn"):
        container = {"command": ["true"], "secrets": [{"name": "X", "valueFrom": "/x"}]}
        cloud.register(name, container, executionRoleArn="")


def test_they_are_sealed_and_survive_the_server(start, name):
    cloud = Cloud(start())
    secrets, ssm = cloud.client("secretsmanager"), cloud.client("ssm")
    secrets.create_secret(Name=name, SecretString="the-plain-secret")
    ssm.put_parameter(Name=name, Value="the-plain-parameter", Type="SecureString")
    cloud.server.kill()
    cloud.server.start()
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "the-plain-secret"
    assert ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"] == "the-plain-parameter"
    key = cloud.server.data_dir / "sealing-key.json"
    assert key.stat().st_mode & 0o777 == 0o600
    files = [path for path in cloud.server.data_dir.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"the-plain-" in path.read_bytes()]
    # A server with another key says so, and does not start.
    kept = key.read_text()
    cloud.server.kill()
    key.unlink()
    with pytest.raises(server.Failed):
        cloud.server.start()
    assert not key.exists()
    key.write_text(kept)
    cloud.server.start()
    assert secrets.get_secret_value(SecretId=name)["SecretString"] == "the-plain-secret"
