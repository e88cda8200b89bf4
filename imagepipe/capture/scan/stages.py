"""The hygiene gate: an image with findings is neither tested nor published.

On the local cloud, whose captured disks are files of this computer, the disks are scanned. EC2's snapshots are not
accessible as files, so there the machine is scanned just before it stops, and then the test instance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from imagepipe.capture.known_files import KnownFiles
from imagepipe.capture.scan.gate import Gate
from imagepipe.capture.scan.over_ssh import SCAN_SECONDS, parse_report, scan_script
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connections, Watch, public_key
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import HygieneError
from imagepipe.hygiene.report import Report, ScanRequest
from imagepipe.hygiene.rules import ON_NEW_INSTANCE
from imagepipe.values import Image, Reachable

TITLE = "scan for files that must not be in the image"


class Scanner(Protocol):
    """A function that scans a disk image."""

    def __call__(
        self, disk: Path, request: ScanRequest, *, calling: Callable[[Callable[[], None]], AbstractContextManager[None]]
    ) -> Report: ...


@dataclass(frozen=True, slots=True)
class Offline:
    """Access to captured disks that are files of this computer."""

    snapshot: Callable[[str], Path]
    """Function that returns the file of a snapshot, given its id."""
    scanner: Scanner
    may_mount: Callable[[Path], bool] = lambda disk: True
    """Function that returns whether this computer may mount a disk: False if its data comes from another computer."""

    def reads(self, snapshots: Iterable[str]) -> bool:
        """Return whether all of these disks may be read here."""
        return all(self.may_mount(path) for path in map(self.snapshot, snapshots) if path.exists())

    def scan(self, ctx: Context, disk: Path, request: ScanRequest) -> Report:
        """Scan a disk. Raises Cancelled soon after a cancel."""
        with ctx.span("bytes"):
            try:
                return self.scanner(disk, request, calling=ctx.cancel.calling)
            finally:
                ctx.cancel.check()


def gate_on_machine(gate: Gate, offline: Offline | None, source: SourceImage) -> Gate | None:
    """Return the gate for the machine itself; None if its captured disks will be scanned here."""
    return None if offline is not None and offline.reads(snapshots_of(source)) else gate


def snapshots_of(source: SourceImage) -> list[str]:
    """Return the snapshots of an image's volumes."""
    return [m["Ebs"]["SnapshotId"] for m in source.mappings if "SnapshotId" in m.get("Ebs", {})]


@dataclass(frozen=True)
class CheckHygiene(Stage[Image]):
    """Scan the captured disks, and pass the image on if nothing is found."""

    ec2: Ec2 = field(repr=False, compare=False)
    offline: Offline = field(repr=False, compare=False)
    image: Ref[Image]
    machine: Ref[Reachable]
    """The machine, whose login key must not be found."""
    source: Ref[SourceImage]
    gate: Gate
    known: KnownFiles = field(repr=False, compare=False)

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.image,)

    def run(self, ctx: Context) -> Image:
        image, source = ctx[self.image], ctx[self.source].id
        if gate_on_machine(self.gate, self.offline, ctx[self.source]) is not None:
            ctx.say("the disks come from elsewhere, so they are not mounted here: the machine itself was scanned")
            return image
        if not self.offline.reads(image.snapshots):
            raise HygieneError(
                f"scanning {image.id}: a disk that comes from elsewhere was attached, and must not be mounted here",
                hint="build on an image that has this disk: then the machine itself is scanned",
            )
        new = self.ec2.images.by_id(image.id)
        devices = {m["Ebs"]["SnapshotId"]: m["DeviceName"] for m in new.mappings if "SnapshotId" in m.get("Ebs", {})}
        request = self.known.add_to(self.gate.request(builder_key=public_key(ctx[self.machine].endpoint)), source)
        reports = []
        for snapshot in image.snapshots:
            report = self.offline.scan(ctx, self.offline.snapshot(snapshot), request)
            device = devices.get(snapshot, snapshot)
            reports.append(report if device == new.root_device_name else _on(report, device))
        where = f"read {'the snapshot' if len(reports) == 1 else f'{len(reports)} snapshots'} offline"
        report = Report.of_all(reports)
        self.known.keep(request, report, source, image.id)
        self.gate.judge(ctx.say, report, where=where, record=ctx.finding)
        return image

    def title(self) -> str:
        return TITLE


@dataclass(frozen=True)
class CheckNewInstance(Stage[Reachable]):
    """Scan the test instance, and pass it on if nothing is found that came from its image.

    Files that any boot creates are ignored: host keys, machine-id, cloud-init's data, logs, the test's own key.
    """

    connections: Connections = field(repr=False, compare=False)
    machine: Ref[Reachable]
    source: Ref[SourceImage]
    """The source image of the build, by which stamps are stored: the scan of the build's machine just added some."""
    image: Ref[SourceImage]
    """The image of the test instance."""
    gate: Gate
    known: KnownFiles = field(repr=False, compare=False)

    def must_exist(self) -> tuple[Ref[Any], ...]:
        return (self.machine,)

    def run(self, ctx: Context) -> Reachable:
        machine = ctx[self.machine]
        source, image = ctx[self.source].id, ctx[self.image].id
        request = self.known.add_to(self.gate.request(ON_NEW_INSTANCE), source)
        script = Script(scan_script(request), sudo=True, interpreter="sh")
        output: list[str] = []
        watch = Watch(lambda _, text: output.append(text), ctx.deadline(SCAN_SECONDS), ctx.cancel)
        with ctx.span("command"):
            code = run_script(self.connections.get(machine.endpoint), script, watch).code
        report = parse_report(output, code, f"scanning the test instance {machine.instance.id}")
        self.known.keep(request, report, source, image)
        self.gate.judge(
            ctx.say, report, where="scanned the test instance after its boot", is_whole=False, record=ctx.finding
        )
        return machine

    def title(self) -> str:
        return TITLE


def _on(report: Report, device: str) -> Report:
    """Mark findings of a disk other than the root's; their paths begin at the top of that disk."""
    return report._replace(
        findings=tuple(each._replace(what=f"{each.what}; on {device}") for each in report.findings),
    )
