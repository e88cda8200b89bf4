"""Images: find, register, copy, share, tag, deregister."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from functools import partial
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.batching import BatchedChange, BatchedLookup
from imagepipe.cloud.consistency import chunks, delete_if_exists, ignore_missing, retry_until_visible
from imagepipe.cloud.errors import translating
from imagepipe.cloud.idempotency import IdempotentCreate
from imagepipe.cloud.registration import DEFAULT_USAGE_OPERATION, Registration, without_encryption
from imagepipe.cloud.tags import ImageRequest
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError


@dataclass(frozen=True, slots=True)
class SourceImage:
    """An image that an instance can be launched from, as DescribeImages returns it."""

    id: str
    name: str
    owner: str
    architecture: str
    virtualization_type: str
    root_device_name: str
    root_device_type: str
    mappings: tuple[dict[str, Any], ...]
    """BlockDeviceMappings, as EC2 returns them."""
    ena_support: bool | None = None
    sriov_net_support: str | None = None
    boot_mode: str | None = None
    tpm_support: str | None = None
    imds_support: str | None = None
    product_codes: tuple[str, ...] = ()
    usage_operation: str = DEFAULT_USAGE_OPERATION
    """Usage operation, which decides billing; RegisterImage only produces `RunInstances`."""
    protection: str | None = None
    """Kind of deregistration protection; None or `disabled` means none."""


def late_names(source: SourceImage, region: str) -> dict[str, object]:
    """Return the values of `source` and `region` for late templates."""
    return {"source": {"id": source.id, "name": source.name, "owner": source.owner}, "region": region}


@dataclass(frozen=True, slots=True)
class Audience:
    """Everybody else who may launch an image."""

    accounts: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    """ARNs of organizations."""
    ous: tuple[str, ...] = ()
    """ARNs of organizational units."""
    public: bool = False

    def __bool__(self) -> bool:
        return bool(self.accounts or self.organizations or self.ous or self.public)

    def permissions(self) -> list[dict[str, str]]:
        """Return the launch permissions for ModifyImageAttribute."""
        return [
            *({"UserId": account} for account in self.accounts),
            *({"OrganizationArn": arn} for arn in self.organizations),
            *({"OrganizationalUnitArn": arn} for arn in self.ous),
            *([{"Group": "all"}] if self.public else []),
        ]

    def describe(self) -> str:
        """Describe the audience for the log."""
        return ", ".join((*self.accounts, *self.organizations, *self.ous, *(["everybody"] if self.public else [])))


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """The conditions of a search for images."""

    name: str
    owners: tuple[str, ...]
    architecture: str | None = None


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image of this account, found by its name, and its data."""

    id: str
    name: str
    state: str
    snapshots: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    is_protected: bool = False
    """The image is protected against deregistration."""
    bundle: str | None = None
    """Location of the manifest; None if the image is EBS-backed."""


_NOT_KNOWN = (
    "InvalidAMIID.NotFound",
    "InvalidSnapshot.NotFound",
    "InvalidVolume.NotFound",
    "InvalidInstanceID.NotFound",
)


