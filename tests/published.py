"""Images as a build keeps them, launch templates and parameters, for tests of their publication."""

from __future__ import annotations

from typing import Any

from imagepipe.cloud import tags
from imagepipe.values import Image
from tests.account import Account
from tests.local.aws import harness


def kept_image(account: Account, name: str = "web-1", *, spec: str = "web", run: str = "r0", **more: str) -> Image:
    """An image of one snapshot in us-east-1, tagged as a build of a spec does."""
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    id = harness.available(ec2, harness.register(ec2, snapshot, name))
    own = {tags.SPEC: spec, tags.RUN: run, tags.STATE: tags.KEPT, **more}
    account.ec2.images.tag([id, snapshot], own)
    return Image(id, "us-east-1", name, (snapshot,))


def template(account: Account, name: str = "web", *, image: str = "ami-00000000", region: str = "us-east-1") -> str:
    """Create a launch template whose version 1 has an image; return its id."""
    data = {"ImageId": image, "InstanceType": "t3.small"}
    answer = account.cloud.client(region=region).create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData=data
    )
    return str(answer["LaunchTemplate"]["LaunchTemplateId"])


def versions(account: Account, name: str = "web", region: str = "us-east-1") -> list[dict[str, Any]]:
    """Return the versions of a launch template, the oldest first."""
    ec2 = account.cloud.client(region=region)
    found: list[dict[str, Any]] = ec2.describe_launch_template_versions(LaunchTemplateName=name)[
        "LaunchTemplateVersions"
    ]
    return found[::-1]


def parameter(account: Account, name: str, region: str = "us-east-1") -> dict[str, Any]:
    """Return a parameter as Systems Manager describes it."""
    found: dict[str, Any] = account.cloud.client("ssm", region=region).get_parameter(Name=name)["Parameter"]
    return found
