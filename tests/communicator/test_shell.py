"""Scripts, against a real OpenSSH server."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from imagepipe.communicator.shell import Script
from imagepipe.errors import Cancelled
from tests.communicator.conftest import Shell


def test_a_script_stops_at_the_first_error_and_at_an_unset_name(shell: Shell) -> None:
    assert shell.script(Script("false\necho never\n")).code == 1
    assert shell.script(Script("false | true\necho never\n")).code == 1
    assert shell.script(Script("echo $nothing\necho never\n")).code != 0
    assert "never" not in shell.out


def test_arguments_and_environment_arrive_as_they_are(shell: Shell) -> None:
    awkward = "a 'b' \"c\" $d `e` \\ * \t\nnext"
    script = Script('printf "%s|" "$1" "$X"', args=(awkward,), env={"X": awkward})
    assert shell.script(script).code == 0
    assert "\n".join(shell.out) == f"{awkward}|{awkward}|"


def test_a_script_in_another_language_runs_by_its_first_line(shell: Shell) -> None:
    text = "#!/usr/bin/env python3\nimport os, sys\nprint(sys.argv[1], os.environ['X'])\n"
    assert shell.script(Script(text, args=("a",), env={"X": "b"})).code == 0
    assert shell.out == ["a b"]


def test_an_interpreter_can_be_given(shell: Shell) -> None:
    assert shell.script(Script("print(6 * 7)", interpreter="python3")).code == 0
    assert shell.out == ["42"]


def test_the_script_cannot_eat_itself_by_reading_its_input(shell: Shell) -> None:
    assert shell.script(Script("cat\necho after\n")).code == 0
    assert shell.out == ["after"]


def test_neither_script_nor_environment_stands_in_any_argument(shell: Shell) -> None:
    script = Script(
        "tr '\\0' ' ' </proc/*/cmdline 2>/dev/null | cat; cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        env={"TOKEN": "canary-in-env"},
    )
    assert shell.script(Script("# canary-in-script\n" + script.text, env=script.env)).code in (0, 1)
    assert "canary" not in "".join(shell.out)


def test_nothing_of_a_script_stays_on_the_machine(shell: Shell) -> None:
    shell.script(Script("echo here", env={"A": "b"}))
    shell.script(Script("exit 1"))
    assert not list(Path("/dev/shm").glob("imagepipe-*"))


def test_a_script_has_the_machines_own_umask(shell: Shell) -> None:
    shell.script(Script("umask"))
    assert shell.out == ["0022"]


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_script_that_we_stop_listening_to_is_ended_with_what_it_started(
    shell: Shell, how: str, tmp_path: Path
) -> None:
    mark = tmp_path / "ticks"
    script = Script('while :; do echo tick >>"$1"; sleep 0.1; done & wait', args=(str(mark),))
    if how == "deadline":
        assert shell.script(script, seconds=0.5).timed_out
    else:
        threading.Timer(0.5, lambda: shell.cancel.set("got SIGINT")).start()
        with pytest.raises(Cancelled):
            shell.script(script)
    time.sleep(0.5)
    size = mark.stat().st_size
    time.sleep(0.5)
    assert mark.stat().st_size == size, "nothing writes any more"
    assert not list(Path("/dev/shm").glob("imagepipe-*"))
