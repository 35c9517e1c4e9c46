"""Images come from registries, whole and only once, and from archives."""

import pytest

from support import images, server
from support.aws import Cloud, address, refused, task_id
from support.registry import serving


@pytest.fixture(scope="module")
def registry():
    with serving() as (registry, port):
        registry.port = port
        yield registry


@pytest.fixture(scope="module")
def mirrored(registry):
    """A server whose docker.io is the registry on loopback."""
    with server.running("--registry-mirror", f"docker.io=http://127.0.0.1:{registry.port}") as started:
        cloud = Cloud(started)
        cloud.cluster("images")
        yield cloud


def variant(marker):
    """An image with content, and so digests, of its own."""
    layer = images.Layer()
    layer.file("/marker", marker)
    second = images.Layer()
    second.file("/second", marker)
    return images.Image([images.busybox_layer(), layer, second], {"Cmd": ["cat", "/marker"], "Env": ["PATH=/bin"]})


def run_image(cloud, family, image):
    """Runs the image's own command to its end; returns the task and what it printed."""
    (arn,) = cloud.run("images", cloud.register(family, {"image": image}))
    task = cloud.until_stopped("images", arn)
    if task["stopCode"] == "TaskFailedToStart":
        return task, []
    return task, cloud.until_line(f"/ecs/{family}", f"test/main/{task_id(arn)}", "")


def test_a_mirror_stands_for_a_registry(mirrored, registry):
    registry.images["library/nginx:alpine"] = images.nginx()
    task = mirrored.run_one("images", mirrored.register("mirror", {"image": "nginx:alpine"}))
    assert address(task)
    assert registry.asked_for("/v2/library/nginx/manifests/alpine") + registry.asked_for("/v2/library/nginx/manifests/sha256") >= 1
    assert task["containers"][0]["imageDigest"].startswith("sha256:")


def test_plain_http_on_loopback(mirrored, registry, name):
    registry.images["team/tool:1.0"] = variant(name)
    _, lines = run_image(mirrored, name, f"127.0.0.1:{registry.port}/team/tool:1.0")
    assert lines == [name]


def test_by_digest(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    reference = f"127.0.0.1:{registry.port}/team/{name}@{image.manifest['digest']}"
    task, lines = run_image(mirrored, name, reference)
    assert lines == [name]
    assert task["containers"][0]["imageDigest"] == image.manifest["digest"]


def test_layers_are_pulled_once(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    for _ in range(2):
        _, lines = run_image(mirrored, name, f"127.0.0.1:{registry.port}/team/{name}:1.0")
        assert lines == [name]
    # The second image shares its first layer with the images before.
    assert [registry.asked_for(layer) for layer in image.layers[1:]] == [1, 1]


def test_tasks_that_start_together_pull_together(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    definition = mirrored.register(name, {"image": f"127.0.0.1:{registry.port}/team/{name}:1.0"})
    for arn in mirrored.run("images", definition, count=5):
        assert mirrored.until_stopped("images", arn)["containers"][0]["exitCode"] == 0
    assert [registry.asked_for(layer) for layer in image.layers[1:]] == [1, 1]


def test_layers_are_pulled_in_parallel(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    registry.most_at_once = 0
    registry.slow = set(image.layers)
    _, lines = run_image(mirrored, name, f"127.0.0.1:{registry.port}/team/{name}:1.0")
    assert lines == [name]
    assert registry.most_at_once >= 2


def test_a_pull_that_is_cut_goes_on(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    registry.cut_once = {image.layers[1]}
    _, lines = run_image(mirrored, name, f"127.0.0.1:{registry.port}/team/{name}:1.0")
    assert lines == [name]
    assert registry.asked_for(image.layers[1]) == 2


def test_a_corrupt_layer_never_runs(mirrored, registry, name):
    image = variant(name)
    registry.images[f"team/{name}:1.0"] = image
    registry.corrupt = {image.layers[1]}
    task, _ = run_image(mirrored, name, f"127.0.0.1:{registry.port}/team/{name}:1.0")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    registry.corrupt = set()
    _, lines = run_image(mirrored, f"{name}-again", f"127.0.0.1:{registry.port}/team/{name}:1.0")
    assert lines == [name]


@pytest.mark.parametrize("image", ["team/tool:never-was", "never/was:latest"])
def test_what_the_registry_does_not_have(mirrored, registry, name, image):
    registry.images["team/tool:1.0"] = variant("tool")
    task, _ = run_image(mirrored, name, f"127.0.0.1:{registry.port}/{image}")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert image in task["stoppedReason"]


@pytest.mark.parametrize("image", ["UPPER/case", "a b", "x@sha256:short", "http://x/y"])
def test_what_is_no_image_reference(mirrored, name, image):
    """Refused at registration or when it starts, but with a reason."""
    try:
        task, _ = run_image(mirrored, name, image)
    except mirrored.ecs.exceptions.ClientException:
        with refused("ClientException"):
            mirrored.register(name, {"image": image})
    else:
        assert task["stoppedReason"].startswith("CannotPullContainerError: ")


def test_an_archive_that_is_none(mirrored, tmp_path):
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"not a tar file" * 100)
    for path in (broken, tmp_path / "never-was.tar"):
        with pytest.raises(server.Failed) as caught:
            mirrored.server.load_image(path, "x:latest")
        assert path.name in str(caught.value)


def test_a_docker_archive(mirrored, tmp_path, name):
    path = images.busybox().write_docker_archive(tmp_path / "docker.tar", f"{name}:latest")
    mirrored.server.load_image(path, f"{name}:latest")
    (arn,) = mirrored.run("images", mirrored.register(name, {"image": f"{name}:latest", "command": ["echo", "hello"]}))
    assert mirrored.until_line(f"/ecs/{name}", f"test/main/{task_id(arn)}", "hello") == ["hello"]
