"""Reboot the machine and wait until it is back."""

from __future__ import annotations

from dataclasses import replace

from imagepipe.communicator.shell import run_command
from imagepipe.communicator.ssh import Disconnected, NotConnected, Result
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context
from imagepipe.errors import ConnectError
from imagepipe.provision.disconnect import PAUSE_SECONDS, boot_of
from imagepipe.provision.step import Attempt, Step


@dataclass(frozen=True)
class RebootMachine(Step):
    """Reboot the machine; done when SSH answers from a new boot."""

    timeout_seconds: float = 300.0

    def attempt(self, ctx: Context, at: Attempt) -> Result:
        connection = at.connection
        before = boot_of(connection, at.watch)
        deadline = ctx.deadline(self.timeout_seconds)
        try:
            command = ("sh", "-c", "sync; (sleep 0.2; systemctl reboot || reboot) >/dev/null 2>&1 &")
            result = run_command(connection, command, at.watch, sudo=True)
            if result.code not in (0, None):
                return result
        except Disconnected:
            pass  # the machine shut down before it answered
        last = "no attempt"
        while not deadline.is_past():
            ctx.cancel.sleep(PAUSE_SECONDS)
            try:
                self.connections.drop(connection.endpoint)
                connection = self.connections.get(connection.endpoint)
                if boot_of(connection, replace(at.watch, deadline=deadline)) != before:
                    return Result(0)
                last = "still the previous boot"
            except (NotConnected, Disconnected) as error:
                last = str(error)
        raise ConnectError(
            f"SSH did not come back from the reboot within {self.timeout_seconds:g} s; last: {last}",
            hint="check the console: does the machine boot? Or give the reboot a longer timeout",
        )
