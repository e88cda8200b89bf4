"""What goes wrong on the instance, in words for the user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

COMMAND_SECONDS = 600
PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"


class Trouble(Exception):
    """Something that the user can act on; the message goes to the controller."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def output_of(command: Sequence[str], *, doing: str, seconds: float = COMMAND_SECONDS) -> str:
    """What a command prints. Raises Trouble where it fails or is not there."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": PATHS}
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise Trouble(f"{doing}: the machine has no {command[0]}", "a provisioning step can install it") from error
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"{doing}: {command[0]} did not end in {seconds} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.decode(errors="replace").split())[-500:]
        raise Trouble(f"{doing}: {said or command[0] + ' failed'} (exit {done.returncode})")
    return done.stdout.decode(errors="replace")
