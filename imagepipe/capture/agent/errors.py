"""Errors on the instance, with messages for the user."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

COMMAND_SECONDS = 600
PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"


class AgentError(Exception):
    """An error that the user can act on; the controller gets the message."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def output_of(
    command: Sequence[str], *, doing: str, seconds: float | None = COMMAND_SECONDS, stdin: bytes | None = None
) -> str:
    """Return a command's output; `stdin` is fed to it.

    Raises AgentError if the command fails, does not exist or takes too long.
    """
    try:
        done = subprocess.run(
            list(command),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", "PATH": PATHS},
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise AgentError(f"{doing}: the machine has no {command[0]}", "install it in a provisioning step") from error
    except subprocess.TimeoutExpired as error:
        raise AgentError(f"{doing}: {command[0]} did not end in {seconds} s") from error
    if done.returncode != 0:
        output = " ".join((done.stdout + b" " + done.stderr).decode(errors="replace").split())[-500:]
        raise AgentError(f"{doing}: {output or command[0] + ' failed'} (exit {done.returncode})")
    return done.stdout.decode(errors="replace")
