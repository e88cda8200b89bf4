"""Run scripts on a machine, without their content ever being in an argument or on its disk.

Script and environment go over standard input into a folder in the machine's memory (/dev/shm), which is deleted when
the script ends. So neither a process list nor the captured disk contains them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import field, replace

from imagepipe.clock import Clock, Deadline
from imagepipe.communicator.end_mark import EndMark
from imagepipe.communicator.ssh import Connection, Disconnected, NotConnected, Result, Watch
from imagepipe.dataclass import dataclass

SHELLS = ("sh", "bash", "dash", "ash")


@dataclass(frozen=True, slots=True)
class Script:
    """A script with its arguments and environment."""

    content: str | bytes
    """Text or bytes; bytes are run as they are, whatever their encoding."""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    sudo: bool = False
    interpreter: str | None = None
    """Command line that gets the script's path. None means the program in the `#!` line. If that program is a shell, or
    there is no such line, bash runs the script, or sh if the machine has no bash, with the options of the line. The
    script stops at the first error."""

    @property
    def encoded(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content


# $1 is the folder, $2 the lines of the environment, $3 the interpreter, $4 "login" for a login shell, $5 the shell's
# options; the rest are arguments.
# First, `read` takes the environment and `cat` the rest of standard input, so that no program in the script can read
# parts of the script. One `eval` in a subshell then removes the runner's own variables and sets the environment. After
# that, the runner uses only positional parameters, so no variable of the environment can change its behaviour. The
# script runs in the foreground, because background commands of a shell ignore SIGINT and SIGQUIT. Files are deleted by
# name, because other files in the folder are not ours.
#
# Bash reads `watch` before the script, through BASH_ENV: a trap that notes the line of a failed command, because
# `grep -q` or `[ … ]` ends a script without a word. A step's own BASH_ENV takes precedence, and nothing is noted. The
# trap must be inherited by functions (set -E). Bash ignores BASH_ENV as a login shell, and files of a profile do not
# expect `set -eu`, so a login shell only sets the environment, and runs the shell that runs the script.
_RUNNER = r"""
_imagepipe_umask=$(umask)
umask 077
_imagepipe_folder=$1; _imagepipe_lines=$2; _imagepipe_runs=$3; _imagepipe_login=$4; _imagepipe_options=$5; shift 5
mkdir "$_imagepipe_folder" || exit 126
_imagepipe_clean() {
  set -- "$_imagepipe_folder"
  rm -f "$1/script" "$1/pid" "$1/watch" "$1/failed"
  rmdir "$1" 2>/dev/null
}
trap _imagepipe_clean EXIT
trap 'exit 143' TERM HUP
echo $$ >"$_imagepipe_folder/pid"
_imagepipe_env=
while [ "$_imagepipe_lines" -gt 0 ]; do
  IFS= read -r _imagepipe_line
  _imagepipe_env="$_imagepipe_env$_imagepipe_line
"
  _imagepipe_lines=$((_imagepipe_lines - 1))
done
cat >"$_imagepipe_folder/script"
if [ -z "$_imagepipe_runs" ]; then
  if command -v bash >/dev/null 2>&1; then
    printf '%s\n' "{ unset BASH_ENV; set -E; trap '{ case \$- in *e*) \
printf \"%s\\n\" \"\$?\" \"\$LINENO\" \"\${BASH_SOURCE[0]-}\" \"\$BASH_COMMAND\" >|$_imagepipe_folder/failed \
;; esac; } 2>/dev/null' ERR; } 2>/dev/null" >"$_imagepipe_folder/watch"
    _imagepipe_runs="bash -euo pipefail $_imagepipe_options"
  else
    _imagepipe_runs="sh -eu $_imagepipe_options"
    _imagepipe_login=
  fi
fi
_imagepipe_watch=$_imagepipe_folder/watch
[ -e "$_imagepipe_watch" ] || _imagepipe_watch=
(
  umask "$_imagepipe_umask"
  set -f
  set -- $_imagepipe_runs "$_imagepipe_folder/script" "$@"
  set +f
  _imagepipe_path=$(command -v -- "$1")
  case $_imagepipe_path in /*) shift; set -- "$_imagepipe_path" "$@" ;; esac
  if [ "$_imagepipe_login" ]; then set -- "$1" -l -c 'exec "$@"' bash "$@"; fi
  set -- "$_imagepipe_watch" "$@"
  _imagepipe_unset="unset _imagepipe_umask _imagepipe_folder _imagepipe_lines _imagepipe_line _imagepipe_runs"
  _imagepipe_unset="$_imagepipe_unset _imagepipe_login _imagepipe_options _imagepipe_watch"
  eval "$_imagepipe_unset _imagepipe_env _imagepipe_path _imagepipe_unset
$_imagepipe_env" 2>/dev/null
  if [ "$1" ] && [ -z "${BASH_ENV-}" ]; then export BASH_ENV="$1"; fi
  shift
  exec "$@"
) </dev/null
_imagepipe_code=$?
if [ "$_imagepipe_code" != 0 ] && [ -e "$_imagepipe_folder/failed" ]; then
  {
    IFS= read -r _imagepipe_status; IFS= read -r _imagepipe_line
    IFS= read -r _imagepipe_path; IFS= read -r _imagepipe_command
  } <"$_imagepipe_folder/failed"
  if [ "$_imagepipe_path" = "$_imagepipe_folder/script" ]; then
    _imagepipe_path=
    _imagepipe_command=$(sed -n "${_imagepipe_line}{s/^[[:space:]]*//;p;q;}" "$_imagepipe_folder/script")
  fi
  if [ "$_imagepipe_status" = "$_imagepipe_code" ]; then
    printf 'imagepipe: line %s%s failed with exit code %s: %s\n' \
      "$_imagepipe_line" "${_imagepipe_path:+ of $_imagepipe_path}" "$_imagepipe_code" "$_imagepipe_command" >&2
  fi
