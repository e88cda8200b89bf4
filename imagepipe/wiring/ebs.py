"""EBS-backed images: from a provisioned machine to its snapshots and their registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.capture.ebs import CaptureEbs
from imagepipe.capture.scan.stages import CheckHygiene
from imagepipe.capture.scrub import Scrub
from imagepipe.capture.stop import Stop
from imagepipe.cloud.images import SourceImage
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Ref
from imagepipe.publish.copy_ebs import CopyToRegion
from imagepipe.spec.models import EbsOutput
from imagepipe.values import Image, ImageText, Reachable, Stopped
from imagepipe.wiring.build import ImageBuild, devices_wanted
from imagepipe.wiring.scan import gate_of, known_files


@dataclass(frozen=True, slots=True)
class EbsCapture:
    """Scrub, stop, snapshot and register; copy by CopyImage."""

    build: ImageBuild
    output: EbsOutput
    source: Ref[SourceImage]
    text: Ref[Mapping[str, ImageText]]
    checks: tuple[Ref[Any], ...] = ()

    def image(self, machine: Ref[Reachable]) -> Ref[Image]:
        build, add = self.build, self.build.stages.add
        sealed = add("scrub", self._scrub(machine))
        stopped = add("stop", Stop(build.ec2, sealed))
        return add("capture", self._register(stopped))

    def _scrub(self, machine: Ref[Reachable]) -> Scrub:
        build, tools = self.build, self.build.tools
        known = known_files(build)
        return Scrub(build.ec2, tools.connections, machine, self.source, gate_of(build), known, tools.offline)

    def _register(self, machine: Ref[Stopped]) -> CaptureEbs:
        build, output = self.build, self.output
        volumes = build.spec.launch.block_devices
        return CaptureEbs(
            ec2=build.ec2,
            run_tags=build.run_tags,
            machine=machine,
            source=self.source,
            text=self.text,
            boot_mode=output.boot_mode,
            imds_v2=output.imds_support == "v2.0",
            delete_on_termination={
                v.device: v.delete_on_termination for v in volumes if v.delete_on_termination is not None
            },
            devices=devices_wanted(output.block_devices),
            virtual_names={v.device: v.virtual_name for v in volumes if v.virtual_name or v.no_device},
            timeout_seconds=output.timeout,
        )

    def scan(self, image: Ref[Image], machine: Ref[Reachable]) -> CheckHygiene | None:
        build, offline = self.build, self.build.tools.offline
        if offline is None:
            return None
        return CheckHygiene(build.ec2, offline, image, machine, self.source, gate_of(build), known_files(build))

    def copy(self, image: Ref[Image], region: str) -> CopyToRegion:
        build = self.build
        encrypt = self.output.encrypt.per_region.get(region) if self.output.encrypt else None
        return CopyToRegion(
            ec2=build.everywhere[region],
            limits=build.tools.limits,
            run_tags=build.run_tags,
            image=image,
            text=self.text,
            kms_key=encrypt.kms_key if encrypt else None,
            timeout_seconds=build.spec.publish.timeout,
        )
