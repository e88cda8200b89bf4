"""What dead runs left, found by tags alone: a CI runner's disk is gone, and its journals with it.

A run says on all that it makes when it began; and of what lives longer, while it lives, until when it answers for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import TypedDict, Unpack

from imagepipe.cleanup.undoers import MANIFEST, Undoers
from imagepipe.clock import Clock, iso, parse_iso
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.inventory import TaggedResource, everything_of_ours
from imagepipe.engine.journal import Claim, Journal, Lifetime, State
from imagepipe.errors import CloudError

BEAT_SECONDS = 1200
ANSWERS_FOR = timedelta(hours=1)
"""Three beats: two may be lost before anybody takes a living run for a dead one."""
YOUNGEST = timedelta(hours=1)
"""What is younger may be of a run that has had no time yet to say that it lives."""
TOKEN = re.compile(r"([0-9a-f]{8})-c\d+")
"""A claim's token, with the run's id."""
BUNDLED = re.compile(r".+\.part\.\d+|.+\.manifest\.xml|probe")


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a thing that a dead run left."""

    thing: TaggedResource
    error: Exception | None = None
    """Why it could not be deleted."""


class SweepFilter(TypedDict):
    """Whose things are looked for."""

    older_than: timedelta
    now: datetime
    is_alive: Callable[[str], bool]
    """Of the runs of this machine."""


def left_over(regions: Regions, region: str, **which: Unpack[SweepFilter]) -> list[TaggedResource]:
    """What dead runs left in a region: begun so long ago, no product that is kept, and nobody answers for it.

    Raises CloudError.
    """
    return [
        thing
        for thing in everything_of_ours(regions.session, region)
        if thing.tags.get(tags.STATE) in (tags.TEMPORARY, tags.UNFINISHED)
        and _began(thing, which["now"]) <= which["now"] - which["older_than"]
        and _answered_until(thing, which["now"]) <= which["now"]
        and not which["is_alive"](thing.run)
    ]


def bundles_left_over(
    regions: Regions, region: str, bucket: str, *, beside: Iterable[str] = (), **which: Unpack[SweepFilter]
) -> list[TaggedResource]:
    """Folders of a bucket of this region that are bundles of ours, unwritten for so long, and no image's.

    A run that says that it lives says so where it has its instance: looked for `beside` this region in those, too.

    Objects have no tags of ours: a folder is known by its name, which is a claim's token, and by nothing else being in
    it, or in folders of it, than a bundle has. Raises CloudError.
    """
    folders: dict[str, list[tuple[str, datetime]]] = {}
    ec2, now = regions[region], which["now"]
    for key, written in ec2.s3.listed(bucket, ""):
        folder, _, name = key.rpartition("/")
        folders.setdefault(folder, []).append((name, written))
    answered = {
        thing.run
        for where in {region, *beside}
        for thing in everything_of_ours(regions.session, where)
        if _answered_until(thing, now) > now
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
            max(written for _, written in objects) > now - which["older_than"]
            or run in answered
            or which["is_alive"](run)
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
    """The folders that a folder is in."""
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        yield folder


def sweep(things: list[TaggedResource], regions: Regions, clock: Clock) -> Iterator[Swept]:
    """Give them back, each for itself: what fails does not keep the next from it."""
    undoers = Undoers(regions, clock).undoers()
    for number, thing in enumerate(things, start=1):
        key, state = f"s{number}", State.BOUND
        claim = Claim(key, thing.kind, thing.region, thing.token, Lifetime.RUN, "sweep", state, thing.id, thing.details)
        try:
            undoers[thing.kind](claim)
        except Exception as error:  # noqa: BLE001 - as undo does: the next thing must be cleaned up all the same
            yield Swept(thing, error)
        else:
            yield Swept(thing)


class Heartbeat:
    """While a run goes on, says on all that it holds until when it answers for it."""

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
        """Write it on everything that is bound. Best effort: the next beat tries again."""
        for claim in self._journal.claims():
            if claim.is_open() and claim.id and claim.kind != "bundle":
                try:
                    self._regions[claim.region].images.tag(claim.id.split(","), {tags.EXPIRES: iso(until)})
                except CloudError:
                    continue


def _began(thing: TaggedResource, now: datetime) -> datetime:
    """When its run began; a thing that does not say it is as young as can be."""
    try:
        return datetime.strptime(thing.tags.get(tags.STARTED, ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return now


def _answered_until(thing: TaggedResource, now: datetime) -> datetime:
    """Until when somebody answers for it; long past where nobody ever said."""
    said = thing.tags.get(tags.EXPIRES)
    try:
        return parse_iso(said) if said else datetime.min.replace(tzinfo=UTC)
    except ValueError:
        return now + ANSWERS_FOR
