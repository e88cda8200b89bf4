"""A machine that goes away on purpose: wait until its connection has ended, and then until it is back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from imagepipe.communicator.shell import run_command
from imagepipe.communicator.ssh import Connection, Connections, Disconnected, NotConnected, Watch
from imagepipe.errors import CommandFailed, ConnectError
from imagepipe.values import Endpoint

PAUSE_SECONDS = 0.3
Boot = tuple[str, ...]
"""Tells one boot from another: the kernel's boot id, and the start of PID 1, as a container has its host's kernel."""

_BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")
_BOOT_TIME = ("cut", "-d ", "-f22", "/proc/1/stat")
# Only root can ask PID 1 once the bus has stopped.
_GOES_DOWN = (
    "sh",
    "-c",
    'state=$(sudo -n systemctl is-system-running 2>/dev/null); [ "${state#*stopping}" = "$state" ] || echo down\n'
    'state=$(systemctl is-system-running 2>/dev/null); [ "${state#*stopping}" = "$state" ] || echo down\n'
    "[ ! -e /run/nologin ] || echo down",
)


def boot_of(connection: Connection, watch: Watch) -> Boot:
    """Return the boot that the machine is in. Raises Disconnected, CommandFailed."""
    lines: list[str] = []
    watch = replace(watch, on_line=lambda _, text: lines.append(text))
    for words in (_BOOT_ID, _BOOT_TIME):
        if run_command(connection, words, watch, sudo=False).timed_out:
            raise CommandFailed("the machine does not say which boot it is in", code=None)
    return tuple(lines)


def is_going_down(connection: Connection, watch: Watch) -> bool:
    """Whether the machine is shutting down, or has ended the connection already."""
    lines: list[str] = []
    try:
        run_command(connection, _GOES_DOWN, replace(watch, on_line=lambda _, text: lines.append(text)), sudo=False)
    except Disconnected:
        return True
    return "down" in lines


def wait_for_end(connection: Connection, watch: Watch, sleep: Callable[[float], None]) -> bool:
    """Wait until the connection has ended; False if it is alive at the deadline."""
    while connection.is_alive():
        if watch.deadline.is_past():
            return False
        sleep(min(PAUSE_SECONDS, watch.deadline.remaining()))
    return True


def wait_for_return(
    connections: Connections,
    endpoint: Endpoint,
    before: Boot,
    watch: Watch,
    sleep: Callable[[float], None],
    check: Callable[[], None],
) -> bool:
    """Wait until SSH answers from a machine that stays; True if it is in another boot than before.

    A machine that shuts down may let us in until it stops: its next boot is waited for. Between two tries it calls
    `sleep` and `check`, which raise where another try is of no use. Raises ConnectError at the deadline.
    """
    last = "no answer"
    while not watch.deadline.is_past():
        connections.drop(endpoint)
        try:
            connection = connections.get(endpoint)
            if boot_of(connection, watch) != before:
                return True
            if not is_going_down(connection, watch):
                return False
            last = "the machine was shutting down"
        except (NotConnected, Disconnected) as error:
            last = str(error)
        sleep(PAUSE_SECONDS)
        check()
    raise ConnectError(
        f"SSH did not come back within {watch.deadline.seconds:g} s after the connection had ended; last: {last}",
        hint="does the image boot? see its console; or give the step a longer timeout",
    )
