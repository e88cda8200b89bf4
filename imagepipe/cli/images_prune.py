"""`imagepipe images prune`: print which images the retention of specs makes superfluous, and retire them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.images_list import print_errors
from imagepipe.cli.loading import load_buildable
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    read_variables,
    role_option,
    state_folder,
    target_options,
    variable_options,
)
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.run import stopped_by_signals
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock, iso
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import FIRST_REGION
from imagepipe.dataclass import dataclass
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import Cancelled, CloudError, UsageError
from imagepipe.planning.cost import UNKNOWN, Amount, Cost, CostLine, total_json
from imagepipe.planning.prices import PriceTable, load_prices
from imagepipe.retention.decide import Decision, decide
from imagepipe.retention.record import FILE_NAME, RetirementRecord
from imagepipe.retention.retire import RetiredImage, Retirement, Retirer
from imagepipe.retention.rules import RuleBook, Step, rules_of
from imagepipe.retention.sizes import Storage
from imagepipe.retention.survey import survey
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Arguments and options of `imagepipe images prune`."""

    specs: tuple[str, ...]
    variables: VariableOptions
    in_regions: tuple[str, ...]
    prices: Path | None
    is_confirmed: bool
    cloud: CloudOptions
    state: StateOptions
    output: Format


@click.command(
    short_help="Retire the images that retention rules make superfluous.",
    epilog="""\b
Examples:
  imagepipe images prune
  imagepipe images prune web-server.yaml 'base.yaml[release=bookworm]'
  imagepipe images prune --in-region eu-west-1 --in-region eu-central-1
  imagepipe images prune --local --yes
  imagepipe images prune --yes --format json >retired.json
""",
)
@click.argument("specs", nargs=-1, metavar="[SPEC...]")
@variable_options
@click.option(
    "--in-region",
    "in_regions",
    multiple=True,
    metavar="REGION",
    help="Look for images in this region only; repeatable.  [default: all regions of the account]",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Use this price table instead of the one that comes with imagepipe.",
)
@click.option("--yes", "is_confirmed", is_flag=True, help="Do it. Without this option, nothing is changed.")
@role_option()
@target_options
@state_option
@log_format_option
@pass_options(PruneOptions)
def prune(options: PruneOptions) -> int:
    """Print which images of specs are superfluous by their `retention`, and with --yes do the next step of each.

    Without SPEC, those in specs/. The steps are: deprecate, disable, and deregister with the snapshots or the bundle;
    each after its grace period, for the copies in all regions. An image that anything uses is left alone, and so is the
    last image of a spec or variant. Uses are checked again right before each step. If a permission for such a check is
    missing, nothing is retired.

    Exit code 0 also if some images are in use; 3 if a region did not answer or a step failed; 130 after Ctrl-C. The
    command can be repeated at any time.
    """
    prices = load_prices(options.prices)
    values = read_variables(options.variables)
    named = NamedSpecs.of(options.specs)
    loaded = [spec for spec in load_buildable(named, values, SAMPLE_BUILD) if spec.is_named]
    with_rules = [spec for spec in loaded if spec.checked().retention is not None]
    _check_named(options.specs, loaded, with_rules)
    target, clock = cloud_target(options.cloud), SystemClock()
    cancel = Cancel(clock)
    first = options.in_regions[0] if options.in_regions else None
    with (
        stopped_by_signals(cancel, stopping="stopping after the calls that are under way", rest=_REST) as signals,
        open_state(options.state, target, clock) as store,
        open_cloud(target, region=first, clock=clock) as regions,
    ):
        signals.has_begun = options.is_confirmed
        book = _rule_book(with_rules, named, regions)
        searched = options.in_regions or regions.enabled(regions.session.region or FIRST_REGION)
        path = state_folder().parent / FILE_NAME
        record = RetirementRecord(path, target.with_account(regions).identity(), clock)
        retirer = Retirer(regions, cancel, clock, record)
        finished = retirer.finish_earlier() if options.is_confirmed else []
        now = clock.now()
        seen = survey(regions, searched, PastInputs(store).source)
        decisions = decide(regions, seen, book, now)
        cancel.check()
        report = PruneReport(decisions, seen.failed, prices, now, is_dry_run=not options.is_confirmed)
        if options.output == "text":
            report.print_decisions()
        done = retirer.retire_all(decisions) if options.is_confirmed else []
    if options.output == "json":
        print_json(report.to_json(done, finished))
    else:
        report.print_result(done, finished)
    if any(each.is_cancelled for each in done):
        raise Cancelled("stopped; run the command again to go on")
    return report.exit_code(done)


_REST = "run the command again: it goes on where it stopped"