fi
_imagepipe_pipes=$(stat -L -c %i "/proc/$$/fd/1" "/proc/$$/fd/2" 2>/dev/null)
_imagepipe_clean
trap - EXIT
set -- $_imagepipe_pipes
printf '\036%s %s\n' "${_imagepipe_folder##*/}" "$*"
printf '\036%s \n' "${_imagepipe_folder##*/}" >&2
exit "$_imagepipe_code"
"""


def run_script(connection: Connection, script: Script, watch: Watch) -> Result:
    """Run a script and return its result. At the deadline or on a cancel, the script is ended on the machine too.

    Returns when the script ends, even if it left processes in the background. The result names those that still hold
    its output open; their output is no longer read. Raises Disconnected if the connection breaks.
    """
    mark = EndMark()
    folder = f"/dev/shm/{mark.name}"  # noqa: S108 - a name nobody can guess, made by mkdir
    environment = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in script.env.items()).encode()
    words = [folder, str(environment.count(b"\n")), *_interpreter(script), *script.args]
    command = _as_user(connection, f"sh -c {shlex.quote(_RUNNER)} imagepipe {shlex.join(words)}", sudo=script.sudo)
    ended = False
    try:
        result = connection.run(command, watch, send=environment + script.encoded, mark=mark)
        ended = not result.timed_out
        if result.pipes:
            result = replace(result, holders=_holders(connection, result.pipes, script, watch))
        return result
    finally:
        if not ended and connection.is_alive():
            _end(connection, folder, script, watch.deadline.clock)


# Print the processes that have the write end of one of these pipes open.
_HOLDERS = r"""
ls -l /proc/[0-9]*/fd 2>/dev/null | while read -r line; do
  case $line in /proc/*:) pid=${line#/proc/}; pid=${pid%%/*} ;; esac
  for pipe; do
    case $line in
      l?w*" -> pipe:[$pipe]") printf '%s (%s)\n' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid" ;;
    esac
  done
done | sort -u
"""


def _holders(connection: Connection, pipes: Sequence[str], script: Script, watch: Watch) -> tuple[str, ...]:
    """Return the processes that can write to these pipes; empty if that is unknown."""
    found: list[str] = []
    command = _as_user(connection, f"sh -c {shlex.quote(_HOLDERS)} imagepipe {shlex.join(pipes)}", sudo=script.sudo)
    deadline = Deadline.after(10, watch.deadline.clock)
    try:
        connection.run(command, Watch(lambda _, line: found.append(line), deadline, watch.cancel))
    except (Disconnected, NotConnected):
        return ()
    return tuple(found)


def run_command(connection: Connection, words: Sequence[str], watch: Watch, *, sudo: bool) -> Result:
    """Run one command, with nothing on its standard input."""
    return connection.run(_as_user(connection, shlex.join(words), sudo=sudo), watch)


def _as_user(connection: Connection, command: str, *, sudo: bool) -> str:
    """Return the command, run with sudo if wanted. A root login needs no sudo, and its image may have none."""
    return f"sudo -n -H -- {command}" if sudo and connection.endpoint.user != "root" else command


def _interpreter(script: Script) -> tuple[str, str, str]:
    """Return the interpreter, empty for the usual shell; "login" for a login shell; and the shell's options."""
    if script.interpreter is not None:
        return script.interpreter, "", ""
    first = script.encoded.partition(b"\n")[0].decode(errors="replace")
    if not first.startswith("#!"):
        return "", "", ""
    words = first[2:].split()
    named = [word for word in words if word.rpartition("/")[2] not in ("env", "-S")]
    if named and named[0].rpartition("/")[2] not in SHELLS:
        return " ".join(words), "", ""
    login = [word for word in named[1:] if word in ("-l", "--login")]
    options = [word for word in named[1:] if word not in login]
    return "", "login" if login else "", " ".join(options)


class _Never:
    """A cancel flag that is never set, because ending a script must not be cancelled."""

    def check(self) -> None:
        return None

    def calling(self, callback: Callable[[], None]) -> AbstractContextManager[None]:
        return nullcontext()


# Find the script's processes by walking down its tree of descendants, because some may be in another session (sudo's
# pty). List all of them before killing any: the children of a process that has ended can no longer be found.
_KILLER = r"""
down() { echo "$1"; for c in $(cat /proc/"$1"/task/*/children 2>/dev/null); do down "$c"; done; }
if p=$(cat "$1/pid" 2>/dev/null); then
  all=$(down "$p")
  kill -TERM $all 2>/dev/null
  sleep 0.3
  kill -KILL $all 2>/dev/null
fi
for file in script pid watch failed; do rm -f "$1/$file"; done
rmdir "$1" 2>/dev/null
"""


def _end(connection: Connection, folder: str, script: Script, clock: Clock) -> None:
    """End a script that is still running. Best effort: the machine may be gone."""
    words = shlex.join([folder])
    command = _as_user(connection, f"sh -c {shlex.quote(_KILLER)} imagepipe {words}", sudo=script.sudo)
    try:
        connection.run(command, Watch(lambda *_: None, Deadline.after(5, clock), _Never()))
    except (Disconnected, NotConnected):
        return
