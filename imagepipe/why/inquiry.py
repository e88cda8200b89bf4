"""Ask the cloud for the images and the source images of specs, and answer why they are up to date or stale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.errors import CloudError
from imagepipe.inputs.collect import collect_inputs
from imagepipe.reuse import Examined, Examiner, waves
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.why.answer import Answer, Baked, Explainer, Manifests, Now


class Inquiry:
    """Asks the cloud for the images and the source images of specs."""

    def __init__(self, regions: Regions, region: Callable[[Spec], str], manifests: Manifests) -> None:
        self._regions, self._region, self._manifests = regions, region, manifests
        self.examined: dict[str, Examined] = {}
        """Inputs and source images by key."""
        self._images: dict[str, dict[str, list[Baked]]] = {}
        """Images by key and region, newest first."""

    def answers(self, loaded: Sequence[LoadedSpec], image: str | None = None) -> dict[str, Answer]:
        """Return the answer for every spec, by key. `loaded` has bases first; `image` belongs to the named spec."""
        self._find_images(loaded)
        examiner = Examiner(self._regions, self._region, datetime.now(UTC))
        explainer = Explainer(self._manifests, lambda spec: self._in_region(spec, self._region(spec.checked())))
        given = self._baked(image, loaded) if image else None
        answers: dict[str, Answer] = {}
        for wave in waves(loaded):
            sources = {
                str(spec.key): self._source_of(spec, spec.base_spec, answers)
                for spec in wave
                if spec.base_spec is not None
            }
            examined = examiner.inputs_of(wave, sources)
            self.examined |= examined
            for spec in wave:
                key, found = str(spec.key), examined[str(spec.key)]
                inputs = found.inputs if found.inputs is not None else collect_inputs(spec)
                base = answers[str(spec.base_spec.key)] if spec.base_spec else None
                now = Now(key, inputs, str(found.error or ""), base)
                answers[key] = explainer.explain(spec, now, given if spec.is_named else None)
        return answers

    def _source_of(self, layer: LoadedSpec, base: LoadedSpec, answers: Mapping[str, Answer]) -> str:
        """Return the image of a layer's base in the layer's launch region; empty if the base has no image."""
        images = self._in_region(base, self._region(layer.checked()))
        chosen = answers[str(base.key)].image
        same = [each for each in images if chosen is not None and each.fingerprint == chosen.fingerprint]
        return next((each.id for each in same or images), "")

    def _in_region(self, spec: LoadedSpec, region: str) -> list[Baked]:
        return self._images.get(str(spec.key), {}).get(region, [])

    def _find_images(self, loaded: Sequence[LoadedSpec]) -> None:
        """Find the images of each spec in its launch region, and of each base where a layer needs it."""
        by_region: dict[str, set[str]] = {}
        for spec in loaded:
            names = by_region.setdefault(self._region(spec.checked()), set())
            names |= {spec.key.name, *(base.key.name for base in spec.bases()[:1])}
        for region, wanted in by_region.items():
            images = self._regions[region].images.own_of_specs(sorted(wanted))
            for found in sorted(images, key=lambda each: str(each.get("CreationDate", "")), reverse=True):
                own = tags.mapping(found.get("Tags"))
                if found["State"] == "available" and own.get(tags.STATE) == tags.KEPT:
                    variant = own.get(tags.VARIANT)
                    key = f"{own[tags.SPEC]}[{variant}]" if variant else own[tags.SPEC]
                    self._images.setdefault(key, {}).setdefault(region, []).append(_described(found, own))

    def _baked(self, image: str, loaded: Sequence[LoadedSpec]) -> Baked:
        """Return the image that the command line names. Raises CloudError if it is not one of the spec."""
        spec = next(each for each in loaded if each.is_named)
        region = self._region(spec.checked())
        found = self._regions[region].images.describe(image)
        own = tags.mapping(found.get("Tags"))
        if own.get(tags.SPEC) != spec.key.name:
            raise CloudError(
                f"{image} in {region} was baked from {own.get(tags.SPEC) or 'no spec of imagepipe'}, not from"
                f" {spec.key.name}",
                hint="imagepipe images list shows the images of each spec",
            )
        return _described(found, own)


def _described(image: Mapping[str, object], own: Mapping[str, str]) -> Baked:
    return Baked(
        str(image["ImageId"]), own.get(tags.FINGERPRINT, ""), own.get(tags.RUN, ""), str(image.get("CreationDate", ""))
    )
