"""CloudWatch: metrics that users put, alarms on them, and deployments that an alarm ends."""

import datetime
import urllib.parse

import botocore.awsrequest
import pytest

from support import http
from support.aws import CliError, Cloud, idle, refused
from support.host import find_processes
from support.services import clear, create, events, stable
from support.waiting import until

MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture
def cloudwatch(cloud):
    return cloud.client("cloudwatch")


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def around():
    return {"StartTime": now() - 30 * MINUTE, "EndTime": now() + 2 * MINUTE}


def put(cloudwatch, name, value, **settings):
    cloudwatch.put_metric_data(Namespace=name, MetricData=[{"MetricName": "errors", "Value": value} | settings])


def alarm(cloudwatch, name, **settings):
    """Goes off with more than 3 errors in 10 seconds."""
    request = {
        "AlarmName": name,
        "Namespace": name,
        "MetricName": "errors",
        "Statistic": "Sum",
        "Period": 10,
        "EvaluationPeriods": 1,
        "Threshold": 3,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    cloudwatch.put_metric_alarm(**(request | settings))


def state(cloudwatch, name):
    (found,) = cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return found["StateValue"]


def test_metrics_by_the_cli(cloud, name):
    for value in ("1", "2", "6"):
        words = ["--namespace", name, "--metric-name", "latency", "--dimensions", "Service=web", "--unit", "Seconds"]
        cloud.aws("cloudwatch", "put-metric-data", *words, "--value", value)
    listed = cloud.aws("cloudwatch", "list-metrics", "--namespace", name)["Metrics"]
    dimensions = [{"Name": "Service", "Value": "web"}]
    assert listed == [{"Namespace": name, "MetricName": "latency", "Dimensions": dimensions}]
    times = ["--start-time", (now() - 5 * MINUTE).isoformat(), "--end-time", (now() + 2 * MINUTE).isoformat()]
    found = cloud.aws(
        *["cloudwatch", "get-metric-statistics", "--namespace", name, "--metric-name", "latency", "--period", "3600"],
        *["--dimensions", "Name=Service,Value=web", "--statistics", "Average", "Maximum", "SampleCount", *times],
    )
    (datapoint,) = found["Datapoints"]
    assert (datapoint["Average"], datapoint["Maximum"], datapoint["SampleCount"]) == (3, 6, 3)
    assert (datapoint["Unit"], found["Label"]) == ("Seconds", "latency")
    with pytest.raises(CliError) as error:
        cloud.aws("cloudwatch", "put-metric-data", "--namespace", "AWS/ECS", "--metric-name", "mine", "--value", "1")
    assert error.value.code == "InvalidParameterValue"


def test_values_with_counts_and_sums(cloudwatch, name):
    before = now() - 10 * MINUTE
    data = [
        {"Values": [1.0, 2.0, 10.0], "Counts": [8.0, 1.0, 1.0]},
        {"StatisticValues": {"SampleCount": 4, "Sum": 8, "Minimum": 2, "Maximum": 2}},
    ]
    named = [{"MetricName": "errors", "Timestamp": before} | datum for datum in data]
    cloudwatch.put_metric_data(Namespace=name, MetricData=named)

    def query(identifier, statistic, **settings):
        metric = {"Namespace": name, "MetricName": "errors"}
        return {"Id": identifier, "MetricStat": {"Metric": metric, "Period": 60, "Stat": statistic}} | settings

    queries = [query("a", "Sum"), query("b", "p50", Label="median"), query("c", "Maximum", ReturnData=False)]
    sums, median = cloudwatch.get_metric_data(MetricDataQueries=queries, **around())["MetricDataResults"]
    assert (sums["Values"], sums["Label"], sums["StatusCode"]) == ([28], "errors", "Complete")
    assert sums["Timestamps"] == [before.replace(second=0, microsecond=0)]
    assert (median["Values"], median["Label"]) == ([1], "median")


def test_what_cannot_be_meant_is_refused(cloudwatch, name):
    good = {"MetricName": "errors", "Value": 1.0}
    for changes, code in [
        ({"Values": [1.0]}, "InvalidParameterCombination"),
        ({"Timestamp": now() - datetime.timedelta(days=15)}, "InvalidParameterValue"),
        ({"Timestamp": now() + datetime.timedelta(hours=3)}, "InvalidParameterValue"),
        ({"Value": float("inf")}, "InvalidParameterValue"),
        ({"StorageResolution": 5}, "InvalidParameterValue"),
    ]:
        with refused(code):
            cloudwatch.put_metric_data(Namespace=name, MetricData=[good | changes])
    # Nothing of a request that is refused is kept.
    with refused("MissingParameter"):
        cloudwatch.put_metric_data(Namespace=name, MetricData=[good, {"MetricName": "errors"}])
    assert cloudwatch.list_metrics(Namespace=name)["Metrics"] == []
    for changes, code in [
        ({"Period": 7}, "InvalidParameterValue"),
        ({"DatapointsToAlarm": 2}, "InvalidParameterValue"),
        ({"ExtendedStatistic": "p99"}, "InvalidParameterCombination"),
        ({"Period": 86400, "EvaluationPeriods": 8}, "InvalidParameterValue"),
        ({"AlarmActions": ["arn:aws:sns:us-east-1:123456789012:me"]}, "InvalidParameterValue"),
    ]:
        with refused(code):
            alarm(cloudwatch, name, **changes)
    with refused("ResourceNotFound"):
        cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="so")
    with refused("ResourceNotFound"):
        cloudwatch.delete_alarms(AlarmNames=[name])