def _check_named(words: Sequence[str], loaded: Sequence[LoadedSpec], with_rules: Sequence[LoadedSpec]) -> None:
    """Raise UsageError if a spec that was named, or every spec, has no retention."""
    hint = "write retention: {newest: 5, max_age: 90d} into the spec"
    lacking = sorted({spec.key.name for spec in loaded} - {spec.key.name for spec in with_rules})
    if not with_rules:
        raise UsageError(f"no spec has a retention: {', '.join(lacking)}", hint=hint)
    if words and lacking and not any(Path(word).is_dir() for word in words):
        raise UsageError(f"spec {', '.join(lacking)} has no retention", hint=hint)


def _rule_book(specs: Sequence[LoadedSpec], named: NamedSpecs, regions: Regions) -> RuleBook:
    region = region_of(None, regions)
    chosen = {file for file, _ in named.selections}
    pairs = [
        (spec.key, rules) for spec in specs if (rules := rules_of(spec.checked(), region(spec.checked()))) is not None
    ]
    return RuleBook.of(pairs, whole=[spec.key.name for spec in specs if str(spec.file.resolve()) not in chosen])


class PruneReport:
    """Prints decisions and results, and returns them for JSON."""

    def __init__(
        self,
        decisions: Sequence[Decision],
        failed: Any,
        prices: PriceTable,
        now: datetime,
        *,
        is_dry_run: bool,
    ) -> None:
        self._decisions, self._failed, self._prices, self._now = decisions, failed, prices, now
        self._is_dry_run = is_dry_run

    def exit_code(self, done: Sequence[Retirement]) -> int:
        """Return 3 if something could not be examined or done because of a failed call; otherwise 0."""
        has_failed = bool(self._failed) or any(each.error for each in self._decisions)
        return CloudError.exit_code if has_failed or any(each.is_error for each in done) else 0

    def print_decisions(self) -> None:
        """Print a paragraph for each bake that is superfluous, and the number of those that are kept."""
        print_errors(self._failed)
        for each in self._decisions:
            if each.verdict != "keep":
                for line in self._paragraph(each):
                    click.echo(line)
        kept = sum(each.verdict == "keep" for each in self._decisions)
        click.echo(f"{_count(kept, 'image')} kept by the rules")

    def _paragraph(self, decision: Decision) -> Iterator[str]:
        bake, step = decision.bake, decision.assessment.step
        title = f"{bake.key}: {bake.name} of {bake.created:%Y-%m-%d} in {', '.join(bake.regions)}"
        match decision.verdict:
            case "retire":
                yield f"{step}: {title}"
                yield f"  {', '.join(image.id for image in decision.assessment.images)}"
                yield f"  because: {decision.assessment.reason}"
                if self._is_dry_run and any(image.state == "available" for image in bake.images):
                    who = "it is public" if any(image.is_public for image in bake.images) else "if it is shared"
                    yield f"  used by nothing in this account; {who}: other accounts are asked before the step"
                else:
                    yield "  used by nothing in this account"
                yield (
                    f"  {'frees' if step is Step.DEREGISTER else 'will free, once it is deregistered,'} "
                    + self._freed(decision.storage)
                )
                if step is Step.DEREGISTER:
                    yield f"  {_restorable(decision.storage)}"
            case "wait":
                yield f"wait until {_moment(decision.assessment.due)} to {step}: {title}"
            case "in use":
                yield f"in use: {title}"
                yield f"  by {', '.join(decision.users)}"
            case _:
                yield f"left: {title}"
                yield f"  because: {decision.problem}"

    def _lines(self, storage: Sequence[Storage]) -> list[CostLine]:
        lines = []
        for each in storage:
            table = self._prices.snapshot_gb_month if each.kind == "snapshot" else self._prices.bundle_gb_month
            known = each.low_gb is not None and each.high_gb is not None
            amount = Amount(each.low_gb, each.high_gb) if known else UNKNOWN
            lines.append(CostLine(each.kind, "", each.region, amount, "GB-month", table.get(each.region)))
        return lines

    def _freed(self, storage: Sequence[Storage]) -> str:
        lines = self._lines(storage)
        total = Cost(tuple(lines)).monthly()
        money = "an unknown amount of money" if total.unknown == len(lines) else total.describe(self._prices.currency)
        return f"{_gigabytes(lines)}, {money} a month"

    def _freed_by(self, done: Sequence[Retirement]) -> list[CostLine]:
        """Return the storage of the images that were deregistered; in a dry run, of those that would be."""
        lines = []
        gone = {(image.id, image.region) for each in done for image in each.images}
        for decision in self._decisions:
            if decision.verdict == "retire" and decision.assessment.step is Step.DEREGISTER:
                pairs = zip(decision.bake.images, decision.storage, strict=True)
                kept = [row for image, row in pairs if self._is_dry_run or (image.id, image.region) in gone]
                lines += self._lines(kept)
        return lines

    def print_result(self, done: Sequence[Retirement], finished: Sequence[RetiredImage]) -> None:
        """Print what was done, and the sum."""
        for image in finished:
            click.echo(f"finished an earlier deregistration of {image.id} in {image.region}{_deleted(image)}")
        for each in done:
            for image in each.images:
                click.echo(f"{_PAST[image.step]} {image.id} in {image.region}{_deleted(image)}")
                for name, reason in image.left.items():
                    click.echo(f"  left {name}: {reason}")
            if each.users:
                click.echo(f"in use: {each.decision.bake.name} is left: {', '.join(each.users)}")
            elif each.problem:
                click.echo(
                    f"{'error' if each.is_error else 'left'}: {each.decision.bake.name}: {each.problem}", err=True
                )
                if each.hint:
                    click.echo(f"  hint: {each.hint}", err=True)
        lines = self._freed_by(done)
        total = Cost(tuple(lines)).monthly()
        steps = [each.assessment.step for each in self._decisions if each.verdict == "retire"]
        if self._is_dry_run:
            counts = ", ".join(f"{steps.count(step)} to {step}" for step in Step if step in steps)
            click.echo(f"{counts or 'nothing to retire'}; nothing was changed{': --yes does it' if steps else ''}")
        if lines:
            verb = "would be freed" if self._is_dry_run else "freed"
            click.echo(f"{_gigabytes(lines)} and {total.describe(self._prices.currency)} a month {verb}")

    def to_json(self, done: Sequence[Retirement], finished: Sequence[RetiredImage]) -> dict[str, Any]:
        """Return the decisions and results."""
        results = {id(each.decision): each for each in done}
        lines = self._freed_by(done)
        return {
            "dry_run": self._is_dry_run,
            "images": [self._row(each, results.get(id(each))) for each in self._decisions],
            "failed_regions": {region: str(error) for region, error in self._failed.items()},
            "finished": [_image_row(image) for image in finished],
            "freed": {"gb": _range(lines), "monthly": total_json(Cost(tuple(lines)).monthly())},
            "currency": self._prices.currency,
        }

    def _row(self, decision: Decision, result: Retirement | None) -> dict[str, Any]:
        bake, assessment = decision.bake, decision.assessment
        return {
            "spec": bake.spec,
            "variant": bake.variant or None,
            "name": bake.name,
            "run": bake.run,
            "created": iso(bake.created),
            "images": [{"image_id": image.id, "region": image.region} for image in bake.images],
            "verdict": decision.verdict,
            "step": assessment.step.value if assessment.step else None,
            "due": iso(assessment.due) if assessment.due else None,
            "reason": decision.problem or assessment.reason,
            "used_by": [*decision.users, *(result.users if result else ())],
            "storage": [_storage_row(each) for each in decision.storage],
            "done": [_image_row(image) for image in result.images] if result else [],
            "error": (result.problem or None) if result else None,
        }


