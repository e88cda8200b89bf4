"""Scripts on a machine: what they get by standard input never stands in an argument or on its disk.

Script and environment go over standard input into a folder of the machine's memory (/dev/shm) that is gone when
the script ends. So neither a process list nor the captured disk has them.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from imagepipe.clock import Clock, Deadline
from imagepipe.communicator.ssh import Connection, Disconnected, NotConnected, Result, Watch

SHELLS = ("sh", "bash", "dash", "ash")


@dataclass(frozen=True, slots=True)
class Script:
    """Something to run."""

    text: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    sudo: bool = False
    interpreter: str | None = None
    """A command line that is given the script's path; None: what its `#!` line names, for a shell (or no such
    line) bash where there is one, else sh, which then stops at the first error."""


# $1 is the folder, $2 the length of the environment in bytes, $3 the interpreter; the rest are arguments.
# `cat` takes all of standard input first: a script must not be read in part by what it starts.
_RUNNER = r"""
u=$(umask)
umask 077
d=$1; n=$2; i=$3; shift 3
mkdir "$d" || exit 126
trap 'rm -rf "$d"' EXIT
trap 'exit 143' TERM HUP
echo $$ >"$d/pid"
cat >"$d/all"
head -c "$n" "$d/all" >"$d/env"
tail -c "+$((n + 1))" "$d/all" >"$d/script"
rm -f "$d/all"
. "$d/env"
rm -f "$d/env"
if [ -z "$i" ]; then
  if command -v bash >/dev/null 2>&1; then i="bash -euo pipefail"; else i="sh -eu"; fi
fi
umask "$u"
$i "$d/script" "$@" </dev/null &
wait $!
"""


def run_script(connection: Connection, script: Script, watch: Watch) -> Result:
    """Run a script; its exit code. At the deadline, or on a cancel, it is ended on the machine too.

    Raises Disconnected where the connection broke.
    """
    folder = f"/dev/shm/imagepipe-{secrets.token_hex(8)}"  # noqa: S108 - a name nobody can guess, made by mkdir
    environment = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in script.env.items()).encode()
    words = [folder, str(len(environment)), _interpreter(script), *script.args]
    command = _as_user(f"sh -c {shlex.quote(_RUNNER)} imagepipe {shlex.join(words)}", sudo=script.sudo)
    ended = False
    try:
        result = connection.run(command, watch, send=environment + script.text.encode())
        ended = not result.timed_out
        return result
    finally:
        if not ended and connection.is_alive():
            _end(connection, folder, script, watch.deadline.clock)


def run_command(connection: Connection, words: Sequence[str], watch: Watch, *, sudo: bool) -> Result:
    """Run one command, with nothing on its standard input."""
    return connection.run(_as_user(shlex.join(words), sudo=sudo), watch)


def _as_user(command: str, *, sudo: bool) -> str:
    return f"sudo -n -H -- {command}" if sudo else command


def _interpreter(script: Script) -> str:
    if script.interpreter is not None:
        return script.interpreter
    first, _, _ = script.text.partition("\n")
    if not first.startswith("#!"):
        return ""
    words = first[2:].split()
    named = [word for word in words if word.rpartition("/")[2] not in ("env", "-S")]
    if not named or named[0].rpartition("/")[2] in SHELLS:
        return ""
    return " ".join(words)


class _Never:
    """No cancel: the end of a script must itself not be cancelled."""

    def check(self) -> None:
        return None

    def calling(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


# The script's processes are its descendants: in a session of their own (sudo's pty) or not, walking down finds them.
# The list is made first: a parent that has ended no longer names its children.
_KILLER = r"""
down() { echo "$1"; for c in $(cat /proc/"$1"/task/*/children 2>/dev/null); do down "$c"; done; }
if p=$(cat "$1/pid" 2>/dev/null); then
  all=$(down "$p")
  kill -TERM $all 2>/dev/null
  sleep 0.3
  kill -KILL $all 2>/dev/null
fi
rm -rf "$1"
"""


def _end(connection: Connection, folder: str, script: Script, clock: Clock) -> None:
    """End a script that runs on after we stopped to listen; best effort, as the machine may be gone."""
    words = shlex.join([folder])
    command = _as_user(f"sh -c {shlex.quote(_KILLER)} imagepipe {words}", sudo=script.sudo)
    try:
        connection.run(command, Watch(lambda *_: None, Deadline.after(5, clock), _Never()))
    except (Disconnected, NotConnected):
        return
