"""Make an image of a stopped, EBS-backed machine: snapshot all volumes at one moment, then call RegisterImage.

Uses CreateImage instead if RegisterImage would lose product codes or billing; its progress is harder to observe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any

from imagepipe import render
from imagepipe.cloud.devices import DeviceWanted, image_mappings
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.registration import DEFAULT_USAGE_OPERATION, Registration
from imagepipe.cloud.snapshots import Snapshot
from imagepipe.cloud.tags import RunTags
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.values import Image, ImageText, Instance, Stopped

AVAILABLE_SECONDS = 3600


@dataclass(frozen=True)
class CaptureEbs(Stage[Image]):
    """Register the image and wait until it is available in the launch region."""

    ec2: Ec2 = field(repr=False, compare=False)
    run_tags: RunTags = field(repr=False, compare=False)
    machine: Ref[Stopped]
    source: Ref[SourceImage]
    text: Ref[Mapping[str, ImageText]]
    boot_mode: str | None
    imds_v2: bool
    delete_on_termination: Mapping[str, bool] = field(default_factory=dict)
    """DeleteOnTermination by device, from the spec; other devices have the source image's value."""
    devices: tuple[DeviceWanted, ...] = ()
    """`output.block_devices`, which override the captured devices."""
    virtual_names: Mapping[str, str | None] = field(default_factory=dict)
    """Instance-store volumes of the launch by device; None suppresses the source image's mapping."""
    timeout_seconds: float = field(default=6 * 3600, compare=False)
    """Timeout of the snapshots: a volume's first one copies all its data to S3, which takes hours for terabytes."""

    def run(self, ctx: Context) -> Image:
        instance = ctx[self.machine].instance
        described = self.ec2.instances.describe(instance.id)
        self._check_root(described)
        if reason := _only_by_create_image(ctx[self.source], described):
            ctx.say(f"using CreateImage, because RegisterImage cannot keep {reason}")
            return self._create(ctx, instance, described)
        return self._register(ctx, instance, described)

    def _check_root(self, described: Mapping[str, Any]) -> None:
        root = described.get("RootDeviceName")
        if any(device.is_left_out and device.device == root for device in self.devices):
            raise CloudError(
                f"output.block_devices: {root} is the root device and cannot be left out",
                code="InvalidBlockDeviceMapping",
            )

    def _create(self, ctx: Context, instance: Instance, described: Mapping[str, Any]) -> Image:
        text = ctx[self.text][self.ec2.region]
        overrides = [device.mapped(None, delete_on_termination=True) for device in self.devices]
        deletion = self._deletion_by_device(ctx[self.source])
        overridden = {device.device for device in self.devices}
        overrides += [
            {"DeviceName": mapping["DeviceName"], "Ebs": {"DeleteOnTermination": deletion[mapping["DeviceName"]]}}
            for mapping in described.get("BlockDeviceMappings", ())
            if mapping["DeviceName"] in deletion and mapping["DeviceName"] not in overridden
        ]
        # Two claims, because the same call also creates snapshots, and deregistering the image does not delete them.
        of_snapshots = ctx.intend("snapshots", self.ec2.region, lifetime=Lifetime.PRODUCT)
        of_image = ctx.intend("image", self.ec2.region, lifetime=Lifetime.PRODUCT)
        id = of_image.id or ctx.found_again(of_image, self.ec2.images.first_of_token)
        new = self.run_tags.image(of_image.token, text, snapshots=of_snapshots.token)
        id = id or self.ec2.images.create_image(new, instance.id, overrides)
        ctx.bind(of_image, id)
        with ctx.span("bytes"):
            found = self.ec2.await_image(id, deadline=ctx.deadline(self.timeout_seconds), cancel=ctx.cancel)
        # A volume that the spec adds has no snapshot.
        mapped = [m for m in found["BlockDeviceMappings"] if m.get("Ebs", {}).get("SnapshotId")]
        snapshot_ids = {str(m["DeviceName"]): str(m["Ebs"]["SnapshotId"]) for m in mapped}
        snapshots = tuple(snapshot_ids.values())
        ctx.bind(of_snapshots, ",".join(snapshots))
        self._tag_snapshots(ctx, snapshot_ids)
        if self.imds_v2:
            self.ec2.images.require_imds_v2(id)
        return Image(id, self.ec2.region, text.name, snapshots)

    def _tag_snapshots(self, ctx: Context, by_device: Mapping[str, str]) -> None:
        """Add each device's own tags to its snapshot: CreateSnapshots gives all snapshots the same tags."""
        values = late_names(ctx[self.source], self.ec2.region)
        for device in self.devices:
            if device.tags and device.device in by_device:
                own = render.render_late_values(device.tags, values)
                self.ec2.images.tag([by_device[device.device]], own)

    def _register(self, ctx: Context, instance: Instance, described: Mapping[str, Any]) -> Image:
        text = ctx[self.text][self.ec2.region]

        # Snapshots first: undo goes backwards, and a snapshot in use by an image cannot be deleted.
        claim = ctx.intend("snapshots", self.ec2.region, lifetime=Lifetime.PRODUCT)
        snapshots = self.ec2.snapshots.create(
            instance.id,
            description=f"imagepipe: {text.name}",
            token=claim.token,
            tags=self.run_tags.product(claim.token, text),
            leave_out=[device.device for device in self.devices if device.is_left_out],
            may_be_there=ctx.journal.is_adopted(claim),
        )
        ctx.bind(claim, ",".join(snapshot.id for snapshot in snapshots))
        self._tag_snapshots(ctx, {snapshot.device: snapshot.id for snapshot in snapshots})
        with ctx.span("bytes"):
            for snapshot in snapshots:
                self._until_completed(ctx, snapshot)

        def register(claim: Claim) -> str:
            return self.ec2.images.register(
                self.run_tags.image(claim.token, text),
                self._registration(ctx[self.source], instance, described),
                self._mappings(ctx[self.source], described, snapshots),
            )

        find = self.ec2.images.first_of_token
        claim = ctx.make("image", self.ec2.region, lifetime=Lifetime.PRODUCT, create=register, find=find)
        image = str(claim.id)
        with ctx.span("wait"):
            seconds = min(AVAILABLE_SECONDS, self.timeout_seconds)
            self.ec2.await_image(image, deadline=ctx.deadline(seconds), cancel=ctx.cancel)
        return Image(image, self.ec2.region, text.name, tuple(snapshot.id for snapshot in snapshots))

    def _until_completed(self, ctx: Context, snapshot: Snapshot) -> None:
        def settled(seen: Mapping[str, Any] | None) -> bool | None:
            if seen is not None and seen["State"] == "error":
                raise CloudError(
                    f"{snapshot.id} in {self.ec2.region} failed: {seen.get('StateMessage') or 'no reason given'}"
                )
            if seen is not None and seen["State"] != "completed":
                percent = str(seen.get("Progress") or "0%")
                share = float(percent.rstrip("%")) / 100 if percent.rstrip("%").isdigit() else None
                ctx.progress(f"{snapshot.id} of {snapshot.device}: {percent}", share)
            return True if seen is not None and seen["State"] == "completed" else None

        self.ec2.poller.until(
            "snapshot",
            snapshot.id,
            settled,
            operation=f"waiting for {snapshot.id} in {self.ec2.region} to complete",
            deadline=ctx.deadline(self.timeout_seconds),
            cancel=ctx.cancel,
            state=lambda seen: f"{seen['State']} {seen.get('Progress', '')}".strip(),
        )

    def _registration(self, source: SourceImage, instance: Instance, described: Mapping[str, Any]) -> Registration:
        """Return the machine's properties for RegisterImage; without them, the image may not boot."""
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
        names = {m["DeviceName"]: m.get("VirtualName") for m in source.mappings} | dict(self.virtual_names)
        return image_mappings(
            snapshots,
            self.devices,
            ephemeral={device: name for device, name in names.items() if name},
            delete_on_termination=self._deletion_by_device(source),
            root=str(described.get("RootDeviceName")),
        )

    def _deletion_by_device(self, source: SourceImage) -> dict[str, bool]:
        """Return DeleteOnTermination by device."""
        deletion = {m["DeviceName"]: m["Ebs"].get("DeleteOnTermination", True) for m in source.mappings if "Ebs" in m}
        return deletion | dict(self.delete_on_termination)

    def title(self) -> str:
        return "capture the disks as an image"

    def summary(self, output: Image) -> str:
        return f"{output.id} in {output.region}"


def _only_by_create_image(source: SourceImage, described: Mapping[str, Any]) -> str | None:
    """Return a property that RegisterImage would lose, or None."""
    codes = [code["ProductCodeId"] for code in described.get("ProductCodes", ())] or list(source.product_codes)
    if codes:
        return f"product code {', '.join(codes)}"
    usage = described.get("UsageOperation") or source.usage_operation
    return f"usage operation {usage}" if usage != DEFAULT_USAGE_OPERATION else None
