"""Scripts, against a real OpenSSH server."""

from __future__ import annotations

import os
import re
import secrets
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagepipe.communicator.shell import Script, run_script
from imagepipe.errors import Cancelled
from imagepipe.spec.script_texts import SET_BY_SHELLS
from tests.communicator.conftest import Shell
from tests.fuzzing import NO_CHECKS
from tests.local.aws.harness import until
from tests.signals import not_default


def test_a_script_stops_at_the_first_error_and_at_an_unset_name(shell: Shell) -> None:
    assert shell.script(Script("false\necho never\n")).code == 1
    assert shell.script(Script("false | true\necho never\n")).code == 1
    assert shell.script(Script("echo $nothing\necho never\n")).code != 0
    assert "never" not in shell.out


@pytest.mark.skipif(os.geteuid() != 0, reason="the test's server logs in as the test's user")
def test_root_runs_scripts_without_sudo_which_its_image_may_lack(shell: Shell) -> None:
    assert shell.script(Script('[ -z "${SUDO_USER-}" ] && id -un', sudo=True)).code == 0, shell.lines
    assert shell.out == ["root"]


def test_arguments_and_environment_arrive_as_they_are(shell: Shell) -> None:
    awkward = "a 'b' \"c\" $d `e` \\ * \t\nnext"
    script = Script('printf "%s|" "$1" "$X"', args=(awkward,), env={"X": awkward})
    assert shell.script(script).code == 0
    assert "\n".join(shell.out) == f"{awkward}|{awkward}|"


def test_a_script_in_another_language_runs_by_its_first_line(shell: Shell) -> None:
    text = "#!/usr/bin/env python3\nimport os, sys\nprint(sys.argv[1], os.environ['X'])\n"
    assert shell.script(Script(text, args=("a",), env={"X": "b"})).code == 0
    assert shell.out == ["a b"]


def test_the_options_of_the_first_line_count_beside_those_that_stop_at_an_error(shell: Shell) -> None:
    assert shell.script(Script("#!/bin/bash -x\necho one\nfalse\necho never\n")).code == 1
    assert shell.out == ["one"]
    assert "+ echo one" in shell.err
    assert not [line for line in shell.err if "BASH_ENV" in line or "trap" in line], "our own commands are not traced"
    assert shell.script(Script("#!/usr/bin/env -S bash +e\nfalse\necho on\n")).code == 0


def test_a_login_shell_reads_its_profile_first_without_our_options(shell: Shell) -> None:
    assert shell.script(Script("#!/bin/bash -l\nfalse\necho never\n")).code == 1
    assert shell.script(Script("#!/bin/bash --login\nshopt -o errexit\n", args=("a b",))).code == 0
    assert shell.out[-1].split() == ["errexit", "on"]


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("true\n  grep -q nobodys /etc/passwd && false\n[ 1 = 2 ]\n", "line 3 failed with exit code 1: [ 1 = 2 ]"),
        ("f() {\n  false\n}\nf\n", "line 2 failed with exit code 1: false"),
        ("true\nfalse | cat\n", "line 2 failed with exit code 1: false | cat"),
        ("x=$(exit 7)\n", "line 1 failed with exit code 7: x=$(exit 7)"),
        ("set -C\n(\n  exit 3\n)\n", "failed with exit code 3"),
    ],
)
def test_a_command_that_fails_without_a_word_is_named_with_its_line(shell: Shell, text: str, failed: str) -> None:
    assert shell.script(Script(text)).code != 0
    assert failed in shell.err[-1]


@pytest.mark.parametrize(
    "text",
    [
        "if ! false; then true; fi\nfalse || true\nset +e\nfalse\ntrue\n",
        "false & wait $! || true\nexit 5\n",
        "trap 'echo mine >&2' ERR\nfalse\n",
        "#!/bin/bash +e\nfalse\nexit 1\n",
    ],
)
def test_nothing_is_named_where_no_command_ended_the_script(shell: Shell, text: str) -> None:
    shell.script(Script(text))
    assert not [line for line in shell.err if line.startswith("imagepipe:")]


