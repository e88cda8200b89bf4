"""`imagepipe images show`: where an image comes from, its copies, and everything that is built on it or uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, open_cloud
from imagepipe.cli.images_list import ListedBake, age, listed_bake, print_errors
from imagepipe.cli.options import CloudOptions, role_option, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import FIRST_REGION
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.journal import read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import CloudError, ImagepipeError, UsageError
from imagepipe.report.text import related_image
from imagepipe.retention.bakes import Bake, BakedImage
from imagepipe.retention.survey import Survey, sources_of, survey
from imagepipe.retention.uses import uses_of

_NO_TESTS = frozenset(("test-image", "test-key", "test-launch", "test-terminate"))
"""Stages of the test instance that are no tests."""


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """Arguments and options of `imagepipe images show`."""

    image: str
    in_regions: tuple[str, ...]
    cloud: CloudOptions
    state: StateOptions
    output: Format


@dataclass(frozen=True, slots=True)
class Lineage:
    """The images before and after one."""

    before: tuple[Mapping[str, Any], ...]
    """The source image, its source image and so on, nearest first: id, region, and what else is known."""
    after: tuple[Mapping[str, Any], ...]
    """Images that are built on it, directly or on another layer."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image with its copies, its lineage and its uses."""

    image: BakedImage
    listed: ListedBake
    lineage: Lineage
    failed: Mapping[str, CloudError]
    """Errors by the part of the search that failed."""


@click.command(
    short_help="Show an image, its copies, lineage and users.",
    epilog="""\b
Examples:
  imagepipe images show ami-0123456789abcdef0
  imagepipe images show web-server-20261125T110000Z --local
  imagepipe images show ami-0123456789abcdef0 --region eu-west-1 --format json
""",
)
@click.argument("image", metavar="IMAGE")
@click.option(
    "--region",
    "in_regions",
    multiple=True,
    metavar="REGION",
    help="Look for the image, its copies and layers in this region only; repeatable.  [default: all regions]",
)
@role_option()
@target_options
@state_option
@log_format_option
@pass_options(ShowOptions)
def show(options: ShowOptions) -> int:
    """Show an image of this account, given by id or by complete name: its spec, inputs, run, tests, copies and uses.

    The lineage goes in both directions: the images that it was built on, and those that are built on it. Tests are
    known if the run is on this computer.
    """
    clock = SystemClock()
    first = options.in_regions[0] if options.in_regions else None
    target = cloud_target(options.cloud)
    with open_state(options.state, target, clock) as store, open_cloud(target, region=first, clock=clock) as regions:
        found = look_up(options.image, regions, options.in_regions, store, clock.now())
        print_errors(found.failed)
        if options.output == "json":
            print_json(to_json(found, store))
        else:
            for line in _text(found, store):
                click.echo(line)
            click.echo(f"age: {age(clock.now() - found.listed.bake.created)}")
    return CloudError.exit_code if found.failed else 0


def look_up(word: str, regions: Regions, in_regions: Sequence[str], store: JournalStore, now: datetime) -> FoundImage:
    """Find an image by its id or name, in these regions, or in all if there are none. Raises ImagepipeError."""
    searched = in_regions or regions.enabled(regions.session.region or FIRST_REGION)
    seen = survey(regions, searched, PastInputs(store).source)
    image = _find(word, seen)
    bake = next(
        (each for each in seen.bakes() if image in each.images),
        Bake(image.spec, image.variant, image.run, (image,)),
    )
    uses = uses_of(regions, bake.images)
    lineage = Lineage(tuple(_before(image, seen, regions, store)), tuple(_after(bake, seen)))
    return FoundImage(image, listed_bake(bake, seen, uses, now), lineage, {**seen.failed, **uses.failed})


def _find(word: str, seen: Survey) -> BakedImage:
    """Return the image with this id or name. Raises CloudError or UsageError."""
    found = [image for image in seen.images if word in (image.id, image.name)]
    if not found:
        raise CloudError(
            f"this account has no image {word} in the regions that were searched",
            code="InvalidAMIID.NotFound",
            hint="imagepipe images list prints the images of specs; a name must be complete",
        )
    if len({(image.spec, image.variant, image.run) for image in found}) > 1:
        places = ", ".join(image.describe() for image in found)
        raise UsageError(f"several images are named {word}: {places}", hint="name one of them by its id")
    return found[0]


