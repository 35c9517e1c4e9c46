"""Blue/green, linear and canary deployments by ECS itself: stages, hooks, traffic, and what runs meanwhile."""

import contextlib
import http.server
import json
import threading

import pytest

from support import server
from support.aws import Cloud, idle, refused
from support.host import find_processes
from support.services import clear, create, describe, events, stable, tasks
from support.waiting import until

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:agrees"


class Function:
    """What stands where Lambda would be: answers what it is told to, one after another, and remembers what it heard."""

    def __init__(self):
        self.heard, self.answers = [], []
        function = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                function.heard.append((self.path, body))
                status, answer = function.answers.pop(0) if function.answers else (503, {})
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    @contextlib.contextmanager
    def serving(self):
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.fixture(scope="module")
def function():
    with Function().serving() as function:
        yield function


@pytest.fixture(scope="module")
def cloud(load, function):
    with server.running("--lambda-endpoint", function.url) as started:
        load(started)
        yield Cloud(started)


@pytest.fixture
def cluster(cloud, name):
    yield cloud.cluster(name)
    clear(cloud, name)


@pytest.fixture
def versions(cloud, name):
    """Two revisions whose processes can be told apart."""
    return [cloud.register(name, {"command": idle(f"{name}-{version}"), "stopTimeout": 2}) for version in ("a", "b")]


def revision(arn):
    return arn.rsplit("/", 1)[1]


def pids(name, version):
    return {process.pid for process in find_processes(f"{name}-{version}")}


def configuration(strategy="BLUE_GREEN", hooks=(), **settings):
    return {"strategy": strategy, "bakeTimeInMinutes": 0, "lifecycleHooks": list(hooks)} | settings


def pause(*stages, **settings):
    return {"targetType": "PAUSE", "lifecycleStages": list(stages)} | settings


def deployment(cloud, cluster):
    """The newest service deployment."""
    briefs = cloud.ecs.list_service_deployments(cluster=cluster, service="web")["serviceDeployments"]
    arns = [briefs[0]["serviceDeploymentArn"]]
    (found,) = cloud.ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]
    return found


def at_pause(cloud, cluster, stage, other_than=None):
    def check():
        found = deployment(cloud, cluster)
        hooks = [hook for hook in found.get("lifecycleHookDetails", []) if hook["status"] == "AWAITING_ACTION"]
        is_there = found.get("lifecycleStage") == stage and hooks and hooks[0]["hookId"] != other_than
        return (found, hooks[0]) if is_there else None

    return until(f"it waits at {stage}", check)


def ended(cloud, cluster, status):
    return until(f"it is {status}", lambda: (d := deployment(cloud, cluster))["status"] == status and d)


def weights(found):
    target = found["targetServiceRevision"]
    (source,) = found["sourceServiceRevisions"]
    fields = ("requestedProductionTrafficWeight", "requestedTestTrafficWeight")
    return [tuple(each[field] for field in fields) for each in (source, target)]


def test_blue_green_by_the_cli_with_a_pause(cloud, cluster, versions, name):
    create(cloud, cluster, versions[0], count=2, deploymentConfiguration=configuration())
    before = stable(cloud, cluster)
    assert before["deploymentConfiguration"]["strategy"] == "BLUE_GREEN"
    blue = pids(name, "a")
    assert len(blue) == 2
    hooks = json.dumps(configuration(hooks=[pause("POST_TEST_TRAFFIC_SHIFT")]))
    updated = cloud.aws(
        *["ecs", "update-service", "--cluster", cluster, "--service", "web", "--task-definition", versions[1]],
        *["--deployment-configuration", hooks],
    )["service"]
    assert len(updated["deployments"]) == 2
    found, hook = at_pause(cloud, cluster, "POST_TEST_TRAFFIC_SHIFT")
    assert weights(found) == [(100, 0), (0, 100)]
    assert (hook["targetType"], hook["timeoutAction"]) == ("PAUSE", "ROLLBACK")
    assert (hook["expiresAt"] - found["createdAt"]).total_seconds() >= 86_400
    assert (pids(name, "a"), len(pids(name, "b"))) == (blue, 2), "both revisions run, and blue was not touched"
    arn = found["serviceDeploymentArn"]
    said = cloud.server.run("why", before["serviceArn"])
    assert "is kept beside it" in said
    assert f"continue-service-deployment --service-deployment-arn {arn} --hook-id {hook['hookId']}" in said
    with refused("InvalidParameterException", "is not at a lifecycle hook with the id other"):
        cloud.ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="other")
    answer = cloud.aws(
        *["ecs", "continue-service-deployment", "--service-deployment-arn", arn, "--hook-id", hook["hookId"]],
        *["--action", "CONTINUE"],
    )
    assert answer == {"serviceDeploymentArn": arn}
    after = stable(cloud, cluster)
    assert revision(after["taskDefinition"]) == versions[1]
    assert ended(cloud, cluster, "SUCCESSFUL")["lifecycleStage"] == "CLEAN_UP"
    until("blue is gone", lambda: not pids(name, "a"))
    assert {revision(task["taskDefinitionArn"]) for task in tasks(cloud, cluster)} == {versions[1]}
    with refused("InvalidParameterException", "not in progress"):
        cloud.ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])


