"""Find the leftovers of dead runs by their tags alone, for CI runners whose disks and journals are gone.

Everything a run creates is tagged with its start time. A long run also renews an expiry tag while it is alive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import TypedDict, Unpack

from imagepipe.cleanup.undoers import MANIFEST, Undoers
from imagepipe.clock import Clock, iso, parse_iso
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.inventory import TaggedResource, everything_of_ours
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Journal, Lifetime, State
from imagepipe.errors import ImagepipeError

BEAT_SECONDS = 1200
ANSWERS_FOR = timedelta(hours=1)
"""Lifetime of an expiry tag: three beats, so two can be lost before a living run looks dead."""
YOUNGEST = timedelta(hours=1)
"""Smallest age of leftovers: a younger run may not have tagged its resources yet."""
TOKEN = re.compile(r"([0-9a-f]{8})-c\d+")
"""Form of a claim's token, with the run's id."""
BUNDLED = re.compile(r".+\.part\.\d+|.+\.manifest\.xml|probe")


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of deleting one leftover resource."""

    thing: TaggedResource
    error: Exception | None = None
    """Reason why it could not be deleted; None if it was."""


class SweepFilter(TypedDict):
    """Selects the leftovers to look for."""

    older_than: timedelta
    now: datetime
    is_alive: Callable[[str], bool]
    """Function that returns whether a run of this computer is alive, given its id."""


def left_over(regions: Regions, region: str, **selection: Unpack[SweepFilter]) -> list[TaggedResource]:
    """Return the leftovers of dead runs in a region: old enough, not kept, and with an expiry tag in the past, if any.

    Raises CloudError.
    """
    return [
        thing
        for thing in everything_of_ours(regions.session, region)
        if thing.tags.get(tags.STATE) in (tags.TEMPORARY, tags.UNFINISHED)
        and _began(thing, selection["now"]) <= selection["now"] - selection["older_than"]
        and _expires_at(thing, selection["now"]) <= selection["now"]
        and not selection["is_alive"](thing.run)
    ]


def bundles_left_over(
    regions: Regions,
    region: str,
    bucket: str,
    *,
    instance_regions: Iterable[str] = (),
    **selection: Unpack[SweepFilter],
) -> list[TaggedResource]:
    """Return folders of a bucket in this region that contain an old, unfinished bundle of imagepipe that no image uses.

    A living run renews its expiry tags in the region of its instance, which may be a region in `instance_regions`.

    Objects have no tags. A folder is recognized by its name, which is a claim's token, and by containing only the
    objects of a bundle, and no subfolders. Raises CloudError.
    """
    folders: dict[str, list[tuple[str, datetime]]] = {}
    ec2, now = regions[region], selection["now"]
    for key, written in ec2.s3.listed(bucket, ""):
        folder, _, name = key.rpartition("/")
        folders.setdefault(folder, []).append((name, written))
    answered = {
        thing.run
        for where in {region, *instance_regions}
        for thing in everything_of_ours(regions.session, where)
        if _expires_at(thing, now) > now
    }
    with_folders = {above for folder in folders for above in _above(folder)}
    found = []
    for folder, objects in folders.items():
        prefix, _, token = folder.rpartition("/")
        ours = TOKEN.fullmatch(token)
        if ours is None or folder in with_folders or not all(BUNDLED.fullmatch(name) for name, _ in objects):
            continue
        run = ours.group(1)
        if (
            max(written for _, written in objects) > now - selection["older_than"]
            or run in answered
            or selection["is_alive"](run)
        ):
            continue
        manifests = [f"{bucket}/{folder}/{name}" for name, _ in objects if name.endswith(MANIFEST)]
        if not any(ec2.images.own_registered_from(location) for location in manifests):
            tagged = {tags.RUN: run, tags.TOKEN: token}
            found.append(
                TaggedResource("bundle", f"{bucket}/{folder}", region, tagged, {"bucket": bucket, "prefix": prefix})
            )
    return found


def _above(folder: str) -> Iterator[str]:
    """Return the parent folders of a folder."""
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        yield folder


def sweep(things: list[TaggedResource], regions: Regions, clock: Clock) -> Iterator[Swept]:
    """Delete the leftovers one by one; a failure does not stop the rest."""
    undoers = Undoers(regions, clock).undoers()
    for number, thing in enumerate(things, start=1):
        key, state = f"s{number}", State.BOUND
        claim = Claim(key, thing.kind, thing.region, thing.token, Lifetime.RUN, "sweep", state, thing.id, thing.details)
        try:
            undoers[thing.kind](claim)
        except Exception as error:  # noqa: BLE001 - as in undo: the other resources must be cleaned up in any case
            yield Swept(thing, error)
        else:
            yield Swept(thing)


class Heartbeat:
    """Renews the expiry tag on everything that a run holds while the run is alive."""

    def __init__(self, journal: Journal, regions: Regions, clock: Clock, *, seconds: float = BEAT_SECONDS) -> None:
        self._journal = journal
        self._regions = regions
        self._clock = clock
        self._seconds = seconds
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._is_over.wait(self._seconds):
            self.beat(self._clock.now() + ANSWERS_FOR)

    def beat(self, until: datetime) -> None:
        """Renew the tag on every bound resource. Errors are ignored: the next beat tries again."""
        for claim in self._journal.claims():
            if claim.is_open() and claim.id and claim.kind != "bundle":
                try:
                    self._regions[claim.region].images.tag(claim.id.split(","), {tags.EXPIRES: iso(until)})
                except ImagepipeError:
                    continue


def _began(thing: TaggedResource, now: datetime) -> datetime:
    """Return the start time of a resource's run; without the tag, the resource counts as brand new."""
    try:
        return datetime.strptime(thing.tags.get(tags.STARTED, ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return now


def _expires_at(thing: TaggedResource, now: datetime) -> datetime:
    """Return the time of the expiry tag: long past without the tag, in the future if the tag is malformed."""
    expires = thing.tags.get(tags.EXPIRES)
    try:
        return parse_iso(expires) if expires else datetime.min.replace(tzinfo=UTC)
    except ValueError:
        return now + ANSWERS_FOR
