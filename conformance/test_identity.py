"""Who the caller is."""


def test_get_caller_identity(cloud):
    identity = cloud.aws("sts", "get-caller-identity")
    assert identity["Account"] == "123456789012"
    assert identity["Arn"].startswith("arn:aws:iam::123456789012:")
    assert identity["UserId"]
