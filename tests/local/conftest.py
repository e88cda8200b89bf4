"""A cloud for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.local.aws.harness import Cloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(root=tmp_path)
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def ec2(cloud: Cloud) -> Any:
    return cloud.client()
