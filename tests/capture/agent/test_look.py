"""What the agent says of the root that it bundles."""

from __future__ import annotations

from pathlib import Path

from imagepipe.capture.agent.frames import Wire
from imagepipe.capture.agent.root_image import REPORT, reported, without
from imagepipe.capture.instance_store.agent_messages import PreparedRoot
from imagepipe.hygiene.report import Finding, Report

REPORTED = Report(tuple(Finding("log", path, "a log") for path in ("/var/log/secure", "/var/login", "/srv/x")), 3, 9)


def test_what_the_image_does_not_get_is_no_finding() -> None:
    left = without(REPORTED, ("/var/log", "/srv/x"))
    assert [each.path for each in left.findings] == ["/var/login"]
    assert (left.files, left.size) == (3, 9)


def test_an_agent_after_the_one_that_looked_says_what_that_found(tmp_path: Path) -> None:
    assert reported(tmp_path) == ""
    (tmp_path / REPORT).write_text(REPORTED.line())
    sent: list[bytes] = []
    Wire(lambda count: b"", sent.append).send(method="tree", size=1, modified=2, extents=[], hygiene=reported(tmp_path))
    stream = b"".join(sent)

    def read(count: int) -> bytes:
        nonlocal stream
        piece, stream = stream[:count], stream[count:]
        return piece

    heard = PreparedRoot.receive(Wire(read, lambda block: None), lambda text: None)
    assert heard.report == REPORTED
