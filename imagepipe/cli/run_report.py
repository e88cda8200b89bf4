"""Collect the report of a run from a store: its events, its journal and the prices of its machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from imagepipe.cli.runs import images_by_spec, outputs_by_spec
from imagepipe.engine.journal import JournalState, State, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.report.fold import clean, report_of
from imagepipe.report.model import ImageReport, MachineReport, RunReport, SourceReport

if TYPE_CHECKING:
    from imagepipe.planning.prices import PriceTable

HOUR = 3600
MINIMUM_SECONDS = 60
"""EC2 bills at least a minute of a Linux instance (EC2 pricing page)."""


def run_report(store: JournalStore, run: str) -> RunReport:
    """Return the report of a run. Raises ImagepipeError if its journal or its events cannot be read."""
    past = read(store, run)
    report = report_of(store.events(run), past, list(_images(past)))
    report = replace(report, sources=tuple(_sources(past, report)))
    prices = _prices(past)
    machines = tuple(_machines(past, report, prices))
    if prices is None or all(each.cost is None for each in machines):
        return replace(report, machines=machines)
    return replace(report, machines=machines, currency=prices.currency, price_date=prices.date.isoformat())


def _images(past: JournalState) -> Iterator[ImageReport]:
    """Yield the images that exist after the run, in the order of its specs."""
    deleted = {claim.id for claim in past.claims if claim.kind == "image" and claim.state is State.RELEASED}
    created = {claim.id for claim in past.claims if claim.kind == "image"}
    found = images_by_spec(past)
    for spec in dict.fromkeys((*past.run.specs, *found)):
        for image in found.get(spec, ()):
            id = _text(image, "id")
            if id and id not in deleted:
                yield ImageReport(clean(spec), _text(image, "region"), id, _text(image, "name"), is_new=id in created)


def _sources(past: JournalState, report: RunReport) -> Iterator[SourceReport]:
    only = past.run.specs[0] if len(past.run.specs) == 1 else ""
    made = {
        _text(value, "id"): spec
        for spec, outputs in outputs_by_spec(past).items()
        for stage, value in outputs.items()
        if stage in ("capture", "register") and isinstance(value, dict)
    }
    for spec, outputs in outputs_by_spec(past).items():
        source = outputs.get("source")
        if isinstance(source, dict) and (id := _text(source, "id")):
            inputs = outputs.get("inputs")
            fingerprint = clean(inputs) if isinstance(inputs, str) else ""
            yield SourceReport(clean(spec or only), id, _text(source, "name"), made.get(id, ""), fingerprint)


def _machines(past: JournalState, report: RunReport, prices: PriceTable | None) -> Iterator[MachineReport]:
    """Yield the instances with a known start, and their time until they were deleted, or until the last event."""
    launched = {
        _text(value, "id"): value
        for outputs in outputs_by_spec(past).values()
        for stage, value in outputs.items()
        if stage in ("launch", "test-launch") and isinstance(value, dict)
    }
    for each in report.resources:
        instance = launched.get(each.id)
        if each.kind != "instance" or each.created is None or instance is None:
            continue
        seconds = max(0.0, (report.seconds if each.deleted is None else each.deleted) - each.created)
        kind = _text(instance, "instance_type")
        is_spot = instance.get("spot") is True  # the price of spot instances changes every hour
        price = None if prices is None or is_spot else prices.instance(each.region, kind)
        cost = None if price is None else round(max(seconds, MINIMUM_SECONDS) / HOUR * price, 6)
        yield MachineReport(each.id, each.region, kind, seconds, price, cost)


def _prices(past: JournalState) -> PriceTable | None:
    """Return the prices of the run's cloud; None if it is not AWS, or the run launched nothing."""
    is_aws = not past.run.cloud.get("local") and not past.run.cloud.get("endpoint_url")
    if not is_aws or not any(claim.kind == "instance" for claim in past.claims):
        return None
    from imagepipe.planning.prices import load_prices

    return load_prices(None)


def _text(values: Mapping[str, Any], name: str) -> str:
    """Return a text of a stage's output that can be shown; empty if it is not a text."""
    value = values.get(name)
    return clean(value) if isinstance(value, str) else ""
