"""Estimate the duration and the cost of a build from the last bake of each spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from imagepipe.dataclass import dataclass
from imagepipe.planning.cost import MINIMUM_SECONDS, UNKNOWN, Amount, Cost, CostLine
from imagepipe.planning.prices import PriceTable
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import EbsOutput

GB = 1e9
"""AWS bills storage and transfer in GB; a snapshot's full size is in bytes (EC2 API reference, Snapshot)."""


@dataclass(frozen=True, slots=True)
class LastBake:
    """The known facts of a spec's last bake."""

    stages: Mapping[str, float]
    """Durations of its stages in seconds, by name without prefix; empty if it was not baked on this computer."""
    seconds: float | None = None
    """Duration of the whole spec."""
    size: Amount = UNKNOWN
    """Size of its image in GB: from the full size of its snapshots to that of their volumes."""

    def instance_minutes(self, prefix: str) -> Amount:
        """Return the billed minutes of the instance that is launched by the stage `launch` with this prefix."""
        own = [name for name in self.stages if name.startswith("test-") == bool(prefix)]
        if f"{prefix}launch" not in own:
            return UNKNOWN
        lived = sum(self.stages[name] for name in own if name not in _NOT_ON_THE_INSTANCE)
        minutes = max(lived, MINIMUM_SECONDS) / 60
        return Amount(minutes, minutes)


_NOT_ON_THE_INSTANCE = frozenset(
    ("source", "inputs", "name", "names", "key", "network", "keep", "test-key", "test-image")
)
"""Stages that run while no instance of the spec does, or beside those that do."""


def run_seconds(loaded: Sequence[LoadedSpec], seconds: Mapping[str, float | None]) -> float | None:
    """Return the duration of the longest chain of layers; None if that of one of its specs is not known.

    `seconds` has the specs that are baked, by key; the others take no time.
    """
    totals: dict[str, float | None] = {}
    for spec in loaded:  # bases first
        key = str(spec.key)
        before = totals.get(str(spec.base_spec.key), 0.0) if spec.base_spec else 0.0
        own = seconds.get(key, 0.0)
        totals[key] = None if before is None or own is None else before + own
    known = [each for each in totals.values() if each is not None]
    return None if len(known) < len(totals) else max(known, default=0.0)


def cost_of(spec: LoadedSpec, region: str, last: LastBake, prices: PriceTable) -> Iterator[CostLine]:
    """Yield the cost of baking a spec that is launched in `region`, and of keeping its images for a month."""
    checked, key = spec.checked(), str(spec.key)
    kind = checked.launch.instance_types[0]
    hour = prices.instance(region, kind)
    minute = None if hour is None else hour / 60
    yield CostLine("instance", key, region, last.instance_minutes(""), "minutes", minute, kind)
    if spec.tests:
        yield CostLine("instance", key, region, last.instance_minutes("test-"), "minutes", minute, f"{kind}, test")
    is_ebs = isinstance(checked.output, EbsOutput)
    stored = prices.snapshot_gb_month if is_ebs else prices.bundle_gb_month
    everywhere = checked.publish.everywhere(region)
    for other in everywhere:
        storage = "snapshot" if is_ebs else "bundle"
        yield CostLine(
            "snapshot" if is_ebs else "bundle", key, other, last.size, "GB-month", stored.get(other), storage
        )
        if other != region:
            price = prices.transfer(region, other)
            yield CostLine("transfer", key, other, last.size, "GB", price, f"from {region}")


def total_cost(specs: Sequence[tuple[LoadedSpec, str, LastBake]], prices: PriceTable) -> Cost:
    """Return the cost of all specs that are baked."""
    return Cost(tuple(line for spec, region, last in specs for line in cost_of(spec, region, last, prices)))
