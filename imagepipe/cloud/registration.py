"""The parameters of RegisterImage that describe the machine and its disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.dataclass import dataclass

DEFAULT_USAGE_OPERATION = "RunInstances"
"""Usage operation of Linux without a licence (EC2 user guide, "AMI billing information fields")."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The description of the machine for RegisterImage; None leaves a parameter out."""

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
        """Return the registration that reproduces an image. `image` is its description."""
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
        """Return the parameters for RegisterImage."""
        return {
            **self.of_bundle(),
            "RootDeviceName": self.root_device_name,
            **_with_values(BootMode=self.boot_mode, TpmSupport=self.tpm_support, UefiData=self.uefi_data),
        }

    def of_bundle(self) -> dict[str, Any]:
        """Return the parameters for a bundle, which is the root device itself and boots only by BIOS.

        All types that can run one are old Xen types (EC2 user guide, "Instance store-backed AMIs").
        """
        return {
            "Architecture": self.architecture,
            # Always set, because RegisterImage's default is paravirtual.
            "VirtualizationType": self.virtualization_type,
            **_with_values(
                EnaSupport=self.ena_support, SriovNetSupport=self.sriov_net_support, ImdsSupport=self.imds_support
            ),
        }


def without_encryption(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping for RegisterImage, which refuses encryption parameters together with a snapshot."""
    if not mapping.get("Ebs", {}).get("SnapshotId"):
        return dict(mapping)
    kept = {key: value for key, value in mapping["Ebs"].items() if key not in ("Encrypted", "KmsKeyId")}
    return {**mapping, "Ebs": kept}


def _with_values(**values: Any) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {key: value for key, value in values.items() if value is not None}
