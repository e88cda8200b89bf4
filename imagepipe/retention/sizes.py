"""The storage that images occupy, and until when it can be restored from Recycle Bin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.recycle_bin import RetentionRule, longest
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, CloudError
from imagepipe.publish import stored_bundle
from imagepipe.retention.bakes import BakedImage
from imagepipe.retention.survey import in_regions

GB = 1e9
GIB = float(1 << 30)

Kind = Literal["snapshot", "bundle"]


@dataclass(frozen=True, slots=True)
class Storage:
    """The storage of one image."""

    kind: Kind
    region: str
    low_gb: float | None = None
    """Smallest size; None if the size is unknown."""
    high_gb: float | None = None
    """Largest size. Snapshots share blocks with earlier ones, and the size of a volume is an upper limit."""
    restorable_until: datetime | None = None
    """Time until which Recycle Bin keeps the image and its snapshots; None if it does not."""
    restore_is_unknown: bool = False
    """True if the rules of Recycle Bin could not be read."""


@dataclass(frozen=True, slots=True)
class _Bin:
    """The rules of Recycle Bin in one region."""

    images: Sequence[RetentionRule]
    snapshots: Sequence[RetentionRule]


def storage_of(regions: Regions, images: Iterable[BakedImage], now: datetime) -> dict[tuple[str, str], Storage]:
    """Return the storage of images by id and region, and until when each can be restored if it is deleted now."""
    by_region: dict[str, list[BakedImage]] = {}
    for image in images:
        by_region.setdefault(image.region, []).append(image)
    found, failed = in_regions(by_region, lambda region: _of_region(regions[region], by_region[region], now))
    storage = {key: value for answer in found.values() for key, value in answer.items()}
    for region in failed:
        storage |= {(image.id, region): Storage(_kind(image), region) for image in by_region[region]}
    return storage


def _kind(image: BakedImage) -> Kind:
    return "bundle" if image.bundle else "snapshot"


def _of_region(ec2: Ec2, images: Sequence[BakedImage], now: datetime) -> dict[tuple[str, str], Storage]:
    snapshots = ec2.snapshots.describe_many([snapshot for image in images for snapshot in image.snapshots])
    rules = _rules(ec2)
    found = {}
    for image in images:
        if image.bundle:
            size = _size_of_bundle(ec2, image.bundle)
            found[image.id, image.region] = Storage("bundle", image.region, size, size)
            continue
        own = [snapshots[id] for id in image.snapshots if id in snapshots]
        period = _retained(image, own, rules) if rules else None
        low, high = _limits(own) if len(own) == len(image.snapshots) else (None, None)
        until = now + period if period else None
        found[image.id, image.region] = Storage("snapshot", image.region, low, high, until, rules is None)
    return found


def _limits(snapshots: Sequence[Mapping[str, object]]) -> tuple[float, float]:
    """Return the smallest and the largest size: the full size is the whole snapshot without blocks it shares."""
    full = [each.get("FullSnapshotSizeInBytes") for each in snapshots]
    if all(full):
        total = sum(float(str(each)) for each in full) / GB
        return total, total
    return 0.0, sum(float(str(each["VolumeSize"])) * GIB for each in snapshots) / GB


def _size_of_bundle(ec2: Ec2, location: str) -> float | None:
    try:
        return stored_bundle.look_up(ec2.s3, location).size / GB
    except (CloudError, BundleError):
        return None


def _rules(ec2: Ec2) -> _Bin | None:
    """Return the rules of Recycle Bin; None if they cannot be read, which is no reason to keep an image."""
    try:
        return _Bin(ec2.recycle_bin.rules("EC2_IMAGE"), ec2.recycle_bin.rules("EBS_SNAPSHOT"))
    except CloudError:
        return None


def _retained(image: BakedImage, snapshots: Sequence[Mapping[str, object]], rules: _Bin) -> timedelta | None:
    """Return how long the image can be restored: it needs all of its snapshots."""
    periods = [longest(rules.images, image.tags)]
    periods += [longest(rules.snapshots, tags.mapping(each.get("Tags"))) for each in snapshots]  # type: ignore[arg-type]
    known = [period for period in periods if period is not None]
    return min(known) if len(known) == len(periods) else None
