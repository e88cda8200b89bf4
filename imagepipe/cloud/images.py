"""Images and their snapshots: find, register, copy, tag, deregister."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud import tags as tagging
from imagepipe.cloud.answers import chunks, gone_is_fine
from imagepipe.cloud.create import create_once
from imagepipe.cloud.translate import doing
from imagepipe.errors import CloudError


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that an instance can be launched from, as DescribeImages has it."""

    id: str
    name: str
    owner: str
    architecture: str
    virtualization_type: str
    root_device_name: str
    root_device_type: str
    mappings: tuple[dict[str, Any], ...]
    """BlockDeviceMappings, as EC2 gives them."""
    ena_support: bool | None = None
    sriov_net_support: str | None = None
    boot_mode: str | None = None
    tpm_support: str | None = None
    imds_support: str | None = None
    product_codes: tuple[str, ...] = ()


def late_names(source: SourceImage, region: str) -> dict[str, object]:
    """What late templates may name: `source` and `region`."""
    return {"source": {"id": source.id, "name": source.name, "owner": source.owner}, "region": region}


@dataclass(frozen=True, slots=True)
class Registration:
    """What RegisterImage is told of the machine; None is left out."""

    architecture: str
    virtualization_type: str
    root_device_name: str
    ena_support: bool | None
    sriov_net_support: str | None
    boot_mode: str | None
    tpm_support: str | None
    uefi_data: str | None
    imds_support: str | None

    def request(self) -> dict[str, Any]:
        """The parameters of RegisterImage."""
        values = {
            "Architecture": self.architecture,
            "VirtualizationType": self.virtualization_type,
            "RootDeviceName": self.root_device_name,
            "EnaSupport": self.ena_support,
            "SriovNetSupport": self.sriov_net_support,
            "BootMode": self.boot_mode,
            "TpmSupport": self.tpm_support,
            "UefiData": self.uefi_data,
            "ImdsSupport": self.imds_support,
        }
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot, and what its volume was."""

    id: str
    device: str
    volume_type: str
    iops: int | None = None
    """None where the type has no choice of it."""
    throughput: int | None = None

    def mapping(self, *, delete_on_termination: bool) -> dict[str, Any]:
        """The entry of BlockDeviceMappings that makes such a volume again.

        With its type: RegisterImage does not look at the volume, and takes its own default. Encrypted must not stand
        beside a snapshot.
        """
        values = {
            "SnapshotId": self.id,
            "VolumeType": self.volume_type,
            "Iops": self.iops,
            "Throughput": self.throughput,
            "DeleteOnTermination": delete_on_termination,
        }
        return {"DeviceName": self.device, "Ebs": {key: value for key, value in values.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """What an image must be to be found."""

    name: str
    owners: tuple[str, ...]
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """An image of ours by its name, and what it is made of."""

    id: str
    name: str
    state: str
    snapshots: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Images:
    """Images of one region."""

    def __init__(self, client: Any, once: Any, region: str, clock: Clock) -> None:
        self._client = client
        self._once = once
        self._clock = clock
        self.region = region

    def by_id(self, id: str) -> SourceImage:
        """The image with this id. Raises CloudError where there is none to be seen."""
        with doing(f"looking up {id} in {self.region}"):
            found = self._client.describe_images(ImageIds=[id])["Images"]
        if not found:
            raise CloudError(
                f"looking up {id} in {self.region}: there is no such image",
                code="InvalidAMIID.NotFound",
                hint="image ids differ by region; is launch.region the right one?",
            )
        return _source(found[0])

    def matching(self, wanted: ImageFilter) -> list[SourceImage]:
        """Every available image that a filter finds, newest first."""
        filters = [{"Name": "name", "Values": [wanted.name]}, {"Name": "state", "Values": ["available"]}]
        if wanted.architecture:
            filters.append({"Name": "architecture", "Values": [wanted.architecture]})
        with doing(f"looking for images named {wanted.name} in {self.region}"):
            pages = self._client.get_paginator("describe_images").paginate(
                Owners=list(wanted.owners), Filters=filters, PaginationConfig={"PageSize": 500}
            )
            found = [image for page in pages for image in page["Images"]]
        found.sort(key=lambda image: (image.get("CreationDate", ""), image["ImageId"]), reverse=True)
        return [_source(image) for image in found]

    def own_named(self, name: str) -> list[Named]:
        """Images of this account with exactly this name, in any state."""
        return self._own([{"Name": "name", "Values": [_literal(name)]}], f"images named {name}")

    def own_of_token(self, token: str) -> list[Named]:
        """Images that carry a token of ours."""
        return self._own([tagging.by_token(token)], f"images of token {token}")

    def _own(self, filters: list[dict[str, Any]], what: str) -> list[Named]:
        with doing(f"looking for {what} in {self.region}"):
            found = self._client.describe_images(Owners=["self"], Filters=filters)["Images"]
        return [
            Named(i["ImageId"], i.get("Name", ""), i["State"], _snapshots_of(i), tagging.mapping(i.get("Tags")))
            for i in found
        ]

    def register(
        self,
        name: str,
        description: str,
        registration: Registration,
        mappings: Sequence[Mapping[str, Any]],
        *,
        token: str,
        tags: Mapping[str, str],
    ) -> str:
        """Make an image of snapshots; its id. Made once, though the answer is lost."""

        def call() -> str:
            with doing(f"registering image '{name}' in {self.region}"):
                answer = self._once.register_image(
                    Name=name,
                    **({"Description": description} if description else {}),
                    BlockDeviceMappings=list(mappings),
                    TagSpecifications=[tagging.specification("image", tags)],
                    **registration.request(),
                )
            return str(answer["ImageId"])

        return create_once(call, lambda: _first(self.own_of_token(token)), self._clock)

    def create_snapshots(
        self, instance: str, *, description: str, token: str, tags: Mapping[str, str]
    ) -> list[Snapshot]:
        """Snapshots of all volumes of an instance at one point in time. Made once, though the answer is lost."""

        def call() -> list[Mapping[str, Any]]:
            with doing(f"making snapshots of {instance} in {self.region}"):
                answer = self._once.create_snapshots(
                    InstanceSpecification={"InstanceId": instance},
                    Description=description,
                    TagSpecifications=[tagging.specification("snapshot", tags)],
                )
            return list(answer["Snapshots"])

        def find() -> list[Mapping[str, Any]] | None:
            return list(self.describe_snapshots(self.snapshots_of_token(token)).values()) or None

        volumes = self._volumes_of(instance)
        made = {str(s["VolumeId"]): str(s["SnapshotId"]) for s in create_once(call, find, self._clock)}
        if missing := sorted(volumes.keys() - made.keys()):
            raise CloudError(
                f"making snapshots of {instance} in {self.region}: none of {', '.join(missing)}",
                hint="an image of a part of the disks is of no use; try again",
            )
        snapshots = [_snapshot(made[id], instance, volume) for id, volume in volumes.items()]
        return sorted(snapshots, key=lambda snapshot: snapshot.device)

    def _volumes_of(self, instance: str) -> dict[str, Mapping[str, Any]]:
        """The volumes of an instance, by id."""
        with doing(f"describing the volumes of {instance} in {self.region}"):
            answer = self._client.describe_volumes(
                Filters=[{"Name": "attachment.instance-id", "Values": [instance]}],
            )
        return {str(volume["VolumeId"]): volume for volume in answer["Volumes"]}

    def copy(
        self,
        source: str,
        source_region: str,
        name: str,
        description: str,
        *,
        client_token: str,
        image_tags: Mapping[str, str],
        snapshot_tags: Mapping[str, str],
        kms_key: str | None = None,
    ) -> str:
        """Copy an image into this region; the id of the copy, which is pending. The client token makes it once."""
        with doing(f"copying {source} from {source_region} to {self.region}"):
            answer = self._client.copy_image(
                SourceImageId=source,
                SourceRegion=source_region,
                Name=name,
                **({"Description": description} if description else {}),
                ClientToken=client_token,
                TagSpecifications=[
                    tagging.specification("image", image_tags),
                    tagging.specification("snapshot", snapshot_tags),
                ],
                **({"Encrypted": True, "KmsKeyId": kms_key} if kms_key else {}),
            )
        return str(answer["ImageId"])

    def describe_many(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """What EC2 says of these images; those that it does not know are left out."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(ids):
            with doing(f"describing images in {self.region}"):
                answer = self._client.describe_images(Filters=[{"Name": "image-id", "Values": chunk}])
            found |= {image["ImageId"]: image for image in answer["Images"]}
        return found

    def describe_snapshots(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """What EC2 says of these snapshots; those that it does not know are left out."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(ids):
            with doing(f"describing snapshots in {self.region}"):
                answer = self._client.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": chunk}])
            found |= {snapshot["SnapshotId"]: snapshot for snapshot in answer["Snapshots"]}
        return found

    def snapshots_of_token(self, token: str) -> list[str]:
        """Snapshots that carry a token of ours."""
        with doing(f"looking for snapshots of token {token} in {self.region}"):
            answer = self._client.describe_snapshots(OwnerIds=["self"], Filters=[tagging.by_token(token)])
        return [str(snapshot["SnapshotId"]) for snapshot in answer["Snapshots"]]

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Write tags on images and snapshots, over those that are there."""
        for chunk in chunks(ids):
            with doing(f"tagging {', '.join(chunk)} in {self.region}"):
                self._client.create_tags(Resources=chunk, Tags=tagging.pairs(tags))

    def deregister(self, id: str) -> None:
        """Deregister an image; gone already is success. Its snapshots stay."""
        with (
            gone_is_fine("InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"),
            doing(f"deregistering {id} in {self.region}"),
        ):
            self._client.deregister_image(ImageId=id)

    def delete_snapshot(self, id: str) -> None:
        """Delete a snapshot; gone already is success."""
        with gone_is_fine("InvalidSnapshot.NotFound"), doing(f"deleting {id} in {self.region}"):
            self._client.delete_snapshot(SnapshotId=id)


def _literal(name: str) -> str:
    """A name as a filter takes it, its wildcards and backslashes escaped."""
    return name.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def _first(images: Sequence[Named]) -> str | None:
    return images[0].id if images else None


def _snapshots_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    mappings = image.get("BlockDeviceMappings", ())
    return tuple(m["Ebs"]["SnapshotId"] for m in mappings if m.get("Ebs", {}).get("SnapshotId"))


def _snapshot(id: str, instance: str, volume: Mapping[str, Any]) -> Snapshot:
    kind = str(volume["VolumeType"])
    device = next(a["Device"] for a in volume["Attachments"] if a["InstanceId"] == instance)
    return Snapshot(
        id,
        str(device),
        kind,
        # DescribeVolumes says what a gp2 volume reaches, too; RegisterImage refuses to be told.
        iops=volume.get("Iops") if kind in ("gp3", "io1", "io2") else None,
        throughput=volume.get("Throughput") if kind == "gp3" else None,
    )


def _source(image: Mapping[str, Any]) -> SourceImage:
    return SourceImage(
        id=image["ImageId"],
        name=image.get("Name", ""),
        owner=image["OwnerId"],
        architecture=image["Architecture"],
        virtualization_type=image["VirtualizationType"],
        root_device_name=image.get("RootDeviceName", ""),
        root_device_type=image["RootDeviceType"],
        mappings=tuple(image.get("BlockDeviceMappings", ())),
        ena_support=image.get("EnaSupport"),
        sriov_net_support=image.get("SriovNetSupport"),
        boot_mode=image.get("BootMode"),
        tpm_support=image.get("TpmSupport"),
        imds_support=image.get("ImdsSupport"),
        product_codes=tuple(code["ProductCodeId"] for code in image.get("ProductCodes", ())),
    )
