"""The list of regions against botocore's, which learns of new ones first."""

from __future__ import annotations

import json
from pathlib import Path

import botocore
import pytest

from imagepipe.partitions import partition
from imagepipe.spec.regions import REGIONS

NOT_FOR_EC2 = {"aws-global", "aws-cn-global", "aws-us-gov-global", "aws-iso-global", "aws-iso-b-global"}


@pytest.fixture
def known() -> set[str]:
    data = json.loads((Path(botocore.__file__).parent / "data/endpoints.json").read_text())
    return {region for partition in data["partitions"] for region in partition["regions"]} - NOT_FOR_EC2


def test_every_region_has_the_partition_that_botocore_gives_it() -> None:
    data = json.loads((Path(botocore.__file__).parent / "data/endpoints.json").read_text())
    known = {region: each["partition"] for each in data["partitions"] for region in each["regions"]}
    assert {region: partition(region) for region in REGIONS} == {region: known[region] for region in REGIONS}


def test_every_region_of_the_list_is_one_of_botocores(known: set[str]) -> None:
    assert known >= REGIONS


def test_the_list_lacks_few_of_botocores_regions(known: set[str]) -> None:
    """A new region is no reason to fail a build with a newer botocore; five mean that the list needs its update."""
    assert len(known - REGIONS) < 5, f"add to regions.py: {sorted(known - REGIONS)}"
