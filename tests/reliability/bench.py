"""Specs of the crash matrix and of other tests, and functions that compare the account before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tests.machine.bakery import Bakery

Kind = Literal["ebs", "instance-store"]
COMMON = """\
imagepipe: 1
name: {kind}
source: {{ami: {{name: "debian-12-amd64-*", owners: ["136693071363"]}}}}
launch: {{region: us-east-1, instance_types: [m3.medium]}}
provision:
  - shell: sudo sh -c 'echo baked >/etc/baked'
  - {{shell: "true", idempotent: true}}
test:
  - {{shell: grep baked /etc/baked, idempotent: true}}
publish: {{regions: [us-west-2]}}
"""
OUTPUTS: dict[Kind, str] = {
    "ebs": 'output: {name: "ebs-{{ build.id }}"}\n',
    # The machines have no network but SSH, and do not boot, so everything that only a boot needs can be left out.
    "instance-store": """\
output:
  type: instance-store
  name: "instance-store-{{ build.id }}"
  bucket: crash-east
  prefix: p
  account: "000000000000"
  bundle_on: controller
  exclude: [/usr/share, /usr/lib/modules, /usr/lib/firmware, /usr/lib/python3, /var/lib/apt, /var/cache]
  size_gib: 1
  per_region: {us-west-2: {bucket: crash-west}}
""",
}
FAMILY = """\
imagepipe: 1
name: family-base
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1}
provision:
  - {shell: sudo sh -c 'echo base >/etc/baked', idempotent: true}
output: {name: "family-base-{{ build.id }}"}
---
imagepipe: 1
name: family-layer
source: {image: family-base}
launch: {region: us-east-1}
provision:
  - {shell: grep base /etc/baked, idempotent: true}
output: {name: "family-layer-{{ build.id }}"}
publish: {regions: [us-west-2]}
"""
"""A base and a layer. The base is in one region, so that two of its images mean a wrong resume."""
Scenario = Literal["ebs", "instance-store", "family"]
SCENARIOS: dict[Scenario, str] = {
    **{kind: COMMON.format(kind=kind) + output for kind, output in OUTPUTS.items()},
    "family": FAMILY,
}
"""Specs of the crash matrix. The names of their images begin with that of the scenario."""
BUCKETS = {"crash-east": "us-east-1", "crash-west": "us-west-2"}


def own_images(bakery: Bakery, prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """List the account's images with this prefix, each with its region, as DescribeImages returns them."""
    return [
        (region, image)
        for region in BUCKETS.values()
        for image in bakery.client(region=region).describe_images(Owners=["self"])["Images"]
        if image["Name"].startswith(prefix)
    ]


def tags_of(image: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in image.get("Tags", ())}


def alike(region: str, image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image's values that are the same in every build."""
    kept = ("State", "Architecture", "VirtualizationType", "RootDeviceType", "EnaSupport", "ImdsSupport", "BootMode")
    mappings = [
        {key: value for key, value in mapping.get("Ebs", {}).items() if key != "SnapshotId"}
        for mapping in image["BlockDeviceMappings"]
    ]
    own = {key: value for key, value in tags_of(image).items() if key in ("imagepipe:state", "imagepipe:spec")}
    return {"region": region, **{key: image.get(key) for key in kept}, "mappings": mappings, **own}


def retire(bakery: Bakery, images: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Deregister images, and delete their snapshots or bundles, as a user does; also those that others are built on."""
    by_region: dict[str, list[str]] = {}
    for region, image in images:
        by_region.setdefault(region, []).append(image["ImageId"])
    for region, ids in by_region.items():
        done = bakery("images", "deregister", *ids, "--local", "--region", region, "--delete-data", "--force")
        assert done.code == 0, done.err


def inventory(bakery: Bakery) -> dict[str, list[str]]:
    """List everything in the account, the objects of both buckets and the private keys on this disk included."""
    found = dict(bakery.inventory())
    for bucket, region in BUCKETS.items():
        s3 = bakery.client("s3", region)
        if any(each["Name"] == bucket for each in s3.list_buckets()["Buckets"]):
            found[bucket] = [row["Key"] for row in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    keys = bakery.folder.glob("state*/imagepipe/runs/*/*ed25519*")
    return {**found, "private keys": sorted(str(path) for path in keys)}


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Describe everything that was added or removed; empty if the account is as before."""
    return [
        f"{what}: {sorted(set(after.get(what, ())) ^ set(before.get(what, ())))}"
        for what in sorted({*before, *after})
        if after.get(what, []) != before.get(what, [])
    ]
