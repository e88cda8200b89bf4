"""Decide which specs of a run are not baked, because an image with the same inputs exists. Changes nothing.

Specs are examined bases first. A spec whose base is baked is baked too: its source image is a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.errors import ImagepipeError
from imagepipe.inputs.collect import collect_inputs
from imagepipe.inputs.manifest import InputManifest
from imagepipe.launch.source import BySsm, FindSource, Newest
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import EbsOutput, Spec
from imagepipe.wiring.build import audience_of, source_wanted
from imagepipe.wiring.existing import Existing

_Lookup = tuple[str, str | BySsm | Newest, bool]
"""A region, a description of the source image, and whether its root must be on EBS."""

AT_ONCE = 16
"""Source images that are looked up at once."""


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

    def unchanged(self, loaded: Sequence[LoadedSpec], *, force: bool) -> dict[str, Existing]:
        """Return the images of the specs that need no bake, by key. `loaded` has bases first."""
        existing: dict[str, Existing] = {}
        for wave in waves([each for each in loaded if may_reuse(each, force=force)]):
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
            answers = pool.map(
                lambda item: self._regions[item[0]].images.own_fingerprinted(sorted(item[1])), wanted.items()
            )
            images = dict(zip(wanted, answers, strict=True))
        for spec in specs:
            examined = inputs[str(spec.key)]
            if examined.inputs is not None:
                mark = examined.inputs.fingerprint()
                newest = {region: _newest(images[region], spec, mark) for region in self._everywhere(spec)}
                found = {region: image for region, image in newest.items() if image is not None}
                examined = Examined(examined.inputs, found)
            self.examined[str(spec.key)] = examined

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
        return list(dict.fromkeys((self._region(checked), *checked.publish.regions)))

    def _existing(self, spec: LoadedSpec) -> Existing | None:
        """Return the images of a spec, unless it has none in the launch region, or only one that is too old."""
        found = self.examined[str(spec.key)].found
        at_home = found.get(self._region(spec.checked()))
        if at_home is None or self._is_too_old(spec, at_home):
            return None
        audience = audience_of(spec.checked())
        unshared = [
            region
            for region, image in found.items()
            if audience and self._regions[region].images.lacks(image["ImageId"], audience)
        ]
        return Existing({region: str(image["ImageId"]) for region, image in found.items()}, tuple(unshared))

    def _is_too_old(self, spec: LoadedSpec, image: Mapping[str, Any]) -> bool:
        reuse = spec.checked().reuse
        if reuse is None or reuse.max_age is None:
            return False
        return self._now - created(image) > timedelta(seconds=reuse.max_age)


def created(image: Mapping[str, Any]) -> datetime:
    """Return the time at which an image was created, from its description."""
    return datetime.fromisoformat(str(image["CreationDate"]).replace("Z", "+00:00"))


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


def _newest(images: Sequence[Mapping[str, Any]], spec: LoadedSpec, fingerprint: str) -> Mapping[str, Any] | None:
    """Return the newest kept image of a spec with this fingerprint.

    The caller asked for images of this account alone. Others may have any tags, but cannot be among them.
    """
    own = {tags.FINGERPRINT: fingerprint, tags.SPEC: spec.key.name, tags.STATE: tags.KEPT}
    if spec.key.variant:
        own[tags.VARIANT] = spec.key.variant
    found = [image for image in images if own.items() <= tags.mapping(image.get("Tags")).items()]
    return max(found, key=lambda image: (created(image), image["ImageId"]), default=None)
