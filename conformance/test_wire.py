"""What is wrong with a request is the sender's to know: a 4xx with a code, never a 5xx and never silence."""

import concurrent.futures
import contextlib
import json
import socket

import pytest

from support.aws import refused
from support.http import JSON_1_1, Answer, ecs_request, query_request, send, send_raw, sign
from support.waiting import until


def signed(cloud, operation, body):
    return send(cloud, sign(cloud, ecs_request(cloud, operation, body)))


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "", "nul", '{"clusters": "x"}', '{"clusters": [1]}', '{"maxResults": {}}'])
def test_bodies_that_do_not_parse(cloud, body):
    answer = signed(cloud, "DescribeClusters" if "clusters" in body else "ListClusters", body)
    if body == "":
        assert answer.status in (200, 400)
    else:
        assert answer.status == 400
        assert answer.code in ("SerializationException", "InvalidParameterException", "ClientException")


def test_an_unknown_field_is_refused(cloud):
    answer = signed(cloud, "CreateCluster", '{"clusterName": "x", "colour": "red"}')
    assert answer.status == 400
    assert "colour" in answer.message


def test_an_unknown_operation(cloud):
    answer = signed(cloud, "PaintCluster", "{}")
    assert (answer.status, answer.code) == (400, "UnknownOperationException")
    answer = send(cloud, sign(cloud, query_request(cloud, "PaintVpc", "2016-11-15"), service="ec2"))
    assert (answer.status, answer.code) == (400, "InvalidAction")


def test_an_operation_that_is_not_served_says_so(cloud):
    with pytest.raises(cloud.ecs.exceptions.ClientError) as caught:
        cloud.ecs.create_express_gateway_service(
            executionRoleArn="arn:aws:iam::123456789012:role/x",
            infrastructureRoleArn="arn:aws:iam::123456789012:role/x",
            primaryContainer={"image": "x"},
        )
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert "CreateExpressGatewayService" in str(caught.value)


def test_a_service_that_is_not_served_says_so(cloud):
    with pytest.raises(cloud.ecs.exceptions.ClientError) as caught:
        cloud.client("sqs").list_queues()
    assert 400 <= caught.value.response["ResponseMetadata"]["HTTPStatusCode"] < 500


@pytest.mark.parametrize("method, path", [("GET", "/"), ("PUT", "/x"), ("DELETE", "/"), ("GET", "/_longshore/nothing")])
def test_not_an_aws_request(cloud, method, path):
    answer = send_raw(cloud, method, path)
    assert 400 <= answer.status < 500


def test_a_body_over_the_limit(cloud):
    headers = {"Content-Type": JSON_1_1, "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        answer = send_raw(cloud, "POST", "/", headers, b" " * (64 << 20))
        assert answer.status in (400, 403, 413)
    assert cloud.ecs.list_clusters()["clusterArns"] is not None


def test_a_deep_body(cloud):
    answer = signed(cloud, "CreateCluster", '{"tags":' + "[" * 100_000 + "]" * 100_000 + "}")
    assert isinstance(answer, Answer)
    assert answer.status == 400


NOT_HTTP = {
    "zeros": b"\x00" * 100,
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
}


@pytest.mark.parametrize("bytes_sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_bytes_that_are_not_http(cloud, bytes_sent):
    with socket.create_connection(("127.0.0.1", cloud.server.port), timeout=10) as connection:
        connection.sendall(bytes_sent)
        # The server may hang up at the first byte.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(4096)
        except ConnectionResetError:
            answer = b""
    assert answer == b"" or b" 4" in answer.split(b"\r\n")[0] or b" 5" in answer.split(b"\r\n")[0]
    assert cloud.ecs.list_clusters()["clusterArns"] is not None


def test_idle_connections_do_not_keep_others_out(cloud):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", cloud.server.port), timeout=10))
        assert until("an answer beside idle connections", lambda: cloud.ecs.list_clusters()["clusterArns"] is not None)


def test_many_writers_at_once(cloud, name):
    """Concurrent commits neither lose a record nor give a revision twice."""
    container = {"name": "main", "image": "busybox", "memory": 64}

    def register(_):
        client = cloud.client("ecs")
        answer = client.register_task_definition(family=name, containerDefinitions=[container])
        return answer["taskDefinition"]["revision"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        revisions = list(pool.map(register, range(40)))
    assert sorted(revisions) == list(range(1, 41))


CREATE_CLUSTER_ERRORS = [
    ({"clusterName": "not a name!"}, "InvalidParameterException"),
    ({"clusterName": "x" * 256}, "InvalidParameterException"),
    ({"settings": [{"name": "containerInsights", "value": "maybe"}]}, "InvalidParameterException"),
    ({"settings": [{"name": "colour", "value": "red"}]}, "InvalidParameterException"),
    ({"clusterName": 7}, "SerializationException"),
]


@pytest.mark.parametrize("request_body, code", CREATE_CLUSTER_ERRORS, ids=json.dumps)
def test_create_cluster_refuses(cloud, request_body, code):
    answer = signed(cloud, "CreateCluster", json.dumps(request_body))
    assert (answer.status, answer.code) == (400, code)
    assert answer.message


LISTS = [
    ("list_clusters", {"maxResults": 101}),
    ("list_clusters", {"nextToken": "not a token"}),
    ("list_tasks", {"maxResults": 101}),
    ("list_tasks", {"desiredStatus": "MAYBE"}),
    ("list_tasks", {"launchType": "MOON"}),
    ("list_task_definitions", {"sort": "SIDEWAYS"}),
    ("list_task_definitions", {"status": "MAYBE"}),
    ("list_task_definition_families", {"nextToken": "not a token"}),
]


@pytest.mark.parametrize("operation, arguments", LISTS, ids=str)
def test_lists_refuse(cloud, operation, arguments):
    cloud.ecs.create_cluster()
    unchecked = cloud.client("ecs", config={"parameter_validation": False})
    with pytest.raises(cloud.ecs.exceptions.ClientError) as caught:
        getattr(unchecked, operation)(**arguments)
    assert caught.value.response["Error"]["Code"] in ("InvalidParameterException", "ClientException")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


@pytest.mark.parametrize(
    "operation, arguments, code",
    [
        ("describe_tasks", {"cluster": "default", "tasks": []}, "InvalidParameterException"),
        ("describe_tasks", {"cluster": "default", "tasks": ["x"] * 101}, "InvalidParameterException"),
        ("describe_tasks", {"cluster": "never-was", "tasks": ["x"]}, "ClusterNotFoundException"),
        ("describe_clusters", {"clusters": ["x"] * 101}, "InvalidParameterException"),
        ("tag_resource", {"resourceArn": "not an arn", "tags": []}, "InvalidParameterException"),
        ("list_tags_for_resource", {"resourceArn": "not an arn"}, "InvalidParameterException"),
    ],
)
def test_calls_that_are_refused(cloud, operation, arguments, code):
    cloud.ecs.create_cluster()
    unchecked = cloud.client("ecs", config={"parameter_validation": False})
    with refused(code):
        getattr(unchecked, operation)(**arguments)
