from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.aws.harness import Cloud
from tests.state.shared import Machine, make_bucket


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    (tmp_path / "cloud").mkdir()
    cloud = Cloud(root=tmp_path / "cloud")
    cloud.start()
    make_bucket(cloud)
    yield cloud
    cloud.stop()


@pytest.fixture
def here(cloud: Cloud, tmp_path: Path) -> Machine:
    return Machine(cloud, tmp_path / "here")


@pytest.fixture
def there(cloud: Cloud, tmp_path: Path) -> Machine:
    """Another machine."""
    return Machine(cloud, tmp_path / "there")
