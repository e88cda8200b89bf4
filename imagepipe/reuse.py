"""Decide which specs of a run are not baked, because an image with the same inputs exists. Changes nothing.

Specs are examined bases first. A spec whose base is baked is baked too: its source image is a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError, ImagepipeError
from imagepipe.inputs.collect import collect_inputs
from imagepipe.inputs.manifest import InputManifest
from imagepipe.launch.source import BySsm, FindSource, Newest
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import EbsOutput, Spec
from imagepipe.values import Image
from imagepipe.wiring.attributes import Named, additions
from imagepipe.wiring.build import source_wanted
from imagepipe.wiring.existing import Change, Existing

_Lookup = tuple[str, str | BySsm | Newest, bool]
"""A region, a description of the source image, and whether its root must be on EBS."""

AT_ONCE = 20
"""Look-ups at once: one for each region of a spec that is published everywhere."""
NO_IMAGE: Ref[Image] = Ref("")
"""The image of stages that are only asked for differences, and never run."""


@dataclass(frozen=True, slots=True)
class Examined:
    """A spec's inputs, and its newest image that has them."""

    inputs: InputManifest | None = None
    """The complete inputs; None if they are not known before the base is baked."""
    found: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Descriptions of the images with these inputs, by region."""
    error: ImagepipeError | None = None
    """Reason why the source image was not found."""


def may_reuse(loaded: LoadedSpec, *, force: bool) -> bool:
    """Return whether an existing image may be used: a base that nobody named, or a spec that says `reuse`."""
    if loaded.is_named:
        return not force and loaded.checked().reuse is not None
    return True


class Examiner:
    """Examines specs wave by wave, each with as few calls as possible."""

    def __init__(self, regions: Regions, region: Callable[[Spec], str], now: datetime) -> None:
        self._regions, self._region, self._now = regions, region, now
        self.examined: dict[str, Examined] = {}

    def unchanged(
        self, loaded: Sequence[LoadedSpec], *, force: bool, known: Mapping[str, Existing] | None = None
    ) -> dict[str, Existing]:
        """Return the images of the specs that need no bake, by key. `loaded` has bases first.

        `known` has the images of specs that were baked before, and are not examined.
        """
        existing = dict(known or {})
        examined = [each for each in loaded if str(each.key) not in existing and may_reuse(each, force=force)]
        for wave in waves(examined):
            ready = [each for each in wave if each.base_spec is None or str(each.base_spec.key) in existing]
            sources = {
                str(each.key): existing[str(each.base_spec.key)].images.get(self._region(each.checked()), "")
                for each in ready
                if each.base_spec is not None
            }
            self.examine(ready, sources)
            for each in ready:
                if found := self._existing(each):
                    existing[str(each.key)] = found
        return existing

    def examine(self, specs: Sequence[LoadedSpec], sources: Mapping[str, str]) -> None:
        """Find the inputs of specs and their images. `sources` has the source images that are known, by key."""
        inputs = self.inputs_of(specs, sources)
        wanted: dict[str, set[str]] = {}
        for spec in specs:
            if (known := inputs[str(spec.key)].inputs) is not None:
                for region in self._everywhere(spec):
                    wanted.setdefault(region, set()).add(known.fingerprint())
        with ThreadPoolExecutor(AT_ONCE) as pool:
            images = dict(zip(wanted, pool.map(lambda item: self._images(*item), wanted.items()), strict=True))
        for spec in specs:
            examined = inputs[str(spec.key)]
            if examined.inputs is not None:
                mark = examined.inputs.fingerprint()
                everywhere = self._everywhere(spec)
                kept = {region: _newest_kept(_known(images[region], region, spec), spec, mark) for region in everywhere}
                found = {region: image for region, image in kept.items() if image is not None}
                examined = Examined(examined.inputs, found)
            self.examined[str(spec.key)] = examined

    def _images(self, region: str, fingerprints: Collection[str]) -> list[Mapping[str, Any]] | CloudError:
        """Return the images in a region that have these fingerprints, or the reason why they are not known."""
        try:
            return self._regions[region].images.own_fingerprinted(sorted(fingerprints))
        except CloudError as error:
            return error

    def inputs_of(self, specs: Sequence[LoadedSpec], sources: Mapping[str, str]) -> dict[str, Examined]:
        """Return the inputs of specs by key, each with its source image. A source that several share is found once."""
        lookups = {self._lookup(spec) for spec in specs if spec.base_spec is None}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = dict(zip(lookups, pool.map(self._find, lookups), strict=True))
        examined = {}
        for spec in specs:
            key = str(spec.key)
            inputs = collect_inputs(spec)
            source = sources.get(key) if spec.base_spec is not None else found[self._lookup(spec)]
            if isinstance(source, ImagepipeError):  # the bake reports it, at its own stage
                examined[key] = Examined(error=source)
            elif inputs is None or not source:
                examined[key] = Examined()
            else:
                examined[key] = Examined(inputs.with_source(source))
        return examined

    def _lookup(self, spec: LoadedSpec) -> _Lookup:
        checked = spec.checked()
        needs_ebs = isinstance(checked.output, EbsOutput)
        return self._region(checked), source_wanted(checked), needs_ebs

    def _find(self, lookup: _Lookup) -> str | ImagepipeError:
        region, wanted, needs_ebs = lookup
        try:
            return FindSource(self._regions[region], wanted, needs_ebs=needs_ebs).find(lambda _: None).id
        except ImagepipeError as error:
            return error

    def _everywhere(self, spec: LoadedSpec) -> list[str]:
        checked = spec.checked()
        return checked.publish.everywhere(self._region(checked))

    def _existing(self, spec: LoadedSpec) -> Existing | None:
        """Return the images of a spec, unless it has none in the launch region, or only one that is too old."""
        found = self.examined[str(spec.key)].found
        at_home = found.get(self._region(spec.checked()))
        if at_home is None or self._is_too_old(spec, at_home):
            return None
        return Existing({region: str(image["ImageId"]) for region, image in found.items()}, self._changes(spec, found))

    def _changes(self, spec: LoadedSpec, found: Mapping[str, Mapping[str, Any]]) -> tuple[Change, ...]:
        """Return what the images of a spec lack. A region that may fail alone is asked in its own stages instead."""
        home = self._region(spec.checked())
        return differences(spec, self._regions, found, lambda ec2: additions(spec, ec2, NO_IMAGE, home=home))

    def _is_too_old(self, spec: LoadedSpec, image: Mapping[str, Any]) -> bool:
        reuse = spec.checked().reuse
        if reuse is None or reuse.max_age is None:
            return False
        return self._now - created(image) > timedelta(seconds=reuse.max_age)


def differences(
    spec: LoadedSpec,
    regions: Regions,
    images: Mapping[str, Mapping[str, Any]],
    attributes: Callable[[Ec2], Iterable[Named]],
) -> tuple[Change, ...]:
    """Return the differences between images, described by region, and the attributes that their spec asks for.

    All regions are asked at once. In a region that may fail alone, an attribute that cannot be read counts as missing.
    """
    may_fail = spec.checked().publish.best_effort

    def of_region(region: str) -> list[Change]:
        changes: list[Change] = []
        for name, stage in attributes(regions[region]):
            try:
                lines = stage.differences(images[region])
            except CloudError as error:
                if region not in may_fail:
                    raise
                lines = [f"? {name}: {error}"]
            if lines:
                changes.append(Change(region, name, tuple(lines)))
        return changes

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(change for changes in pool.map(of_region, images) for change in changes)


def _known(
    images: Sequence[Mapping[str, Any]] | CloudError, region: str, spec: LoadedSpec
) -> Sequence[Mapping[str, Any]]:
    """Return the images of a region. Raises CloudError if they are not known, and the region may not fail alone."""
    if not isinstance(images, CloudError):
        return images
    if region not in spec.checked().publish.best_effort:
        raise images
    return ()


def created(image: Mapping[str, Any]) -> datetime:
    """Return the time at which an image was created, from its description."""
    return datetime.fromisoformat(str(image["CreationDate"]).replace("Z", "+00:00"))


def newest(images: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the newest of these images, from their descriptions; None if there are no images."""
    return max(images, key=lambda image: (created(image), image["ImageId"]), default=None)


def waves(loaded: Iterable[LoadedSpec]) -> list[list[LoadedSpec]]:
    """Return the specs in waves: each spec is in a later wave than its base."""
    waves: list[list[LoadedSpec]] = []
    for each in loaded:
        depth, base = 0, each.base_spec
        while base is not None:
            depth, base = depth + 1, base.base_spec
        waves += [[] for _ in range(depth + 1 - len(waves))]
        waves[depth].append(each)
    return waves


def _newest_kept(images: Sequence[Mapping[str, Any]], spec: LoadedSpec, fingerprint: str) -> Mapping[str, Any] | None:
    """Return the newest kept image of a spec with this fingerprint.

    The caller asked for images of this account alone. Others may have any tags, but cannot be among them.
    """
    own = {tags.FINGERPRINT: fingerprint, tags.SPEC: spec.key.name, tags.STATE: tags.KEPT}
    if spec.key.variant:
        own[tags.VARIANT] = spec.key.variant
    found = [image for image in images if own.items() <= tags.mapping(image.get("Tags")).items()]
    return newest(found)
