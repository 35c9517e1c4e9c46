"""CodeDeploy: a service's tasks are replaced by others beside them, and traffic goes over, or back."""

import json

import pytest

from support.aws import Cloud, refused
from support.balancers import PORT, Balancer, Load, get, page
from support.services import clear, create, describe, tasks
from support.waiting import until

TEST_PORT = 8080
ROLE = "arn:aws:iam::123456789012:role/ecsCodeDeployRole"


@pytest.fixture
def cd(cloud):
    return cloud.client("codedeploy")


@pytest.fixture
def balancer(cloud, name):
    made = Balancer(cloud, name[-30:].strip("-"))
    made.green = made.make_group(f"{made.name}-g")
    made.green_name = f"{made.name}-g"
    yield made
    made.remove()


@pytest.fixture
def testing(cloud, balancer):
    forward = [{"Type": "forward", "TargetGroupArn": balancer.group}]
    (listener,) = cloud.elbv2.create_listener(
        LoadBalancerArn=balancer.arn, Protocol="HTTP", Port=TEST_PORT, DefaultActions=forward
    )["Listeners"]
    return listener["ListenerArn"]


@pytest.fixture
def cluster(cloud, name):
    yield cloud.cluster(name)
    clear(cloud, name)


@pytest.fixture
def service(cloud, cluster, name, balancer):
    """A service of two tasks whose page is `blue`."""
    made = create(
        cloud,
        cluster,
        cloud.register(name, page("blue")),
        count=2,
        deploymentController={"type": "CODE_DEPLOY"},
        **balancer.serves(),
    )
    until("blue answers", lambda: balancer.health() == ["healthy"] * 2 and balancer.get() == (200, "blue"))
    return made


