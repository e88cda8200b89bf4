"""Open the runs of a command: files on this computer, or shared state in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from imagepipe.cli.cloud import CloudTarget, cloud_target, open_cloud
from imagepipe.cli.options import CloudOptions, state_folder
from imagepipe.cli.state_options import StateOptions, location_of
from imagepipe.clock import Clock
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal_store import JournalStore

if TYPE_CHECKING:
    from imagepipe.state.bucket import StateBucket
    from imagepipe.state.bucket_store import BucketStore
    from imagepipe.state.location import StateLocation


@contextmanager
def open_state(
    options: StateOptions,
    cloud: CloudOptions | CloudTarget,
    clock: Clock,
    check: Callable[[StateBucket], None] = lambda bucket: None,
) -> Iterator[JournalStore]:
    """Open the runs; `check` examines the bucket first, if they are in one. Raises UsageError, CloudError."""
    location = location_of(options)
    if location is None:
        yield FileStore(state_folder())
        return
    with open_bucket_store(location, cloud, clock) as (bucket, store):
        check(bucket)
        yield store


@contextmanager
def open_bucket_store(
    location: StateLocation, cloud: CloudOptions | CloudTarget, clock: Clock
) -> Iterator[tuple[StateBucket, BucketStore]]:
    """Open shared state, with its bucket. Raises CloudError."""
    from imagepipe.state.bucket_store import BucketStore

    with _open_bucket(location, cloud, clock) as bucket:
        yield bucket, BucketStore(bucket, state_folder(), clock)


def open_writable_state(
    options: StateOptions, cloud: CloudOptions | CloudTarget, clock: Clock
) -> AbstractContextManager[JournalStore]:
    """Open the runs for writing. Raises CloudError if a bucket cannot keep shared state."""
    return open_state(options, cloud, clock, check_writable)


def check_writable(bucket: StateBucket) -> None:
    """Raise CloudError if a bucket cannot keep shared state."""
    check_writable_quietly(bucket)
    if bucket.region != bucket.home:
        click.echo(f"note: the state bucket {bucket.location.bucket} is in {bucket.region}", err=True)


def check_writable_quietly(bucket: StateBucket) -> None:
    """Raise CloudError if a bucket cannot keep shared state; print nothing."""
    from imagepipe.state.probe import probe

    probe(bucket)


@contextmanager
def _open_bucket(location: StateLocation, cloud: CloudOptions | CloudTarget, clock: Clock) -> Iterator[StateBucket]:
    from imagepipe.state.bucket import StateBucket

    target = cloud if isinstance(cloud, CloudTarget) else cloud_target(cloud)
    region = None if isinstance(cloud, CloudTarget) else cloud.region
    # The state is opened with the caller's own credentials: commands that assume no role must read it too.
    with open_cloud(replace(target, role=None), region=region, clock=clock) as regions:
        yield StateBucket(regions.session, location, clock)
