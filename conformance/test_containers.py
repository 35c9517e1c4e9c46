"""Tasks of several containers: who starts first, who is well, who comes again, and what they share."""

import pytest

from support.aws import idle, refused, task_id
from support.host import find_process
from support.waiting import until

READY = ["sh", "-c", "touch /tmp/ready; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]
HEALTH = {"command": ["CMD-SHELL", "test -e /tmp/ready"], "interval": 5, "timeout": 2, "retries": 2}


# AWS allows no shorter one, and a container that ends sooner after its start is not started again.
PERIOD = 60
LONG_RUN = f"echo first; touch /shared/began; i=0; while [ $i -lt {PERIOD + 2} ]; do sleep 1; i=$((i+1)); done; exit 5"
LASTING = f"trap 'exit 0' TERM; if [ -e /shared/began ]; then echo again; {idle()[2]}; fi; {LONG_RUN}"


@pytest.fixture(scope="module", autouse=True)
def long_runs(cloud):
    """Tasks that outlive the shortest restartAttemptPeriod while the other tests run, then exit with 5: one under each
    policy."""
    cluster = cloud.cluster("long-runs")
    policies = {"again": {"enabled": True}, "ignored": {"enabled": True, "ignoredExitCodes": [5]}}
    arns = {}
    for name, policy in policies.items():
        definition = cloud.register(
            f"long-run-{name}",
            {
                "command": ["sh", "-c", LASTING, f"long-run-{name}"],
                "restartPolicy": {"restartAttemptPeriod": PERIOD} | policy,
                "mountPoints": [{"sourceVolume": "shared", "containerPath": "/shared"}],
            },
            volumes=[{"name": "shared"}],
        )
        (arns[name],) = cloud.run(cluster, definition)
    yield cluster, arns
    cloud.stop_all(cluster)


def container(name, command, **settings):
    return {"name": name, "command": command, "essential": False} | settings


def states(task):
    return {c["name"]: c for c in task["containers"]}


def test_a_sidecar_may_end(cloud, cluster, name):
    """The guide's example: the task goes on when its log router stops."""
    definition = cloud.register(
        name, {"name": "app", "command": idle()}, container("log-router", ["sh", "-c", "echo routed; exit 3"])
    )
    (arn,) = cloud.run(cluster, definition)
    ended = until(
        "the sidecar has ended", lambda: states(cloud.task(cluster, arn))["log-router"].get("exitCode") == 3
    )
    assert ended
    task = cloud.until_running(cluster, arn)
    assert states(task)["app"]["lastStatus"] == "RUNNING"
    cloud.until_line(f"/ecs/{name}", f"test/log-router/{task_id(arn)}", "routed")


def test_a_container_starts_when_its_dependencies_allow(cloud, cluster, name):
    order = "echo {0} >>/shared/order; {1}"
    say = lambda who, then: ["sh", "-c", order.format(who, then)]  # noqa: E731 (a name for one expression)
    mounts = {"mountPoints": [{"sourceVolume": "shared", "containerPath": "/shared"}]}
    on = lambda other, condition: {"dependsOn": [{"containerName": other, "condition": condition}]}  # noqa: E731
    definition = cloud.register(
        name,
        {"name": "app", "command": say("app", "cat /shared/order"), **mounts, **on("db", "HEALTHY")},
        container("db", say("db", READY[2]), healthCheck=HEALTH, **mounts, **on("migrate", "SUCCESS")),
        container("migrate", say("migrate", "exit 0"), **mounts, **on("fetch", "COMPLETE")),
        container("fetch", say("fetch", "exit 1"), **mounts),
        volumes=[{"name": "shared"}],
    )
    (arn,) = cloud.run(cluster, definition)
    task = cloud.until_stopped(cluster, arn)
    codes = {who: state.get("exitCode") for who, state in states(task).items()}
    assert (codes["app"], codes["migrate"], codes["fetch"]) == (0, 0, 1)
    stream = f"test/app/{task_id(arn)}"
    cloud.until_line(f"/ecs/{name}", stream, "app")
    assert cloud.lines(f"/ecs/{name}", stream) == ["fetch", "migrate", "db", "app"]


def test_a_dependency_that_fails_ends_the_task(cloud, cluster, name):
    needs = {"dependsOn": [{"containerName": "migrate", "condition": "SUCCESS"}]}
    definition = cloud.register(
        name, {"name": "app", "command": idle(), **needs}, container("migrate", ["sh", "-c", "exit 4"])
    )
    (arn,) = cloud.run(cluster, definition)
    task = cloud.until_stopped(cluster, arn)
    assert task["stopCode"] == "TaskFailedToStart"
    assert states(task)["migrate"]["exitCode"] == 4
    assert "exitCode" not in states(task)["app"]


def test_health_is_seen(cloud, cluster, name):
    """A container without its file is UNHEALTHY after its retries, and well again when the file is back."""
    script = "trap 'exit 0' TERM; touch /tmp/ready; while :; do sleep 1 & wait $!; done"
    definition = cloud.register(name, {"command": ["sh", "-c", script], "healthCheck": HEALTH})
    task = cloud.run_one(cluster, definition)
    arn = task["taskArn"]
    healthy = lambda: cloud.task(cluster, arn)["healthStatus"] == "HEALTHY"  # noqa: E731
    assert until("the task is HEALTHY", healthy)
    (state,) = cloud.task(cluster, arn)["containers"]
    assert state["healthStatus"] == "HEALTHY"


def test_a_container_that_is_not_well_is_unhealthy(cloud, cluster, name):
    check = HEALTH | {"command": ["CMD", "false"]}
    task = cloud.run_one(cluster, cloud.register(name, {"command": idle(), "healthCheck": check}))
    unhealthy = lambda: cloud.task(cluster, task["taskArn"])["healthStatus"] == "UNHEALTHY"  # noqa: E731
    assert until("the task is UNHEALTHY", unhealthy)


def test_a_volume_is_shared_and_can_be_read_only(cloud, cluster, name):
    mount = {"sourceVolume": "shared", "containerPath": "/shared"}
    definition = cloud.register(
        name,
        {
            "name": "reader",
            "command": ["sh", "-c", "until cat /shared/word; do sleep 0.1; done 2>/dev/null; touch /shared/x; exit $?"],
            "mountPoints": [mount | {"readOnly": True}],
        },
        container("writer", ["sh", "-c", "echo hello >/shared/word"], mountPoints=[mount]),
        volumes=[{"name": "shared"}],
    )
    (arn,) = cloud.run(cluster, definition)
    task = cloud.until_stopped(cluster, arn)
    assert states(task)["reader"]["exitCode"] == 1
    cloud.until_line(f"/ecs/{name}", f"test/reader/{task_id(arn)}", "hello")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dependsOn": [{"containerName": "side", "condition": "HEALTHY"}]},
            "A dependency container with HEALTHY condition must have health check configured",
        ),
        (
            {"dependsOn": [{"containerName": "other", "condition": "COMPLETE"}]},
            "A dependency container with SUCCESS or COMPLETE condition cannot be an essential container",
        ),
        ({"dependsOn": [{"containerName": "never-was", "condition": "START"}]}, "names 'never-was'"),
        ({"dependsOn": [{"containerName": "round", "condition": "START"}]}, "leads back to itself"),
        ({"mountPoints": [{"sourceVolume": "never-was", "containerPath": "/x"}]}, "Unknown volume 'never-was'."),
        ({"healthCheck": {"command": ["true"]}}, "healthCheck.command must be CMD"),
        ({"healthCheck": {"command": ["CMD", "true"], "interval": 4}}, "between 5 and 300 seconds, and is 4"),
        ({"restartPolicy": {"enabled": True, "restartAttemptPeriod": 5}}, "between 60 and 1800 seconds"),
    ],
)
def test_refusals(cloud, name, change, message):
    with refused("ClientException", message):
        cloud.register(
            name,
            {"name": "main", "command": idle()} | change,
            container("side", idle()),
            container("other", idle(), essential=True),
            container("round", idle(), dependsOn=[{"containerName": "main", "condition": "START"}]),
        )


