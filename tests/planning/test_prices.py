"""Tables of prices: the shipped one is sound, and nonsense in a user's own is explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagepipe.errors import UsageError
from imagepipe.planning.prices import load_prices
from imagepipe.spec.regions import REGIONS

OWN = {"format_version": 1, "date": "2026-11-01", "currency": "EUR", "snapshot_gb_month": {"us-east-1": 0.04}}


def test_the_shipped_table_is_dated_and_names_only_regions_that_exist() -> None:
    prices = load_prices(None)
    named = {*prices.instance_hour, *prices.snapshot_gb_month, *prices.bundle_gb_month, *prices.transfer_gb}
    assert named <= set(REGIONS)
    assert prices.source
    assert prices.instance("us-east-1", "t3.small") == 0.0208


def test_a_price_that_is_not_in_the_table_is_unknown_and_not_zero() -> None:
    prices = load_prices(None)
    assert prices.instance("us-east-1", "p5.48xlarge") is None
    assert prices.transfer("mars-north-1", "us-east-1") is None
    assert prices.transfer("us-east-1", "eu-west-3") == 0.02, "the price for any other region"


def test_a_user_s_own_table_replaces_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(OWN))
    prices = load_prices(tmp_path / "own.json")
    assert prices.currency == "EUR"
    assert prices.instance("us-east-1", "t3.small") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "the file: Input should be a valid dictionary"),
        ("[" * 100_000, "is not JSON"),
        (json.dumps({**OWN, "format_version": 2}), "format_version"),
        (json.dumps({**OWN, "date": "yesterday"}), "date"),
        (json.dumps({**OWN, "currency": "$"}), "currency"),
        (json.dumps({**OWN, "snapshot_gb_month": {"us-east-1": -1}}), "snapshot_gb_month.us-east-1"),
        (json.dumps({**OWN, "snapshot_gb_month": {"us-east-1": "0.05"}}), "snapshot_gb_month.us-east-1"),
        (json.dumps({**OWN, "snapshot_gb_month": {"us-east-1": float("nan")}}), "snapshot_gb_month.us-east-1"),
        (json.dumps({**OWN, "snapshots": {}}), "snapshots: Extra inputs are not permitted"),
    ],
    ids=["empty", "list", "deep", "version", "date", "currency", "negative", "text", "nan", "unknown-key"],
)
def test_nonsense_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.json").write_text(text)
    with pytest.raises(UsageError) as refused:
        load_prices(tmp_path / "own.json")
    assert message in str(refused.value)
    assert "copy " in str(refused.value.hint)


def test_a_table_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load_prices(path)
