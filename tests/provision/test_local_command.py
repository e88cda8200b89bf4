"""Programs that a step runs on this computer: their lines, their end, and that nothing of them is left."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from imagepipe.clock import Deadline, SystemClock
from imagepipe.communicator.ssh import Result, Watch
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import Cancelled
from imagepipe.provision.local_command import run_here

CLOCK = SystemClock()


PYTHON, SHELL = (sys.executable, "-uc"), ("sh", "-c")


def _run(
    script: str,
    folder: Path,
    *,
    program: tuple[str, ...] = PYTHON,
    seconds: float = 600,
    cancel: Cancel | None = None,
) -> tuple[Result, list[str]]:
    lines: list[str] = []
    watch = Watch(
        lambda stream, text: lines.append(f"{stream}: {text}"), Deadline.after(seconds, CLOCK), cancel or Cancel(CLOCK)
    )
    return run_here([*program, script], watch, env=os.environ, cwd=folder), lines


def _ends(pid: int) -> bool:
    until = time.monotonic() + 600
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}").exists()


def test_both_streams_reach_the_log_and_the_exit_code_is_the_programs(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getcwd()); print('no', file=sys.stderr); sys.exit(7)"
    result, lines = _run(script, tmp_path)
    assert result == Result(7)
    assert sorted(lines) == ["err: no", f"out: {tmp_path}"]


def test_a_program_that_a_signal_ended_has_no_exit_code(tmp_path: Path) -> None:
    result, _ = _run("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert result == Result(None)


def test_it_reads_nothing_from_our_terminal(tmp_path: Path) -> None:
    assert _run("import sys; print(repr(sys.stdin.read()))", tmp_path)[1] == ["out: ''"]


CHILD = "sleep 600 & echo $!"


def test_a_process_that_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    result, lines = _run(CHILD, tmp_path, program=SHELL)
    assert result == Result(0)
    assert _ends(int(lines[0].removeprefix("out: ")))


def test_the_deadline_ends_the_program_and_its_children(tmp_path: Path) -> None:
    result, lines = _run(f"{CHILD}; wait", tmp_path, program=SHELL, seconds=5)
    assert result.timed_out
    assert _ends(int(lines[0].removeprefix("out: ")))


@pytest.mark.parametrize("ignores", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_a_cancel_ends_the_program_even_if_it_ignores_the_signal(tmp_path: Path, ignores: str) -> None:
    cancel = Cancel(CLOCK)
    begun = tmp_path / "begun"

    def stop() -> None:
        while not begun.exists():
            time.sleep(0.02)
        cancel.set("stopped by the test")

    threading.Thread(target=stop, daemon=True).start()
    script = (
        f"{ignores}import os, time; open('begun.new', 'w').write(str(os.getpid())); os.rename('begun.new', 'begun')"
    )
    with pytest.raises(Cancelled):
        _run(f"{script}; time.sleep(600)", tmp_path, cancel=cancel)
    assert _ends(int(begun.read_text(encoding="utf-8")))


def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    watch = Watch(lambda *_: None, Deadline.after(60, CLOCK), Cancel(CLOCK))
    with pytest.raises(FileNotFoundError):
        run_here([str(tmp_path / "nothing")], watch, env=os.environ, cwd=tmp_path)
