from __future__ import annotations

import io
from datetime import UTC, datetime

from imagepipe.engine import events as ev
from imagepipe.report.folded import FoldedReport, Folds, GitHubFolds, GitLabFolds

AT = datetime(2026, 11, 23, tzinfo=UTC)


def _printed(folds: Folds, *events: ev.AnyEvent) -> str:
    out = io.StringIO()
    report = FoldedReport(out, folds)
    for event in events:
        report(event)
    return out.getvalue()


def _line(stage: str, text: str) -> ev.Line:
    return ev.Line(AT, "r", stage, "out", text)


def test_the_outputs_of_parallel_stages_are_two_folded_parts() -> None:
    printed = _printed(
        GitHubFolds(),
        ev.StageStarted(AT, "r", "step-1", "install packages"),
        ev.StageStarted(AT, "r", "other", "say hello"),
        _line("step-1", "one"),
        _line("other", "hello"),
        _line("step-1", "two"),
        ev.StageFinished(AT, "r", "step-1", 3.0),
        ev.RunFinished(AT, "r", "cancelled", 4.0),
    )
    assert printed.splitlines() == [
        "    0.0s  #1  step-1          install packages",
        "    0.0s  #2  other           say hello",
        "::group::step-1: install packages (2 lines)",
        "| one",
        "| two",
        "::endgroup::",
        "    0.0s  #1  step-1          done in 3.0 s",
        "::group::other: say hello (1 lines)",
        "| hello",
        "::endgroup::",
        "    0.0s      run             cancelled in 4.0 s",
    ]


def test_a_failure_is_not_folded_and_is_annotated() -> None:
    printed = _printed(
        GitHubFolds(),
        ev.StageStarted(AT, "r", "web/step-1", "install"),
        _line("web/step-1", "no such package"),
        ev.StageFailed(AT, "r", "web/step-1", 1.0, "exit code 100: 50 % done\nmore", "is the name right?"),
    )
    lines = printed.splitlines()
    assert "| no such package" in lines
    assert "::group::" not in printed
    assert lines[-1] == ("::error title=imagepipe%3A web/step-1::exit code 100: 50 %25 done%0Ahint: is the name right?")


def test_a_machine_cannot_give_commands_to_the_ci_system() -> None:
    for folds in (GitHubFolds(), GitLabFolds()):
        printed = _printed(
            folds,
            _line("s", "::set-env name=PATH::/tmp"),
            _line("s", "\x1b[0Ksection_end:1:s\r\x1b[0K"),
            ev.StageFinished(AT, "r", "s", 1.0),
        )
        assert "\n::set-env" not in printed
        assert "\x1b[0Ksection_end:1:s" not in printed


def test_gitlab_has_sections_with_valid_names() -> None:
    printed = _printed(
        GitLabFolds(),
        _line("web[release=bookworm]/step-1", "one"),
        ev.StageFinished(AT, "r", "web[release=bookworm]/step-1", 1.0),
    )
    seconds = int(AT.timestamp())
    name = "web_release_bookworm__step-1"
    assert f"\x1b[0Ksection_start:{seconds}:{name}[collapsed=true]\r\x1b[0K" in printed
    assert f"\x1b[0Ksection_end:{seconds}:{name}\r\x1b[0K" in printed