class Images:
    """Images of one region."""

    def __init__(self, client: Any, creates: IdempotentCreate, region: str) -> None:
        self._client = client
        self._creates = creates
        self.region = region
        self._matching = BatchedLookup(self._all_matching)
        self._named = BatchedLookup(self._all_named)
        self._tagged_together = BatchedChange(self._tag)

    def by_id(self, id: str) -> SourceImage:
        """Return the image with this id. Raises CloudError if it does not exist or is not visible."""
        with translating(f"looking up {id} in {self.region}"):
            found = self._client.describe_images(ImageIds=[id])["Images"]
        if not found:
            raise CloudError(
                f"looking up {id} in {self.region}: the image does not exist",
                code="InvalidAMIID.NotFound",
                hint="image ids differ by region; is launch.region the right one?",
            )
        return _source(found[0])

    def matching(self, wanted: ImageFilter) -> list[SourceImage]:
        """Return every available image that matches a filter, newest first."""
        return self._matching.look_up(wanted) or []

    def matching_even_deprecated(self, wanted: ImageFilter) -> list[SourceImage]:
        """Return every available image that matches a filter, newest first, deprecated ones included.

        EC2 leaves those out of other searches, except for their owner, but finds them by id (EC2 user guide,
        "Deprecate an Amazon EC2 AMI").
        """
        return self._of_filter(wanted, IncludeDeprecated=True)

    def _all_matching(self, filters: Sequence[ImageFilter]) -> dict[ImageFilter, list[SourceImage]]:
        return {wanted: self._of_filter(wanted) for wanted in filters}

    def _of_filter(self, wanted: ImageFilter, **more: bool) -> list[SourceImage]:
        filters = [{"Name": "name", "Values": [wanted.name]}, {"Name": "state", "Values": ["available"]}]
        if wanted.architecture:
            filters.append({"Name": "architecture", "Values": [wanted.architecture]})
        with translating(f"looking for images named {wanted.name} in {self.region}"):
            pages = self._client.get_paginator("describe_images").paginate(
                Owners=list(wanted.owners), Filters=filters, PaginationConfig={"PageSize": 500}, **more
            )
            found = [image for page in pages for image in page["Images"]]
        found.sort(key=lambda image: (image.get("CreationDate", ""), image["ImageId"]), reverse=True)
        return [_source(image) for image in found]

    def is_own(self, id: str) -> bool:
        """Return whether an image belongs to this account."""
        return bool(self._own([{"Name": "image-id", "Values": [id]}], id))

    def own_named(self, name: str) -> list[OwnImage]:
        """Return the images of this account with exactly this name, in any state."""
        return self._named.look_up(name) or []

    def _all_named(self, names: Sequence[str]) -> dict[str, list[OwnImage]]:
        found: dict[str, list[OwnImage]] = {}
        for chunk in chunks(names):
            filters = [{"Name": "name", "Values": [_literal(name) for name in chunk]}]
            for image in self._own(filters, f"images named {', '.join(chunk)}"):
                found.setdefault(image.name, []).append(image)
        return found

    def own_fingerprinted(self, fingerprints: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the descriptions of this account's available images that are tagged with one of these fingerprints."""
        found: list[Mapping[str, Any]] = []
        for chunk in chunks(fingerprints):
            filters = [
                {"Name": f"tag:{tagging.FINGERPRINT}", "Values": list(chunk)},
                {"Name": "state", "Values": ["available"]},
            ]
            with translating(f"looking for images with the same inputs in {self.region}"):
                pages = self._client.get_paginator("describe_images").paginate(
                    Owners=["self"], Filters=filters, PaginationConfig={"PageSize": 500}
                )
                found += [image for page in pages for image in page["Images"]]
        return found

    def own_of_specs(self, specs: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the descriptions of this account's images that were baked from these specs, in any state."""
        found: list[Mapping[str, Any]] = []
        for chunk in chunks(specs):
            filters = [{"Name": f"tag:{tagging.SPEC}", "Values": [_literal(name) for name in chunk]}]
            with translating(f"looking for the images of specs in {self.region}"):
                pages = self._client.get_paginator("describe_images").paginate(
                    Owners=["self"], Filters=filters, IncludeDisabled=True, PaginationConfig={"PageSize": 500}
                )
                found += [image for page in pages for image in page["Images"]]
        return found

    def permissions(self, image: str) -> list[dict[str, str]]:
        """Return the launch permissions of an image."""
        with translating(f"reading the launch permissions of {image} in {self.region}"):
            answer = self._client.describe_image_attribute(ImageId=image, Attribute="launchPermission")
        return list(answer.get("LaunchPermissions", ()))

    def own_of_token(self, token: str) -> list[OwnImage]:
        """Return the images that are tagged with a token."""
        return self._own([tagging.by_token(token)], f"images of token {token}")

    def first_of_token(self, token: str) -> str | None:
        """Return the id of an image that is tagged with a token, if there is one."""
        images = self.own_of_token(token)
        return images[0].id if images else None

    def own_made_of(self, snapshot: str) -> list[OwnImage]:
        """Return the images of this account that use a snapshot."""
        return self._own(
            [{"Name": "block-device-mapping.snapshot-id", "Values": [snapshot]}], f"images made of {snapshot}"
        )

    def own_registered_from(self, location: str) -> list[OwnImage]:
        """Return the images of this account whose manifest is at this location."""
        return self._own(
            [{"Name": "manifest-location", "Values": [_literal(location)]}], f"images registered from {location}"
        )

    def own_registered_beside(self, location: str) -> list[OwnImage]:
        """Return the images of this account whose manifest is in the folder of this location."""
        folder = location[: location.rfind("/") + 1]
        found = self._own(
            [{"Name": "manifest-location", "Values": [f"{_literal(folder)}*"]}], f"images registered from {folder}"
        )
        return [image for image in found if image.bundle and image.bundle.rfind("/") + 1 == len(folder)]

    def _own(self, filters: list[dict[str, Any]], subject: str) -> list[OwnImage]:
        # A disabled image still has its name, snapshots or bundle, and can be enabled again.
        with translating(f"looking for {subject} in {self.region}"):
            found = self._client.describe_images(Owners=["self"], Filters=filters, IncludeDisabled=True)["Images"]
        return [
            OwnImage(
                i["ImageId"],
                i.get("Name", ""),
                i["State"],
                snapshots_of(i),
                tagging.mapping(i.get("Tags")),
                is_protected=i.get("DeregistrationProtection", "disabled") != "disabled",
                bundle=bundle_of(i),
            )
            for i in found
        ]

    def register(self, new: ImageRequest, registration: Registration, mappings: Sequence[Mapping[str, Any]]) -> str:
        """Register an image from snapshots and return its id. Idempotent, even if an answer is lost."""
        return self._register(new, BlockDeviceMappings=list(mappings), **registration.request())

    def register_bundle(
        self,
        new: ImageRequest,
        registration: Registration,
        location: str,
        mappings: Sequence[Mapping[str, Any]],
    ) -> str:
        """Register an instance-store image from a bundle and return its id. Idempotent, even if an answer is lost.

        `location` is that of the manifest in this region: `bucket/folder/NAME.manifest.xml`. Only mappings of
        instance-store volumes are used, because the bundle is the root.
        """
        wanted = [
            {"DeviceName": mapping["DeviceName"], "VirtualName": mapping["VirtualName"]}
            for mapping in mappings
            if str(mapping.get("VirtualName", "")).startswith("ephemeral")
        ]
        more = {"BlockDeviceMappings": wanted} if wanted else {}
        return self._register(new, ImageLocation=location, **more, **registration.of_bundle())

    def _register(self, new: ImageRequest, **more: Any) -> str:
        def call() -> str:
            with translating(f"registering image '{new.name}' in {self.region}"):
                answer = self._creates.client.register_image(
                    **new.texts(), TagSpecifications=new.tag_specifications(), **more
                )
            return str(answer["ImageId"])

        known = partial(retry_until_visible, call, self._creates.clock, "InvalidSnapshot.NotFound")
        return self._creates.once(known, lambda: self.first_of_token(new.token))

    def register_again(self, new: ImageRequest, image: Mapping[str, Any]) -> str:
        """Register the data of an image again under another name and return the id. `image` is its description.

        Copies it within the region instead if RegisterImage would lose product codes or billing.
        """
        mappings = image.get("BlockDeviceMappings", ())
        if (location := bundle_of(image)) is not None:
            return self.register_bundle(new, Registration.of(image), location, mappings)
        if image.get("ProductCodes") or image.get("UsageOperation", DEFAULT_USAGE_OPERATION) != DEFAULT_USAGE_OPERATION:
            return self.copy(replace(new, snapshot_tags=new.tags), image["ImageId"], self.region)
        uefi_data = self._uefi_data(image["ImageId"]) if image.get("BootMode", "").startswith("uefi") else None
        plain = [without_encryption(mapping) for mapping in mappings]
        return self.register(new, Registration.of(image, uefi_data=uefi_data), plain)

    def _uefi_data(self, image: str) -> str | None:
        with translating(f"reading the UEFI data of {image} in {self.region}"):
            answer = self._client.describe_image_attribute(ImageId=image, Attribute="uefiData")
        return answer.get("UefiData", {}).get("Value") or None

    def create_image(self, new: ImageRequest, instance: str, mappings: Sequence[Mapping[str, Any]]) -> str:
        """Create an image of a stopped instance and return its id. Idempotent, even if an answer is lost.

        CreateImage keeps product codes and billing, which RegisterImage cannot express. `mappings` override attached
        volumes.
        """

        def call() -> str:
            with translating(f"creating image '{new.name}' of {instance} in {self.region}"):
                answer = self._creates.client.create_image(
                    InstanceId=instance,
                    NoReboot=True,
                    **new.texts(),
                    **({"BlockDeviceMappings": list(mappings)} if mappings else {}),
                    TagSpecifications=new.tag_specifications(),
                )
            return str(answer["ImageId"])

        return self._creates.once(call, lambda: self.first_of_token(new.token))

    def require_imds_v2(self, image: str) -> None:
        """Require IMDSv2 on instances of an image that CreateImage made."""
        with translating(f"requiring IMDSv2 of instances of {image} in {self.region}"):
            self._client.modify_image_attribute(ImageId=image, ImdsSupport={"Value": "v2.0"})

    def block_public_access(self) -> str:
        """Return the account's setting for public images in this region: `unblocked`, or how they are blocked."""
        with translating(f"checking whether {self.region} allows public images"):
            return str(self._client.get_image_block_public_access_state()["ImageBlockPublicAccessState"])

    def share(self, image: str, snapshots: Sequence[str], audience: Audience) -> None:
        """Let others launch an image, and let accounts among them copy it. Earlier permissions are kept."""
        with translating(f"sharing {image} in {self.region} with {audience.describe()}"):
            self._client.modify_image_attribute(ImageId=image, LaunchPermission={"Add": audience.permissions()})
        if not audience.accounts:
            return
        users = [{"UserId": account} for account in audience.accounts]
        for snapshot in snapshots:
            with translating(f"sharing {snapshot} in {self.region} with {', '.join(audience.accounts)}"):
                self._client.modify_snapshot_attribute(
                    SnapshotId=snapshot, Attribute="createVolumePermission", CreateVolumePermission={"Add": users}
                )

    def unshare(self, image: str, permissions: Sequence[Mapping[str, str]]) -> None:
        """Remove launch permissions, as `permissions` returns them. Running instances are not affected."""
        with translating(f"removing launch permissions of {image} in {self.region}"):
            self._client.modify_image_attribute(
                ImageId=image, LaunchPermission={"Remove": [dict(each) for each in permissions]}
            )

    def deprecate(self, image: str, at: datetime) -> None:
        """Set the time at which an image is deprecated; EC2 rounds it to minutes."""
        with translating(f"setting the deprecation of {image} in {self.region}"):
            self._client.enable_image_deprecation(ImageId=image, DeprecateAt=at)

    def undeprecate(self, image: str) -> None:
        """Remove the time at which an image is deprecated."""
        with translating(f"removing the deprecation of {image} in {self.region}"):
            self._client.disable_image_deprecation(ImageId=image)

    def protect(self, image: str, *, with_cooldown: bool) -> None:
        """Protect an image against deregistration."""
        with translating(f"protecting {image} in {self.region} against deregistration"):
            self._client.enable_image_deregistration_protection(ImageId=image, WithCooldown=with_cooldown)

    def unprotect(self, image: str) -> None:
        """Remove the protection of an image; if it has a cooldown, that begins now."""
        with translating(f"removing the deregistration protection of {image} in {self.region}"):
            self._client.disable_image_deregistration_protection(ImageId=image)

    def copy(self, new: ImageRequest, source: str, source_region: str, *, kms_key: str | None = None) -> str:
        """Copy an image into this region and return the id of the pending copy. Idempotent by its client token."""
        with translating(f"copying {source} from {source_region} to {self.region}"):
            answer = self._client.copy_image(
                SourceImageId=source,
                SourceRegion=source_region,
                **new.texts(),
                ClientToken=new.token,
                TagSpecifications=new.tag_specifications(),
                **({"Encrypted": True, "KmsKeyId": kms_key} if kms_key else {}),
            )
        return str(answer["ImageId"])

    def describe(self, id: str) -> Mapping[str, Any]:
        """Return the description of an image. Raises CloudError if it does not exist."""
        found = self.describe_many([id])
        if id not in found:
            raise CloudError(f"{id} in {self.region} does not exist", code="InvalidAMIID.NotFound")
        return found[id]

    def describe_many(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the descriptions of images by id, without those that do not exist."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(ids):
            with translating(f"describing images in {self.region}"):
                answer = self._client.describe_images(Filters=[{"Name": "image-id", "Values": chunk}])
            found |= {image["ImageId"]: image for image in answer["Images"]}
        return found

    def tag(self, ids: Sequence[str], tags: Mapping[str, str]) -> None:
        """Set tags on images and snapshots; existing values are overwritten."""
        pairs = tuple(sorted(tags.items()))
        for chunk in chunks(ids):
            change = partial(self._tagged_together.make, (tuple(chunk), pairs))
            retry_until_visible(change, self._creates.clock, *_NOT_KNOWN)

    def _tag(self, wanted: Sequence[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]) -> None:
        """Set tags; all resources that get the same ones are in one call."""
        resources: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for ids, pairs in wanted:
            resources.setdefault(pairs, []).extend(ids)
        for pairs, ids_of_all in resources.items():
            for chunk in chunks(ids_of_all):
                with translating(f"tagging {', '.join(chunk)} in {self.region}"):
                    self._client.create_tags(Resources=chunk, Tags=tagging.pairs(dict(pairs)))

    def deregister(self, id: str) -> bool:
        """Deregister an image, but keep its snapshots. Return whether it existed."""

        def call() -> None:
            with ignore_missing("InvalidAMIID.Unavailable"), translating(f"deregistering {id} in {self.region}"):
                self._client.deregister_image(ImageId=id)

        return delete_if_exists(call, "InvalidAMIID.NotFound")


def _literal(name: str) -> str:
    """Escape a name for a filter: its wildcards and backslashes."""
    return name.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def bundle_of(image: Mapping[str, Any]) -> str | None:
    """Return the location of an image's manifest from its description; None if it is EBS-backed."""
    return str(image["ImageLocation"]) if image.get("RootDeviceType") == "instance-store" else None


def snapshots_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ids of an image's snapshots from its description."""
    mappings = image.get("BlockDeviceMappings", ())
    return tuple(m["Ebs"]["SnapshotId"] for m in mappings if m.get("Ebs", {}).get("SnapshotId"))


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
        usage_operation=image.get("UsageOperation") or DEFAULT_USAGE_OPERATION,
        protection=image.get("DeregistrationProtection"),
    )