def test_a_script_is_run_byte_for_byte(shell: Shell) -> None:
    latin = "# caf\u00e9\nprintf '%s' 'caf\u00e9' | od -An -tx1\n".encode("latin-1")
    assert shell.script(Script(latin)).code == 0
    assert shell.out[-1].split()[-1] == "e9"
    with_archive = b'#!/bin/sh\ntail -c 6 "$0" | od -An -tx1\nexit 0\n' + bytes([0, 255, 10, 13, 0, 200])
    assert shell.script(Script(with_archive)).code == 0
    assert shell.out[-1].split() == ["00", "ff", "0a", "0d", "00", "c8"]


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
    assert shell.script(Script("# canary-in-script\n" + str(script.content), env=script.env)).code in (0, 1)
    assert "canary" not in "".join(shell.out)


def test_nothing_of_a_script_stays_on_the_machine(shell: Shell) -> None:
    shell.script(Script('dirname "$0"', env={"A": "b"}))
    shell.script(Script('dirname "$0"; exit 1'))
    assert [path for path in shell.out if path.startswith("/dev/shm/imagepipe-")] == shell.out
    assert not [path for path in shell.out if Path(path).exists()]


def test_a_script_has_the_machines_own_umask(shell: Shell) -> None:
    shell.script(Script("umask"))
    assert shell.out == ["0022"]


@pytest.mark.parametrize("how", ["deadline", "cancel"])
def test_a_script_that_we_stop_listening_to_is_ended_with_what_it_started(
    shell: Shell, how: str, tmp_path: Path
) -> None:
    mark = tmp_path / "ticks"
    script = Script('dirname "$0"; while :; do echo tick >>"$1"; sleep 0.1; done & wait', args=(str(mark),))
    if how == "deadline":
        assert shell.script(script, seconds=3).timed_out
    else:

        def cancel() -> None:
            until(lambda: mark.exists() and shell.out)
            shell.cancel.set("got SIGINT")

        threading.Thread(target=cancel, daemon=True).start()
        with pytest.raises(Cancelled):
            shell.script(script)

    def is_quiet() -> bool:
        size = mark.stat().st_size
        time.sleep(1)
        return mark.stat().st_size == size

    until(is_quiet)
    assert not Path(shell.out[0]).exists()


RUNNERS_NAMES = ("d", "n", "i", "u", "p", "e", "t", "folder", "script", "environment", "imagepipe_folder")


