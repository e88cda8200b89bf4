"""The record of retired images."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.retention.bakes import BakedImage
from imagepipe.retention.record import FILE_NAME, RetirementRecord
from imagepipe.retention.rules import Step

AT = datetime(2026, 11, 29, tzinfo=UTC)
DESCRIBED = {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1"}}]}
IMAGE = BakedImage("ami-1", "us-east-1", "web-1", "available", AT, {}, described=DESCRIBED)


@pytest.mark.parametrize("rest", ["", '{"event": "beg', '{"event": "begun"}', "\ufffd"])
def test_a_line_that_was_cut_takes_no_other_with_it(tmp_path: Path, rest: str) -> None:
    record = RetirementRecord(tmp_path / FILE_NAME, {"region": "us-east-1"}, SystemClock())
    record.begin(IMAGE, Step.DEPRECATE)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write(rest)
    record.begin(IMAGE, Step.DEREGISTER)
    assert [(entry.id, entry.snapshots) for entry in record.unfinished()] == [("ami-1", ("snap-1",))]
    record.done(IMAGE, Step.DEREGISTER)
    assert record.unfinished() == []
