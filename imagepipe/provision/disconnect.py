"""Expected disconnects: wait until the connection has ended, and then until the machine is back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from imagepipe.communicator.shell import run_command
from imagepipe.communicator.ssh import Connection, Connections, Disconnected, NotConnected, Watch
from imagepipe.errors import CommandFailed, ConnectError
from imagepipe.values import Reachable

PAUSE_SECONDS = 0.3
Boot = tuple[str, ...]
"""Identifies a boot: the kernel's boot id, and the start time of PID 1, because containers share a kernel."""

_BOOT_ID = ("cat", "/proc/sys/kernel/random/boot_id")
_BOOT_TIME = ("cut", "-d ", "-f22", "/proc/1/stat")
# Once D-Bus has stopped, only root can ask PID 1.
_PRINT_IF_SHUTTING_DOWN = (
    "sh",
    "-c",
    'state=$(sudo -n systemctl is-system-running 2>/dev/null); [ "${state#*stopping}" = "$state" ] || echo down\n'
    'state=$(systemctl is-system-running 2>/dev/null); [ "${state#*stopping}" = "$state" ] || echo down\n'
    "[ ! -e /run/nologin ] || echo down",
)


def boot_of(connection: Connection, watch: Watch) -> Boot:
    """Return the machine's current boot. Raises Disconnected, CommandFailed."""
    lines: list[str] = []
    watch = replace(watch, on_line=lambda _, text: lines.append(text))
    for command in (_BOOT_ID, _BOOT_TIME):
        if run_command(connection, command, watch, sudo=False).timed_out:
            raise CommandFailed("reading the machine's boot id took too long", code=None)
    return tuple(lines)


def is_going_down(connection: Connection, watch: Watch) -> bool:
    """Return whether the machine is shutting down or has already closed the connection."""
    lines: list[str] = []
    try:
        run_command(
            connection, _PRINT_IF_SHUTTING_DOWN, replace(watch, on_line=lambda _, text: lines.append(text)), sudo=False
        )
    except Disconnected:
        return True
    return "down" in lines


def wait_for_end(connection: Connection, watch: Watch, sleep: Callable[[float], None]) -> bool:
    """Wait until the connection has ended. Return False if it is still alive at the deadline."""
    while connection.is_alive():
        if watch.deadline.is_past():
            return False
        sleep(min(PAUSE_SECONDS, watch.deadline.remaining()))
    return True


def wait_for_return(
    connections: Connections,
    machine: Reachable,
    before: Boot,
    watch: Watch,
    sleep: Callable[[float], None],
    check: Callable[[str], None],
) -> bool:
    """Wait until SSH answers from a machine that is not shutting down. Return whether it has rebooted.

    A machine that is shutting down may still accept logins; then wait for its next boot. Between two attempts it calls
    `sleep` and `check`, as `Connections.reconnect` does. Raises ConnectError at the deadline, and
    CommandFailed if the boot cannot be read.
    """
    last = "no answer"
    while not watch.deadline.is_past():
        connections.drop(machine.endpoint)
        try:
            connection = connections.get(machine.endpoint)
            if boot_of(connection, watch) != before:
                return True
            if not is_going_down(connection, watch):
                return False
            last = "the machine was shutting down"
        except (NotConnected, Disconnected) as error:
            last = str(error)
        sleep(PAUSE_SECONDS)
        check(machine.instance.id)
    raise ConnectError(
        f"SSH did not come back within {watch.deadline.seconds:g} s after the connection had ended; last: {last}",
        hint="check the console: does the machine boot? Or give the step a longer timeout",
    )