def test_going_back_at_a_pause_leaves_blue_as_it_was(cloud, cluster, versions, name):
    hooks = [pause("POST_PRODUCTION_TRAFFIC_SHIFT", timeoutConfiguration={"timeoutInMinutes": 5, "action": "CONTINUE"})]
    create(cloud, cluster, versions[0], deploymentConfiguration=configuration())
    first = stable(cloud, cluster)["deployments"][0]["id"]
    blue = pids(name, "a")
    cloud.ecs.update_service(
        cluster=cluster, service="web", taskDefinition=versions[1], deploymentConfiguration=configuration(hooks=hooks)
    )
    found, hook = at_pause(cloud, cluster, "POST_PRODUCTION_TRAFFIC_SHIFT")
    assert weights(found) == [(0, 0), (100, 100)]
    arn = found["serviceDeploymentArn"]
    cloud.ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action="ROLLBACK")
    back = ended(cloud, cluster, "ROLLBACK_SUCCESSFUL")
    assert back["rollback"]["reason"].startswith(f"The lifecycle hook {hook['hookId']} was not continued")
    assert revision(stable(cloud, cluster)["taskDefinition"]) == versions[0]
    assert pids(name, "a") == blue
    until("green is gone", lambda: not pids(name, "b"))
    assert f"(service web) rolling back to deployment {first}." in events(cloud, cluster)


@pytest.mark.parametrize(
    ("strategy", "steps", "shares"),
    [
        ("LINEAR", {"linearConfiguration": {"stepPercent": 40.0, "stepBakeTimeInMinutes": 0}}, [40, 80, 100]),
        ("CANARY", {"canaryConfiguration": {"canaryPercent": 2.5, "canaryBakeTimeInMinutes": 0}}, [2.5, 100]),
    ],
)
def test_traffic_goes_over_in_steps(cloud, cluster, versions, strategy, steps, shares):
    hooks = [pause("PRODUCTION_TRAFFIC_SHIFT")]
    create(cloud, cluster, versions[0], deploymentConfiguration=configuration())
    stable(cloud, cluster)
    settings = configuration(strategy, hooks, **steps)
    updated = cloud.ecs.update_service(
        cluster=cluster, service="web", taskDefinition=versions[1], deploymentConfiguration=settings
    )["service"]
    shown = updated["deploymentConfiguration"]
    assert {field: shown[field] for field in settings if field != "lifecycleHooks"} == {
        field: value for field, value in settings.items() if field != "lifecycleHooks"
    }
    last = None
    for share in shares:
        found, hook = at_pause(cloud, cluster, "PRODUCTION_TRAFFIC_SHIFT", other_than=last)
        assert weights(found) == [(100 - share, 0), (share, 100)]
        last = hook["hookId"]
        cloud.ecs.continue_service_deployment(serviceDeploymentArn=found["serviceDeploymentArn"], hookId=last)
    ended(cloud, cluster, "SUCCESSFUL")
    assert revision(stable(cloud, cluster)["taskDefinition"]) == versions[1]


