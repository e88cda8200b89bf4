"""The cost of a plan: instance time, storage for each month, and transfer. Unknown prices and sizes stay unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Literal

from imagepipe.dataclass import dataclass

MINIMUM_SECONDS = 60
"""EC2 bills at least a minute of a Linux instance (EC2 pricing page)."""

Kind = Literal["instance", "snapshot", "bundle", "transfer"]


@dataclass(frozen=True, slots=True)
class Amount:
    """A quantity between two limits; None if it is not known."""

    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return "unknown"
        low, high = _shown(self.low), _shown(self.high)
        return low if low == high else f"{low} to {high}"


UNKNOWN = Amount(None, None)


def _shown(number: float) -> str:
    """Return a number with two decimals; with four if it is small."""
    return f"{number:.2f}" if number >= 1 or number == 0 else f"{number:.4f}"


@dataclass(frozen=True, slots=True)
class CostLine:
    """One item of the cost."""

    kind: Kind
    spec: str
    region: str
    quantity: Amount
    unit: str
    """`minutes`, `GB` or `GB-month`."""
    price: float | None
    """Price of one unit; None if it is unknown."""
    detail: str = ""

    @property
    def is_monthly(self) -> bool:
        """True if the cost arises every month, as long as the image exists."""
        return self.kind in ("snapshot", "bundle")

    def cost(self) -> Amount:
        """Return the cost; unknown if the quantity or the price is."""
        if self.price is None or self.quantity.low is None or self.quantity.high is None:
            return UNKNOWN
        return Amount(self.quantity.low * self.price, self.quantity.high * self.price)


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of the known costs, and the number of those that are not known."""

    known: Amount
    unknown: int

    def describe(self, currency: str) -> str:
        """Return the sum as text. It says how many items are missing from it."""
        missing = f", without {self.unknown} unknown item{'' if self.unknown == 1 else 's'}" if self.unknown else ""
        return f"{self.known} {currency}{missing}"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a plan."""

    lines: tuple[CostLine, ...] = field(default=())

    def once(self) -> Total:
        """Return the cost of the build itself."""
        return _sum(line for line in self.lines if not line.is_monthly)

    def monthly(self) -> Total:
        """Return the cost of keeping the new images for a month."""
        return _sum(line for line in self.lines if line.is_monthly)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the lines for `--format json`. An unknown value is null."""
        return [
            {
                "kind": line.kind,
                "spec": line.spec,
                "region": line.region,
                "detail": line.detail,
                "unit": line.unit,
                "quantity": _range(line.quantity),
                "price": line.price,
                "cost": _range(line.cost()),
                "monthly": line.is_monthly,
            }
            for line in self.lines
        ]


def total_json(total: Total) -> dict[str, Any]:
    """Return a sum for `--format json`."""
    return {"known": _range(total.known), "unknown_items": total.unknown}


def _sum(lines: Iterable[CostLine]) -> Total:
    low = high = 0.0
    unknown = 0
    for line in lines:
        cost = line.cost()
        if cost.low is None or cost.high is None:
            unknown += 1
        else:
            low, high = low + cost.low, high + cost.high
    return Total(Amount(low, high), unknown)


def _range(amount: Amount) -> list[float] | None:
    if amount.low is None or amount.high is None:
        return None
    return [round(amount.low, 6), round(amount.high, 6)]
