"""Images of specs on a local cloud in this process: baked with the product's tags, aged, and used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.images import images
from imagepipe.clock import iso
from imagepipe.cloud import tags
from tests.account import Account
from tests.local.aws import harness

HOME, SECOND = "us-east-1", "us-west-2"
SPEC = """\
imagepipe: 1
name: {name}
source: {{ami: ami-0123456789abcdef0}}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
output: {{name: "{name}-{{{{ build.timestamp }}}}"}}
retention: {{newest: {newest}{more}, grace: {{deprecate: 0s, disable: 0s, deregister: 0s}}}}
"""


@dataclass
class Workshop:
    """A folder with specs, an account, and the images that were baked in it."""

    account: Account
    folder: Path
    _volume: str | None = field(default=None, init=False)

    def client(self, service: str = "ec2", region: str = HOME, **more: Any) -> Any:
        return self.account.cloud.client(service, region, **more)

    def spec(self, name: str = "web", *, newest: int = 1, more: str = "", text: str = "") -> Path:
        file = self.folder / "specs" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(SPEC.format(name=name, newest=newest, more=more) + text)
        return file

    def bake(self, run: str, spec: str = "web", **own: str) -> str:
        """An available image with the tags of a successful run."""
        ec2 = self.client()
        if self._volume is None:
            self._volume = harness.root_volume(ec2, harness.stopped(ec2))
        snapshot = str(ec2.create_snapshot(VolumeId=self._volume)["SnapshotId"])
        harness.until(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed")
        image = harness.available(ec2, harness.register(ec2, snapshot, f"{spec}-{run}"))
        self.tag([image, snapshot], {tags.SPEC: spec, tags.RUN: run, tags.STATE: tags.KEPT, **own})
        return image

    def tag(self, ids: Sequence[str], own: Mapping[str, str], region: str = HOME) -> None:
        self.client(region=region).create_tags(Resources=list(ids), Tags=tags.pairs(own))

    def copy(self, image: str, region: str = SECOND) -> str:
        """A copy with the same name and tags."""
        described = harness.image(self.client(), image)
        ec2 = self.client(region=region)
        made = ec2.copy_image(SourceImageId=image, SourceRegion=HOME, Name=described["Name"], CopyImageTags=False)
        copied = harness.available(ec2, str(made["ImageId"]))
        own = tags.mapping(described["Tags"])
        self.tag([copied, harness.only_snapshot(ec2, copied)], own, region)
        return copied

    def deprecate(self, image: str, region: str = HOME) -> None:
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        self.client(region=region).enable_image_deprecation(ImageId=image, DeprecateAt=now)

    def disable(self, image: str, region: str = HOME, *, ago: timedelta = timedelta(hours=1)) -> None:
        """The state after the first two steps, so that the last one is due."""
        self.deprecate(image, region)
        self.client(region=region).disable_image(ImageId=image)
        self.tag([image], {tags.DISABLED: iso(datetime.now(UTC) - ago)}, region)

    def run(self, *words: str) -> Result:
        """`imagepipe images WORDS`, on this cloud."""
        return CliRunner().invoke(
            images, [*words, "--endpoint-url", self.account.cloud.endpoint], standalone_mode=False
        )

    def prune(self, *words: str, regions: Sequence[str] = (HOME, SECOND)) -> Result:
        return self.run("prune", *words, *(part for region in regions for part in ("--in-region", region)))

    def exists(self, image: str, region: str = HOME) -> bool:
        own = self.client(region=region).describe_images(Owners=["self"], IncludeDisabled=True)["Images"]
        return image in {each["ImageId"] for each in own}

    def described(self, image: str, region: str = HOME) -> Mapping[str, Any]:
        rows = self.client(region=region).describe_images(ImageIds=[image], IncludeDisabled=True)["Images"]
        return dict(rows[0])

    def limited(self, monkeypatch: pytest.MonkeyPatch, *statements: Mapping[str, Any]) -> None:
        """From here on, the command's credentials have a policy of these statements."""
        policy = {"Version": "2012-10-17", "Statement": list(statements)}
        made = self.account.cloud.admin("POST", "keys", {"account": harness.ACCOUNT, "policy": json.dumps(policy)})
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", made["access_key_id"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", made["secret_access_key"])
