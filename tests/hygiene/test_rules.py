"""The table of rules agrees with the spec, the documentation and the messages."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from imagepipe.hygiene.report import Finding, Report, ScanRequest, read_report
from imagepipe.hygiene.rules import RULES, match
from imagepipe.spec.models import HygieneRule

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "hygiene.md"


def test_a_spec_can_name_the_rules_that_there_are_and_no_others() -> None:
    assert get_args(HygieneRule) == tuple(rule.name for rule in RULES)


def test_the_documentation_has_every_rule() -> None:
    text = HOW_TO.read_text()
    assert [rule.name for rule in RULES if f"| `{rule.name}` |" not in text] == []


def test_every_rule_says_what_to_do() -> None:
    assert [rule.name for rule in RULES if not rule.advice or not rule.what] == []


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/root/.bash_history", "shell-history"),
        ("/.bash_history", "shell-history"),
        ("/root/x.bash_history", None),
        ("/root/.bash_history/x", None),
        ("/var/lib/cloud/instances/i-1/user-data.txt.i", "user-data"),
        ("/var/lib/cloud/instances/i-1/a/b", "cloud-init-data"),
        ("/srv/var/lib/cloud/instances/i-1/x", None),
        ("/etc/ssh/ssh_host_rsa_key.pub", None),
        ("/home/a/.aws/config", None),
        ("/home/a\nb/.aws/credentials", "aws-credentials"),
        ("/home/a/.aws/credentials\n", None),
        ("/etc/passwd", None),
    ],
)
def test_a_path_falls_under_its_rule(path: str, rule: str | None) -> None:
    found = match(path)
    assert (found.rule.name if found else None) == rule


def test_what_is_wanted_and_what_was_found_come_over_as_they_were() -> None:
    wanted = ScanRequest(("a", "b"), ("s\udce9cret\n",), "AAAA", ("/x",))
    assert ScanRequest.parse(wanted.line()) == wanted
    report = Report((Finding("a", "/b", "c"),), 1, 2, ("d",))
    assert read_report(["a line before", report.line(), "frozen"]) == report
    assert read_report(["nothing"]) is None


def test_a_report_that_came_in_pieces_is_read() -> None:
    report = Report(tuple(Finding("rule", f"/{number}", "x" * 100) for number in range(1000)), 1, 2)
    line = report.line()
    assert read_report([line[at : at + 65536] for at in range(0, len(line), 65536)]) == report
