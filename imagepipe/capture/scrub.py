"""Remove the build's traces from the machine; after this it can be captured, and nobody can log in."""

from __future__ import annotations

import threading
from dataclasses import field
from importlib.resources import files
from typing import Any

from imagepipe.capture.known_files import KnownFiles
from imagepipe.capture.scan.gate import Gate
from imagepipe.capture.scan.over_ssh import FAILED, SCAN_SECONDS, parse_report, scan_script
from imagepipe.capture.scan.stages import Offline, gate_on_machine
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.output_hints import hint_of_output
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import RECONNECT_SECONDS, Connection, Connections, Disconnected, Watch, public_key
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CommandFailed
from imagepipe.hygiene.report import MARK, ScanRequest
from imagepipe.values import Reachable, Sealed

SCRUB_SECONDS = 300
SCRIPT = "scrub.sh"
FREEZE = "freeze.sh"
FROZEN = "frozen"
LEFT_ALONE = "left alone: "
FROZEN_SECONDS = 5.0


@dataclass(frozen=True)
class Scrub(Stage[Sealed]):
    """Remove our key, host keys, machine-id, cloud-init's state, histories and leases, and verify it."""

    ec2: Ec2 = field(repr=False, compare=False)
    connections: Connections = field(repr=False, compare=False)
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    gate: Gate
    known: KnownFiles = field(repr=False, compare=False)
    offline: Offline | None = field(default=None, repr=False, compare=False)
    """Scans captured disks; if it cannot read them, the machine itself is scanned after the scrub."""

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.machine,)

    def run(self, ctx: Context) -> Sealed:
        machine = ctx[self.machine]
        gate = gate_on_machine(self.gate, self.offline, ctx[self.source])
        output: list[str] = []
        freezes = machine.instance.spot
        if freezes:
            ctx.say("a spot instance cannot be stopped: its file systems are frozen for the capture")
        connection = self._connection(ctx, machine)

        def on_line(_: object, text: str) -> None:
            output.append(text)
            if text.startswith(LEFT_ALONE):
                ctx.say(text)
            if freezes and text == FROZEN:
                # From here on every write may hang, and so may the end of this command: close the connection soon.
                timer = threading.Timer(FROZEN_SECONDS, connection.close)
                timer.daemon = True
                timer.start()

        # One script, because sudo may no longer work after the scrub.
        freeze = _text(FREEZE) if freezes else ""
        text, request = script_text() + freeze, ScanRequest(())
        if gate is not None:
            request = self.known.add_to(gate.request(builder_key=public_key(machine.endpoint)), ctx[self.source].id)
            text = scan_script(request, before=script_text(), after=freeze)
        script = Script(text, args=(public_key(machine.endpoint),), sudo=True, interpreter="sh")
        code: int | None = None
        with ctx.span("command"):
            seconds = SCRUB_SECONDS + (SCAN_SECONDS if gate is not None else 0)
            watch = Watch(on_line, ctx.deadline(seconds), ctx.cancel)
            try:
                code = run_script(connection, script, watch).code
            except Disconnected as error:
                if FROZEN not in output:
                    # The scrub may or may not be complete, and a new login may be impossible.
                    raise Disconnected(
                        f"scrubbing {machine.instance.id} in {machine.instance.region}: {error}",
                        hint="it is unknown how much was scrubbed: build again",
                    ) from error
        self.connections.drop(machine.endpoint)
        if gate is not None and any(MARK in line for line in output):
            report = parse_report(output, code, f"scanning {machine.instance.id}")
            self.known.keep(request, report, ctx[self.source].id)
            gate.judge(ctx.say, report, where="scanned the running machine before it stopped", record=ctx.finding)
        if gate is not None and code in FAILED:
            parse_report(output, code, f"scanning {machine.instance.id}")
        if code != 0 and FROZEN not in output:
            raise CommandFailed(
                f"scrubbing {machine.instance.id}: {'; '.join(output) or 'no reason given'} (exit {code})",
                code=code,
                hint=hint_of_output(output)
                or "the login user needs sudo without a password"
                + ("; on a spot instance, the image also needs fsfreeze" if freezes else ""),
            )
        return Sealed(machine.instance)

    def _connection(self, ctx: Context, machine: Reachable) -> Connection:
        """Connect again if the last step ended the connection or rebooted the machine."""
        deadline = ctx.deadline(RECONNECT_SECONDS)
        return self.connections.reconnect(machine, deadline, ctx.cancel.sleep, self.ec2.instances.check_runs)

    def is_repeatable(self) -> bool:
        """Return False: once the scrub has begun, nobody may be able to log in."""
        return False

    def title(self) -> str:
        scrub = "scrub the machine"
        return scrub if self.offline is not None else f"{scrub}, and scan it"


def script_text() -> str:
    """Return the script that runs on the machine."""
    return _text(SCRIPT)


def _text(name: str) -> str:
    return files("imagepipe.capture").joinpath(name).read_text(encoding="utf-8")
