"""EC2's rules for volumes, devices, tags, names and regions, checked without asking it.

Source: EBS user guide, "Amazon EBS volume types", November 2026; EC2 API reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from imagepipe.spec.document import KeyPath
from imagepipe.spec.explain import nearest
from imagepipe.spec.models import BlockDevice
from imagepipe.spec.regions import DATED, REGIONS
from imagepipe.spec.scalars import MAX_TAGS, device_identity, tag_problem

Finding = tuple[KeyPath, str]

SIZES_GIB = {
    "gp3": (1, 65536),
    "gp2": (1, 16384),
    "io1": (4, 16384),
    "io2": (4, 65536),
    "st1": (125, 16384),
    "sc1": (125, 16384),
    "standard": (1, 1024),
}
IOPS = {"gp3": (3000, 80000), "io1": (100, 64000), "io2": (100, 256000)}
IOPS_PER_GIB = {"gp3": 500, "io1": 50, "io2": 1000}
THROUGHPUT = (125, 2000)
"""MiB/s, gp3."""


def block_device_findings(
    devices: Sequence[BlockDevice], path: KeyPath, *, tags: Mapping[str, object]
) -> Iterator[Finding]:
    """Yield the problems of block devices, of each alone and of all together.

    `tags` are those that every volume or snapshot gets besides its own.
    """
    first: dict[str, int] = {}
    for index, volume in enumerate(devices):
        at = (*path, index)
        identity = device_identity(volume.device)
        if identity in first:
            before = devices[first[identity]].device
            same = "" if before == volume.device else f", {before}, which names the same device"
            yield (*at, "device"), f"device {volume.device} is listed twice; first as entry {first[identity]}{same}"
        first.setdefault(identity, index)
        yield from _one_volume(volume, at)
        yield from tag_findings(volume.tags, (*at, "tags"), beside=tags)


def _one_volume(volume: BlockDevice, at: KeyPath) -> Iterator[Finding]:
    given = volume.model_fields_set - {"device", "no_device"}
    if volume.no_device and given:
        yield (*at, "no_device"), f"a device that is left out cannot have {', '.join(sorted(given))}"
        return
    if volume.virtual_name and given - {"virtual_name"}:
        yield (
            (*at, "virtual_name"),
            f"an instance store volume cannot have {', '.join(sorted(given - {'virtual_name'}))}",
        )
        return
    if volume.kms_key and volume.encrypted is False:
        yield (*at, "kms_key"), "a KMS key needs encrypted: true"
    kind = volume.type
    if kind and volume.size_gib is not None:
        low, high = SIZES_GIB[kind]
        if not low <= volume.size_gib <= high:
            yield (*at, "size_gib"), f"{kind} volumes have {low} to {high} GiB, not {volume.size_gib}"
    if kind:
        for key, message in performance_problems(
            kind, size_gib=volume.size_gib, iops=volume.iops, throughput=volume.throughput
        ):
            yield (*at, key), message


def image_device_findings(devices: Sequence[BlockDevice], path: KeyPath) -> Iterator[Finding]:
    """Yield what RegisterImage refuses of block devices that RunInstances takes (EC2 API reference, EbsBlockDevice)."""
    for index, volume in enumerate(devices):
        at = (*path, index)
        if volume.kms_key:
            yield (*at, "kms_key"), "an image names no KMS key for a volume; set output.encrypt: {kms_key: …}"
        if volume.snapshot and volume.encrypted is not None:
            yield (*at, "encrypted"), "a volume from a snapshot is encrypted if the snapshot is; remove encrypted"


def performance_problems(
    kind: str, *, size_gib: int | None, iops: int | None, throughput: int | None
) -> Iterator[tuple[str, str]]:
    """Yield the problems of a volume's IOPS and throughput, each with the key that must change."""
    if kind in ("io1", "io2") and iops is None:
        yield "type", f"{kind} volumes need iops"
    if iops is not None:
        if kind not in IOPS:
            yield "iops", f"{kind} volumes do not support iops; gp3, io1 and io2 do"
        else:
            low, high = IOPS[kind]
            if not low <= iops <= high:
                yield "iops", f"{kind} volumes have {low} to {high} iops, not {iops}"
            elif size_gib and iops > max(low, IOPS_PER_GIB[kind] * size_gib):
                yield "iops", f"{iops} iops is more than {IOPS_PER_GIB[kind]} for each GiB of this {kind} volume"
    if throughput is not None:
        low, high = THROUGHPUT
        if kind != "gp3":
            yield "throughput", f"{kind} volumes do not support throughput; gp3 does"
        elif not low <= throughput <= high:
            yield "throughput", f"gp3 volumes have {low} to {high} MiB/s, not {throughput}"
        elif throughput > (iops or IOPS["gp3"][0]) / 4:
            yield "throughput", f"{throughput} MiB/s needs {throughput * 4} iops"


