from __future__ import annotations

import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imagepipe.cli.build import build
from imagepipe.cli.resume import resume
from imagepipe.cli.run_options import GROUPS

DAY = timedelta(hours=24)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--keep-on-failure", "web.yaml"], DAY),
        (["web.yaml", "--keep-on-failure"], DAY),
        (["--keep-on-failure=90m", "web.yaml"], timedelta(minutes=90)),
        (["web.yaml"], None),
    ],
    ids=["before the spec", "after it", "with a duration", "not at all"],
)
@pytest.mark.parametrize("command", [build, resume], ids=["build", "resume"])
def test_keep_on_failure_may_have_a_duration_and_does_not_take_the_next_word(
    command: click.Command, words: list[str], kept: timedelta | None
) -> None:
    params = command.make_context(command.name, words).params
    assert params["keep_on_failure"] == kept
    assert "web.yaml" in (params.get("specs") or (params["run"],))


@pytest.mark.parametrize("command", [build, resume], ids=["build", "resume"])
def test_build_and_resume_report_in_the_same_way(command: click.Command) -> None:
    words = ["7f3a", "--format", "json", "--junit", "tests.xml", "--timeout", "2h"]
    params = command.make_context(command.name, words).params
    assert (params["output"], params["junit"], params["timeout"]) == ("json", Path("tests.xml"), timedelta(hours=2))


@pytest.mark.parametrize("word", ["soon", "0h", "1w", "2"])
def test_a_text_that_is_not_a_duration_is_refused(word: str) -> None:
    with pytest.raises(click.UsageError, match="is not a duration: write 90m, 3h or 2d"):
        build.make_context("build", [f"--keep-on-failure={word}", "web.yaml"])


def test_the_help_of_a_build_has_every_option_once_and_each_group_is_of_options_that_exist() -> None:
    every = {each.name for command in (build, resume) for each in command.params}
    assert {name for names in GROUPS.values() for name in names} <= every
    text = CliRunner().invoke(build, ["--help"]).output
    for option in build.params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (?:-. ?, )?{option.opts[-1]}\b(?!-)", text, re.M)) == 1, option.opts
    assert re.findall(r"^([A-Z].*):$", text, re.M)[:-1] == list(GROUPS)


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["bild"], "error: no such command 'bild'. Did you mean 'build'?", "see imagepipe --help"),
        (["show"], "error: missing argument 'RUN'", "see imagepipe show --help"),
        (["build", "x", "--timeout", "5x"], "error: invalid value for '--timeout': '5x' is not", "see imagepipe build"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_an_error_of_the_command_line_looks_like_all_others(words: list[str], error: str, hint: str) -> None:
    code = "import sys; sys.argv[0] = 'imagepipe'; from imagepipe.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(error)
    assert f"\n  hint: {hint}" in done.stderr
    assert "Usage:" not in done.stderr
