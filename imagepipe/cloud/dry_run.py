"""Ask EC2 with DryRun whether a build would have its permissions; nothing is created or changed.

EC2 checks permissions before it looks up the resources of a request (EC2 API reference, "Common errors":
DryRunOperation, UnauthorizedOperation), so made-up ids are good enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagepipe.cloud.errors import DENIED, translating
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

WOULD_SUCCEED = "DryRunOperation"
_INSTANCE = "i-00000000000000000"
_IMAGE = "ami-00000000000000000"
_SNAPSHOT = "snap-00000000000000000"
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f imagepipe-dry-run"


@dataclass(frozen=True, slots=True)
class PermissionProbe:
    """The properties of a build that decide which permissions it needs."""

    makes_key: bool
    makes_group: bool
    vpc: str | None
    shares: bool
    copies: bool
    """True if the region gets only a copy, and no instance."""
    source_region: str
    bundles: bool = False
    """The image is an instance-store image: it has no snapshots, and its copies are registered like the first one."""
    deprecates: bool = False
    protects: bool = False
    updates_templates: bool = False


class DryRun:
    """DryRun calls to EC2 in one region."""

    def __init__(self, session: Session, region: str) -> None:
        self.region = region
        self._session = session
        self._client: Any = session.client("ec2", region, retries=False)

    def launch(self, request: LaunchRequest) -> None:
        """Raise CloudError if EC2 would refuse this launch."""
        with translating(f"checking the launch of {request.instance_type} from {request.image} in {self.region}"):
            _dry(self._client.run_instances, request.request())

    def denied(self, asked: PermissionProbe) -> Iterator[CloudError]:
        """Yield an error for each action of a build that these credentials may not perform here.

        Raises CloudError if the permissions cannot be checked at all.
        """
        for call, values in _calls(asked):
            action = "ec2:" + "".join(word.capitalize() for word in call.split("_"))
            try:
                with translating(f"checking the permission {action} in {self.region}"):
                    _dry(getattr(self._client, call), values)
            except CloudError as error:
                if error.code in DENIED:
                    yield error
                elif error.code in ("NoAnswer", "AuthFailure", "OptInRequired", "InvalidClientTokenId"):
                    raise
                # Any other error is about the made-up ids of the request.

    def key_pair(self, name: str) -> None:
        """Raise CloudError if the region has no such key pair."""
        with translating(f"looking up key pair {name} in {self.region}"):
            self._client.describe_key_pairs(KeyNames=[name])

    def groups(self, ids: tuple[str, ...]) -> None:
        """Raise CloudError if one of these security groups does not exist in the region."""
        with translating(f"looking up {', '.join(ids)} in {self.region}"):
            self._client.describe_security_groups(GroupIds=list(ids))

    def kms_key(self, key: str) -> None:
        """Raise CloudError if a KMS key does not exist or cannot be used."""
        with translating(f"looking up KMS key {key} in {self.region}", service="kms"):
            found = self._session.client("kms", self.region).describe_key(KeyId=key)["KeyMetadata"]
        if not found.get("Enabled", True):
            raise CloudError(f"KMS key {key} in {self.region} is {found.get('KeyState', 'disabled')}")


def _dry(call: Any, values: Mapping[str, Any]) -> None:
    """Make a call with DryRun. EC2 reports even success as an error, DryRunOperation, which is ignored."""
    try:
        call(DryRun=True, **values)
    except Exception as error:
        code = getattr(error, "response", {}).get("Error", {}).get("Code")
        if code != WOULD_SUCCEED:
            raise


def _calls(asked: PermissionProbe) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the mutating calls of a build in a region, with values that EC2 would accept."""
    tagging = {"TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "imagepipe:run", "Value": "dry-run"}]}]}
    yield "create_tags", {"Resources": [_IMAGE], "Tags": [{"Key": "imagepipe:state", "Value": "kept"}]}
    yield "deregister_image", {"ImageId": _IMAGE}
    if not asked.bundles:
        yield "delete_snapshot", {"SnapshotId": _SNAPSHOT}
    if asked.shares:
        add = {"Add": [{"UserId": "123456789012"}]}
        yield "modify_image_attribute", {"ImageId": _IMAGE, "LaunchPermission": add}
        if not asked.bundles:
            yield "modify_snapshot_attribute", {"SnapshotId": _SNAPSHOT, "CreateVolumePermission": add}
    yield from _calls_of_publication(asked)
    machine = {"Name": "imagepipe-dry-run", "VirtualizationType": "hvm", "Architecture": "x86_64", **tagging}
    if asked.bundles:
        yield "register_image", {"ImageLocation": "imagepipe-dry-run/image.manifest.xml", **machine}
    if asked.copies and asked.bundles:
        return
    if asked.copies:
        copied = {"SourceImageId": _IMAGE, "SourceRegion": asked.source_region, "Name": "imagepipe-dry-run"}
        yield "copy_image", {**copied, **tagging}
        return
    if asked.makes_key:
        yield "import_key_pair", {"KeyName": "imagepipe-dry-run", "PublicKeyMaterial": _KEY.encode()}
        yield "delete_key_pair", {"KeyName": "imagepipe-dry-run"}
    if asked.makes_group:
        vpc = {"VpcId": asked.vpc} if asked.vpc else {}
        yield "create_security_group", {"GroupName": "imagepipe-dry-run", "Description": "imagepipe", **vpc}
        permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}
        group = "sg-00000000000000000"
        yield "authorize_security_group_ingress", {"GroupId": group, "IpPermissions": [permission]}
        yield "delete_security_group", {"GroupId": group}
    yield "terminate_instances", {"InstanceIds": [_INSTANCE]}
    if asked.bundles:
        return
    yield "stop_instances", {"InstanceIds": [_INSTANCE]}
    yield "create_snapshots", {"InstanceSpecification": {"InstanceId": _INSTANCE}}
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": _SNAPSHOT}}
    yield "register_image", {"RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [mapping], **machine}


def _calls_of_publication(asked: PermissionProbe) -> Iterator[tuple[str, dict[str, Any]]]:
    if asked.deprecates:
        yield "enable_image_deprecation", {"ImageId": _IMAGE, "DeprecateAt": "2999-01-01T00:00:00Z"}
    if asked.protects:
        yield "enable_image_deregistration_protection", {"ImageId": _IMAGE}
    if asked.updates_templates:
        template = {"LaunchTemplateId": "lt-00000000000000000"}
        yield "create_launch_template_version", {**template, "LaunchTemplateData": {"ImageId": _IMAGE}}
        yield "modify_launch_template", {**template, "DefaultVersion": "1"}