@pytest.fixture
def group(cloud, cd, cluster, name, balancer, service):
    """Makes the test's application and deployment group."""

    def make(test=None, ready=None, wait=0, **settings):
        route = {"prodTrafficRoute": {"listenerArns": [balancer.listener]}}
        if test:
            route["testTrafficRoute"] = {"listenerArns": [test]}
        ready = ready or {"actionOnTimeout": "CONTINUE_DEPLOYMENT", "waitTimeInMinutes": 0}
        request = {
            "applicationName": name,
            "deploymentGroupName": "main",
            "serviceRoleArn": ROLE,
            "ecsServices": [{"clusterName": cluster, "serviceName": "web"}],
            "deploymentStyle": {"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
            "loadBalancerInfo": {
                "targetGroupPairInfoList": [
                    {"targetGroups": [{"name": balancer.name}, {"name": balancer.green_name}]} | route
                ]
            },
            "blueGreenDeploymentConfiguration": {
                "deploymentReadyOption": ready,
                "terminateBlueInstancesOnDeploymentSuccess": {
                    "action": "TERMINATE",
                    "terminationWaitTimeInMinutes": wait,
                },
            },
        }
        cd.create_application(applicationName=name, computePlatform="ECS")
        return cd.create_deployment_group(**request | settings)

    yield make
    for id in cd.list_deployments()["deployments"]:
        one = cd.get_deployment(deploymentId=id)["deploymentInfo"]
        if one["applicationName"] == name and one["status"] in ("Created", "InProgress", "Ready"):
            cd.stop_deployment(deploymentId=id, autoRollbackEnabled=False)
    cd.delete_application(applicationName=name)


def spec(definition, container="web"):
    properties = {
        "TaskDefinition": definition,
        "LoadBalancerInfo": {"ContainerName": container, "ContainerPort": PORT},
    }
    resource = {"TargetService": {"Type": "AWS::ECS::Service", "Properties": properties}}
    return json.dumps({"version": 0.0, "Resources": [resource]})


def deploy(cd, name, content, **settings):
    revision = {"revisionType": "AppSpecContent", "appSpecContent": {"content": content}}
    request = {"applicationName": name, "deploymentGroupName": "main", "revision": revision}
    return cd.create_deployment(**request | settings)["deploymentId"]


def status(cd, id):
    return cd.get_deployment(deploymentId=id)["deploymentInfo"]["status"]


def reaches(cd, id, wanted):
    until(f"{id} is {wanted}", lambda: status(cd, id) == wanted, deadline=60)
    return cd.get_deployment(deploymentId=id)["deploymentInfo"]


def target(cd, id):
    (found,) = cd.list_deployment_targets(deploymentId=id)["targetIds"]
    return cd.get_deployment_target(deploymentId=id, targetId=found)["deploymentTarget"]["ecsTarget"]


def events(cd, id):
    return {event["lifecycleEventName"]: event["status"] for event in target(cd, id)["lifecycleEvents"]}


def test_traffic_goes_over_without_a_loss_and_back_to_the_first_group(cloud, cd, cluster, name, balancer, group):
    group()
    (first,) = describe(cloud, cluster)["taskSets"]
    assert (first["status"], first["stabilityStatus"]) == ("PRIMARY", "STEADY_STATE")
    assert describe(cloud, cluster)["deployments"] == []
    with Load(balancer.addresses[0]) as load:
        until("blue answers", lambda: load.pages() == {"blue"})
        id = deploy(cd, name, spec(cloud.register(name, page("green"))))
        with refused("DeploymentLimitExceededException", f"already has an active Deployment '{id}'"):
            deploy(cd, name, spec(cloud.register(name, page("other"))))
        cd.get_waiter("deployment_successful").wait(deploymentId=id, WaiterConfig={"Delay": 1, "MaxAttempts": 90})
        answers = load.end()
    assert set(answers) == {(200, "blue"), (200, "green")}
    assert balancer.get() == (200, "green")
    (second,) = describe(cloud, cluster)["taskSets"]
    assert second["id"] != first["id"] and second["externalId"] == id and second["startedBy"] == "CODE_DEPLOY"
    assert second["loadBalancers"][0]["targetGroupArn"] == balancer.green
    assert describe(cloud, cluster)["taskDefinition"].endswith(f"{name}:2")
    assert set(events(cd, id).values()) == {"Succeeded"} and "AllowTraffic" in events(cd, id)
    (info,) = target(cd, id)["taskSetsInfo"]
    assert (info["taskSetLabel"], info["trafficWeight"], info["runningCount"]) == ("Green", 100.0, 2)
    found = cd.get_deployment_group(applicationName=name, deploymentGroupName="main")["deploymentGroupInfo"]
    assert found["lastSuccessfulDeployment"]["deploymentId"] == id

    yaml = f"""
version: 0.0
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties:
        TaskDefinition: {cloud.register(name, page("third"))}
        LoadBalancerInfo:
          ContainerName: "web"
          ContainerPort: {PORT}
"""
    again = deploy(cd, name, yaml)
    reaches(cd, again, "Succeeded")
    assert balancer.get() == (200, "third")
    assert describe(cloud, cluster)["taskSets"][0]["loadBalancers"][0]["targetGroupArn"] == balancer.group
    assert cd.list_deployments(applicationName=name, deploymentGroupName="main")["deployments"] == [again, id]


def test_new_tasks_are_tested_before_they_are_used(cloud, cd, cluster, name, balancer, testing, group):
    group(test=testing, ready={"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5}, wait=5)
    id = deploy(cd, name, spec(cloud.register(name, page("green"))))
    reaches(cd, id, "Ready")
    assert get(balancer.addresses[0], port=TEST_PORT) == (200, "green")
    assert balancer.get() == (200, "blue")
    assert events(cd, id)["AllowTestTraffic"] == "Succeeded" and events(cd, id)["AllowTraffic"] == "Pending"
    cd.continue_deployment(deploymentId=id, deploymentWaitType="READY_WAIT")
    until("green is used", lambda: balancer.get() == (200, "green"))
    until("blue is kept", lambda: target(cd, id)["taskSetsInfo"][0]["trafficWeight"] == 0.0)
    assert len(tasks(cloud, cluster)) == 4
    cd.continue_deployment(deploymentId=id, deploymentWaitType="TERMINATION_WAIT")
    reaches(cd, id, "Succeeded")
    until("blue is gone", lambda: len(tasks(cloud, cluster)) == 2)
    with refused("DeploymentAlreadyCompletedException", id):
        cd.stop_deployment(deploymentId=id)


def test_a_deployment_that_is_stopped_is_taken_back(cloud, cd, cluster, name, balancer, group):
    group()
    # A tenth of the traffic for five minutes.
    canary = "CodeDeployDefault.ECSCanary10Percent5Minutes"
    id = deploy(cd, name, spec(cloud.register(name, page("green"))), deploymentConfigName=canary)
    with Load(balancer.addresses[0]) as load:
        until("some get green", lambda: load.pages() == {"blue", "green"}, deadline=60)
        info = {one["taskSetLabel"]: one["trafficWeight"] for one in target(cd, id)["taskSetsInfo"]}
        assert info == {"Blue": 90.0, "Green": 10.0}
        cd.stop_deployment(deploymentId=id, autoRollbackEnabled=True)
        back = reaches(cd, id, "Stopped")["rollbackInfo"]["rollbackDeploymentId"]
        found = reaches(cd, back, "Succeeded")
        answers = load.end()
    assert {status for status, _ in answers} == {200}
    assert (found["creator"], found["rollbackInfo"]["rollbackTriggeringDeploymentId"]) == ("codeDeployRollback", id)
    (left,) = describe(cloud, cluster)["taskSets"]
    assert left["status"] == "PRIMARY" and left["taskDefinition"].endswith(f"{name}:1")
    with Load(balancer.addresses[0]) as load:
        until("many answers", lambda: sum(load.answers.values()) > 100)
        assert set(load.end()) == {(200, "blue")}


def test_an_alarm_ends_a_deployment_and_takes_it_back(cloud, cd, cluster, name, balancer, group):
    metrics = cloud.client("cloudwatch")
    metrics.put_metric_alarm(
        AlarmName=name,
        Namespace="test",
        MetricName=name,
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    group(
        wait=5,
        alarmConfiguration={"enabled": True, "alarms": [{"name": name}]},
        autoRollbackConfiguration={"enabled": True, "events": ["DEPLOYMENT_STOP_ON_ALARM"]},
    )
    id = deploy(cd, name, spec(cloud.register(name, page("green"))))
    until("green is used", lambda: balancer.get() == (200, "green"), deadline=60)
    metrics.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    failed = reaches(cd, id, "Failed")
    assert failed["errorInformation"]["code"] == "ALARM_ACTIVE"
    metrics.delete_alarms(AlarmNames=[name])
    reaches(cd, failed["rollbackInfo"]["rollbackDeploymentId"], "Succeeded")
    assert balancer.get() == (200, "blue")
    (left,) = describe(cloud, cluster)["taskSets"]
    assert left["taskDefinition"].endswith(f"{name}:1")


def test_a_deployment_outlives_the_server(start, load, name):
    started = start()
    load(started, "nginx:latest")
    cloud = Cloud(started)
    cd, cluster = cloud.client("codedeploy"), cloud.cluster(name)
    balancer = Balancer(cloud, name[-30:].strip("-"))
    green = f"{balancer.name}-g"
    balancer.make_group(green)
    definition = cloud.register(name, page("blue"))
    create(cloud, cluster, definition, deploymentController={"type": "CODE_DEPLOY"}, **balancer.serves())
    until("blue answers", lambda: balancer.health() == ["healthy"])
    cd.create_application(applicationName=name, computePlatform="ECS")
    pair = {
        "targetGroups": [{"name": balancer.name}, {"name": green}],
        "prodTrafficRoute": {"listenerArns": [balancer.listener]},
    }
    waits = {
        "deploymentReadyOption": {"actionOnTimeout": "STOP_DEPLOYMENT", "waitTimeInMinutes": 5},
        "terminateBlueInstancesOnDeploymentSuccess": {"action": "TERMINATE", "terminationWaitTimeInMinutes": 0},
    }
    cd.create_deployment_group(
        applicationName=name,
        deploymentGroupName="main",
        serviceRoleArn=ROLE,
        ecsServices=[{"clusterName": cluster, "serviceName": "web"}],
        deploymentStyle={"deploymentType": "BLUE_GREEN", "deploymentOption": "WITH_TRAFFIC_CONTROL"},
        loadBalancerInfo={"targetGroupPairInfoList": [pair]},
        blueGreenDeploymentConfiguration=waits,
    )
    id = deploy(cd, name, spec(cloud.register(name, page("green"))))
    reaches(cd, id, "Ready")
    started.kill()
    started.start()
    assert status(cd, id) == "Ready"
    cd.continue_deployment(deploymentId=id)
    reaches(cd, id, "Succeeded")
    assert balancer.get() == (200, "green")


def test_what_cannot_be_deployed_is_refused(cloud, cd, cluster, name, balancer, group):
    group()
    definition = cloud.register(name, page("green"))
    with refused("InvalidRevisionException", "neither JSON nor YAML"):
        deploy(cd, name, "{: :")
    with refused("InvalidRevisionException", "does not map the port"):
        deploy(cd, name, spec(definition, container="other"))
    with refused("InvalidRevisionException", "does not exist"):
        deploy(cd, name, spec("missing:1"))
    with refused("DeploymentConfigDoesNotExistException", "missing"):
        deploy(cd, name, spec(definition), deploymentConfigName="missing")
    with refused("ApplicationDoesNotExistException", "missing"):
        deploy(cd, "missing", spec(definition))
    with refused("ApplicationAlreadyExistsException", name):
        cd.create_application(applicationName=name, computePlatform="ECS")
    with refused("InvalidComputePlatformException", "must be ECS"):
        cd.create_application(applicationName=f"{name}-2")
    with refused("InvalidParameterException", "Use AWS CodeDeploy to trigger a new deployment"):
        cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=definition)
    with refused("InvalidParameterException", "Cannot force a new deployment"):
        cloud.ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    until("one task is left", lambda: describe(cloud, cluster)["runningCount"] == 1)
    with refused("InvalidParameterException", "external deployment controllers"):
        cloud.ecs.create_task_set(cluster=cluster, service="web", taskDefinition=definition)


def test_configurations_say_how_traffic_goes_over(cd, name):
    cd.create_deployment_config(
        deploymentConfigName=name,
        computePlatform="ECS",
        trafficRoutingConfig={
            "type": "TimeBasedLinear",
            "timeBasedLinear": {"linearPercentage": 25, "linearInterval": 2},
        },
    )
    found = cd.get_deployment_config(deploymentConfigName=name)["deploymentConfigInfo"]
    assert found["trafficRoutingConfig"]["timeBasedLinear"] == {"linearPercentage": 25, "linearInterval": 2}
    assert {name, "CodeDeployDefault.ECSAllAtOnce"} <= set(cd.list_deployment_configs()["deploymentConfigsList"])
    with refused("InvalidTrafficRoutingConfigurationException", "1 to 99"):
        wrong = {"type": "TimeBasedCanary", "timeBasedCanary": {"canaryPercentage": 100, "canaryInterval": 5}}
        cd.create_deployment_config(deploymentConfigName=f"{name}-2", computePlatform="ECS", trafficRoutingConfig=wrong)
    cd.delete_deployment_config(deploymentConfigName=name)
    with refused("DeploymentConfigDoesNotExistException", name):
        cd.get_deployment_config(deploymentConfigName=name)


def test_a_deployment_group_by_terraform(terraform, cloud, cd, cluster, name, balancer, service):
    groups = [balancer.name, balancer.green_name]
    terraform = terraform("codedeploy.tf", cluster=cluster, listener=balancer.listener, groups=groups)
    terraform.apply()
    terraform.apply(wait=10, team="blue")
    found = cd.get_deployment_group(applicationName=name, deploymentGroupName="main")["deploymentGroupInfo"]
    waits = found["blueGreenDeploymentConfiguration"]["terminateBlueInstancesOnDeploymentSuccess"]
    assert waits == {"action": "TERMINATE", "terminationWaitTimeInMinutes": 10}
    assert found["deploymentConfigName"] == name
    status, said = terraform.run("destroy", "-auto-approve")
    assert status == 0, said
    assert name not in cd.list_applications()["applications"]
