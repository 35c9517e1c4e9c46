"""In strict mode a request is served only when its signature proves who sent it; what is wrong is said in AWS's codes."""

import pytest

from support.aws import refused
from support.http import ecs_request, presign, query_request, send, send_raw, sign
from botocore.awsrequest import AWSRequest

MISMATCH = "The request signature we calculated does not match the signature you provided."


def test_wrong_secret(cloud):
    client = cloud.client("ecs", aws_secret_access_key="wrong")
    with refused("InvalidSignatureException", MISMATCH):
        client.list_clusters()


def test_unknown_key(cloud):
    client = cloud.client("ecs", aws_access_key_id="AKIAIOSFODNN7EXAMPLE")
    with refused("UnrecognizedClientException", "The security token included in the request is invalid."):
        client.list_clusters()


def test_unknown_key_by_the_query_protocols(cloud):
    with refused("InvalidClientTokenId", "The security token included in the request is invalid."):
        cloud.client("sts", aws_access_key_id="AKIAIOSFODNN7EXAMPLE").get_caller_identity()
    with refused("AuthFailure", "AWS was not able to validate the provided access credentials"):
        cloud.client("ec2", aws_access_key_id="AKIAIOSFODNN7EXAMPLE").describe_vpcs()


def test_wrong_secret_by_the_query_protocols(cloud):
    with refused("SignatureDoesNotMatch", MISMATCH):
        cloud.client("sts", aws_secret_access_key="wrong").get_caller_identity()
    with refused("AuthFailure"):
        cloud.client("ec2", aws_secret_access_key="wrong").describe_vpcs()


def test_right_signature(cloud):
    answer = send(cloud, sign(cloud, ecs_request(cloud)))
    assert answer.status == 200
    assert answer.headers["x-amzn-requestid"]


@pytest.mark.parametrize("minutes, message", [(-16, "Signature expired"), (16, "Signature not yet current")])
def test_skewed_clock(cloud, minutes, message):
    answer = send(cloud, sign(cloud, ecs_request(cloud), skew_minutes=minutes))
    assert answer.status in (400, 403)
    assert answer.code == "InvalidSignatureException"
    assert message in answer.message


@pytest.mark.parametrize("minutes", [-4, 4])
def test_a_clock_that_is_a_little_off(cloud, minutes):
    assert send(cloud, sign(cloud, ecs_request(cloud), skew_minutes=minutes)).status == 200


def test_changed_body(cloud, name):
    request = sign(cloud, ecs_request(cloud, "CreateCluster", '{"clusterName":"signed"}'))
    answer = send(cloud, request, body='{"clusterName":"%s"}' % name)
    assert answer.code == "InvalidSignatureException"
    assert cloud.ecs.describe_clusters(clusters=[name])["clusters"] == []


def test_changed_operation(cloud, name):
    cloud.ecs.create_cluster(clusterName=name)
    request = sign(cloud, ecs_request(cloud, "DescribeClusters", '{"cluster":"%s"}' % name))
    request.headers.replace_header("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DeleteCluster")
    assert send(cloud, request).code == "InvalidSignatureException"
    assert cloud.ecs.describe_clusters(clusters=[name])["clusters"][0]["status"] == "ACTIVE"


def test_unsigned(cloud):
    answer = send(cloud, ecs_request(cloud))
    assert answer.status in (400, 403)
    assert answer.code == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    "authorization",
    [
        "AWS4-HMAC-SHA256 Credential=x",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=zz",
        "AWS4-HMAC-SHA256",
    ],
)
def test_half_a_signature(cloud, authorization):
    request = ecs_request(cloud)
    request.headers["Authorization"] = authorization
    answer = send(cloud, request)
    assert answer.status in (400, 403)
    assert answer.code == "IncompleteSignatureException"


def test_signed_for_another_service(cloud):
    answer = send(cloud, sign(cloud, ecs_request(cloud), service="logs"))
    assert answer.status in (400, 403, 404)
    assert answer.code


def caller_identity(cloud):
    return AWSRequest("GET", f"{cloud.server.url}/?Action=GetCallerIdentity&Version=2011-06-15")


def path_of(url):
    return "/" + url.split("/", 3)[3]


def test_presigned(cloud):
    url = presign(cloud, caller_identity(cloud), "sts")
    answer = send_raw(cloud, "GET", path_of(url))
    assert answer.status == 200
    assert b"<Account>123456789012</Account>" in answer.body


def test_presigned_and_changed(cloud):
    url = presign(cloud, caller_identity(cloud), "sts")
    answer = send_raw(cloud, "GET", path_of(url).replace("X-Amz-Expires=60", "X-Amz-Expires=6000"))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")


def test_presigned_and_expired(cloud):
    url = presign(cloud, caller_identity(cloud), "sts", expires=60, skew_minutes=-3)
    answer = send_raw(cloud, "GET", path_of(url))
    assert answer.status in (400, 403)
    assert answer.code in ("ExpiredToken", "RequestExpired", "SignatureDoesNotMatch")


def test_query_by_hand(cloud):
    answer = send(cloud, sign(cloud, query_request(cloud, "GetCallerIdentity", "2011-06-15"), service="sts"))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/xml")
