"""What containers print is read back: by stream in both directions, and across streams."""

import pytest

from support.aws import refused, task_id

LINES = [f"line {i}" for i in range(25)]


@pytest.fixture(scope="module")
def printed(cloud):
    """The group and stream of a task that printed LINES and ended."""
    cluster = cloud.cluster("logs")
    definition = cloud.register("logs", {"command": ["sh", "-c", "for i in $(seq 0 24); do echo line $i; done"]})
    (arn,) = cloud.run(cluster, definition)
    cloud.until_stopped(cluster, arn)
    stream = f"test/main/{task_id(arn)}"
    cloud.until_line("/ecs/logs", stream, LINES[-1])
    return "/ecs/logs", stream


def get(cloud, printed, *words):
    group, stream = printed
    return cloud.aws("logs", "get-log-events", "--log-group-name", group, "--log-stream-name", stream, *words)


def messages(page):
    return [event["message"] for event in page["events"]]


def test_describe_streams(cloud, printed):
    group, stream = printed
    answer = cloud.aws("logs", "describe-log-streams", "--log-group-name", group, "--order-by", "LastEventTime", "--descending")
    found = {each["logStreamName"]: each for each in answer["logStreams"]}[stream]
    assert found["arn"] == f"arn:aws:logs:{cloud.region}:123456789012:log-group:{group}:log-stream:{stream}"
    assert found["firstEventTimestamp"] <= found["lastEventTimestamp"]
    by_prefix = cloud.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="test/main/")
    assert stream in [each["logStreamName"] for each in by_prefix["logStreams"]]


def test_all_lines_once_and_in_order(cloud, printed):
    page = get(cloud, printed, "--start-from-head")
    assert messages(page) == LINES
    times = [event["timestamp"] for event in page["events"]]
    assert times == sorted(times)
    assert all(event["ingestionTime"] >= event["timestamp"] for event in page["events"])


def test_forward(cloud, printed):
    first = get(cloud, printed, "--start-from-head", "--limit", "10")
    assert messages(first) == LINES[:10]
    second = get(cloud, printed, "--limit", "10", "--next-token", first["nextForwardToken"])
    assert messages(second) == LINES[10:20]
    third = get(cloud, printed, "--limit", "10", "--next-token", second["nextForwardToken"])
    assert messages(third) == LINES[20:]
    end = get(cloud, printed, "--limit", "10", "--next-token", third["nextForwardToken"])
    assert messages(end) == []
    assert end["nextForwardToken"] == third["nextForwardToken"]


def test_backward(cloud, printed):
    last = get(cloud, printed, "--limit", "10")
    assert messages(last) == LINES[15:]
    middle = get(cloud, printed, "--limit", "10", "--next-token", last["nextBackwardToken"])
    assert messages(middle) == LINES[5:15]
    first = get(cloud, printed, "--limit", "10", "--next-token", middle["nextBackwardToken"])
    assert messages(first) == LINES[:5]
    end = get(cloud, printed, "--limit", "10", "--next-token", first["nextBackwardToken"])
    assert messages(end) == []
    assert end["nextBackwardToken"] == first["nextBackwardToken"]


def test_turning_round(cloud, printed):
    first = get(cloud, printed, "--start-from-head", "--limit", "10")
    second = get(cloud, printed, "--limit", "10", "--next-token", first["nextForwardToken"])
    back = get(cloud, printed, "--limit", "10", "--next-token", second["nextBackwardToken"])
    assert messages(back) == LINES[:10]


def test_a_span_of_time(cloud, printed):
    events = get(cloud, printed, "--start-from-head")["events"]
    middle = events[12]["timestamp"]
    page = get(cloud, printed, "--start-from-head", "--start-time", str(middle))
    assert messages(page) == [event["message"] for event in events if event["timestamp"] >= middle]
    page = get(cloud, printed, "--start-from-head", "--end-time", str(middle))
    assert messages(page) == [event["message"] for event in events if event["timestamp"] < middle]


def test_filter_finds_terms(cloud, printed):
    group, stream = printed
    answer = cloud.aws("logs", "filter-log-events", "--log-group-name", group, "--filter-pattern", '"line 7"')
    assert messages(answer) == ["line 7"]
    assert answer["events"][0]["logStreamName"] == stream
    assert answer["events"][0]["eventId"]


def test_filter_without_a_pattern_follows(cloud, printed):
    group, stream = printed
    pages = cloud.logs.get_paginator("filter_log_events").paginate(
        logGroupName=group, logStreamNames=[stream], PaginationConfig={"PageSize": 10}
    )
    found = [event for page in pages for event in page["events"]]
    assert [event["message"] for event in found] == LINES
    ids = [event["eventId"] for event in found]
    assert len(ids) == len(set(ids))


def test_long_and_odd_lines(cloud, cluster, name):
    script = "printf 'no end'; printf ' of line'; echo; printf 'tab\\tand é\\n'; head -c 20000 /dev/zero | tr '\\0' x; echo; printf last"
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["sh", "-c", script]}))
    cloud.until_stopped(cluster, arn)
    lines = cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "last")
    assert lines[:2] == ["no end of line", "tab\tand é"]
    assert "".join(lines[2:-1]) == "x" * 20000
    assert lines[-1] == "last"


def test_standard_error_too(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["sh", "-c", "echo out; echo err >&2"]}))
    cloud.until_stopped(cluster, arn)
    cloud.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "err")
    assert sorted(cloud.lines(f"/ecs/{name}", f"test/main/{task_id(arn)}")) == ["err", "out"]


def test_many_lines_come_whole(cloud, cluster, name):
    (arn,) = cloud.run(cluster, cloud.register(name, {"command": ["seq", "1", "20000"]}))
    cloud.until_stopped(cluster, arn)
    stream = f"test/main/{task_id(arn)}"
    cloud.until_line(f"/ecs/{name}", stream, "20000")
    assert cloud.lines(f"/ecs/{name}", stream) == [str(i) for i in range(1, 20001)]


def test_refusals(cloud, printed):
    group, stream = printed
    with refused("ResourceNotFoundException", "The specified log group does not exist."):
        cloud.logs.get_log_events(logGroupName="/never/was", logStreamName=stream)
    with refused("ResourceNotFoundException", "The specified log stream does not exist."):
        cloud.logs.get_log_events(logGroupName=group, logStreamName="never/was")
    with refused("InvalidParameterException"):
        cloud.logs.get_log_events(logGroupName=group, logStreamName=stream, nextToken="not a token")
    with refused("ResourceNotFoundException", "The specified log group does not exist."):
        cloud.logs.filter_log_events(logGroupName="/never/was")
