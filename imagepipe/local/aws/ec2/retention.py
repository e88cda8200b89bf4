"""Retention rules: deregistered images and deleted snapshots stay in Recycle Bin for as many days as a rule says.

If several rules match, the one with the longest period counts (EBS user guide, "Considerations for Recycle Bin").
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.state.records import Image, Record, RecycledImage, RecycledSnapshot, RetentionRule, Snapshot

IMAGE, SNAPSHOT = "EC2_IMAGE", "EBS_SNAPSHOT"
TICK_SECONDS = 3600.0
"""Time between two deletions of expired bytes. An expired resource is not listed and not restored any more."""


def recycle_image(backend: Backend, image: Image) -> None:
    """Move an EBS-backed image that is deregistered now to Recycle Bin, if a rule matches it."""
    period = _period(backend, image, IMAGE)
    if period is None or image.root_type != "ebs" or image.state not in ("available", "disabled"):
        return
    now = backend.clock.now()
    backend.database.put(
        RecycledImage(
            id=image.id,
            account=image.account,
            region=image.region,
            tags=image.tags,
            image=image,
            entered=now,
            exits=now + period,
        )
    )


def recycle_snapshot(backend: Backend, snapshot: Snapshot) -> bool:
    """Move a completed snapshot that is deleted now to Recycle Bin; False if no rule matches it."""
    period = _period(backend, snapshot, SNAPSHOT)
    if period is None or snapshot.state != "completed":
        return False
    now = backend.clock.now()
    backend.database.put(
        RecycledSnapshot(
            id=snapshot.id,
            account=snapshot.account,
            region=snapshot.region,
            tags=snapshot.tags,
            snapshot=snapshot,
            entered=now,
            exits=now + period,
        )
    )
    return True


def delete_expired(backend: Backend) -> None:
    """Delete the images and snapshots whose time in Recycle Bin has ended, with the snapshots' bytes."""
    now = backend.clock.now()
    database = backend.database
    with database.change():
        for image in database.recycled_images:
            if image.exits <= now:
                database.remove(image)
        for snapshot in database.recycled_snapshots:
            if snapshot.exits <= now:
                database.remove(snapshot)
                database.later(partial(backend.disks.delete_snapshot, snapshot.id))


def keep_deleting_expired(backend: Backend) -> None:
    """Delete what has expired, and again every hour for as long as the cloud runs."""
    delete_expired(backend)
    backend.job_queues.run_later(TICK_SECONDS, partial(keep_deleting_expired, backend))


def _period(backend: Backend, record: Record, resource_type: str) -> timedelta | None:
    """Return the longest period of the rules that match a resource; None if none does."""
    rules = backend.database.retention_rules.owned(record.account, record.region)
    days = [rule.days for rule in rules if rule.resource_type == resource_type and _matches(rule, record.tags)]
    return timedelta(days=max(days)) if days else None


def _matches(rule: RetentionRule, tags: Mapping[str, str]) -> bool:
    if rule.resource_tags:
        return any(_has(tags, each) for each in rule.resource_tags)
    return not any(_has(tags, each) for each in rule.exclude_tags)


def _has(tags: Mapping[str, str], wanted: tuple[str, ...]) -> bool:
    key, *value = wanted
    return key in tags and (not value or tags[key] == value[0])
