"""The last lines of a run: its images or its errors, the resources it still holds, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from imagepipe.cli import streams
from imagepipe.cli.login import KNOWN_HOSTS, write_known_hosts
from imagepipe.cli.output_format import print_json
from imagepipe.cli.run import Run
from imagepipe.cloud.errors import EXPIRED
from imagepipe.communicator.openssh import ssh_command
from imagepipe.engine.executor import Outcome
from imagepipe.engine.journal import read
from imagepipe.engine.journal_store import CLOSING
from imagepipe.errors import CloudError, ImagepipeError, StageError, UndoFailed
from imagepipe.masking import Masker
from imagepipe.values import Image, Reachable
from imagepipe.wiring.build import Baked
from imagepipe.wiring.existing import Existing


def print_end(run: Run, outcome: Outcome, baked: Sequence[Baked]) -> int:
    """Print the end of a run, and keep it for `show`; return the exit code."""
    closing = Closing(run.masker)
    if outcome.ok:
        _print(run, outcome, baked, closing)
        code = 0
        if outcome.held:
            _print_held(outcome, run.id, closing)
            code = UndoFailed.exit_code
    else:
        if not run.options.fail_fast and not outcome.cancelled:
            _print(run, outcome, baked, closing)
        code = _explain(outcome, run, baked, closing)
    _warn_of_regions(run, outcome, baked, closing)
    for stage in outcome.stuck:
        closing.print(f"{stage} did not stop in time; this process exits without waiting for it")
    if run.junit and run.junit.problem:
        closing.print(f"error: writing {run.options.junit}: {run.junit.problem.strerror}")
        code = code or ImagepipeError.exit_code
    with suppress(ImagepipeError):  # a full disk loses them, but is not an error
        if not run.is_lost:
            run.store.put(run.id, CLOSING, closing.content())
    if streams.result_is_lost():
        click.echo(f"the result could not be written to standard output; run: imagepipe show {run.id}", err=True)
    return code


class Closing:
    """Prints the last lines of a run on standard error, and collects them for `show`."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._lines: list[str] = []

    def print(self, line: str) -> None:
        """Print a line on standard error, and note it."""
        click.echo(self.note(line), err=True)

    def note(self, line: str) -> str:
        """Note a line; return it with secrets masked."""
        masked = self._masker.mask(line)
        self._lines.append(masked)
        return masked

    def content(self) -> bytes:
        """Return the lines as a document of the run."""
        text = "".join(f"{line}\n" for line in self._lines)
        return text.encode("utf-8", "backslashreplace")  # file names may be any bytes


def _print(run: Run, outcome: Outcome, baked: Sequence[Baked], closing: Closing) -> None:
    """Print the images of the specs that succeeded."""
    rows = [(build, image) for build in baked for image in finished_images(outcome, build)]
    lines = [
        closing.note(f"{image.id}  {image.region:<14}  {image.name}  ({build.spec}{_why_old(run, build, image)})")
        for build, image in rows
    ]
    if run.options.output == "json":
        result: dict[str, object] = {"run": run.id, "images": [_image(run, build, image) for build, image in rows]}
        if changes := changes_json(run.settled.existing, {}):
            result["changes"] = changes
        if outcome.tolerated:
            result["failed_regions"] = failed_regions(outcome, baked)
        if not outcome.ok:
            result["failed"] = [build.spec for build in baked if build.images.stage not in outcome.outputs]
        print_json(result)
        return
    if not run.options.shown.is_quiet:
        click.echo("")
    for line in lines:
        click.echo(line)


def finished_images(outcome: Outcome, build: Baked) -> list[Image]:
    """Return the images of a spec that are finished: none, or those of all required regions and of some others."""
    if build.images.stage not in outcome.outputs:
        return []
    others = [part.image.stage for part in build.best_effort.values()]
    return [
        *outcome.outputs[build.images.stage],
        *(outcome.outputs[each] for each in others if each in outcome.outputs),
    ]


def changes_json(existing: Mapping[str, Existing], missing: Mapping[str, Sequence[str]]) -> list[dict[str, object]]:
    """Return the changes of images that exist already, and their missing copies, for `--format json`."""
    rows: list[dict[str, object]] = []
    for key, found in existing.items():
        rows += [
            {
                "spec": key,
                "region": change.region,
                "image_id": found.images[change.region],
                "change": change.stage,
                "lines": list(change.lines),
            }
            for change in found.changes
        ]
        rows += [
            {"spec": key, "region": region, "image_id": None, "change": "copy", "lines": []}
            for region in missing.get(key, ())
        ]
    return rows


def failed_regions(outcome: Outcome, baked: Sequence[Baked]) -> list[dict[str, object]]:
    """Return the regions that failed alone, with their errors."""
    place_of = {
        stage: (build.spec, region)
        for build in baked
        for region, part in build.best_effort.items()
        for stage in part.stages
    }
    return [
        {
            "spec": place_of[failure.stage][0],
            "region": place_of[failure.stage][1],
            "stage": failure.stage,
            "error": str(failure.error),
            "hint": failure.error.hint if isinstance(failure.error, ImagepipeError) else None,
        }
        for failure in outcome.tolerated
    ]


