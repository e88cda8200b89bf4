"""The gateway's records: frozen values, as they are written to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from datetime import datetime
from typing import Any

from imagepipe.dataclass import dataclass

LINUX = "Linux/UNIX"
ANYWHERE = "all-regions"
"""Region of records that belong to no region."""
ORDINARY = "RunInstances"  # RunInstances:0010 is Red Hat, RunInstances:0002 is Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The common part of all records."""

    id: str
    account: str
    """The owner's account id."""
    region: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpec:
    """A volume as a block device mapping of a request or an image describes it."""

    device: str
    snapshot_id: str | None = None
    size_gib: int = 0
    type: str = "gp2"
    iops: int | None = None
    throughput: int | None = None
    encrypted: bool = False
    kms_key_id: str | None = None
    delete_on_termination: bool = True
    virtual_name: str | None = None
    """`ephemeral0`: an instance store volume, which is recorded and has no bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedVolume:
    """A volume that is attached to an instance."""

    device: str
    volume_id: str
    delete_on_termination: bool
    attach_time: datetime
    state: str = "attached"
    """`attaching`, `attached`, `detaching`, or `busy` for one that is to be detached while the machine uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootable(Record):
    """The values that an instance takes over from its image, and an image from its instance or source image."""

    root_device: str
    bundle: str | None = None
    """Manifest of an instance-store image, as BUCKET/KEY; the root disk of an instance is made from it."""
    architecture: str = "x86_64"
    ena_support: bool = False
    sriov: str | None = None
    boot_mode: str | None = None
    tpm_support: str | None = None
    product_codes: tuple[str, ...] = ()
    """Ids of products that AWS Marketplace sells with it."""
    platform_details: str = LINUX
    usage_operation: str = ORDINARY
    """Billing code of the instances (EC2 user guide, "AMI billing information fields")."""

    @property
    def root_type(self) -> str:
        return "instance-store" if self.bundle else "ebs"

    def inherited(self) -> dict[str, Any]:
        """Return the values that are taken over, by field."""
        names = {each.name for each in fields(Bootable)} - {each.name for each in fields(Record)}
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance(Bootable):
    """An instance, and all that its machine needs to be started again."""

    reservation_id: str
    client_token: str = ""
    launch_index: int = 0
    image_id: str
    instance_type: str
    state: str
    reason_code: str = ""
    reason: str = ""
    launch_time: datetime
    has_run: bool = False
    """True once it was running: a start that fails then leaves it stopped."""
    ending_since: datetime | None = None
    """Time of the request that stopped or terminated it."""
    ended_at: datetime | None = None
    """Time of its termination."""
    zone: str
    vpc_id: str
    subnet_id: str
    address: str
    """The loopback address that has its ports, whatever address the API shows."""
    private_ip: str
    has_public_ip: bool = True
    elastic_ip: str = ""
    """The Elastic IP address that is associated with it, a further loopback address."""
    interface_id: str
    group_ids: tuple[str, ...]
    key_name: str | None = None
    public_keys: tuple[str, ...] = ()
    """The key pair's public half as it was at launch: the pair may be deleted before the next start."""
    user_data: str = ""
    """Base64, as received."""
    shutdown_behavior: str = "stop"
    protects_termination: bool = False
    protects_stop: bool = False
    checks_source_dest: bool = True
    monitoring: bool = False
    ebs_optimized: bool = False
    is_spot: bool = False
    spot_type: str = "one-time"
    spot_request_id: str | None = None
    is_impaired: bool = False
    """True if a fault makes its status checks fail."""
    iam_profile: str | None = None
    profile_association: str = ""
    """Id of the association with the instance profile; empty without one."""
    placement_group: str = ""
    """Name of its placement group."""
    metadata_options: Mapping[str, str] = field(default_factory=dict)
    metadata_state: str = "applied"
    """`pending` until the running machine obeys changed metadata options."""
    cpu_credits: str = ""
    """`standard` or `unlimited` for a burstable type, otherwise empty."""
    interface_tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of its network interface."""
    spot_tags: Mapping[str, str] = field(default_factory=dict)
    """Tags of its spot request."""
    volumes: tuple[AttachedVolume, ...] = ()

    @property
    def public_ip(self) -> str | None:
        """Return its public address: the Elastic IP address, or the machine's own."""
        return self.elastic_ip or (self.address if self.has_public_ip else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Record):
    """A volume; its bytes are the Disks' file of the same id."""

    zone: str
    size_gib: int
    type: str
    iops: int | None = None
    throughput: int | None = None
    snapshot_id: str | None = None
    encrypted: bool = False
    kms_key_id: str | None = None
    state: str
    create_time: datetime
    product_codes: tuple[str, ...] = ()
    fails_with: str = ""
    """Reason why it cannot be created: EC2 checks KMS keys only after its answer."""
    instance_id: str | None = None
    """The instance that it is attached to; device and flags are in the instance's own list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Modification(Record):
    """The latest modification of a volume; its id is the volume's."""

    state: str
    """`modifying`, `optimizing`, `completed` or `failed`."""
    message: str = ""
    original: DiskSpec
    target: DiskSpec
    start_time: datetime
    end_time: datetime | None = None
    recent: tuple[datetime, ...] = ()
    """Start times of the volume's modifications of the last day, this one included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """A snapshot; its bytes are the Disks' file of the same id once it is completed."""

    volume_id: str
    size_gib: int
    state: str
    progress: int = 0
    message: str = ""
    description: str = ""
    start_time: datetime
    completion_time: datetime | None = None
    encrypted: bool = False
    kms_key_id: str | None = None
    product_codes: tuple[str, ...] = ()
    fails_with: str = ""
    """Reason why the copy will fail."""
    copied_from: str | None = None
    """Source snapshot, in any region, with which it shares its bytes."""
    users: tuple[str, ...] = ()
    """Accounts that may create volumes of it; `all` for everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """The parameters of a CreateImage, kept until it is done, so that a restart can finish it."""

    instance_id: str
    reboots: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Bootable):
    """An image; its bytes are those of the snapshots that it maps."""

    name: str
    description: str = ""
    state: str
    reason: str = ""
    fails_with: str = ""
    """Reason why the image will fail, if a fault was injected."""
    created: datetime
    mappings: tuple[DiskSpec, ...]
    uefi_data: str | None = None
    imds_support: str | None = None
    users: tuple[str, ...] = ()
    """Launch permissions: account ids, ARNs of organizations and units, and `all`."""
    deprecation_time: datetime | None = None
    protection: str = "disabled"
    """Deregistration protection, in EC2's words."""
    cooldown_ends: datetime | None = None
    """Time until which it cannot be deregistered, though its protection was disabled."""
    source_image_id: str | None = None
    source_image_region: str | None = None
    source_instance_id: str | None = None
    capture: Capture | None = None
    launches: tuple[datetime, ...] = ()
    """Times of launches, oldest first: those of the last day, and the newest before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeregisteredImage(Record):
    """An image that was deregistered recently: its id is still known, its name is free and its tags are gone."""

    users: tuple[str, ...]
    """Its last launch permissions."""
    deregistered: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor(Record):
    """The lineage of an image that was deregistered, which its descendants keep."""

    created: datetime
    source_image_id: str | None
    source_image_region: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEntry:
    """The number of an account's resources of one type that use an image."""

    account: str
    resource_type: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport(Record):
    """A report on the accounts that use an image."""

    image_id: str
    resource_types: Mapping[str, int]
    """The number of versions to check, by EC2's name of the resource type. Only launch templates have versions."""
    given_depths: tuple[str, ...] = ()
    """Resource types whose number of versions the request gave."""
    accounts: tuple[str, ...] = ()
    """Accounts to report on; empty for all."""
    state: str = "pending"
    reason: str = ""
    """Reason for which it is in the state `error`."""
    created: datetime
    entries: tuple[UsageEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule(Record):
    """A retention rule of Recycle Bin."""

    resource_type: str
    """`EBS_SNAPSHOT` or `EC2_IMAGE`."""
    days: int
    description: str = ""
    resource_tags: tuple[tuple[str, ...], ...] = ()
    """Tags of the resources that it retains, as (key, value), or (key,) for any value; empty for all resources."""
    exclude_tags: tuple[tuple[str, ...], ...] = ()
    """Tags of the resources that it does not retain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycledImage(Record):
    """A deregistered image in Recycle Bin; its id is the image's."""

    image: Image
    entered: datetime
    exits: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecycledSnapshot(Record):
    """A deleted snapshot in Recycle Bin; its id is the snapshot's, and its bytes are kept."""

    snapshot: Snapshot
    entered: datetime
    exits: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Address(Record):
    """An Elastic IP address."""

    public_ip: str
    instance_id: str | None = None
    association_id: str = ""
    nat_gateway_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTask(Record):
    """A snapshot that is made of an object in S3."""

    snapshot_id: str
    """Id of the snapshot, which exists once the task is completed."""
    bucket: str
    key: str
    url: str
    """The object as the request names it, if not by bucket and key."""
    form: str
    description: str
    disk_description: str
    encrypted: bool
    kms_key_id: str | None
    fails_with: str
    state: str = "active"
    progress: int | None = 0
    message: str = "pending"
    size: int = 0
    """Size of the object in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatGateway(Record):
    """A NAT gateway."""

    subnet_id: str
    vpc_id: str
    kind: str
    """`public` or `private`."""
    private_ip: str
    interface_id: str
    created: datetime
    state: str = "pending"
    public_ip: str = ""
    allocation_id: str = ""
    association_id: str = ""
    failure: tuple[str, str] = ("", "")
    """Code and text of the reason for which it fails."""
    deleted: datetime | None = None
    """Time at which it was deleted, or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair(Record):
    """The public half of a key pair."""

    name: str
    type: str
    public_key: str
    """An OpenSSH line."""
    fingerprint: str
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of a security group: one source or destination, with an id of its own, as on EC2."""

    id: str
    protocol: str
    from_port: int
    to_port: int
    cidr: str | None = None
    cidr_v6: str | None = None
    prefix_list: str | None = None
    group_id: str | None = None
    group_account: str | None = None
    description: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroup(Record):
    """A security group and its rules."""

    name: str
    description: str
    vpc_id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateVersion:
    """One version of a launch template."""

    number: int
    description: str
    created: datetime
    data: str
    """LaunchTemplateData as JSON, as received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchTemplate(Record):
    """A launch template and its versions, oldest first."""

    name: str
    created: datetime
    default_version: int
    last_number: int
    """Number of the newest version that ever existed: no number is used twice."""
    versions: tuple[TemplateVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchConfiguration(Record):
    """A launch configuration of Auto Scaling; its id is its ARN."""

    name: str
    created: datetime
    data: str
    """The request's parameters as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoScalingGroup(Record):
    """An Auto Scaling group, which launches nothing here; its id is its ARN."""

    name: str
    created: datetime
    data: str
    """The parameters of the requests that created and updated it, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilderResource(Record):
    """A component or a recipe of Image Builder; its id is its ARN."""

    kind: str
    """`component`, `image-recipe` or `container-recipe`."""
    name: str
    version: str
    parent_image: str = ""
    """The image that a recipe begins with: an image id, an ARN, or the name of a container image."""
    created: datetime
    data: str
    """The request's parameters as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementGroup(Record):
    """A placement group."""

    name: str
    strategy: str
    partitions: int | None = None
    spread_level: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token(Record):
    """A used client token: the same request gets the same answer again, a different request is refused."""

    digest: str
    """Hash of the request's parameters."""
    made: tuple[str, ...]
    """Ids of what the first request made."""
    used: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Record):
    """A setting of an account, or of the cloud itself, such as the offset of its clock."""

    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Record):
    """An account that was added; its id is the account's."""

    access_key_id: str = ""
    """Empty for the first accounts, whose keys are outside the database."""
    secret_access_key: str = ""
    memberships: tuple[str, ...] = ()
    """ARNs of the organization and of the units that the account is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey(Record):
    """A further access key of an account, whose id is the record's: good for what its policy allows."""

    secret_access_key: str
    policy: str
    """JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Record):
    """A role that somebody assumed; its id is the temporary access key's, its account the role's."""

    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    role_arn: str
    role_id: str
    name: str
    expires: datetime
    instance_id: str = ""
    """The instance that assumed the role, as its instance profile says; empty for AssumeRole."""

    @property
    def arn(self) -> str:
        role = self.role_arn.rpartition("/")[2]
        return f"arn:aws:sts::{self.account}:assumed-role/{role}/{self.name}"
