"""Two servers share a machine when their ranges differ, and say so clearly when they do not."""

import urllib.request

import pytest

from support import server
from support.aws import Cloud, address
from support.waiting import until


def test_different_ranges_live_side_by_side(cloud, start, load):
    other = start()
    load(other, "nginx:latest")
    second = Cloud(other)
    assert second.ecs.list_clusters()["clusterArns"] == []
    second.cluster("side-by-side")
    cloud.cluster("side-by-side")
    for one in (cloud, second):
        task = one.run_one("side-by-side", one.register("side-by-side", {"image": "nginx:latest"}))
        url = f"http://{address(task)}/address"

        def answered(url=url):
            try:
                return urllib.request.urlopen(url, timeout=5).read().decode().strip()
            except OSError:
                return None

        assert until(f"an answer from {url}", answered) == address(task)
    cloud.stop_all("side-by-side")
    other.stop()
    other.down()
    assert cloud.ecs.list_clusters()["clusterArns"], "the end of one leaves the other alone"
    cloud.run_one("side-by-side", "side-by-side:1")
    cloud.stop_all("side-by-side")


def test_one_range_twice_is_a_clear_error(cloud):
    clash = server.Server(vpc_cidr=cloud.server.vpc_cidr)
    try:
        with pytest.raises(server.Failed) as caught:
            clash.start()
        assert cloud.server.vpc_cidr in str(caught.value)
        assert "--vpc-cidr" in str(caught.value)
    finally:
        clash.clean_up()


def test_one_port_twice_is_a_clear_error(cloud):
    clash = server.Server()
    clash.port = cloud.server.port
    try:
        with pytest.raises(server.Failed) as caught:
            clash.start()
        assert str(cloud.server.port) in str(caught.value)
    finally:
        clash.clean_up()
    assert cloud.ecs.list_clusters()["clusterArns"] is not None


def test_one_data_directory_twice_is_a_clear_error(cloud):
    clash = server.Server()
    own, clash.data_dir = clash.data_dir, cloud.server.data_dir
    try:
        with pytest.raises(server.Failed) as caught:
            clash.start()
        assert str(cloud.server.data_dir) in str(caught.value)
    finally:
        clash.data_dir = own
        clash.clean_up()


@pytest.mark.parametrize(
    "flags",
    [
        ["--vpc-cidr", "10.0.0.0/8"],
        ["--vpc-cidr", "not a range"],
        ["--auth", "maybe"],
        ["--instances", "0"],
        ["--instances", "many"],
        ["--registry-mirror", "docker.io"],
        ["--colour", "red"],
    ],
    ids=" ".join,
)
def test_flags_that_are_wrong(flags):
    wrong = server.Server()
    wrong.flags = flags
    try:
        with pytest.raises(server.Failed) as caught:
            wrong.start()
        assert flags[0] in str(caught.value), "the message names the flag"
    finally:
        wrong.clean_up()
