"""An image of a stopped, EBS-backed machine: CreateSnapshots of all its volumes at one moment, then RegisterImage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Registration, Snapshot, SourceImage, late_names
from imagepipe.cloud.tags import Labels
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.values import Image, Instance, Stopped, Text

SNAPSHOT_SECONDS = 6 * 3600
"""The first snapshot of a large volume copies all of it to S3; terabytes take hours."""
AVAILABLE_SECONDS = 3600


@dataclass(frozen=True)
class CaptureEbs(Stage[Image]):
    """The image, available in the launch region."""

    ec2: Ec2 = field(repr=False, compare=False)
    labels: Labels
    machine: Ref[Stopped]
    source: Ref[SourceImage]
    names: Ref[Mapping[str, str]]
    description: Text
    tags: Mapping[str, Text]
    boot_mode: str | None
    imds_v2: bool
    delete_on_termination: Mapping[str, bool] = field(default_factory=dict)
    """By device, what the spec says of volumes of instances of the image; the source image's own word if absent."""

    def run(self, ctx: Context) -> Image:
        instance = ctx[self.machine].instance
        name = ctx[self.names][self.ec2.region]
        values = late_names(ctx[self.source], self.ec2.region)
        tags = {key: render.finish(value, values) for key, value in self.tags.items()}
        described = self.ec2.instances.describe_many([instance.id])[instance.id]

        # Snapshots first: undo goes backwards, and a snapshot in use by an image cannot be deleted.
        claim = ctx.intend("snapshots", self.ec2.region, lifetime=Lifetime.PRODUCT)
        snapshots = self.ec2.images.create_snapshots(
            instance.id,
            description=f"imagepipe: {name}",
            token=claim.token,
            tags=self.labels.product(claim.token, name, tags),
        )
        ctx.bind(claim, ",".join(snapshot.id for snapshot in snapshots))
        with ctx.span("bytes"):
            for snapshot in snapshots:
                self._until_completed(ctx, snapshot)

        claim = ctx.intend("image", self.ec2.region, lifetime=Lifetime.PRODUCT)
        image = self.ec2.images.register(
            name,
            render.finish(self.description, values),
            self._registration(ctx[self.source], instance, described),
            self._mappings(ctx[self.source], described, snapshots),
            token=claim.token,
            tags=self.labels.product(claim.token, name, tags),
        )
        ctx.bind(claim, image)
        with ctx.span("wait"):
            self.ec2.await_image(image, deadline=ctx.deadline(AVAILABLE_SECONDS), cancel=ctx.cancel)
        return Image(image, self.ec2.region, name, tuple(snapshot.id for snapshot in snapshots))

    def _until_completed(self, ctx: Context, snapshot: Snapshot) -> None:
        def settled(seen: Mapping[str, Any] | None) -> bool | None:
            if seen is not None and seen["State"] == "error":
                raise CloudError(
                    f"{snapshot.id} in {self.ec2.region} failed: {seen.get('StateMessage') or 'no reason'}"
                )
            if seen is not None and seen["State"] != "completed":
                ctx.progress(f"{snapshot.id} of {snapshot.device}: {seen.get('Progress') or '0%'}")
            return True if seen is not None and seen["State"] == "completed" else None

        self.ec2.poller.until(
            "snapshot",
            snapshot.id,
            settled,
            what=f"waiting for {snapshot.id} in {self.ec2.region} to complete",
            deadline=ctx.deadline(SNAPSHOT_SECONDS),
            cancel=ctx.cancel,
            state=lambda seen: f"{seen['State']} {seen.get('Progress', '')}".strip(),
        )

    def _registration(self, source: SourceImage, instance: Instance, described: Mapping[str, Any]) -> Registration:
        """What RegisterImage must be told again, or an image of a machine that boots may not boot."""
        boot_mode = self.boot_mode or source.boot_mode
        uefi = described.get("CurrentInstanceBootMode") == "uefi" and boot_mode != "legacy-bios"
        return Registration(
            architecture=str(described.get("Architecture") or source.architecture),
            virtualization_type=str(described.get("VirtualizationType") or source.virtualization_type),
            root_device_name=str(described.get("RootDeviceName") or source.root_device_name),
            ena_support=described.get("EnaSupport", source.ena_support),
            sriov_net_support=described.get("SriovNetSupport") or source.sriov_net_support,
            boot_mode=boot_mode,
            tpm_support=described.get("TpmSupport") or source.tpm_support,
            uefi_data=self.ec2.instances.uefi_data(instance.id) if uefi else None,
            imds_support="v2.0" if self.imds_v2 else source.imds_support,
        )

    def _mappings(
        self, source: SourceImage, described: Mapping[str, Any], snapshots: Sequence[Snapshot]
    ) -> list[dict[str, Any]]:
        """A mapping for every volume that was captured."""
        goes = {m["DeviceName"]: m["Ebs"].get("DeleteOnTermination", True) for m in source.mappings if "Ebs" in m}
        goes |= self.delete_on_termination
        mappings = [s.mapping(delete_on_termination=goes.get(s.device, True)) for s in snapshots]
        root = described.get("RootDeviceName")
        return sorted(mappings, key=lambda mapping: (mapping["DeviceName"] != root, str(mapping["DeviceName"])))

    def title(self) -> str:
        return "capture the disks as an image"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"
