"""What RegisterImage is told: of the machine, and of its disks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PLAIN_USAGE = "RunInstances"
"""Linux without a licence (EC2 user guide, "AMI billing information fields")."""


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

    @classmethod
    def of(cls, image: Mapping[str, Any], *, uefi_data: str | None = None) -> Registration:
        """What makes an image of the same machine again; `image` is as DescribeImages has it."""
        return cls(
            architecture=image["Architecture"],
            virtualization_type=image["VirtualizationType"],
            root_device_name=image.get("RootDeviceName", ""),
            ena_support=image.get("EnaSupport"),
            sriov_net_support=image.get("SriovNetSupport"),
            boot_mode=image.get("BootMode"),
            tpm_support=image.get("TpmSupport"),
            uefi_data=uefi_data,
            imds_support=image.get("ImdsSupport"),
        )

    def request(self) -> dict[str, Any]:
        """The parameters of RegisterImage."""
        return {
            **self.of_bundle(),
            "RootDeviceName": self.root_device_name,
            **_given(BootMode=self.boot_mode, TpmSupport=self.tpm_support, UefiData=self.uefi_data),
        }

    def of_bundle(self) -> dict[str, Any]:
        """The parameters where the image is a bundle, which is the root device itself, and boots by a BIOS alone.

        All types that run one are Xen's of old (EC2 user guide, "Instance store-backed AMIs").
        """
        return {
            "Architecture": self.architecture,
            # Said always: RegisterImage takes paravirtual by itself.
            "VirtualizationType": self.virtualization_type,
            **_given(
                EnaSupport=self.ena_support, SriovNetSupport=self.sriov_net_support, ImdsSupport=self.imds_support
            ),
        }


def without_encryption(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as RegisterImage takes it: encryption is the snapshot's own, and must not be said again."""
    if not mapping.get("Ebs", {}).get("SnapshotId"):
        return dict(mapping)
    told = {key: value for key, value in mapping["Ebs"].items() if key not in ("Encrypted", "KmsKeyId")}
    return {**mapping, "Ebs": told}


def _given(**values: Any) -> dict[str, Any]:
    """The parameters that have a value."""
    return {key: value for key, value in values.items() if value is not None}
