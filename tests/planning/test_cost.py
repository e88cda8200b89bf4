"""Costs: known ones are added, and unknown ones are counted, but never as 0."""

from __future__ import annotations

from imagepipe.planning.cost import UNKNOWN, Amount, Cost, CostLine
from imagepipe.planning.estimate import LastBake


def _line(quantity: Amount, price: float | None, kind: str = "instance") -> CostLine:
    return CostLine(kind, "web", "us-east-1", quantity, "minutes", price)  # type: ignore[arg-type]


def test_a_sum_has_a_range_and_says_how_many_items_it_lacks() -> None:
    cost = Cost((_line(Amount(10, 20), 0.5), _line(Amount(1, 1), None), _line(UNKNOWN, 2.0)))
    assert cost.once().describe("USD") == "5.00 to 10.00 USD, without 2 unknown items"
    assert cost.monthly().describe("USD") == "0.00 USD"


def test_storage_is_a_monthly_cost() -> None:
    cost = Cost((_line(Amount(8, 8), 0.05, "snapshot"), _line(Amount(3, 3), 0.02, "transfer")))
    assert cost.monthly().describe("USD") == "0.4000 USD"
    assert cost.once().describe("USD") == "0.0600 USD"


def test_an_unknown_price_is_null_in_json() -> None:
    (row,) = Cost((_line(Amount(10, 10), None),)).to_json()
    assert (row["price"], row["cost"], row["quantity"]) == (None, None, [10, 10])


def test_the_minutes_of_an_instance_are_those_of_the_stages_on_it_and_at_least_one() -> None:
    stages = {"source": 500.0, "launch": 20.0, "connect": 40.0, "capture": 120.0, "keep": 300.0, "test-launch": 5.0}
    bake = LastBake(stages)
    assert bake.instance_minutes("") == Amount(3, 3)
    assert bake.instance_minutes("test-") == Amount(1, 1)
    assert LastBake({}).instance_minutes("") == UNKNOWN