def tag_findings(
    tags: Mapping[str, object], path: KeyPath, *, beside: Mapping[str, object] | None = None
) -> Iterator[Finding]:
    """Yield the problems of tags; `beside` are other tags of the same resource."""
    count = len({**(beside or {}), **tags})
    if tags and count > MAX_TAGS:
        both = f" together with the {len(beside)} of all" if beside else ""
        yield path, f"{count} tags{both}; at most {MAX_TAGS}, because EC2 allows 50 and imagepipe adds its own"
    for key, value in tags.items():
        if message := tag_problem(key, value if isinstance(value, str) else None):
            yield (*path, key), message


def region_finding(region: str, path: KeyPath) -> Iterator[Finding]:
    """Yield the problem of a region that botocore did not know when this version was released."""
    if region not in REGIONS:
        meant = nearest(region, REGIONS)
        suffix = f"; did you mean '{meant}'?" if meant else ""
        yield (
            path,
            f"unknown region '{region}'{suffix} (as of {DATED}; to use it, set allow_unknown_region in imagepipe.yaml)",
        )


_GRAVITON = re.compile(r"a1|[a-z]+\d+[a-z-]*g[a-z-]*")
"""Families for arm64: a `g` behind the generation (EC2 instance types guide, "Naming conventions")."""


def architecture_of_type(instance_type: str) -> str:
    """Return the architecture of an instance type's processor, by its name."""
    return "arm64" if _GRAVITON.fullmatch(instance_type.partition(".")[0]) else "x86_64"


_SIZE = re.compile(r"nano|micro|small|medium|large|\d*xlarge|metal(-\d+xl)?")
"""Sizes of instance types (EC2 instance types guide, "Naming conventions")."""


def size_findings(instance_types: Sequence[str]) -> Iterator[Finding]:
    """Report instance types whose size is a misspelt one. One that is not like any other may be new, so EC2 decides."""
    for index, instance_type in enumerate(instance_types):
        family, _, size = instance_type.partition(".")
        if _SIZE.fullmatch(size):
            continue
        if meant := nearest(size, ("nano", "micro", "small", "medium", "large", "xlarge", "metal")):
            count = size[: len(size) - len(size.lstrip("0123456789"))] if meant == "xlarge" else ""
            text = f"EC2 has no size '{size}' of instances; did you mean '{family}.{count}{meant}'?"
            yield ("launch", "instance_types", index), text


def architecture_findings(architecture: str, instance_types: Sequence[str], *, are_default: bool) -> Iterator[Finding]:
    """Report instance types that cannot launch an image of this architecture."""
    wanted = "arm64" if architecture == "arm64" else "x86_64"
    for index, instance_type in enumerate(instance_types):
        if (own := architecture_of_type(instance_type)) == wanted:
            continue
        example = "t4g.small" if wanted == "arm64" else "t3.small"
        if are_default:
            text = f"the default instance type {instance_type} is for {own}: set launch.instance_types: [{example}]"
            yield ("source", "ami", "architecture"), text
        else:
            path = ("launch", "instance_types", index)
            yield path, f"{instance_type} is for {own}, but the source image is for {architecture}; such as {example}"
