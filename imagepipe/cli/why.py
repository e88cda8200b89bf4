"""`imagepipe why`: say why the images of specs are up to date or stale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from imagepipe.cli.build import load_buildable
from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    cloud_options,
    read_variables,
    state_folder,
    variable_options,
)
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_store import past_runs
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Regions
from imagepipe.engine.journal import JournalState
from imagepipe.errors import CloudError, ImagepipeError, UsageError
from imagepipe.inputs.collect import collect_inputs
from imagepipe.inputs.manifest import FOLDER, InputManifest
from imagepipe.reuse import Examiner, waves
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.why import Answer, Baked, Explainer, Now
from imagepipe.wiring.family import bases_first

NO_CLOUD = frozenset({"NoCredentials", "NoAnswer"})
"""Error codes after which the question is answered from this computer alone."""


@dataclass(frozen=True, slots=True)
class WhyOptions:
    """Arguments and options of `imagepipe why`."""

    words: tuple[str, ...]
    offline: bool
    variables: VariableOptions
    cloud: CloudOptions
    output: Format


@click.command(
    epilog="""\b
Examples:
  imagepipe why web-server.yaml
  imagepipe why web-server.yaml ami-0123456789abcdef0
  imagepipe why specs/family --local --format json
  imagepipe why web-server.yaml --offline
"""
)
@click.argument("words", nargs=-1, required=True, metavar="SPEC... [IMAGE]")
@click.option(
    "--offline", is_flag=True, help="Compare with the last run on this computer, and do not look up the source image."
)
@cloud_options
@variable_options
@format_option()
@pass_options(WhyOptions)
def why(options: WhyOptions) -> None:
    """Say why the newest image of each spec, or IMAGE, is up to date, or which of its inputs have changed.

    The inputs are the source image, variables, files, steps and the output. Each build keeps a list of them in its
    folder. The answer is `unknown` if that list is not on this computer and the fingerprints differ. No fingerprint
    sees a package mirror, or the time: `reuse: {max_age: 7d}` in a spec is for those.
    """
    image = options.words[-1] if options.words[-1].startswith("ami-") else None
    words = options.words[:-1] if image else options.words
    if not words:
        raise UsageError("name a spec too", hint=f"imagepipe why SPEC {image}")
    loaded = load_buildable(NamedSpecs.of(words), read_variables(options.variables), SAMPLE_BUILD)
    named = [each for each in loaded if each.is_named]
    if image and len(named) > 1:
        keys = ", ".join(str(each.key) for each in named[:5])
        raise UsageError(f"{image} can be compared with one spec, not with {len(named)}", hint=f"name one of: {keys}")
    answers = _offline(loaded, image) if options.offline else _answers(options, loaded, image)
    if options.output == "json":
        print_json([each.to_json() for each in answers])
        return
    for each in answers:
        for line in each.describe():
            click.echo(line)


def _answers(options: WhyOptions, loaded: Sequence[LoadedSpec], image: str | None) -> list[Answer]:
    """Answer with the help of the cloud; from this computer alone if the cloud cannot be reached."""
    try:
        with open_cloud(cloud_target(options.cloud), region=options.cloud.region, clock=SystemClock()) as regions:
            return _Online(regions, options.cloud.region).answers(loaded, image)
    except CloudError as error:
        if error.code not in NO_CLOUD:
            raise
        click.echo(f"note: {error}; the source image was not looked up (--offline)", err=True)
        return _offline(loaded, image)


class _Online:
    """Answers with the images of the account."""

    def __init__(self, regions: Regions, region: str | None) -> None:
        self._regions, self._region = regions, region_of(region, regions)
        self._images: dict[str, dict[str, list[Baked]]] = {}
        """Images by key and region, newest first."""

    def answers(self, loaded: Sequence[LoadedSpec], image: str | None) -> list[Answer]:
        self._find_images(loaded)
        examiner = Examiner(self._regions, self._region, datetime.now(UTC))
        explainer = Explainer(_manifest, lambda spec: self._in_region(spec, self._region(spec.checked())))
        given = self._baked(image, loaded) if image else None
        answers: dict[str, Answer] = {}
        for wave in waves(bases_first(loaded)):
            sources = {
                str(spec.key): self._source_of(spec, spec.base_spec, answers)
                for spec in wave
                if spec.base_spec is not None
            }
            examined = examiner.inputs_of(wave, sources)
            for spec in wave:
                key, found = str(spec.key), examined[str(spec.key)]
                inputs = found.inputs if found.inputs is not None else collect_inputs(spec)
                base = answers[str(spec.base_spec.key)] if spec.base_spec else None
                now = Now(key, inputs, str(found.error or ""), base)
                answers[key] = explainer.explain(spec, now, given if spec.is_named else None)
        return [answers[str(spec.key)] for spec in loaded if spec.is_named]

    def _source_of(self, layer: LoadedSpec, base: LoadedSpec, answers: Mapping[str, Answer]) -> str:
        """Return the image of a layer's base in the layer's launch region; empty if there is none."""
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


def _manifest(run: str, key: str) -> InputManifest | str:
    """Return the inputs of a spec in a run, or the reason why they are not on this computer."""
    folder = state_folder() / run
    if not run or not folder.is_dir():
        return f"the inputs of run {run or '?'} are not on this computer: it ran elsewhere, or its folder was deleted"
    try:
        return InputManifest.read(folder / FOLDER / f"{key}.json")
    except ImagepipeError as error:
        changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        return f"{error}, since {changed:%Y-%m-%d %H:%M} UTC at the latest"


def _offline(loaded: Sequence[LoadedSpec], image: str | None) -> list[Answer]:
    """Answer from the runs on this computer. Source images are taken for unchanged."""
    known = _images_of_runs()
    explainer = Explainer(_manifest, lambda spec: known.get(str(spec.key), []))
    answers: dict[str, Answer] = {}
    for spec in bases_first(loaded):
        key = str(spec.key)
        base = answers[str(spec.base_spec.key)] if spec.base_spec else None
        given = next((each for each in known.get(key, []) if each.id == image), None) if spec.is_named else None
        if image and spec.is_named and given is None:
            raise UsageError(f"no run on this computer baked {image} from {key}")
        answers[key] = explainer.explain(spec, Now(key, collect_inputs(spec), base=base), given)
    return [answers[str(spec.key)] for spec in loaded if spec.is_named]


def _images_of_runs() -> dict[str, list[Baked]]:
    """Return the images that runs on this computer baked, by key of the spec, newest first."""
    found: dict[str, list[Baked]] = {}
    for _, past in past_runs():
        if isinstance(past, JournalState):
            for key in past.run.specs:
                for prefix in (f"{key}/", ""):
                    mark, kept = past.outputs.get(f"{prefix}inputs"), past.outputs.get(f"{prefix}keep")
                    if mark is not None and kept is not None and (prefix or len(past.run.specs) == 1):
                        images = [Baked(str(each["id"]), str(mark.value), past.run.id) for each in kept.value]
                        found[key] = [*images, *found.get(key, [])]
    return found
