"""Snapshots of an instance's volumes: create, find, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.batching import BatchedLookup
from imagepipe.cloud.consistency import chunks, ignore_missing
from imagepipe.cloud.errors import translating
from imagepipe.cloud.idempotency import IdempotentCreate
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot and the properties of its volume."""

    id: str
    device: str
    volume_type: str
    iops: int | None = None
    """Provisioned IOPS; None for types without that choice."""
    throughput: int | None = None

    def mapping(self, *, delete_on_termination: bool = True) -> dict[str, Any]:
        """Return the entry of BlockDeviceMappings that reproduces the volume.

        It names the type, because RegisterImage does not look at the volume and would use its default. It must not have
        Encrypted, which is refused together with a snapshot.
        """
        values = {
            "SnapshotId": self.id,
            "VolumeType": self.volume_type,
            "Iops": self.iops,
            "Throughput": self.throughput,
            "DeleteOnTermination": delete_on_termination,
        }
        return {"DeviceName": self.device, "Ebs": {key: value for key, value in values.items() if value is not None}}


class Snapshots:
    """Snapshots of one region."""

    def __init__(self, client: Any, creates: IdempotentCreate, region: str) -> None:
        self._client = client
        self._creates = creates
        self.region = region
        self._volumes = BatchedLookup(self._all_volumes)

    def create(
        self,
        instance: str,
        *,
        description: str,
        token: str,
        tags: Mapping[str, str],
        leave_out: Sequence[str] = (),
        may_be_there: bool = False,
    ) -> list[Snapshot]:
        """Snapshot the volumes of an instance at one point in time. Idempotent, even if an answer is lost.

        `leave_out` names devices, never the root. With `may_be_there`, look first for snapshots with the token.
        """
        volumes = self._volumes_of(instance)
        excluded = [id for id, volume in volumes.items() if _device(volume, instance) in leave_out]
        volumes = {id: volume for id, volume in volumes.items() if id not in excluded}

        def call() -> list[Mapping[str, Any]]:
            with translating(f"making snapshots of {instance} in {self.region}"):
                answer = self._creates.client.create_snapshots(
                    InstanceSpecification={
                        "InstanceId": instance,
                        **({"ExcludeDataVolumeIds": excluded} if excluded else {}),
                    },
                    Description=description,
                    TagSpecifications=[tagging.specification("snapshot", tags)],
                )
            return list(answer["Snapshots"])

        def find() -> list[Mapping[str, Any]] | None:
            return list(self.describe_many(self.of_token(token)).values()) or None

        found = (find() if may_be_there else None) or self._creates.once(call, find)
        by_volume = {str(s["VolumeId"]): str(s["SnapshotId"]) for s in found}
        if missing := sorted(volumes.keys() - by_volume.keys()):
            raise CloudError(
                f"making snapshots of {instance} in {self.region}: no snapshot of {', '.join(missing)}",
                hint="an image needs snapshots of all its disks; try again",
            )
        snapshots = [_snapshot(by_volume[id], instance, volume) for id, volume in volumes.items()]
        return sorted(snapshots, key=lambda snapshot: snapshot.device)

    def _volumes_of(self, instance: str) -> dict[str, Mapping[str, Any]]:
        """Return the volumes of an instance by id."""
        return self._volumes.look_up(instance) or {}

    def _all_volumes(self, instances: Sequence[str]) -> dict[str, dict[str, Mapping[str, Any]]]:
        found: dict[str, dict[str, Mapping[str, Any]]] = {instance: {} for instance in instances}
        for chunk in chunks(instances):
            with translating(f"describing the volumes of {', '.join(chunk)} in {self.region}"):
                pages = self._client.get_paginator("describe_volumes").paginate(
                    Filters=[{"Name": "attachment.instance-id", "Values": chunk}]
                )
                volumes = [volume for page in pages for volume in page["Volumes"]]
            for volume in volumes:
                for attachment in volume["Attachments"]:
                    if attachment["InstanceId"] in found:
                        found[attachment["InstanceId"]][str(volume["VolumeId"])] = volume
        return found

    def describe_many(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the descriptions of snapshots by id, without those that do not exist."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(ids):
            with translating(f"describing snapshots in {self.region}"):
                answer = self._client.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": chunk}])
            found |= {snapshot["SnapshotId"]: snapshot for snapshot in answer["Snapshots"]}
        return found

    def of_token(self, token: str) -> list[str]:
        """Return the snapshots that are tagged with a token."""
        with translating(f"looking for snapshots of token {token} in {self.region}"):
            answer = self._client.describe_snapshots(OwnerIds=["self"], Filters=[tagging.by_token(token)])
        return [str(snapshot["SnapshotId"]) for snapshot in answer["Snapshots"]]

    def permissions(self, snapshot: str) -> list[dict[str, str]]:
        """Return the permissions to make volumes and copies of a snapshot, each of an account or of the group `all`."""
        with translating(f"reading the permissions of {snapshot} in {self.region}"):
            answer = self._client.describe_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
        return list(answer.get("CreateVolumePermissions", ()))

    def unshare(self, snapshot: str, permissions: Sequence[Mapping[str, str]]) -> None:
        """Remove permissions of a snapshot, as `permissions` returns them."""
        with translating(f"removing permissions of {snapshot} in {self.region}"):
            self._client.modify_snapshot_attribute(
                SnapshotId=snapshot,
                Attribute="createVolumePermission",
                CreateVolumePermission={"Remove": [dict(each) for each in permissions]},
            )

    def encrypts_by_default(self) -> bool:
        """Return whether the account encrypts every new volume and copy in this region."""
        with translating(f"checking whether {self.region} encrypts volumes by default"):
            return bool(self._client.get_ebs_encryption_by_default()["EbsEncryptionByDefault"])

    def default_key(self) -> str:
        """Return the KMS key of volumes and copies that are encrypted without a named key."""
        with translating(f"looking up the default KMS key for EBS in {self.region}"):
            return str(self._client.get_ebs_default_kms_key_id()["KmsKeyId"])

    def delete(self, id: str) -> None:
        """Delete a snapshot; one that is already gone is a success. Raises CloudError while an image uses it."""
        with ignore_missing("InvalidSnapshot.NotFound"), translating(f"deleting {id} in {self.region}"):
            self._client.delete_snapshot(SnapshotId=id)


def _snapshot(id: str, instance: str, volume: Mapping[str, Any]) -> Snapshot:
    kind = str(volume["VolumeType"])
    return Snapshot(
        id,
        _device(volume, instance),
        kind,
        # DescribeVolumes also returns the IOPS of a gp2 volume, which RegisterImage refuses.
        iops=volume.get("Iops") if kind in ("gp3", "io1", "io2") else None,
        throughput=volume.get("Throughput") if kind == "gp3" else None,
    )


def _device(volume: Mapping[str, Any], instance: str) -> str:
    return str(next(a["Device"] for a in volume["Attachments"] if a["InstanceId"] == instance))