def _before(image: BakedImage, seen: Survey, regions: Regions, store: JournalStore) -> Iterator[dict[str, Any]]:
    """Yield the source images, nearest first: by our tags as far as they go, and then by EC2's ancestry."""
    by_id = {each.id: each for each in seen.images}
    named: set[str] = {image.id}
    source_of = PastInputs(store).source
    here: BakedImage | None = image
    while here is not None and (source := sources_of(here, source_of)) and source not in named:
        named.add(source)
        found = by_id.get(source)
        yield _relative(found) if found else {"image_id": source, "region": None, "name": None, "spec": None}
        here = found
    with suppress(CloudError):  # a private cloud may not have it
        for source, region, owner in regions[image.region].lifecycle.ancestry(image.id):
            if source not in named:
                named.add(source)
                known = by_id.get(source)
                yield (
                    _relative(known)
                    if known
                    else {
                        "image_id": source,
                        "region": region or None,
                        "name": None,
                        "spec": None,
                        "owner": owner or None,
                    }
                )


def _after(bake: Bake, seen: Survey) -> Iterator[dict[str, Any]]:
    """Yield every image that is built on a bake, nearest first."""
    named = {image.id for image in bake.images}
    waiting = seen.layers_of(bake)
    while waiting:
        layer = waiting.pop(0)
        if layer.id not in named:
            named.add(layer.id)
            yield _relative(layer)
            waiting += seen.built_on.get(layer.id, ())


def _relative(image: BakedImage) -> dict[str, Any]:
    return {"image_id": image.id, "region": image.region, "name": image.name, "spec": image.spec or None}


def _tests(image: BakedImage, store: JournalStore) -> list[str] | None:
    """Return the titles of the tests that an image passed; None if its run is not known."""
    if not image.run:
        return None
    key = f"{image.spec}[{image.variant}]" if image.variant else image.spec
    titles: dict[str, str] = {}
    passed: list[str] = []
    is_known = False
    try:
        for event in store.events(image.run):
            is_known = True
            prefix, _, name = getattr(event, "stage", "").rpartition("/")
            if prefix not in ("", key) or not name.startswith("test-") or name in _NO_TESTS:
                continue
            if isinstance(event, ev.StageStarted):
                titles[event.stage] = event.title
            elif isinstance(event, ev.StageFinished):
                passed.append(titles.get(event.stage, name))
    except ImagepipeError:
        return None
    return passed if is_known else None


def _commit(image: BakedImage, store: JournalStore) -> str | None:
    """Return the git commit of the spec: from the tag, or from the journal of the run."""
    if known := image.tags.get(tags.COMMIT):
        return known
    with suppress(ImagepipeError, OSError):
        return str(read(store, image.run).run.build.get("git_sha") or "") or None
    return None


def to_json(found: FoundImage, store: JournalStore) -> dict[str, Any]:
    """Return the values for `--format json`. An unknown value is null."""
    image, lineage = found.image, found.lineage
    return {
        **found.listed.to_json(),
        "image_id": image.id,
        "region": image.region,
        "fingerprint": image.tags.get(tags.FINGERPRINT),
        "commit": _commit(image, store),
        "source_image": sources_of(image, PastInputs(store).source) or None,
        "tests": _tests(image, store),
        "built_on": list(lineage.before),
        "layers": list(lineage.after),
        "deregistration_protection": image.is_protected,
    }


def _text(found: FoundImage, store: JournalStore) -> Iterator[str]:
    image, listed, lineage = found.image, found.listed, found.lineage
    bake = listed.bake
    yield f"{image.id} '{image.name}' in {image.region}"
    yield f"spec: {bake.key or 'none: it has no tag of a spec'}"
    yield f"kind: {listed.kind}"
    yield f"created: {image.created:%Y-%m-%d %H:%M} UTC"
    yield f"run: {bake.run or 'unknown'}"
    yield f"commit: {_commit(image, store) or 'unknown'}"
    yield f"fingerprint: {image.tags.get(tags.FINGERPRINT) or 'none'}"
    tests = _tests(image, store)
    yield "tests passed: " + (
        "unknown: the run is not on this computer" if tests is None else ", ".join(tests) or "none"
    )
    yield "copies:"
    for each, state in zip(bake.images, listed.states, strict=True):
        protected = ", protected against deregistration" if each.is_protected else ""
        yield f"  {each.id} in {each.region}: {state}{protected}"
    yield from _relatives("built on", lineage.before)
    yield from _relatives("layers built on it", lineage.after)
    if listed.users is None:
        yield "used by: unknown"
        return
    yield "used by:" if listed.users else "used by: nothing in this account"
    for user in listed.users:
        yield f"  {user}"


def _relatives(title: str, rows: tuple[Mapping[str, Any], ...]) -> Iterator[str]:
    yield f"{title}:" if rows else f"{title}: none known"
    yield from (f"  {related_image(row)}" for row in rows)
