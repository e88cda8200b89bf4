"""Take the build's own traces off the machine: after this it may be captured, and nobody may log in again."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

from imagepipe.cloud.ec2 import Ec2
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connection, Connections, Watch, public_key
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CommandFailed
from imagepipe.values import Reachable, Sealed

SCRUB_SECONDS = 300
RECONNECT_SECONDS = 300
SCRIPT = "scrub.sh"
FREEZE = "freeze.sh"
FREEZE_SECONDS = 20


@dataclass(frozen=True)
class Scrub(Stage[Sealed]):
    """Our key, host keys, machine-id, cloud-init's state, histories and leases removed, and looked for again."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    machine: Ref[Reachable]

    def run(self, ctx: Context) -> Sealed:
        machine = ctx[self.machine]
        said: list[str] = []

        def on_line(_: object, text: str) -> None:
            said.append(text)

        script = Script(script_text(), args=(public_key(machine.endpoint),), sudo=True, interpreter="sh")
        with ctx.span("command"):
            watch = Watch(on_line, ctx.deadline(SCRUB_SECONDS), ctx.cancel)
            result = run_script(self._connection(ctx, machine), script, watch)
        if result.code == 0 and machine.instance.spot:
            self._freeze(ctx, machine)
        self.connections.drop(machine.endpoint)
        if result.code != 0:
            raise CommandFailed(
                f"scrubbing {machine.instance.id}: {'; '.join(said) or 'no reason given'} (exit {result.code})",
                code=result.code,
                hint="the user that logs in needs sudo without a password",
            )
        return Sealed(machine.instance)

    def _freeze(self, ctx: Context, machine: Reachable) -> None:
        """EC2 does not stop a spot instance, and nobody can log in after this: its disks stand still from here on."""
        ctx.say("a spot instance cannot be stopped: its file systems are frozen for the capture")
        said: list[str] = []
        script = Script(_text(FREEZE), sudo=True, interpreter="sh")
        watch = Watch(lambda _, text: said.append(text), ctx.deadline(FREEZE_SECONDS), ctx.cancel)
        result = run_script(self._connection(ctx, machine), script, watch)
        # Once it is frozen, anything may hang that wants to write, the end of the command among it.
        if "frozen" not in said:
            raise CommandFailed(
                f"freezing the disks of {machine.instance.id}: {'; '.join(said) or 'no reason given'}",
                code=result.code,
                hint="launch.spot: false, for an image without fsfreeze",
            )

    def _connection(self, ctx: Context, machine: Reachable) -> Connection:
        """The last step may have ended the connection, or rebooted the machine."""
        return self.connections.back(
            machine.endpoint,
            ctx.deadline(RECONNECT_SECONDS),
            ctx.cancel.sleep,
            lambda: self.ec2.instances.check_runs(machine.instance.id),
        )

    def title(self) -> str:
        return "scrub the machine"


def script_text() -> str:
    """The script that runs on the machine."""
    return _text(SCRIPT)


def _text(name: str) -> str:
    return files("imagepipe.capture").joinpath(name).read_text(encoding="utf-8")
