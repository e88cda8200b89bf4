from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "imagepipe/cli/completions"
BASH = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_imagepipe
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """\
fpath=($PWD/functions $fpath)
autoload -Uz compinit; compinit -u -D
compadd() {  # prints the matches; zsh would skip a list while more is typed
    local -a matches
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\\ * ]]; then
        builtin compadd -A matches "$@"
        (( $#matches )) && print -rl -- $matches >>$PWD/matches
    fi
    builtin compadd "$@"
}
bindkey '^I' list-choices
PROMPT=READY
"""
ZSH_TERMINAL = """\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'source ./setup.zsh'
zpty -r shell all '*READY*'  # until then, the terminal itself would take control-U
zpty -n -w shell "$1"$'\\t\\C-u'
zpty -w shell "print EN''DED"
zpty -r shell all '*ENDED*'
zpty -d shell
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with specs, and with two runs in its state; the second is the newer one."""
    (tmp_path / "specs").mkdir()
    for name in ("web.yaml", "my web.yaml", "notes.txt"):
        (tmp_path / "specs" / name).touch()
    for age, run in enumerate(("22222222", "11111111")):
        made = tmp_path / "state/imagepipe/runs" / run
        made.mkdir(parents=True)
        os.utime(made, (1_000_000_000 + age, 1_000_000_000 + age))
    return tmp_path


def _run(folder: Path, *command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def _bash(folder: Path, *words: str) -> list[str]:
    out = _run(folder, "bash", "--norc", "-c", BASH, "bash", str(SCRIPTS / "imagepipe.bash"), "imagepipe", *words)
    return [line for line in out.split("\n") if line]


def _fish(folder: Path, line: str) -> list[str]:
    code = f"source {SCRIPTS}/imagepipe.fish; complete -C '{line}'"
    return [each.partition("\t")[0] for each in _run(folder, "fish", "--no-config", "-c", code).splitlines()]


def _zsh(folder: Path, line: str) -> list[str]:
    (folder / "functions").mkdir(exist_ok=True)
    (folder / "functions/_imagepipe").write_bytes((SCRIPTS / "imagepipe.zsh").read_bytes())
    (folder / "setup.zsh").write_text(ZSH)
    (folder / "matches").write_text("")
    _run(folder, "zsh", "-f", "-c", ZSH_TERMINAL, "zsh", line)
    return (folder / "matches").read_text().splitlines()


def test_the_scripts_are_not_stale(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "docs.generate.completion", str(tmp_path)], check=True, cwd=ROOT)
    for script in tmp_path.iterdir():
        assert (SCRIPTS / script.name).read_text() == script.read_text(), "run: make docs"
    assert {script.name for script in tmp_path.iterdir()} == {script.name for script in SCRIPTS.iterdir()}


def test_bash_completes_commands_and_their_options(folder: Path) -> None:
    assert _bash(folder, "vali") == ["validate"]
    assert _bash(folder, "images", "pr") == ["prune"]
    assert _bash(folder, "--", "") == _bash(folder, "")
    assert {"--local", "--only"} <= set(_bash(folder, "build", "specs/web.yaml", "--"))


def test_bash_completes_spec_files_whatever_their_names(folder: Path) -> None:
    assert sorted(_bash(folder, "build", "specs/")) == ["specs/my web.yaml", "specs/web.yaml"]
    assert _bash(folder, "validate", "sp") == ["specs"]


def test_bash_takes_the_word_after_an_option_for_its_value(folder: Path) -> None:
    assert _bash(folder, "build", "--var", "") == []
    assert _bash(folder, "build", "--var", "images", "specs/w") == ["specs/web.yaml"]
    assert _bash(folder, "runs", "--format", "j") == ["json"]
    assert _bash(folder, "runs", "--format", "=", "j") == ["json"]
    assert _bash(folder, "runs", "--format", "=") == ["text", "json"]


def test_bash_completes_runs_newest_first(folder: Path) -> None:
    assert _bash(folder, "show", "") == ["latest", "11111111", "22222222"]


def test_fish_completes_commands_values_specs_and_runs(folder: Path) -> None:
    assert _fish(folder, "imagepipe vali") == ["validate"]
    assert _fish(folder, "imagepipe images pr") == ["prune"]
    assert _fish(folder, "imagepipe runs --format j") == ["json"]
    assert _fish(folder, "imagepipe show ") == ["latest", "11111111", "22222222"]
    assert _fish(folder, "imagepipe build --var images specs/w") == ["specs/web.yaml"]


def test_zsh_completes_commands_values_specs_and_runs(folder: Path) -> None:
    assert "prune" in _zsh(folder, "imagepipe images ")
    assert "--only" in _zsh(folder, "imagepipe build --")
    assert _zsh(folder, "imagepipe runs --format ") == ["text", "json"]
    assert _zsh(folder, "imagepipe show ") == ["latest", "11111111", "22222222"]
    assert sorted(_zsh(folder, "imagepipe build specs/")) == ["my\\ web.yaml", "web.yaml"]
