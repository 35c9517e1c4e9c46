"""What measurements stand on: a server with its image, clients that cost little, the programs of the workspace, and
the end of all of it, also when somebody interrupts."""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

import botocore.auth
import botocore.awsrequest
import botocore.credentials

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "conformance"))

from support import images, server  # noqa: E402
from support.aws import Cloud  # noqa: E402

ECS_TARGET = "AmazonEC2ContainerServiceV20141113."
IMAGE = "busybox:latest"
# Nothing to do, and ended by SIGTERM at once; as the first process of its world, `sleep` would not hear it.
IDLE = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait $!"]
# Between two looks at a task, in seconds.
GLANCE = 0.002
# What would go on for ever ends here, in seconds.
DEADLINE = 120


class Unmeasured(Exception):
    """Something does not work, so that there is nothing to measure."""


def say(text):
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def temporary_folder():
    """Removed at the end with what is mounted in it, which a program that was interrupted may have left."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="longshore-bench-"))
    try:
        yield folder
    finally:
        mounts = [line.split()[1] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def cloud(folder, *flags):
    """A strict server of its own with the image loaded, seen by its administrator."""
    say("  start a server")
    with server.running(*flags, auth="strict") as started:
        started.load_image(archive(folder), IMAGE)
        yield Cloud(started)


def archive(folder):
    path = folder / "busybox.tar"
    return path if path.exists() else images.busybox().write_archive(path, IMAGE)


def register_idle(target, family):
    """A task definition of one container that does nothing; returns `family:revision`."""
    # Without a memory of the container's own, moto fails.
    return target.register(family, {"command": IDLE, "memory": 256})


class Wire:
    """A client that signs beforehand and sends over one open connection: what it costs itself stays outside."""

    def __init__(self, target):
        self.target = target
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(target.server.url).netloc, timeout=60)

    def signed(self, operation, **members):
        return signed(self.target, operation, members)

    def send(self, request):
        self.connection.request("POST", "/", body=request["body"], headers=request["headers"])
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Unmeasured(f"{request['headers']['X-Amz-Target']}: {answer.status} {body.decode(errors='replace')}")
        return json.loads(body)

    def until(self, request, condition, glance=GLANCE):
        """The first answer that satisfies the condition."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            answer = self.send(request)
            if condition(answer):
                return answer
            time.sleep(glance)
        raise Unmeasured(f"not within {DEADLINE} s; last seen: {answer}")


def signed(target, operation, members):
    """Headers and body of an ECS request, as a strict server accepts it for some minutes, any number of times."""
    url = target.server.url
    body = json.dumps(members)
    headers = {
        "Host": urllib.parse.urlsplit(url).netloc,
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": ECS_TARGET + operation,
    }
    request = botocore.awsrequest.AWSRequest("POST", f"{url}/", data=body, headers=headers)
    key, secret = (target.exports[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    credentials = botocore.credentials.Credentials(key, secret)
    botocore.auth.SigV4Auth(credentials, "ecs", target.region).add_auth(request)
    return {"headers": dict(request.headers.items()), "body": body}


def example(package, name):
    """The path of a program among the examples of a package, built as the server is: for release."""
    command = ["cargo", "build", "--release", "--quiet", "--package", package, "--example", name]
    say(f"  {' '.join(command)}")
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise Unmeasured(f"{name} does not build")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").expanduser()
    return ROOT / target / "release" / "examples" / name


def run(*command, **settings):
    """A command's standard output."""
    environment = server.clean_environment() | settings.pop("environment", {})
    result = subprocess.run(
        [str(word) for word in command],
        **({"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 600} | settings),
        env=environment,
    )
    if result.returncode != 0:
        raise Unmeasured(f"{command[0]} ended with status {result.returncode}: {result.stderr}")
    return result.stdout


class Containerd:
    """The server's own containerd, seen through `ctr`."""

    def __init__(self, target):
        config = target.server.data_dir / "containerd" / "config.toml"
        self.socket = re.search(r'address = "([^"]+\.sock)"', config.read_text())[1]
        (self.namespace,) = [name for name in self._namespaces() if re.fullmatch(r"longshore-\w+-0", name)]
        self.server_hash = self.namespace.split("-")[1]
        # Cleared by `longshore down` with those of the instances; the program of the floor makes it.
        self.beside = f"longshore-{self.server_hash}-floor"

    def _namespaces(self):
        return run("ctr", "--address", self.socket, "namespaces", "ls", "--quiet").split()

    def ctr(self, namespace, *words):
        return run("ctr", "--address", self.socket, "--namespace", namespace, *words)

    def only_container(self):
        """The one that is left; those of tasks that just stopped are removed a moment later."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            found = self.ctr(self.namespace, "containers", "ls", "--quiet").split()
            if len(found) == 1:
                return found[0]
            time.sleep(0.1)
        raise Unmeasured(f"not one container, but {found}")

    def container(self, name):
        return json.loads(self.ctr(self.namespace, "containers", "info", name))


def process_ids(marker):
    """Processes whose command line contains `marker`, but not this one."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(entry.name))
    return found
