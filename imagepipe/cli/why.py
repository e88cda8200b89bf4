"""`imagepipe why`: say why the images of specs are up to date or stale."""

from __future__ import annotations

from collections.abc import Sequence

import click

from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.loading import load_buildable
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    cloud_options,
    is_image_id,
    read_variables,
    variable_options,
)
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.run_store import past_runs
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import JournalState
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import CloudError, UsageError
from imagepipe.inputs.collect import collect_inputs
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.why.answer import Answer, Baked, Explainer, Now
from imagepipe.why.inquiry import Inquiry
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
    state: StateOptions


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
@state_option
@format_option()
@pass_options(WhyOptions)
def why(options: WhyOptions) -> None:
    """Say why the newest image of each spec, or IMAGE, is up to date, or which of its inputs have changed.

    The inputs are the source image, variables, files, steps and the output. Each build keeps a list of them in its
    folder. The answer is `unknown` if that list is not on this computer and the fingerprints differ. No fingerprint
    sees a package mirror, or the time: `reuse: {max_age: 7d}` in a spec is for those.
    """
    image = options.words[-1] if is_image_id(options.words[-1]) else None
    words = options.words[:-1] if image else options.words
    if not words:
        raise UsageError("name a spec too", hint=f"imagepipe why SPEC {image}")
    loaded = load_buildable(NamedSpecs.of(words), read_variables(options.variables), SAMPLE_BUILD)
    named = [each for each in loaded if each.is_named]
    if image and len(named) > 1:
        keys = ", ".join(str(each.key) for each in named[:5])
        raise UsageError(f"{image} can be compared with one spec, not with {len(named)}", hint=f"name one of: {keys}")
    with open_state(options.state, options.cloud, SystemClock()) as store:
        answers = _offline(store, loaded, image) if options.offline else _answers(options, store, loaded, image)
    if options.output == "json":
        print_json([each.to_json() for each in answers])
        return
    for each in answers:
        for line in each.describe():
            click.echo(line)


def _answers(options: WhyOptions, store: JournalStore, loaded: Sequence[LoadedSpec], image: str | None) -> list[Answer]:
    """Answer with the help of the cloud; from this computer alone if the cloud cannot be reached."""
    try:
        with open_cloud(cloud_target(options.cloud), region=options.cloud.region, clock=SystemClock()) as regions:
            inquiry = Inquiry(regions, region_of(options.cloud.region, regions), PastInputs(store).manifest)
            answers = inquiry.answers(bases_first(loaded), image)
            return [answers[str(spec.key)] for spec in loaded if spec.is_named]
    except CloudError as error:
        if error.code not in NO_CLOUD:
            raise
        click.echo(f"note: {error}; the source image was not looked up (--offline)", err=True)
        return _offline(store, loaded, image)


def _offline(store: JournalStore, loaded: Sequence[LoadedSpec], image: str | None) -> list[Answer]:
    """Answer from earlier runs alone. Source images are taken for unchanged."""
    known = _images_of_runs(store)
    explainer = Explainer(PastInputs(store).manifest, lambda spec: known.get(str(spec.key), []))
    answers: dict[str, Answer] = {}
    for spec in bases_first(loaded):
        key = str(spec.key)
        base = answers[str(spec.base_spec.key)] if spec.base_spec else None
        given = next((each for each in known.get(key, []) if each.id == image), None) if spec.is_named else None
        if image and spec.is_named and given is None:
            raise UsageError(f"no run on this computer baked {image} from {key}")
        answers[key] = explainer.explain(spec, Now(key, collect_inputs(spec), base=base), given)
    return [answers[str(spec.key)] for spec in loaded if spec.is_named]


def _images_of_runs(store: JournalStore) -> dict[str, list[Baked]]:
    """Return the images that earlier runs baked, by key of the spec, newest first."""
    found: dict[str, list[Baked]] = {}
    for _, past in past_runs(store):
        if isinstance(past, JournalState):
            for key in past.run.specs:
                for prefix in (f"{key}/", ""):
                    mark, kept = past.outputs.get(f"{prefix}inputs"), past.outputs.get(f"{prefix}keep")
                    if mark is not None and kept is not None and (prefix or len(past.run.specs) == 1):
                        images = [Baked(str(each["id"]), str(mark.value), past.run.id) for each in kept.value]
                        found[key] = [*images, *found.get(key, [])]
    return found
