"""Fixtures. One server is shared by all tests that only add to it; the others start their own."""

import os
import shutil
import signal
import uuid

import pytest

from support import images, server
from support import terraform as terraform_support
from support.aws import Cloud


@pytest.fixture(scope="session")
def archives(tmp_path_factory):
    """Archives of the test images, by the name that task definitions use."""
    folder = tmp_path_factory.mktemp("images")
    nginx = images.nginx().write_archive(folder / "nginx.tar", "nginx:latest")
    return {
        "busybox:latest": images.busybox().write_archive(folder / "busybox.tar", "busybox:latest"),
        "nginx:latest": nginx,
        "nginx:alpine": nginx,
    }


@pytest.fixture(scope="session")
def load(archives):
    """Puts test images on a server."""

    def load_onto(target, *names):
        for name in names or archives:
            target.load_image(archives[name], name)

    return load_onto


@pytest.fixture(scope="session")
def cloud(load):
    """The shared server, strict as users get it, with the test images."""
    with server.running() as started:
        load(started)
        yield Cloud(started)


@pytest.fixture
def name(request):
    """A name that no other test uses, for clusters, families and groups."""
    return f"{request.node.originalname.removeprefix('test_')[:40].replace('_', '-')}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def cluster(cloud, name):
    """A cluster of the test's own, empty again at its end."""
    yield cloud.cluster(name)
    cloud.stop_all(name)


@pytest.fixture
def start():
    """Starts servers of the test's own."""
    started = []

    def start_one(*flags, **options):
        one = server.Server(*flags, **options)
        started.append(one)
        return one.start()

    yield start_one
    for one in reversed(started):
        one.clean_up()


@pytest.fixture
def terraform(cloud, tmp_path, name):
    """Takes a configuration and its variables; what was made is destroyed in the end."""
    if not shutil.which("terraform") or not terraform_support.mirror():
        missing = "needs terraform, and a mirror of its AWS provider in LONGSHORE_TERRAFORM_MIRROR"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    made = []

    def start(*files, **variables):
        for file in ("provider.tf", *files):
            shutil.copy(terraform_support.SOURCE / file, tmp_path)
        made.append(terraform_support.Terraform(cloud, tmp_path, {"name": name} | variables))
        status, said = made[0].run("init")
        assert status == 0, said
        return made[0]

    yield start
    for one in made:
        status, said = one.run("destroy", "-auto-approve")
        assert status == 0, said


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the servers said."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in server.live:
            report.sections.append((f"log of {one.url} in {one.data_dir}", one.log_tail()))


def pytest_configure(config):
    if os.geteuid() != 0:
        pytest.exit("Longshore makes namespaces and mounts: run these tests as root, by ./dev test", 1)
    if not os.access(server.BINARY, os.X_OK):
        pytest.exit(f"no binary at {server.BINARY}: run ./dev test, or set LONGSHORE_BIN", 1)
    # So that fixtures clean up when the run is ended from outside, too.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))


def pytest_unconfigure(config):
    for one in list(server.live):
        one.clean_up()
