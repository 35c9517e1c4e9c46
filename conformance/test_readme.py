"""The README's tour does what it says: its commands are run from the page, one after the other, in one shell."""

import pathlib
import re
import subprocess
import sys

from support.server import BINARY, clean_environment

README = pathlib.Path(__file__).parents[1] / "README.md"
POINT_HERE = 'eval "$(./dev env)"\n'


def tour():
    page = README.read_text()
    section = page.split("## A five-minute tour", 1)[1].split("\n## ", 1)[0]
    return "".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def test_the_tour(cloud, tmp_path):
    script = tour()
    assert script.startswith(POINT_HERE)
    bin_path = f"{pathlib.Path(sys.executable).parent}:{BINARY.parent}"
    environment = clean_environment() | cloud.exports | {"AWS_PAGER": ""}
    environment["PATH"] = f"{bin_path}:{environment['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-x", "-c", script.removeprefix(POINT_HERE)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    assert "arn:aws:ecs:us-east-1:123456789012:cluster/demo" in result.stdout
    assert "Welcome to nginx!" in result.stdout
    assert "worker process" in result.stdout
    assert "The tour is over" in result.stdout
