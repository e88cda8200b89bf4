"""A stranger's client: the distribution's own `aws` command bakes an image by hand, and boots its copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

DEBIANS = Path("/usr/bin/aws")


@dataclass
class AwsCli:
    """`aws`, with nothing but what `imagepipe local serve --env` prints."""

    bakery: Bakery
    folder: Path

    def __call__(self, *arguments: str, region: str = "us-east-1") -> Any:
        """Return the command's output, parsed if it is JSON. The command must succeed."""
        command = str(DEBIANS) if DEBIANS.exists() else shutil.which("aws")
        assert command, "the AWS CLI is missing (Debian's package awscli)"
        cloud = self.bakery.cloud
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "AWS_ACCESS_KEY_ID": cloud.access_key_id,
            "AWS_SECRET_ACCESS_KEY": cloud.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }
        # This CLI is older than AWS_ENDPOINT_URL.
        given = ("--endpoint-url", cloud.endpoint_url, "--region", region, "--output", "json")
        done = subprocess.run(
            [command, *given, *arguments], env=env, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None

    def launched(self, image_id: str, group: str, *, region: str = "us-east-1") -> str:
        answer = self(
            "ec2", "run-instances", "--image-id", image_id, "--instance-type", "t3.small", "--key-name", "stranger",
            "--security-group-ids", group, region=region,
        )  # fmt: skip
        return str(answer["Instances"][0]["InstanceId"])

    def address(self, instance_id: str, *, region: str = "us-east-1") -> str:
        answer = self("ec2", "describe-instances", "--instance-ids", instance_id, region=region)
        return str(answer["Reservations"][0]["Instances"][0]["PublicIpAddress"])

    def group(self, *, region: str = "us-east-1") -> str:
        """A security group that lets this computer in by SSH."""
        made = self("ec2", "create-security-group", "--group-name", "ssh", "--description", "ssh", region=region)
        self(
            "ec2", "authorize-security-group-ingress", "--group-id", made["GroupId"],
            "--protocol", "tcp", "--port", "22", "--cidr", "127.0.0.1/32", region=region,
        )  # fmt: skip
        return str(made["GroupId"])


def ssh(address: str, key: Path, command: str) -> str:
    """Run a command with OpenSSH's client, once the machine lets us in, and return its output."""
    options = ("BatchMode=yes", "ConnectTimeout=3", "StrictHostKeyChecking=accept-new", "IdentitiesOnly=yes")
    settings = [
        word for option in (*options, f"UserKnownHostsFile={key.parent}/known_hosts") for word in ("-o", option)
    ]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            ["ssh", *settings, "-i", str(key), f"admin@{address}", command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 255:
            assert done.returncode == 0, done.stderr
            return done.stdout
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.3)


def test_the_aws_cli_bakes_an_image_and_boots_its_copy_in_another_region(fresh_bakery: Bakery, tmp_path: Path) -> None:
    aws = AwsCli(fresh_bakery, tmp_path)
    before = fresh_bakery.inventory()
    key = tmp_path / "stranger.pem"
    for region in ("us-east-1", "us-west-2"):
        kind = ("--key-type", "rsa") if region == "us-east-1" else ("--key-type", "ed25519")
        made = aws("ec2", "create-key-pair", "--key-name", "stranger", *kind, region=region)
        path = key if region == "us-east-1" else tmp_path / "west.pem"
        path.touch(mode=0o600)
        path.write_text(made["KeyMaterial"])
    groups = {region: aws.group(region=region) for region in ("us-east-1", "us-west-2")}

    images = aws("ec2", "describe-images", "--owners", "136693071363", "--filters", "Name=name,Values=debian-12-*")
    [base] = [image["ImageId"] for image in images["Images"]]
    first = aws.launched(base, groups["us-east-1"])
    aws("ec2", "wait", "instance-running", "--instance-ids", first)
    ssh(aws.address(first), key, "echo baked by a stranger | sudo tee /etc/baked && sync")
    baked = aws("ec2", "create-image", "--instance-id", first, "--name", "by-hand")["ImageId"]
    aws("ec2", "wait", "image-available", "--image-ids", baked)
    assert ssh(aws.address(first), key, "cat /etc/baked") == "baked by a stranger\n", "it was started again"

    copied = aws(
        "ec2", "copy-image", "--source-region", "us-east-1", "--source-image-id", baked, "--name", "by-hand",
        region="us-west-2",
    )["ImageId"]  # fmt: skip
    aws("ec2", "wait", "image-available", "--image-ids", copied, region="us-west-2")
    second = aws.launched(copied, groups["us-west-2"], region="us-west-2")
    aws("ec2", "wait", "instance-running", "--instance-ids", second, region="us-west-2")
    address = aws.address(second, region="us-west-2")
    assert ssh(address, tmp_path / "west.pem", "cat /etc/baked") == "baked by a stranger\n"

    for region, instance_id, image_id in (("us-east-1", first, baked), ("us-west-2", second, copied)):
        [snapshot_id] = [
            mapping["Ebs"]["SnapshotId"]
            for mapping in aws("ec2", "describe-images", "--image-ids", image_id, region=region)["Images"][0][
                "BlockDeviceMappings"
            ]
        ]
        aws("ec2", "deregister-image", "--image-id", image_id, region=region)
        aws("ec2", "delete-snapshot", "--snapshot-id", snapshot_id, region=region)
        aws("ec2", "terminate-instances", "--instance-ids", instance_id, region=region)
        aws("ec2", "wait", "instance-terminated", "--instance-ids", instance_id, region=region)
        aws("ec2", "delete-security-group", "--group-id", groups[region], region=region)
        aws("ec2", "delete-key-pair", "--key-name", "stranger", region=region)
    assert fresh_bakery.inventory() == before
