"""A dated table of prices, shipped with imagepipe or the user's own. A price that it lacks is unknown, never 0."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imagepipe.errors import UsageError
from imagepipe.regular_files import read_regular

SHIPPED = Path(__file__).with_name("prices.json")
ANY = "*"
"""Destination of a transfer price that holds for every region without a price of its own."""

Price = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False, strict=True)]


class PriceTable(BaseModel):
    """Prices by region, in one currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    date: date
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    source: str = ""
    instance_hour: dict[str, dict[str, Price]] = Field(default_factory=dict)
    """Price of an instance type for one hour, by region and type."""
    snapshot_gb_month: dict[str, Price] = Field(default_factory=dict)
    """Price of a GB in an EBS snapshot of the standard tier for one month."""
    bundle_gb_month: dict[str, Price] = Field(default_factory=dict)
    """Price of a GB in S3 for one month."""
    transfer_gb: dict[str, dict[str, Price]] = Field(default_factory=dict)
    """Price of a GB that leaves a region for another one, by source and destination."""

    def instance(self, region: str, instance_type: str) -> float | None:
        """Return the price of one hour; None if it is unknown."""
        return self.instance_hour.get(region, {}).get(instance_type)

    def transfer(self, source: str, destination: str) -> float | None:
        """Return the price of one GB; None if it is unknown."""
        prices = self.transfer_gb.get(source, {})
        return prices.get(destination, prices.get(ANY))


def load_prices(file: Path | None) -> PriceTable:
    """Read a table of prices; the shipped one without a file. Raises UsageError with every mistake in it."""
    path = file or SHIPPED
    try:
        raw = json.loads(read_regular(path))
    except OSError as error:
        raise UsageError(f"the price table {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the price table {path} is not JSON: {error}", hint=_hint()) from error
    try:
        return PriceTable.model_validate(raw)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UsageError(f"the price table {path} is wrong: {'; '.join(wrong[:5])}{more}", hint=_hint()) from error


def _hint() -> str:
    return f"copy {SHIPPED} and change its prices"
