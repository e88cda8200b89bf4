"""A family of images: baked bases first, used again while nothing changes, and stopped where a base fails."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.machine.bakery import Baked, Bakery

pytestmark = pytest.mark.machine

FAMILY = Path(__file__).resolve().parents[2] / "specs/family"
KEYS = {"base", "runtime", "api", "pages", "worker[queue=mail]", "worker[queue=video]", "worker[queue=reports]"}


def _family(bakery: Bakery) -> Path:
    return Path(shutil.copytree(FAMILY, bakery.folder / "family"))


def _without_tests(bakery: Bakery) -> Path:
    """The family for machines on which no systemd runs: its specs have no tests, and enable no unit."""
    family = _family(bakery)
    for file in family.glob("*.yaml"):
        text = re.sub(r"^test:\n(?:  .*\n)+", "", file.read_text(), flags=re.MULTILINE)
        file.write_text(re.sub(r"systemctl enable \S+", "echo enabled", text))
    return family


def _images(baked: Baked) -> dict[tuple[str, str], dict[str, Any]]:
    return {(image["spec"], image["region"]): image for image in json.loads(baked.out)["images"]}


def _changing_calls(bakery: Bakery) -> Counter[str]:
    calls = bakery.admin("GET", "calls").items()
    reads = ("Describe", "Get", "List", "Head")
    return Counter({name: count for name, count in calls if not name.rpartition(":")[2].startswith(reads)})


def test_a_failed_base_fails_its_layers_and_nothing_else(quick_bakery: Bakery) -> None:
    family = _without_tests(quick_bakery)
    runtime = family / "runtime.yaml"
    runtime.write_text(runtime.read_text().replace("provision:", "provision:\n  - shell: exit 3"))
    (family / "lone.yaml").write_text(
        (family / "base.yaml").read_text().replace("name: base", "name: lone").replace("base-", "lone-")
    )
    baked = quick_bakery("build", str(family), "--local", "--format", "json")
    assert baked.code == 7, baked.err
    result = json.loads(baked.out)
    assert {image["spec"] for image in result["images"]} == {"base", "lone"}
    assert set(result["failed"]) == KEYS - {"base"}
    assert "not built: api, because its base runtime failed" in baked.err
    kept = {id for key, ids in quick_bakery.inventory().items() if "images" in key for id in ids}
    assert kept == {image["image_id"] for image in result["images"]}
    left = {key: ids for key, ids in quick_bakery.inventory().items() if "instances" in key or "keys" in key}
    assert not any(left.values()), left


def test_a_base_that_nobody_names_is_used_again_or_baked_and_an_image_is_published_further(
    quick_bakery: Bakery,
) -> None:
    family = _without_tests(quick_bakery)
    alone = _images(quick_bakery.build(family / "base.yaml"))
    image = alone["base", "us-east-1"]["image_id"]
    layered = _images(quick_bakery.build(family / "runtime.yaml"))
    assert layered["base", "us-east-1"]["image_id"] == image
    assert layered["base", "us-east-1"]["unchanged"]
    assert not layered["runtime", "us-east-1"]["unchanged"]

    spec = family / "base.yaml"
    spec.write_text(spec.read_text() + 'publish: {regions: [us-west-2], share: {accounts: ["210987654321"]}}\n')
    further = _images(quick_bakery.build(spec))
    assert further["base", "us-east-1"]["image_id"] == image
    assert not further["base", "us-west-2"]["unchanged"]
    for region in ("us-east-1", "us-west-2"):
        ec2 = quick_bakery.client(region=region)
        id = further["base", region]["image_id"]
        answer = ec2.describe_image_attribute(ImageId=id, Attribute="launchPermission")
        assert answer["LaunchPermissions"] == [{"UserId": "210987654321"}]
    before = _changing_calls(quick_bakery)
    assert all(image["unchanged"] for image in _images(quick_bakery.build(spec)).values())
    assert _changing_calls(quick_bakery) == before
    assert not _images(quick_bakery.build(spec, "--force"))["base", "us-east-1"]["unchanged"]
