"""The process that holds a disk of a container ends with the container's shell."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from imagepipe.local.host.processes import start_time
from imagepipe.local.machines.nspawn import holder


def _held(pid: int, started: str, held: int) -> int:
    """Start a holder that inherits a descriptor; its exit status."""
    command = [sys.executable, "-I", "-S", holder.__file__, str(pid), started, "/dev/loop0"]
    done = subprocess.run(command, pass_fds=(held,), capture_output=True, check=False, timeout=20)
    return done.returncode


def _is_closed(end: int, seconds: float) -> bool:
    readable, _, _ = select.select([end], [], [], seconds)
    return bool(readable)


def test_a_disk_is_held_until_the_shell_has_ended() -> None:
    end, held = os.pipe()
    with subprocess.Popen(["sleep", "60"]) as shell:
        assert _held(shell.pid, start_time(shell.pid), held) == 0
        os.close(held)
        assert not _is_closed(end, 0.05)
        shell.kill()
    assert _is_closed(end, 10)
    os.close(end)


def test_a_process_id_that_was_given_to_somebody_else_holds_nothing() -> None:
    end, held = os.pipe()
    with subprocess.Popen(["sleep", "60"]) as somebody:
        assert _held(somebody.pid, "1", held) == 1
        somebody.kill()
        assert _held(somebody.pid, "1", held) == 1
    os.close(held)
    assert _is_closed(end, 10)
    os.close(end)