def test_a_container_that_ends_within_the_attempt_period_is_not_restarted(cloud, cluster, name):
    policy = {"enabled": True, "restartAttemptPeriod": PERIOD}
    definition = cloud.register(name, {"command": ["sh", "-c", "echo once; exit 5"], "restartPolicy": policy})
    (arn,) = cloud.run(cluster, definition)
    task = cloud.until_stopped(cluster, arn)
    assert task["stopCode"] == "EssentialContainerExited"
    assert states(task)["main"]["exitCode"] == 5
    assert cloud.lines(f"/ecs/{name}", f"test/main/{task_id(arn)}") == ["once"]


# Last in this file: by now most of the time that they wait for is over.
def test_a_container_is_restarted(cloud, long_runs):
    cluster, arns = long_runs
    before = cloud.until_running(cluster, arns["again"])
    stream = f"test/main/{task_id(arns['again'])}"
    assert cloud.until_line("/ecs/long-run-again", stream, "again") == ["first", "again"]
    task = cloud.until_running(cluster, arns["again"])
    assert task["startedAt"] == before["startedAt"]
    (container_before,), (container_now,) = before["containers"], task["containers"]
    assert container_now["runtimeId"] == container_before["runtimeId"]
    assert (container_now["lastStatus"], "exitCode" in container_now) == ("RUNNING", False)
    find_process("long-run-again")
    # While a task stops, an exit is an exit.
    cloud.ecs.stop_task(cluster=cluster, task=arns["again"])
    stopped = cloud.until_stopped(cluster, arns["again"])
    assert states(stopped)["main"]["exitCode"] == 0
    assert cloud.lines("/ecs/long-run-again", stream) == ["first", "again"]


def test_an_ignored_exit_code_ends_the_task(cloud, long_runs):
    cluster, arns = long_runs
    task = cloud.until_stopped(cluster, arns["ignored"])
    assert task["stopCode"] == "EssentialContainerExited"
    assert states(task)["main"]["exitCode"] == 5
    assert cloud.lines("/ecs/long-run-ignored", f"test/main/{task_id(arns['ignored'])}") == ["first"]
