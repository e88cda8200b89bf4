"""Launch permissions: let others launch the image, in each region as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.devices import DeviceWanted
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.errors import DENIED
from imagepipe.cloud.images import Audience, SourceImage, snapshots_of
from imagepipe.dataclass import dataclass
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.values import Image


@dataclass(frozen=True)
class CheckPublic(Stage[None]):
    """Check, before anything is launched, that no region blocks public images."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region."""

    def run(self, ctx: Context) -> None:
        for region, ec2 in self.ec2.items():
            ctx.cancel.check()
            if (state := ec2.images.block_public_access()) != "unblocked":
                raise CloudError(
                    f"publish.share.public: this account blocks public images in {region}: block public access"
                    f" is {state}",
                    code="OperationNotPermitted",
                    hint="an administrator can allow them: `aws ec2 disable-image-block-public-access`;"
                    " or share with single accounts",
                )

    def title(self) -> str:
        return "check that public images are allowed"


@dataclass(frozen=True, slots=True)
class ImageKeys:
    """The KMS keys that a spec names for an EBS-backed image, and what else decides its encryption."""

    home: str
    """The launch region."""
    encrypts: bool = False
    """The spec asks for encryption, with or without a key."""
    kms_key: str | None = None
    per_region: Mapping[str, str] = field(default_factory=dict)
    """Keys of the copies, by region."""
    devices: tuple[DeviceWanted, ...] = ()
    """Devices of the launch, which may have keys of their own."""

    def without_key(self, source: SourceImage) -> dict[str, bool]:
        """Return the volumes that the spec names no key for; True if the source image's volume is encrypted."""
        volumes = {str(m["DeviceName"]): bool(m["Ebs"].get("Encrypted")) for m in source.mappings if "Ebs" in m}
        for device in self.devices:
            if device.is_left_out or device.kms_key:
                volumes.pop(device.device, None)
            else:
                volumes[device.device] = volumes.get(device.device, False) or bool(device.encrypted)
        return {} if self.kms_key else volumes


def check_keys(
    ec2: Mapping[str, Ec2], source: SourceImage, audience: Audience, keys: ImageKeys, say: Callable[[str], None]
) -> None:
    """Raise CloudError if an image could not be shared because of the key that would encrypt it in some region.

    That is AWS's own key for EBS, whose policy cannot be changed (EBS user guide, "Share the KMS key used to encrypt a
    shared Amazon EBS snapshot"): if the account encrypts by default, if the source is an encrypted image of somebody
    else, or in a copy. The key of an encrypted image of our own is not known here. Without permission to ask EC2,
    nothing is checked.
    """
    try:
        _check_keys(ec2, source, audience, keys)
    except CloudError as error:
        if error.code not in DENIED:
            raise
        say(f"not checked whether the image can be shared: {error}")


def _check_keys(ec2: Mapping[str, Ec2], source: SourceImage, audience: Audience, keys: ImageKeys) -> None:
    home, volumes = ec2[keys.home], keys.without_key(source)
    by_default = bool(volumes) and home.snapshots.encrypts_by_default()
    is_encrypted = keys.encrypts or bool(keys.kms_key) or any(d.kms_key or d.encrypted for d in keys.devices)
    takes_over = any(volumes.values()) and not by_default
    if by_default or (takes_over and (audience.public or not home.images.is_own(source.id))):
        _check_default_key(home, audience, "the account encrypts by default" if by_default else _source(source))
    for region in ec2.keys() - {keys.home} - keys.per_region.keys():
        if is_encrypted or by_default or takes_over:
            _check_default_key(ec2[region], audience, f"it is encrypted in {keys.home}")
        elif ec2[region].snapshots.encrypts_by_default():
            _check_default_key(ec2[region], audience, "the account encrypts by default")


def _source(source: SourceImage) -> str:
    return f"source image {source.id} is encrypted"


def _check_default_key(ec2: Ec2, audience: Audience, reason: str) -> None:
    if audience.public:
        raise CloudError(
            f"publish.share.public: the image would be encrypted in {ec2.region}, because {reason}; an encrypted image"
            " cannot be public",
            code="OperationNotPermitted",
            hint="use an unencrypted source image in regions that do not encrypt by default, or share with accounts",
        )
    if (key := ec2.snapshots.default_key()).endswith("alias/aws/ebs"):
        raise CloudError(
            f"publish.share: the image would be encrypted with {key} in {ec2.region}, because {reason}; AWS manages"
            " that key, and an image encrypted with it cannot be shared",
            code="OperationNotPermitted",
            hint=f"set output.encrypt.kms_key, and per_region for copies; or change the default key of {ec2.region}:"
            " `aws ec2 modify-ebs-default-kms-key-id`",
        )


@dataclass(frozen=True)
class CheckKeys(Stage[None]):
    """Check, before anything is launched, that the image is not encrypted with a key that prevents sharing."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region, for every region that gets the image."""
    source: Ref[SourceImage]
    audience: Audience = field(compare=False)
    keys: ImageKeys = field(compare=False)

    def run(self, ctx: Context) -> None:
        check_keys(self.ec2, ctx[self.source], self.audience, self.keys, ctx.say)

    def title(self) -> str:
        return "check that the image's keys allow sharing"


@dataclass(frozen=True)
class ShareImage(ImageAttribute):
    """Let others launch the image. Accounts also get access to its snapshots, so that they can copy it."""

    audience: Audience

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        id = str(image["ImageId"])
        present = self.ec2.images.permissions(id)
        found = [f"+ {_name(each)} may launch it" for each in self.audience.permissions() if each not in present]
        for snapshot in snapshots_of(image) if self.audience.accounts else ():
            allowed = self.ec2.snapshots.permissions(snapshot)
            lacking = [each for each in self.audience.accounts if {"UserId": each} not in allowed]
            found += [f"+ {each} may copy {snapshot}" for each in lacking]
        return found

    def apply(self, ctx: Context, image: Image) -> None:
        self.ec2.images.share(image.id, image.snapshots, self.audience)

    def title(self) -> str:
        return f"share the image in {self.ec2.region}"

    def summary(self, output: Image) -> str:
        return f"{output.id} with {self.audience.describe()}"


@dataclass(frozen=True)
class RevokeGrants(ImageAttribute):
    """Remove the permissions of everybody who is not in the audience: to launch the image and to copy its snapshots."""

    audience: Audience

    def differences(self, image: Mapping[str, Any]) -> list[str]:
        found = [f"- {_name(each)} may no longer launch it" for each in self._launchers(str(image["ImageId"]))]
        for snapshot in snapshots_of(image):
            found += [f"- {_name(each)} may no longer copy {snapshot}" for each in self._copiers(snapshot)]
        return found

    def apply(self, ctx: Context, image: Image) -> None:
        if launchers := self._launchers(image.id):
            self.ec2.images.unshare(image.id, launchers)
        for snapshot in image.snapshots:
            if copiers := self._copiers(snapshot):
                self.ec2.snapshots.unshare(snapshot, copiers)

    def _launchers(self, image: str) -> list[dict[str, str]]:
        wanted = self.audience.permissions()
        return [each for each in self.ec2.images.permissions(image) if each not in wanted]

    def _copiers(self, snapshot: str) -> list[dict[str, str]]:
        wanted = [{"UserId": account} for account in self.audience.accounts]
        return [each for each in self.ec2.snapshots.permissions(snapshot) if each not in wanted]

    def title(self) -> str:
        return f"remove the other permissions in {self.ec2.region}"


def _name(permission: Mapping[str, str]) -> str:
    return "everybody" if "Group" in permission else next(iter(permission.values()))
