"""Specs that need no bake: an image with the same inputs is found by its tags, and by nothing weaker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagepipe.cloud.images import Audience, snapshots_of
from imagepipe.reuse import Examiner
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.existing import Existing
from imagepipe.wiring.family import bases_first
from tests.account import Account
from tests.local.aws import harness

BASE = """\
imagepipe: 1
name: base
source: {ami: {name: "debian-12-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "base-{{ build.id }}"}
publish: {regions: [us-west-2], share: {accounts: ["210987654321"]}}
reuse: REUSE
"""
LAYER = """\
imagepipe: 1
name: app
source: {image: base}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "true"}]
output: {name: "app-{{ build.id }}"}
reuse: unchanged
"""
NOW = datetime.now(UTC)


def _load(folder: Path, *texts: str, reuse: str = "unchanged") -> list[LoadedSpec]:
    files = []
    for number, text in enumerate(texts):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(text.replace("REUSE", reuse))
    loaded = load(files, Given(), build=Build("b1", "20261123T000000Z", ""))
    refuse(loaded)
    return bases_first(loaded)


def _unchanged(
    account: Account, loaded: list[LoadedSpec], *, force: bool = False, now: datetime = NOW
) -> dict[str, Existing]:
    examiner = Examiner(account.regions, lambda spec: str(spec.launch.region), now)
    return examiner.unchanged(loaded, force=force)


def _fingerprint(account: Account, loaded: LoadedSpec, source: str) -> str:
    examiner = Examiner(account.regions, lambda spec: str(spec.launch.region), NOW)
    inputs = examiner.inputs_of([loaded], {str(loaded.key): source})[str(loaded.key)].inputs
    assert inputs is not None
    return inputs.fingerprint()


def _image(account: Account, name: str, tags: Mapping[str, str], region: str = "us-east-1") -> str:
    """An image of this account with tags."""
    ec2 = account.cloud.client(region="us-east-1")
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    here = harness.available(ec2, harness.register(ec2, snapshot, f"{name}-here"))
    other = account.cloud.client(region=region)
    if region != "us-east-1":
        here = harness.available(
            other, other.copy_image(SourceImageId=here, SourceRegion="us-east-1", Name=name)["ImageId"]
        )
    other.create_tags(Resources=[here], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])
    return here


def _tags(spec: str, fingerprint: str, **more: str) -> dict[str, str]:
    own = {"imagepipe:spec": spec, "imagepipe:fingerprint": fingerprint, "imagepipe:state": "kept"}
    return {**own, **{f"imagepipe:{key}": value for key, value in more.items()}}


def test_nothing_is_reused_before_something_was_baked(account: Account, tmp_path: Path) -> None:
    assert _unchanged(account, _load(tmp_path, BASE)) == {}


def test_an_image_with_the_same_inputs_is_found_and_its_gaps_are_named(account: Account, tmp_path: Path) -> None:
    [base] = _load(tmp_path, BASE)
    image = _image(account, "one", _tags("base", _fingerprint(account, base, "")))
    found = _unchanged(account, [base])["base"]
    [change] = found.changes
    assert (found.images, change.region, change.stage) == ({"us-east-1": image}, "us-east-1", "share")
    assert change.lines[0] == "+ 210987654321 may launch it"
    assert "+ 210987654321 may copy snap-" in change.lines[1]
    snapshots = snapshots_of(account.ec2.images.describe(image))
    account.ec2.images.share(image, snapshots, Audience(("210987654321",)))
    assert _unchanged(account, [base]) == {"base": Existing({"us-east-1": image})}


def test_an_image_only_in_another_region_is_not_enough(account: Account, tmp_path: Path) -> None:
    [base] = _load(tmp_path, BASE)
    _image(account, "one", _tags("base", _fingerprint(account, base, "")), region="us-west-2")
    assert _unchanged(account, [base]) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"imagepipe:spec": "other"},
        {"imagepipe:state": "unfinished"},
        {"imagepipe:fingerprint": "0" * 32},
    ],
    ids=["other-spec", "unfinished", "other-inputs"],
)
def test_an_image_with_another_tag_is_not_used(account: Account, tmp_path: Path, wrong: dict[str, str]) -> None:
    [base] = _load(tmp_path, BASE)
    _image(account, "one", {**_tags("base", _fingerprint(account, base, "")), **wrong})
    assert _unchanged(account, [base]) == {}


def test_a_forged_fingerprint_on_a_shared_image_of_another_account_is_not_used(
    account: Account, tmp_path: Path
) -> None:
    [base] = _load(tmp_path, BASE)
    other = account.cloud.client(other=True)
    snapshot = harness.snapshot_of(other, harness.stopped(other))
    image = harness.available(other, harness.register(other, snapshot, "forged"))
    forged = _tags("base", _fingerprint(account, base, ""))
    other.create_tags(Resources=[image], Tags=[{"Key": name, "Value": value} for name, value in forged.items()])
    own = account.cloud.client("sts").get_caller_identity()["Account"]
    other.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": own}]})
    assert account.cloud.client().describe_images(ImageIds=[image])["Images"], "this account can see it"
    assert _unchanged(account, [base]) == {}


def test_an_image_that_is_too_old_is_baked_again(account: Account, tmp_path: Path) -> None:
    [base] = _load(tmp_path, BASE, reuse="{max_age: 7d}")
    image = _image(account, "one", _tags("base", _fingerprint(account, base, "")))
    assert _unchanged(account, [base], now=NOW + timedelta(days=6))["base"].images == {"us-east-1": image}
    assert _unchanged(account, [base], now=NOW + timedelta(days=8)) == {}


def test_a_spec_that_is_named_is_baked_unless_it_says_reuse_and_force_always_bakes(
    account: Account, tmp_path: Path
) -> None:
    [plain] = _load(tmp_path, BASE.replace("reuse: REUSE\n", ""))
    _image(account, "one", _tags("base", _fingerprint(account, plain, "")))
    assert _unchanged(account, [plain]) == {}
    assert _unchanged(account, _load(tmp_path, BASE), force=True) == {}
    plain.is_named = False
    assert "base" in _unchanged(account, [plain], force=True), "a base that nobody named is not forced"


def test_a_layer_is_unchanged_only_on_an_unchanged_base(account: Account, tmp_path: Path) -> None:
    base, app = _load(tmp_path, BASE, LAYER)
    below = _image(account, "base", _tags("base", _fingerprint(account, base, "")))
    above = _image(account, "app", _tags("app", _fingerprint(account, app, below)))
    found = _unchanged(account, [base, app])
    assert {key: each.images["us-east-1"] for key, each in found.items()} == {"base": below, "app": above}
    newer = _image(account, "newer", _tags("base", _fingerprint(account, base, "")))
    assert {key: each.images["us-east-1"] for key, each in _unchanged(account, [base, app]).items()} == {"base": newer}
    account.cloud.client().deregister_image(ImageId=newer)
    account.cloud.client().deregister_image(ImageId=below)
    assert _unchanged(account, [base, app]) == {}, "a new base makes its layers stale"


def test_a_variant_uses_only_its_own_image(account: Account, tmp_path: Path) -> None:
    text = BASE.replace("source:", "matrix: {size: [s, m]}\nsource:").replace("{{ build.id }}", "{{ matrix.size }}")
    small, medium = _load(tmp_path, text)
    mark = _fingerprint(account, small, "")
    assert mark == _fingerprint(account, medium, ""), "the axis is used in the name alone"
    image = _image(account, "one", _tags("base", mark, variant="size=m"))
    assert {key: each.images for key, each in _unchanged(account, [small, medium]).items()} == {
        "base[size=m]": {"us-east-1": image}
    }