_PAST = {Step.DEPRECATE: "deprecated", Step.DISABLE: "disabled", Step.DEREGISTER: "deregistered"}


def _deleted(image: RetiredImage) -> str:
    return f", deleted {', '.join(image.deleted)}" if image.deleted else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _moment(time: datetime | None) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if time else "an unknown time"


def _range(lines: Sequence[CostLine]) -> list[float] | None:
    """Return the sum of known sizes; None if one is unknown."""
    lows, highs = [line.quantity.low for line in lines], [line.quantity.high for line in lines]
    if None in lows or None in highs:
        return None
    return [round(sum(low or 0 for low in lows), 6), round(sum(high or 0 for high in highs), 6)]


def _gigabytes(lines: Sequence[CostLine]) -> str:
    known = _range(lines)
    return f"{Amount(known[0], known[1])} GB" if known else "an unknown size"


def _restorable(storage: Sequence[Storage]) -> str:
    """Return until when the images of a bake can be restored, as text."""
    if any(each.restore_is_unknown for each in storage):
        return "whether Recycle Bin keeps it is unknown: its rules cannot be read"
    times = [each.restorable_until for each in storage]
    known = [time for time in times if time is not None]
    if not known:
        return "cannot be restored: no rule of Recycle Bin matches"
    partly = "" if len(known) == len(times) else f", in {_count(len(known), 'region')} of {len(times)}"
    return f"can be restored from Recycle Bin until {_moment(min(known))}{partly}; it is billed until then"


def _storage_row(each: Storage) -> dict[str, Any]:
    return {
        "kind": each.kind,
        "region": each.region,
        "gb": None if each.low_gb is None or each.high_gb is None else [round(each.low_gb, 6), round(each.high_gb, 6)],
        "restorable_until": iso(each.restorable_until) if each.restorable_until else None,
        "restorable_is_known": not each.restore_is_unknown,
    }


def _image_row(image: RetiredImage) -> dict[str, Any]:
    return {
        "image_id": image.id,
        "region": image.region,
        "step": image.step.value,
        "deleted": list(image.deleted),
        "left": dict(image.left),
    }
