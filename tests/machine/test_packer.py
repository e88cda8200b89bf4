"""A stranger's client: Debian's packer bakes an amazon-ebs template on `imagepipe local serve`, and its image boots.

Nothing of ours is in between: packer makes its own key pair and group, logs in to an instance that really boots, and
copies and shares what it captured.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import boto3
import pytest

from imagepipe.local.client import admin
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

PACKER = Path("/usr/bin/packer")
SECONDS = 900


def _template(bakery: Bakery, account: str) -> dict[str, object]:
    return {
        "builders": [
            {
                "type": "amazon-ebs",
                "custom_endpoint_ec2": bakery.cloud.endpoint_url,
                "region": "us-east-1",
                "source_ami_filter": {
                    "filters": {"name": "debian-12-amd64-*", "virtualization-type": "hvm"},
                    "owners": ["136693071363"],
                    "most_recent": True,
                },
                "instance_type": "t3.small",
                "ssh_username": "admin",
                "ami_name": "packer-{{timestamp}}",
                "ami_description": "from {{ .SourceAMIName }}",
                "ami_regions": ["us-west-2"],
                "ami_users": [account],
                "tags": {"by": "packer"},
                "run_tags": {"by": "packer"},
            }
        ],
        "provisioners": [
            {"type": "file", "source": "motd", "destination": "/tmp/motd"},
            {"type": "shell", "inline": ["sudo install -m 0644 /tmp/motd /etc/motd", "echo told by the shell"]},
            {"type": "shell", "script": "script.sh", "execute_command": "sudo sh {{.Path}}"},
        ],
    }


def test_packer_builds_to_the_end_and_the_image_that_it_made_boots_with_its_changes(bakery: Bakery) -> None:
    assert PACKER.exists(), "packer is not installed: make setup"
    other = admin.add_account(bakery.cloud)
    before = bakery.inventory()
    bakery.write("motd", "baked by packer\n")
    bakery.write("script.sh", "set -eu\nid -un >/etc/by\n")
    template = bakery.write("template.json", json.dumps(_template(bakery, other.id)))
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(bakery.folder),
        "AWS_ACCESS_KEY_ID": bakery.cloud.access_key_id,
        "AWS_SECRET_ACCESS_KEY": bakery.cloud.secret_access_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CHECKPOINT_DISABLE": "1",
        "PACKER_CONFIG": "",
    }
    done = subprocess.run(
        [str(PACKER), "build", "-color=false", str(template)],
        cwd=bakery.folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "told by the shell" in done.stdout
    made = dict(re.findall(r"^(us-(?:east|west)-\d): (ami-[0-9a-f]{17})$", done.stdout, re.MULTILINE))
    assert set(made) == {"us-east-1", "us-west-2"}

    for region, image in made.items():
        [described] = bakery.client(region=region).describe_images(ImageIds=[image])["Images"]
        assert (described["State"], described["RootDeviceType"]) == ("available", "ebs")
        assert {"Key": "by", "Value": "packer"} in described["Tags"]
        theirs = boto3.client(
            "ec2",
            region_name=region,
            endpoint_url=bakery.cloud.endpoint_url,
            aws_access_key_id=other.access_key_id,
            aws_secret_access_key=other.secret_access_key,
        )
        assert theirs.describe_images(ImageIds=[image])["Images"], "ami_users"
    after = bakery.inventory()
    for kind in ("instances", "volumes", "keys", "groups"):
        assert after[f"us-east-1 {kind}"] == before[f"us-east-1 {kind}"], "packer's own temporary things are gone"

    with bakery.instance(made["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/motd") == "baked by packer"
        assert booted.sh("cat /etc/by") == "root"
