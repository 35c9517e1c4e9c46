"""Requests that no client would send: signed by botocore, then changed on the way, or not signed at all."""

import contextlib
import dataclasses
import datetime
import http.client
import json
import re
import unittest.mock
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials

ECS_TARGET = "AmazonEC2ContainerServiceV20141113."
JSON_1_1 = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded; charset=utf-8"


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def code(self):
        """The error's code, from JSON or XML."""
        with contextlib.suppress(ValueError):
            return json.loads(self.body)["__type"].rpartition("#")[2]
        found = re.search(rb"<Code>([^<]*)</Code>", self.body)
        return found[1].decode() if found else None

    @property
    def message(self):
        with contextlib.suppress(ValueError):
            content = json.loads(self.body)
            return content.get("message") or content.get("Message") or ""
        found = re.search(rb"<Message>([^<]*)</Message>", self.body)
        return found[1].decode() if found else ""


def ecs_request(cloud, operation="ListClusters", body="{}"):
    headers = {"X-Amz-Target": ECS_TARGET + operation, "Content-Type": JSON_1_1}
    return botocore.awsrequest.AWSRequest("POST", f"{cloud.server.url}/", data=body, headers=headers)


def query_request(cloud, action, version):
    body = urllib.parse.urlencode({"Action": action, "Version": version})
    return botocore.awsrequest.AWSRequest("POST", f"{cloud.server.url}/", data=body, headers={"Content-Type": FORM})


def sign(cloud, request, service="ecs", key=None, secret=None, skew_minutes=0):
    """Signs as botocore does, with another key, secret or clock where given."""
    credentials = botocore.credentials.Credentials(
        key or cloud.exports["AWS_ACCESS_KEY_ID"], secret or cloud.exports["AWS_SECRET_ACCESS_KEY"]
    )
    with clock(skew_minutes):
        botocore.auth.SigV4Auth(credentials, service, cloud.region).add_auth(request)
    return request


def presign(cloud, request, service, expires=60, skew_minutes=0):
    """The address of a presigned GET."""
    credentials = botocore.credentials.Credentials(
        cloud.exports["AWS_ACCESS_KEY_ID"], cloud.exports["AWS_SECRET_ACCESS_KEY"]
    )
    with clock(skew_minutes):
        botocore.auth.SigV4QueryAuth(credentials, service, cloud.region, expires=expires).add_auth(request)
    return request.url


@contextlib.contextmanager
def clock(skew_minutes):
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    shown = now + datetime.timedelta(minutes=skew_minutes)
    with unittest.mock.patch("botocore.auth.get_current_datetime", lambda: shown):
        yield


def send(cloud, request, body=None):
    """Sends a signed request as it is, or with another body."""
    body = request.data if body is None else body
    return send_raw(cloud, request.method, "/", dict(request.headers.items()), body)


def send_raw(cloud, method, path, headers=None, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", cloud.server.port, timeout=30)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    finally:
        connection.close()