def test_a_large_request_comes_compressed(cloudwatch, name):
    data = [{"MetricName": f"metric-{number}", "Value": number} for number in range(900)]
    sent = []
    cloudwatch.meta.events.register("before-send.cloudwatch", lambda request, **_: sent.append(request.headers))
    cloudwatch.put_metric_data(Namespace=name, MetricData=data)
    assert sent[0]["Content-Encoding"] in ("gzip", b"gzip")
    pages = cloudwatch.get_paginator("list_metrics").paginate(Namespace=name)
    listed = [metric["MetricName"] for page in pages for metric in page["Metrics"]]
    assert sorted(listed) == sorted(datum["MetricName"] for datum in data)


def test_older_clients_send_forms(cloud, name):
    form = {"Version": "2010-08-01", "Namespace": name, "MetricData.member.1.MetricName": "errors"}
    form |= {"MetricData.member.1.Value": "4", "MetricData.member.1.Dimensions.member.1.Name": "a"}
    form |= {"MetricData.member.1.Dimensions.member.1.Value": "b"}

    def ask(action, **more):
        body = urllib.parse.urlencode({"Action": action} | form | more)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        request = botocore.awsrequest.AWSRequest("POST", f"{cloud.server.url}/", data=body, headers=headers)
        return http.send(cloud, http.sign(cloud, request, "monitoring"))

    assert ask("PutMetricData").status == 200
    answer = ask("ListMetrics")
    assert answer.status == 200 and b"<MetricName>errors</MetricName>" in answer.body
    assert b"<ListMetricsResult>" in answer.body
    wrong = ask("PutMetricData", Namespace="AWS/mine")
    assert wrong.status == 400 and b"<Code>InvalidParameterValue</Code>" in wrong.body


def test_an_alarm_goes_off_and_ends(cloudwatch, name):
    alarm(cloudwatch, name, Tags=[{"Key": "team", "Value": "red"}])
    (made,) = cloudwatch.describe_alarms(AlarmNamePrefix=name)["MetricAlarms"]
    assert (made["ComparisonOperator"], made["Threshold"], made["Period"]) == ("GreaterThanThreshold", 3, 10)
    assert cloudwatch.list_tags_for_resource(ResourceARN=made["AlarmArn"])["Tags"] == [{"Key": "team", "Value": "red"}]
    (of_metric,) = cloudwatch.describe_alarms_for_metric(Namespace=name, MetricName="errors")["MetricAlarms"]
    assert of_metric["AlarmName"] == name
    until("it is evaluated", lambda: state(cloudwatch, name) == "OK")
    put(cloudwatch, name, 5, StorageResolution=1)
    until("it goes off", lambda: state(cloudwatch, name) == "ALARM")
    (off,) = cloudwatch.describe_alarms(AlarmNames=[name], StateValue="ALARM")["MetricAlarms"]
    assert off["StateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoints [5.0] was greater than")
    until("it ends with what set it off", lambda: state(cloudwatch, name) == "OK")
    cloudwatch.disable_alarm_actions(AlarmNames=[name])
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["ActionsEnabled"] is False
    cloudwatch.delete_alarms(AlarmNames=[name])
    assert cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"] == []


def test_metrics_and_alarms_survive_the_server(start, name):
    cloud = Cloud(start())
    cloudwatch = cloud.client("cloudwatch")
    alarm(cloudwatch, name, Period=60, TreatMissingData="ignore")
    put(cloudwatch, name, 5)
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="to see it")
    cloud.server.kill()
    cloud.server.start()
    wanted = {"Namespace": name, "MetricName": "errors", "Period": 3600, "Statistics": ["Sum"]}
    (datapoint,) = cloudwatch.get_metric_statistics(**wanted, **around())["Datapoints"]
    assert datapoint["Sum"] == 5
    assert state(cloudwatch, name) == "ALARM"
    assert (cloud.server.data_dir / "metrics").stat().st_mode & 0o777 == 0o700


def test_an_alarm_rolls_a_deployment_back(cloud, cloudwatch, name):
    cluster = cloud.cluster(name)
    try:
        first, second = (cloud.register(name, {"command": idle(f"{name}-{version}")}) for version in ("one", "two"))
        alarm(cloudwatch, name)
        listening = {"alarmNames": [name], "enable": True, "rollback": True}
        configuration = {"alarms": listening, "bakeTimeInMinutes": 5}
        made = create(cloud, cluster, first)
        assert made["deploymentConfiguration"].get("alarms") is None
        before = stable(cloud, cluster)["deployments"][0]["id"]
        updated = cloud.ecs.update_service(
            cluster=cluster, service="web", taskDefinition=second, deploymentConfiguration=configuration
        )["service"]
        assert updated["deploymentConfiguration"]["alarms"] == listening
        until("the new version runs", lambda: len(find_processes(f"{name}-two")) == 1)
        listed = cloud.ecs.list_service_deployments(cluster=cluster, service="web")["serviceDeployments"]
        arns = [deployment["serviceDeploymentArn"] for deployment in listed]

        def monitored():
            shown = cloud.ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]
            return next(deployment["alarms"] for deployment in shown if deployment["alarms"]["alarmNames"])

        assert monitored() == {"status": "MONITORING", "alarmNames": [name], "triggeredAlarmNames": []}
        put(cloudwatch, name, 5, StorageResolution=1)
        until("it is rolled back", lambda: f"(service web) rolling back to deployment {before}." in events(cloud, cluster))
        found = stable(cloud, cluster)
        assert found["taskDefinition"].endswith(first)
        assert any(message.endswith("deployment failed: alarm detected.") for message in events(cloud, cluster))
        assert monitored() == {"status": "TRIGGERED", "alarmNames": [name], "triggeredAlarmNames": [name]}
        until("the old version alone runs", lambda: not find_processes(f"{name}-two"))
        assert len(find_processes(f"{name}-one")) == 1
        cloudwatch.delete_alarms(AlarmNames=[name])
    finally:
        clear(cloud, name)
