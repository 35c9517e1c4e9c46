"""Terraform with its AWS provider, unmodified, applied to a server."""

import json
import os
import pathlib
import shutil
import subprocess

from .server import clean_environment

PROVIDER = "hashicorp/aws/5.100.0"
SOURCE = pathlib.Path(__file__).parents[1] / "terraform"
# What `terraform plan -detailed-exitcode` answers.
NOTHING_TO_DO = 0


def mirror():
    """A filesystem mirror with the provider, from the environment or from where machines keep such things."""
    given = os.environ.get("LONGSHORE_TERRAFORM_MIRROR")
    found = [pathlib.Path(given)] if given else [path.parents[3] for path in pathlib.Path("/opt").glob(f"*/*/{PROVIDER}")]
    return found[0] if found else None


class Terraform:
    """One configuration, applied to one server."""

    def __init__(self, cloud, folder, variables):
        self.cloud, self.folder, self.variables = cloud, folder, variables
        config = folder / "terraform.rc"
        config.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror()}"\n  }}\n}}\n')
        self.environment = clean_environment() | cloud.exports | {"TF_CLI_CONFIG_FILE": str(config), "HOME": str(folder)}

    def run(self, *words, **variables):
        """The exit status and what was printed."""
        given = {f"TF_VAR_{name}": json.dumps(value) for name, value in (self.variables | variables).items()}
        plain = {name: value.strip('"') for name, value in given.items()}
        result = subprocess.run(
            ["terraform", *words, "-no-color"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            env=self.environment | plain,
        )
        return result.returncode, result.stdout + result.stderr

    def apply(self, **variables):
        status, said = self.run("apply", "-auto-approve", **variables)
        assert status == 0, said
        status, said = self.run("plan", "-detailed-exitcode", **variables)
        assert status == NOTHING_TO_DO, said