def test_a_function_decides(cloud, cluster, versions, function, name):
    create(cloud, cluster, versions[0], deploymentConfiguration=configuration())
    stable(cloud, cluster)
    hook = {
        "hookTargetArn": FUNCTION,
        "roleArn": "arn:aws:iam::123456789012:role/hooks",
        "lifecycleStages": ["POST_SCALE_UP"],
        "hookDetails": {"bucket": "reports"},
    }
    function.heard.clear()
    later = {"hookStatus": "IN_PROGRESS", "callBackDelay": 0, "hookDetails": {"seen": [1, 2]}}
    function.answers[:] = [(200, later), (200, {"hookStatus": "SUCCEEDED"})]
    arn = cloud.ecs.update_service(
        cluster=cluster,
        service="web",
        taskDefinition=versions[1],
        deploymentConfiguration=configuration(hooks=[hook]),
    )["service"]["serviceArn"]
    found = ended(cloud, cluster, "SUCCESSFUL")
    assert revision(stable(cloud, cluster)["taskDefinition"]) == versions[1]
    assert found["deploymentConfiguration"]["lifecycleHooks"] == [{"targetType": "AWS_LAMBDA"} | hook]
    (path, told), (_, again) = function.heard
    assert path == "/2015-03-31/functions/agrees/invocations"
    assert (told["lifecycleStage"], told["resourceArn"]) == ("POST_SCALE_UP", found["serviceDeploymentArn"])
    assert (told["hookDetails"], again["hookDetails"]) == ({"bucket": "reports"}, {"seen": [1, 2]})
    details = told["executionDetails"]
    assert details["serviceArn"] == arn
    assert details["targetServiceRevisionArn"] == found["targetServiceRevision"]["arn"]
    assert details["productionTrafficWeights"][found["targetServiceRevision"]["arn"]] == 0
    assert sum(details["productionTrafficWeights"].values()) == 100

    function.answers[:] = [(200, {"hookStatus": "FAILED"})]
    cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=versions[0])
    refusal = ended(cloud, cluster, "ROLLBACK_SUCCESSFUL")
    assert FUNCTION in refusal["statusReason"]
    assert revision(stable(cloud, cluster)["taskDefinition"]) == versions[1]
    until("only the second revision runs", lambda: not pids(name, "a") and len(pids(name, "b")) == 1)


def test_a_pause_survives_a_kill_of_the_server(cloud, cluster, versions, name):
    create(cloud, cluster, versions[0], deploymentConfiguration=configuration(hooks=[pause("PRE_SCALE_UP")]))
    _, first = at_pause(cloud, cluster, "PRE_SCALE_UP")
    assert tasks(cloud, cluster) == [], "nothing is started before it is continued"
    cloud.server.kill()
    cloud.server.start()
    found, hook = at_pause(cloud, cluster, "PRE_SCALE_UP")
    assert hook == first
    cloud.ecs.continue_service_deployment(serviceDeploymentArn=found["serviceDeploymentArn"], hookId=hook["hookId"])
    assert stable(cloud, cluster)["runningCount"] == 1
    assert len(pids(name, "a")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "ROLLING", "lifecycleHooks": [pause("PRE_SCALE_UP")]}, "not supported for the deployment strategy"),
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.9}}, "stepPercent must be a multiple of 0.1"),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0.05}}, "canaryPercent must be a multiple"),
        ({"strategy": "CANARY", "linearConfiguration": {}}, "only valid for the deployment strategy LINEAR"),
        ({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1441}, "bakeTimeInMinutes must be between 0 and 1440"),
        ({"strategy": "BLUE_GREEN", "lifecycleHooks": [{"lifecycleStages": ["PRE_SCALE_UP"]}]}, "hookTargetArn must be"),
        ({"strategy": "BLUE_GREEN", "lifecycleHooks": [pause()]}, "lifecycleStages must name"),
    ],
)
def test_configurations_that_cannot_be(cloud, cluster, versions, settings, message):
    with refused("InvalidParameterException", message):
        create(cloud, cluster, versions[0], deploymentConfiguration=settings)
    assert cloud.ecs.describe_services(cluster=cluster, services=["web"])["failures"][0]["reason"] == "MISSING"


def test_a_function_needs_an_endpoint(start, load, name):
    own = start()
    load(own, "busybox:latest")
    cloud = Cloud(own)
    cloud.cluster(name)
    definition = cloud.register(name, {"command": idle(name)})
    hook = {"hookTargetArn": FUNCTION, "lifecycleStages": ["PRE_SCALE_UP"]}
    with refused("InvalidParameterException", "start Longshore with --lambda-endpoint"):
        create(cloud, name, definition, deploymentConfiguration=configuration(hooks=[hook]))
    create(cloud, name, definition, count=0, deploymentConfiguration=configuration())
    with refused("InvalidParameterException", "start Longshore with --lambda-endpoint"):
        cloud.ecs.update_service(
            cluster=name, service="web", deploymentConfiguration=configuration(hooks=[hook])
        )
    assert describe(cloud, name)["deploymentConfiguration"].get("lifecycleHooks") is None
    clear(cloud, name)