def _warn_of_regions(run: Run, outcome: Outcome, baked: Sequence[Baked], closing: Closing) -> None:
    """Name the regions that failed alone; the images of the others are kept."""
    files = {str(spec.key): spec.file for spec in run.loaded}
    for row in failed_regions(outcome, baked):
        closing.print(f"warning: {row['spec']}: {row['region']} failed alone: {row['stage']}: {row['error']}")
        if row["hint"]:
            closing.print(f"  hint: {row['hint']}")
        if outcome.ok:
            closing.print(
                f"  the other regions are published; to try again: imagepipe publish {files[str(row['spec'])]}"
            )


def _why_old(run: Run, build: Baked, image: Image) -> str:
    return ", unchanged" if is_unchanged(run, build, image) else ""


def is_unchanged(run: Run, build: Baked, image: Image) -> bool:
    """Return whether an image is one of an earlier run; a spec that is not baked may still get new copies."""
    return image.id in run.settled.existing[build.spec].images.values() if build.is_unchanged else False


def _image(run: Run, build: Baked, image: Image) -> dict[str, object]:
    return {
        "spec": build.spec,
        "unchanged": is_unchanged(run, build, image),
        "region": image.region,
        "image_id": image.id,
        "name": image.name,
        "snapshots": list(image.snapshots),
        "bundle": image.bundle,
    }


def _explain(outcome: Outcome, run: Run, baked: Sequence[Baked], closing: Closing) -> int:
    """Print the errors and the resources that are left; return the exit code of the cause."""
    for failure in outcome.failures:
        error = failure.error
        closing.print(f"error: {failure.stage}: {error}")
        if isinstance(error, ImagepipeError) and error.hint:
            closing.print(f"  hint: {error.hint}")
        closing.print(f"  its log: imagepipe logs {run.id} {shlex.quote(failure.stage)}")
    failed = {failure.stage for failure in outcome.failures}
    for build in baked:
        tests = build.tests[1:]  # without the boot
        if (count := len(failed.intersection(tests))) > 1:
            closing.print(f"{count} of {len(tests)} tests of {build.spec} failed")
    _name_layers_left_out(outcome, baked, closing)
    is_printed = not run.options.fail_fast and not outcome.cancelled
    for build in baked:
        if is_printed and build.images.stage in outcome.outputs:
            continue
        for image in finished_images(outcome, build) or outcome.outputs.get(build.kept.stage, ()):
            closing.print(f"finished before that, and kept: {image.id} in {image.region} ({build.spec})")
    if run.is_lost:
        closing.print(f"nothing was cleaned up: run {run.id} belongs to another process now")
    elif outcome.held:
        _print_held(outcome, run.id, closing)
    if outcome.cancelled:
        at_work = f"; interrupted: {', '.join(outcome.interrupted)}" if outcome.interrupted else ""
        closing.print(f"error: {run.cancel.reason}{at_work}")
        return 130
    if run.options.keep_on_failure is not None:
        _print_logins(outcome, run, closing)
    cause = outcome.failures[0].error
    return cause.exit_code if isinstance(cause, ImagepipeError) and cause.exit_code != 1 else StageError.exit_code


def _name_layers_left_out(outcome: Outcome, baked: Sequence[Baked], closing: Closing) -> None:
    """Name the specs that were not built because their base failed."""
    spec_of = {stage: build.spec for build in baked for stage in build.stages}
    failed = {spec_of[failure.stage] for failure in outcome.failures}
    for build in baked:  # bases come first
        base = spec_of[build.base.stage] if build.base else None
        if base in failed and build.images.stage not in outcome.outputs and build.spec not in failed:
            failed.add(build.spec)
            closing.print(f"not built: {build.spec}, because its base {base} failed")


def _print_held(outcome: Outcome, run_id: str, closing: Closing) -> None:
    for held in outcome.held:
        closing.print(f"still held: {held}")
    if any(isinstance(each.error, CloudError) and each.error.code in EXPIRED for each in outcome.failures):
        closing.print(f"Once your credentials are valid again, run: imagepipe resume {run_id}")
    closing.print(f"To delete it later, run: imagepipe clean {run_id}")


def _print_logins(outcome: Outcome, run: Run, closing: Closing) -> None:
    held = {claim.id for claim in read(run.store, run.id).open_claims()}
    machines = {o.endpoint: o for o in outcome.outputs.values() if isinstance(o, Reachable) and o.instance.id in held}
    with suppress(OSError):  # without the file, ssh asks for the host key
        write_known_hosts(run.folder, machines)
    for endpoint, machine in machines.items():
        command = shlex.join(ssh_command(endpoint, run.folder / KNOWN_HOSTS))
        closing.print(f"kept: {machine.instance.id} in {machine.instance.region}: {command}")
    if machines:
        closing.print(f"to log in: imagepipe ssh {run.id}")
    closing.print(f"to go on once the cause is mended: imagepipe resume {run.id}")
    costs = "" if run.target.local else ", and cost money"
    closing.print(f"all resources of this run are kept{costs}; to delete them: imagepipe clean {run.id}")