@pytest.mark.parametrize("name", [*RUNNERS_NAMES, "PATH", "HOME", "TMPDIR", "LC_ALL", "POSIXLY_CORRECT", "CDPATH"])
def test_a_name_in_the_environment_changes_nothing_but_the_script(shell: Shell, tmp_path: Path, name: str) -> None:
    """The runner once had its folder in a variable named `d`, and deleted that folder at the end."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "canary").touch()
    result = shell.script(Script(f'/usr/bin/printf "%s|" "${{{name}}}" "$1"', args=("one",), env={name: str(app)}))
    assert (result.code, shell.out) == (0, [f"{app}|one|"]), shell.lines
    assert (app / "canary").exists()


PRINT_ENVIRONMENT = "import os, sys\nsys.stdout.write(os.environb[sys.argv[1].encode()].hex() + '\\n')\n"
NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,12}\Z").filter(lambda name: name not in SET_BY_SHELLS)
VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=25, deadline=None, suppress_health_check=NO_CHECKS)
@given(NAMES, VALUES)
def test_every_value_arrives_byte_for_byte(shell: Shell, name: str, value: str) -> None:
    shell.lines.clear()
    script = Script(PRINT_ENVIRONMENT, args=(name,), env={name: value}, interpreter="/usr/bin/python3")
    assert shell.script(script).code == 0, shell.lines
    assert bytes.fromhex(shell.out[-1]) == value.encode()


@pytest.mark.parametrize("interpreter", ["/bin/dash", "/bin/bash"])
def test_names_that_a_shell_sets_itself_are_known(shell: Shell, interpreter: str) -> None:
    """Every other variable of a shell can be given a value, and the script gets it."""
    shell.script(Script("set", interpreter=f"{interpreter} --" if "bash" in interpreter else interpreter))
    known = {found[1] for line in shell.out if (found := re.match(r"([A-Za-z_][A-Za-z0-9_]*)=", line))}
    names = sorted(known - SET_BY_SHELLS)
    text = "".join(f'printf "%s\\n" "{name}=${{{name}-unset}}"\n' for name in names)
    shell.lines.clear()
    shell.script(Script(text, env=dict.fromkeys(names, "/mine"), interpreter=interpreter))
    assert shell.out == [f"{name}=/mine" for name in names]


AS_A_LOGIN_HAS_IT = r"""
grep -E '^(Sig(Blk|Ign)|NoNewPrivs|Cap...|Groups|Uid)' /proc/self/status; cat /proc/self/limits; umask; pwd; nice
cat /proc/self/oom_score_adj; for fd in 3 4 5 6 7 8 9; do [ -e /dev/fd/$fd ] && echo "fd $fd"; done; env | sort
"""


def test_a_script_has_what_a_command_of_the_user_has(shell: Shell) -> None:
    """Signals, limits, umask, folder, open files, environment: `ssh USER@HOST COMMAND` is the measure."""
    assert shell.run(f"/bin/dash -c '{AS_A_LOGIN_HAS_IT.replace(chr(39), chr(34))}'").code == 0
    expected = [line for line in shell.out if not line.startswith(("_=", "SHLVL=", "OLDPWD="))]
    assert not not_default(expected), "the server's own are the default"
    shell.lines.clear()
    assert shell.script(Script(AS_A_LOGIN_HAS_IT.replace(chr(39), chr(34)), interpreter="/bin/dash")).code == 0
    assert [line for line in shell.out if not line.startswith(("_=", "SHLVL=", "OLDPWD="))] == expected


@pytest.mark.parametrize("name", ["INT", "QUIT", "TERM", "HUP", "PIPE", "XFSZ"])
@pytest.mark.parametrize("interpreter", [None, "/bin/dash", "/usr/bin/python3"])
def test_each_signal_ends_what_a_script_starts(shell: Shell, name: str, interpreter: str | None) -> None:
    """Ignored signals are inherited: a process that began with this one ignored would survive it."""
    command = f"kill -{name} $$; echo survived"
    text = f"sh -c '{command}' || echo $?\n"
    if interpreter == "/usr/bin/python3":
        text = f"import subprocess\nprint(128 - subprocess.run(['sh', '-c', '{command}']).returncode)\n"
    assert shell.script(Script(text, interpreter=interpreter)).code == 0
    assert shell.out == [str(128 + getattr(signal, f"SIG{name}"))]


@pytest.mark.parametrize(
    "start",
    [
        "nohup sleep 600 &",
        "sleep 600 &",
        "setsid sleep 600 >/dev/null &",
        "setsid sleep 600 2>/dev/null &",
        "(while :; do echo noise; sleep 0.01; done) & sleep 600 &",
        "exec sleep 600 & ",
    ],
)
def test_a_script_ends_though_a_process_holds_its_output_which_is_named(shell: Shell, start: str) -> None:
    text = f"{start}\necho pid $!\necho started\necho complained >&2\nprintf 'no line end'\nexit 7"
    mark = f"held-{secrets.token_hex(8)}"
    script = Script(text, env={"OURS": mark})
    try:
        result = shell.script(script, seconds=120)
        assert (result.code, result.timed_out) == (7, False)
        first, *own = [text for line in shell.out if (text := line.replace("noise", ""))]
        assert own == ["started", "no line end"]
        assert shell.err[-1] == "complained"
        assert f"sleep ({first.split()[1]})" in result.holders
    finally:
        for process in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark.encode() in process.read_bytes():
                    os.kill(int(process.parent.name), signal.SIGKILL)


def test_a_script_whose_background_process_has_files_of_its_own_holds_nothing(shell: Shell) -> None:
    result = shell.script(Script("sleep 30 >/dev/null 2>&1 & echo $!"))
    os.kill(int(shell.out[0]), signal.SIGKILL)
    assert (result.code, result.holders) == (0, ())


def test_no_output_is_lost_at_the_end_of_a_script(shell: Shell) -> None:
    text = "i=0; while [ $i -lt 20000 ]; do echo line $i; echo error $i >&2; i=$((i+1)); done; printf end\n"
    text += "sleep 600 & echo $! >&2"
    result = shell.script(Script(text))
    os.kill(int(shell.err[-1]), signal.SIGKILL)
    assert result.code == 0
    assert shell.out == [*(f"line {i}" for i in range(20000)), "end"]
    assert shell.err[:-1] == [f"error {i}" for i in range(20000)]


def test_what_the_callback_of_a_line_raises_ends_the_command(shell: Shell) -> None:
    def refuse(stream: str, text: str) -> None:
        raise ValueError(text)

    watch = replace(shell.watch(300), on_line=refuse)
    with pytest.raises(ValueError, match="first"):
        run_script(shell.connection, Script("echo first; sleep 600"), watch)
