"""EC2's regions, availability zones and instance types, as moto's data has them."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from imagepipe.local.aws.moto.data_files import read_once

with read_once():
    from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
    from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES


@lru_cache(maxsize=256)  # a caller can name any region
def zones(region: str) -> tuple[str, ...]:
    """List the availability zones of a region."""
    return tuple(
        zone.name
        for zone in RegionsAndZonesBackend.zones.get(region, ())
        if getattr(zone, "zone_type", "availability-zone") == "availability-zone"
    )


@cache
def zone_id(zone: str) -> str | None:
    """Return the id of an availability zone: `use1-az6` of us-east-1a."""
    for rows in RegionsAndZonesBackend.zones.values():
        for row in rows:
            if row.name == zone:
                return str(row.zone_id)
    return None


@cache
def regions() -> frozenset[str]:
    """List the regions that have availability zones."""
    return frozenset(name for name in RegionsAndZonesBackend.zones if zones(name))


def offerings(location_type: str, region: str) -> list[dict[str, Any]]:
    """List the instance types that a region has, by its regions, zones or zone ids."""
    found: list[dict[str, Any]] = INSTANCE_TYPE_OFFERINGS.get(location_type, {}).get(region, [])
    return found


def instance_type(name: str) -> dict[str, Any] | None:
    """Return EC2's description of an instance type."""
    found: dict[str, Any] | None = INSTANCE_TYPES.get(name)
    return found
