"""Every field of imagepipe's own calls has its rule on the page, and a bad value for each rule is refused in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.cloud.images import Audience
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError, UsageError
from imagepipe.launch.devices import check_boot_mode
from imagepipe.launch.source import FindSource, NameImages
from imagepipe.launch.user_data import user_data
from imagepipe.publish.share import CheckKeys, ImageKeys
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from imagepipe.wiring.build import device_plan
from tests.account import Account
from tests.cloud.recorded_calls import record
from tests.local.aws import harness

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/ec2-calls.md"
NO_RULE = {"own", "from EC2", "none"}


def _rows(heading: str) -> list[list[str]]:
    part = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row] for row in rows]


def _fields() -> dict[str, dict[str, str]]:
    """The rule of each field, by call."""
    found: dict[str, dict[str, str]] = {}
    for call, rule, listed in _rows("Fields"):
        for field in re.findall(r"`([\w.]+)`", listed):
            assert found.setdefault(call, {}).setdefault(field, rule) == rule, f"{call}.{field} is listed twice"
    return found


def test_the_page_has_every_field_that_is_sent_and_no_other(account: Account) -> None:
    sent = {call: fields - {"BlockDeviceMappings"} for call, fields in record(account).items()}
    assert {call: set(fields) for call, fields in _fields().items()} == sent


def test_every_rule_of_a_field_is_explained_and_tried() -> None:
    used = {rule for fields in _fields().values() for rule in fields.values()} - NO_RULE
    places = {rule: set(where.split(", ")) for rule, _, where in _rows("Rules")}
    assert used == places.keys()
    for rule, where in places.items():
        assert ("validate" in where) == (rule in OFFLINE), rule
        assert bool(where & {"source", "launch"}) == (rule in LATER), rule


SPEC = """\
imagepipe: 1
name: web
source: {{ami: {source}}}
launch: {{region: us-east-1, {launch}}}
output: {{name: {name}, {output}}}
publish: {{{publish}}}
"""


def _problems(folder: Path, **parts: str) -> list[str]:
    texts = {"source": "ami-0123456789abcdef0", "launch": "", "name": "web-1", "output": "", "publish": "", **parts}
    (folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
    (folder / "web.yaml").write_text(SPEC.format(**texts))
    (folder / "key").touch()
    [loaded] = load([folder / "web.yaml"], Given())
    return [problem.path for problem in loaded.problems]


def _device(text: str) -> dict[str, str]:
    return {"launch": f"block_devices: [{{device: /dev/sdf, {text}}}]"}


def _mapped(text: str) -> dict[str, str]:
    return {"output": f"block_devices: [{{device: /dev/sdf, {text}}}]"}


OFFLINE: Mapping[str, tuple[Mapping[str, str], ...]] = {
    "port": ({"launch": "ssh: {port: 65536}"},),
    "CIDR": ({"launch": "ssh: {allow_from: [203.0.113.7]}"}, {"launch": "ssh: {allow_from: ['2001:db8::/64']}"}),
    "image id": ({"source": "ami-123"},),
    "instance type": ({"launch": "instance_types: [t3_small]"},),
    "key pair name": ({"launch": f"ssh: {{key_pair: {'k' * 256}, private_key: key}}"},),
    "group id": ({"launch": "security_groups: [web]"},),
    "subnet id": ({"launch": "subnets: [subnet-1]"},),
    "spot price": ({"launch": 'spot: {max_price: "0"}'},),
    "instance profile": ({"launch": "iam_instance_profile: /build/web"},),
    "device name": (
        {"launch": "block_devices: [{device: sdf, size_gib: 8}]"},
        {"launch": "block_devices: [{device: /dev/sdf, size_gib: 8}, {device: /dev/xvdf, size_gib: 8}]"},
        {"output": "block_devices: [{device: /dev/nvme1n1, size_gib: 8}]"},
    ),
    "instance store volume": (_device("virtual_name: ephemeral24"), _mapped("virtual_name: data")),
    "volume size": (_device("size_gib: 65537"), _device("type: gp2, size_gib: 16385"), _mapped("size_gib: 0")),
    "volume type": (_device("type: gp4, size_gib: 8"), _mapped("type: st1, size_gib: 8")),
    "IOPS": (_device("type: gp3, size_gib: 8, iops: 2999"), _mapped("type: io1, size_gib: 8")),
    "throughput": (_device("type: gp3, size_gib: 8, throughput: 751"), _mapped("type: gp2, throughput: 125")),
    "encryption of a volume": (_device("size_gib: 8, encrypted: false, kms_key: alias/web"),),
    "encryption of an image's volume": (_mapped("snapshot: snap-12345678, encrypted: true"),),
    "KMS key": (
        _device("size_gib: 8, kms_key: web"),
        _device("size_gib: 8, kms_key: 'arn:aws:kms:eu-west-1:123456789012:alias/web'"),
        _mapped("size_gib: 8, kms_key: alias/web"),
        {
            "output": "encrypt: {per_region: {us-west-2: {kms_key: 'arn:aws:kms:us-east-1:123456789012:alias/web'}}}",
            "publish": "regions: [us-west-2]",
        },
    ),
    "snapshot": (_device("snapshot: snap-1"), _mapped("snapshot: vol-12345678")),
    "tags": (
        {"launch": 'tags: {"aws:x": y}'},
        {"output": f"tags: {{{'k' * 129}: y}}"},
        {"output": f"tags: {{k: {'v' * 257}}}"},
        {"output": f"tags: {{{', '.join(f'k{number}: v' for number in range(41))}}}"},
    ),
    "tags of a device": (
        _device('size_gib: 8, tags: {"aws:x": y}'),
        _mapped(f"size_gib: 8, tags: {{{'k' * 129}: y}}"),
        _mapped(f"size_gib: 8, tags: {{k: {'v' * 257}}}"),
    ),
    "image name": ({"name": "ab"}, {"name": "'web:1'"}, {"name": "n" * 129}),
    "description": ({"output": f"description: {'d' * 256}"}, {"output": "description: für"}),
    "place of a bundle": tuple(
        {"launch": "instance_types: [m3.medium]", "output": f"type: instance-store, account: '123456789012', {place}"}
        for place in ("bucket: b/p", "bucket: web, prefix: /p")
    ),
    "launch permissions": (
        {"publish": 'share: {accounts: ["123"]}'},
        {"publish": "share: {organizations: [o-abcdefghij]}"},
        {"publish": 'share: {ous: ["arn:aws-cn:organizations::123456789012:ou/o-abcdefghij/ou-ab12-34567890"]}'},
    ),
    "public": ({"output": "encrypt: true", "publish": "share: {public: true}"},),
    "deprecation": tuple(
        {"publish": text}
        for text in ("deprecate_after: 0s", "deprecate_after: 3651d", "deprecate_after: 731d, share: {public: true}")
    ),
}


@pytest.mark.parametrize(
    ("rule", "number"), [(rule, number) for rule, tried in OFFLINE.items() for number in range(len(tried))]
)
def test_a_bad_value_is_refused_by_validate(rule: str, number: int, tmp_path: Path) -> None:
    assert _problems(tmp_path, **OFFLINE[rule][number]), OFFLINE[rule][number]


def _find(launch: str = "", output: str = "") -> Callable[[Account, Path], None]:
    """Look for the source image with these devices in the spec."""

    def run(account: Account, folder: Path) -> None:
        text = SPEC.format(
            source="ami-0123456789abcdef0",
            launch=f"block_devices: [{launch}]" if launch else "",
            name="web-1",
            output=f"block_devices: [{output}]" if output else "",
            publish="",
        )
        (folder / "imagepipe.yaml").write_text("defaults: {ssh_user: admin}\n")
        (folder / "web.yaml").write_text(text)
        [loaded] = load([folder / "web.yaml"], Given())
        base = harness.base_image(account.cloud.client())
        FindSource(account.ec2, base, devices=device_plan(loaded.checked())).run(account.context())

    return run


def _named(name: str = "web", description: str = "", **tags: str) -> Callable[[Account, Path], None]:
    def run(account: Account, folder: Path) -> None:
        source = account.ec2.images.by_id(harness.base_image(account.cloud.client()))
        NameImages(("us-east-1",), Ref("source"), name, description, tags).run(account.context(source=source))

    return run


def _keys(audience: Audience) -> Callable[[Account, Path], None]:
    def run(account: Account, folder: Path) -> None:
        account.cloud.client().enable_ebs_encryption_by_default()
        source = account.ec2.images.by_id(harness.base_image(account.cloud.client()))
        stage = CheckKeys({"us-east-1": account.ec2}, Ref("source"), audience, ImageKeys("us-east-1"))
        stage.run(account.context(source=source))

    return run


def _boot_mode(account: Account, folder: Path) -> None:
    source = account.ec2.images.by_id(harness.base_image(account.cloud.client()))
    check_boot_mode(replace(source, architecture="arm64"), "legacy-bios")


def _unknown_image(account: Account, folder: Path) -> None:
    FindSource(account.ec2, "ami-0123456789abcdef0").run(account.context())


def _large_user_data(account: Account, folder: Path) -> None:
    # Digits of a square root: nothing that compresses well.
    user_data(None, "#!/bin/sh\n# " + "".join(str(number * number * 7919 % 99991) for number in range(16000)))


LATER: Mapping[str, Callable[[Account, Path], None]] = {
    "image id": _unknown_image,
    "user data": _large_user_data,
    "device name": _find("{device: /dev/sda1, size_gib: 8}"),
    "device left out": _find("{device: /dev/xvda, no_device: true}"),
    "volume size": _find("{device: /dev/sdf}"),
    "volume type": _find("{device: /dev/xvda, type: st1}"),
    "IOPS": _find(output="{device: /dev/xvda, iops: 99999}"),
    "throughput": _find(output="{device: /dev/xvda, throughput: 2001}"),
    "encryption of an image's volume": _find(output="{device: /dev/xvda, encrypted: true}"),
    "KMS key": _keys(Audience(("210987654321",))),
    "snapshot": _find(output="{device: /dev/sdf, snapshot: snap-0123456789abcdef0}"),
    "tags": _named(team="v" * 257),
    "tags of a device": _find(
        output="{device: /dev/sdf, size_gib: 8, tags: {from: '" + "{{ source.name }}" * 10 + "'}}"
    ),
    "image name": _named("web:1"),
    "description": _named(description="d" * 256),
    "boot mode": _boot_mode,
    "public": _keys(Audience(public=True)),
}


@pytest.mark.parametrize("rule", LATER)
def test_a_bad_value_is_refused_before_the_launch(rule: str, account: Account, tmp_path: Path) -> None:
    with pytest.raises((CloudError, UsageError)):
        LATER[rule](account, tmp_path)
    assert not [call for call in account.cloud.gateway.backend.calls.counted() if "RunInstances" in call]
