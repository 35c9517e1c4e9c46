"""Signs requests with botocore and prints them as the fixture `signed.json`.

Run it as `python3 sign.py > signed.json`; the clock and the keys are fixed, so its output is too.
"""

import datetime
import json
from unittest import mock

from botocore import auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

NOW = datetime.datetime(2026, 1, 31, 12, 0, 0, tzinfo=datetime.timezone.utc)
KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "http://127.0.0.1:4566"
TARGET = {"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.ListClusters"}
JSON = {**TARGET, "Content-Type": "application/x-amz-json-1.1"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}

CASES = [
    ("json", "ecs", "POST", "/", JSON, b'{"maxResults": 5}', None, False),
    ("token", "ecs", "POST", "/", JSON, b"{}", "FwoGZXIvYXdzEXAMPLE//+=", False),
    ("form", "sts", "POST", "/", FORM, b"Action=GetCallerIdentity&Version=2011-06-15", None, False),
    ("arn in the path", "scheduler", "GET", "/tags/arn%3Aaws%3Ascheduler%3A%3A1%3Aa%2Fb", {}, b"", None, False),
    ("query", "elasticfilesystem", "GET", "/x/../2015-02-01//file-systems?B=b%20c&A=%2F&a", {}, b"", None, False),
    ("presigned", "ec2", "GET", "/?Action=DescribeVpcs&Version=2016-11-15&VpcId.1=vpc%201", {}, b"", None, True),
    ("presigned target", "ecs", "GET", "/?X=1", TARGET, b"", "token/+=", True),
]


def sign(name, service, method, url, headers, body, token, presigned):
    request = AWSRequest(method=method, url=HOST + url, data=body, headers=dict(headers))
    kind = auth.SigV4QueryAuth if presigned else auth.SigV4Auth
    with mock.patch.object(auth, "get_current_datetime", lambda remove_tzinfo=True: NOW.replace(tzinfo=None)):
        kind(Credentials(KEY, SECRET, token), service, "eu-west-1").add_auth(request)
    prepared = request.prepare()
    target = prepared.url[len(HOST):]
    path, _, query = target.partition("?")
    headers = {key.lower(): str(value) for key, value in request.headers.items()}
    headers.setdefault("host", "127.0.0.1:4566")
    return {
        "name": name,
        "service": service,
        "method": method,
        "path": path,
        "query": query,
        "headers": headers,
        "body": body.decode(),
        "token": token,
    }


print(json.dumps([sign(*case) for case in CASES], indent=1))
