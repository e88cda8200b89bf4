"""The language, version 1, as frozen models.

The reference (docs/reference/spec.md) and the JSON Schema are made from the descriptions here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag

from imagepipe.names import DEFAULT_QUEUE, QUEUE_NAME
from imagepipe.spec.base import Model, only_key
from imagepipe.spec.scalars import (
    AbsolutePath,
    AccountId,
    AmiId,
    BucketName,
    Cidr,
    DeviceName,
    Duration,
    DurationOrNever,
    EnvName,
    ExcludedPath,
    HostKey,
    ImageOwner,
    InstanceProfile,
    InstanceType,
    KeyName,
    KmsKey,
    LaunchTemplateId,
    LaunchTemplateName,
    OrganizationArn,
    OuArn,
    Price,
    SecurityGroupId,
    SnapshotId,
    SpecName,
    SpecReference,
    SsmName,
    SubnetId,
    Text,
    UserName,
    VariableName,
    VirtualName,
)
from imagepipe.spec.step_models import Step, Test


def _version(value: Any) -> Any:
    # `Literal[1]` takes 1.0 and true as well, which are equal to it.
    return value if type(value) is int else None


Version = Annotated[Literal[1], BeforeValidator(_version, json_schema_input_type=Literal[1])]

Scalar = str | int | float | bool


class Variable(Model):
    """A value that can be set from outside the spec."""

    default: Scalar | None = Field(
        None, description='Value if nothing else sets one; the variable is required if absent. `""` makes it optional.'
    )
    description: str = Field("", description="Purpose of the variable.")
    allowed: tuple[Scalar, ...] | None = Field(None, description="Allowed values; any if absent.")
    env: EnvName | None = Field(None, description="Environment variable to read it from.")
    sensitive: bool = Field(
        False,
        description="Mask it in all output; it may not be used in `args`, names, tags or descriptions.",
    )


class AmiById(Model):
    """The image with this id."""

    id: AmiId = Field(description="The image's id.")


class AmiBySsm(Model):
    """The image that an SSM parameter names."""

    ssm: SsmName = Field(
        description="Parameter, by name (`/aws/service/…`), also with `:VERSION` or `:LABEL`, or by ARN."
    )


class AmiByFilter(Model):
    """The most recent image that matches a filter."""

    name: str = Field(description="Name of the image; `*` and `?` stand for any characters.", min_length=1)
    owners: tuple[ImageOwner, ...] = Field(
        description="Account ids, `self`, `amazon`, `aws-marketplace`. Required, because anybody can use any name.",
        min_length=1,
    )
    architecture: Literal["x86_64", "arm64", "i386"] | None = Field(None, description="Architecture of the image.")
    most_recent: bool = Field(
        True, description="Take the most recent of several matches; `false` makes several matches an error."
    )


def _ami_kind(value: Any) -> str:
    return only_key(value, {"ssm": "by ssm", "id": "by id"}) or "by filter"


def _ami(value: Any) -> Any:
    return {"id": value} if isinstance(value, str) else value


Ami = Annotated[
    Annotated[AmiById, Tag("by id")] | Annotated[AmiBySsm, Tag("by ssm")] | Annotated[AmiByFilter, Tag("by filter")],
    Discriminator(_ami_kind),
    BeforeValidator(_ami, json_schema_input_type=str | AmiBySsm | AmiByFilter),
]


class Source(Model):
    """The source image; exactly one of `ami` and `image`."""

    ami: Ami | None = Field(None, description="An existing image: its id, `{ssm: …}`, or a filter.")
    image: SpecReference | None = Field(
        None, description="Another spec, whose image is the source: its name, or the key of a variant: `base[size=s]`."
    )


class SubnetsByTags(Model):
    """Subnets that carry all these tags."""

    tags: dict[str, str] = Field(description="Tags and their values.", min_length=1)


def _subnet_kind(value: Any) -> str:
    return "by tags" if isinstance(value, dict | SubnetsByTags) else "by id"


Subnet = Annotated[
    Annotated[SubnetId, Tag("by id")] | Annotated[SubnetsByTags, Tag("by tags")], Discriminator(_subnet_kind)
]


class Spot(Model):
    """A spot instance."""

    max_price: Price | None = Field(
        None, description="Highest price in dollars per hour; the on-demand price if absent."
    )
    fallback: bool = Field(True, description="Launch on demand where there is no spot capacity.")


VolumeType = Literal["gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"]


class BlockDevice(Model):
    """A block device of the instance, or of the image."""

    device: DeviceName = Field(description="Device name.")
    size_gib: int | None = Field(None, description="Size in GiB; the snapshot's size if absent.", ge=1, le=65536)
    type: VolumeType | None = Field(
        None, description="EBS volume type; the type in the source image's mapping if absent."
    )
    iops: int | None = Field(None, description="Provisioned I/O operations per second (gp3, io1, io2).", ge=1)
    throughput: int | None = Field(None, description="Throughput in MiB/s (gp3).", ge=1)
    encrypted: bool | None = Field(
        None, description="Encrypt the volume; the source image's setting, or the account's default, if absent."
    )
    kms_key: KmsKey | None = Field(None, description="KMS key of the volume.")
    snapshot: SnapshotId | None = Field(None, description="Snapshot to create the volume from.")
    delete_on_termination: bool | None = Field(None, description="Delete the volume with the instance.")
    virtual_name: VirtualName | None = Field(
        None, description="Instance store volume in place of an EBS volume: `ephemeral0`."
    )
    no_device: bool = Field(False, description="Leave out this device of the source image.")
    tags: dict[str, Text] = Field(default_factory=dict, description="Tags of the volume.")


class Bastion(Model):
    """A host to connect through."""

    host: str = Field(description="Name or address.", min_length=1)
    port: int = Field(22, description="SSH port of the host.", ge=1, le=65535)
    user: str = Field(description="User on the host.", min_length=1)
    private_key: str = Field(description="Path of the private key for the host.")
    host_key: HostKey = Field(description="Public host key, as one OpenSSH line.")


class Ssh(Model):
    """The connection to the instance."""

    user: UserName | None = Field(
        None,
        description="User to log in as. Required, unless `defaults.ssh_user` in `imagepipe.yaml` sets it: `admin` for "
        "Debian, `ec2-user` for Amazon Linux, `ubuntu` for Ubuntu.",
    )
    port: int = Field(22, description="Port of SSH on the instance.", ge=1, le=65535)
    address: Literal["public_ip", "private_ip", "public_dns", "private_dns", "ipv6"] = Field(
        "public_ip", description="Address to connect to."
    )
    allow_from: tuple[Cidr, ...] = Field(
        ("caller",),
        description="Addresses that the temporary security group admits; `caller` is this computer's public address.",
        min_length=1,
    )
    key_pair: KeyName | None = Field(
        None,
        description="Existing key pair, with `private_key`; a temporary one is created if absent.",
    )
    private_key: str | None = Field(None, description="Path of the private key of `key_pair`.")
    host_key: Literal["user-data", "console", "accept-new"] = Field(
        "user-data",
        description="Source of the host key: set by user data, read from the console, or accepted at first login.",
    )
    sudo: bool = Field(False, description="`true`: every step runs as root unless it has `sudo: false`.")
    bastion: Bastion | None = Field(None, description="Host to connect through.")
    timeout: Duration = Field(300.0, description="Time limit for the first login.")

    @property
    def login(self) -> str:
        """Return the user to log in as. A spec without errors has one."""
        assert self.user is not None, "a spec without launch.ssh.user is refused"
        return self.user


def _spot(value: Any) -> Any:
    if value is False:
        return None
    return {} if value is True else value


class Launch(Model):
    """The instance that is customized."""

    region: str | None = Field(
        None, description="Region of the instance; if absent, that of `imagepipe.yaml` or of the AWS session."
    )
    instance_types: tuple[InstanceType, ...] = Field(
        ("t3.small",), description="Instance types, tried in order if there is no capacity.", min_length=1
    )
    subnets: tuple[Subnet, ...] = Field(
        (), description="Ids, or `{tags: {…}}`, tried in order; subnets of the default VPC if absent."
    )
    security_groups: tuple[SecurityGroupId, ...] = Field(
        (), description="Security groups of the instance; a temporary one is created if absent."
    )
    spot: Annotated[Spot | None, BeforeValidator(_spot, json_schema_input_type=bool | Spot)] = Field(
        None, description="Use a spot instance: `true`, or its options."
    )
    user_data: str | None = Field(
        None,
        description="User data for cloud-init, besides the build's own: a string, a MIME message, or either in base64, "
        "with or without gzip.",
        max_length=32000,
    )
    iam_instance_profile: InstanceProfile | None = Field(
        None, description="Instance profile, by its name without a path, or by its ARN."
    )
    block_devices: tuple[BlockDevice, ...] = Field(
        (), description="Block devices that replace or extend those of the source image."
    )
    tags: dict[str, Text] = Field(
        default_factory=dict,
        description="Tags of all temporary resources: key pairs, security groups, instances and their volumes.",
    )
    ssh: Ssh = Field(default_factory=Ssh, description="Connection to the instance.")


class EncryptRegion(Model):
    """Encryption of the copy in one region."""

    kms_key: KmsKey = Field(description="KMS key in that region: id, ARN or alias.")


class Encrypt(Model):
    """Encryption with keys of your own."""

    kms_key: KmsKey | None = Field(None, description="KMS key in the launch region: id, ARN or alias.")
    per_region: dict[str, EncryptRegion] = Field(
        default_factory=dict, description="KMS key for the copy in each region of `publish.regions`."
    )


def _encrypt(value: Any) -> Any:
    if value is True:
        return {}
    return None if value is False else value


class OutputBase(Model):
    """Keys of both kinds of image."""

    name: Text = Field(description="Name of the image; 3 to 128 characters.")
    description: Text = Field("", description="Description of the image; at most 255 characters.")
    tags: dict[str, Text] = Field(default_factory=dict, description="Tags of the image and its snapshots.")
    block_devices: tuple[BlockDevice, ...] = Field(
        (), description="Block devices of the image; the captured ones if absent."
    )
    imds_support: Literal["v2.0", "source"] = Field(
        "v2.0",
        description="`v2.0`: instances of the image require IMDSv2. `source`: the setting of the source image is kept.",
    )
    boot_mode: Literal["legacy-bios", "uefi", "uefi-preferred"] | None = Field(
        None, description="Boot mode; the source image's if absent."
    )
    on_name_taken: Literal["fail", "replace"] = Field(
        "fail",
        description="`replace`: retire the old image of this name once the new one is baked, tested and published.",
    )


class EbsOutput(OutputBase):
    """An EBS-backed image."""

    type: Literal["ebs"] = Field("ebs", description="An image whose root device is an EBS volume.")
    encrypt: Annotated[Encrypt | None, BeforeValidator(_encrypt, json_schema_input_type=bool | Encrypt)] = Field(
        None, description="Encrypt at launch: `true`, or keys of your own, which sharing needs."
    )
    timeout: Duration = Field(21600.0, description="Time limit for the snapshots.")


class BundleRegion(Model):
    """An instance-store image's bucket and certificate in another region."""

    bucket: BucketName = Field(description="Bucket for the bundle, in that region.")
    ec2_certificate: str | None = Field(
        None, description="Path of EC2's certificate for that region; if absent, a known one."
    )


class InstanceStoreOutput(OutputBase):
    """An instance-store-backed image: a bundle in S3."""

    type: Literal["instance-store"] = Field(description="An image whose root device is an instance store volume.")
    bucket: BucketName = Field(description="Bucket for the bundle, in the launch region.")
    prefix: Text = Field("", description="Prefix of the bundle's keys, without a slash at either end.")
    account: AccountId = Field(description="Account that registers the image.")
    certificate: str | None = Field(
        None,
        description="Path of your X.509 certificate, for an RSA key; if absent, imagepipe creates a pair once.",
    )
    private_key: str | None = Field(
        None,
        description="Path of the certificate's private key, which signs and opens the bundle. Stays on this machine.",
    )
    ec2_certificate: str | None = Field(
        None, description="Path of EC2's certificate for the launch region; if absent, a known one."
    )
    method: Literal["auto", "block", "tree"] = Field(
        "auto", description="Source of the root's contents: its block device, or its tree of files."
    )
    bundle_on: Literal["instance", "controller"] = Field("instance", description="Machine that makes the bundle.")
    exclude: tuple[ExcludedPath, ...] = Field(
        (), description="Paths to leave out, with everything below them (`tree`)."
    )
    size_gib: int | None = Field(None, description="Size of the root file system in GiB (`tree`).", ge=1, le=10)
    timeout: Duration = Field(3600.0, description="Time limit until the registered image is available.")
    per_region: dict[str, BundleRegion] = Field(
        default_factory=dict, description="Bucket for each other region of `publish.regions`."
    )


def _output_kind(value: Any) -> str | None:
    kind = value.get("type", "ebs") if isinstance(value, dict) else None
    return {"ebs": "ebs output", "instance-store": "instance-store output"}.get(kind) if isinstance(kind, str) else None


Output = Annotated[
    Annotated[EbsOutput, Tag("ebs output")] | Annotated[InstanceStoreOutput, Tag("instance-store output")],
    Discriminator(_output_kind),
]


class Share(Model):
    """Launch permissions, for the copies in all regions."""

    accounts: tuple[AccountId, ...] = Field((), description="Account ids.")
    organizations: tuple[OrganizationArn, ...] = Field((), description="ARNs of organizations.")
    ous: tuple[OuArn, ...] = Field((), description="ARNs of organizational units.")
    public: bool = Field(False, description="Share with everybody.")


class DeregistrationProtection(Model):
    """Protection of the image against deregistration."""

    cooldown: bool = Field(False, description="Keep the image protected for 24 hours after the protection is disabled.")


def _protection(value: Any) -> Any:
    return {} if value is True else value


def _protection_kind(value: Any) -> str:
    return "no protection" if value is False else "image protection"


Protection = Annotated[
    Annotated[Literal[False], Tag("no protection")] | Annotated[DeregistrationProtection, Tag("image protection")],
    Discriminator(_protection_kind),
]


class LaunchTemplate(Model):
    """A launch template that gets a new version with the image; exactly one of `id` and `name`."""

    id: LaunchTemplateId | None = Field(None, description="Id of the template.")
    name: LaunchTemplateName | None = Field(
        None, description="Name of the template; without `region`, in every region of the image."
    )
    region: str | None = Field(
        None, description="Region of the template; if absent, the launch region for `id`, and every region for `name`."
    )
    source_version: Literal["default", "latest"] = Field(
        "default", description="Version that the new one is based on; only its image is replaced."
    )
    set_default: bool = Field(True, description="Make the new version the default one.")


class Publish(Model):
    """Copies, permissions, lifetime and announcement of the image."""

    regions: tuple[str, ...] = Field((), description="Regions to copy the image to; the launch region keeps its image.")
    best_effort: tuple[str, ...] = Field(
        (), description="Regions among `regions` that may fail alone: the build keeps the other images, and succeeds."
    )
    timeout: Duration = Field(43200.0, description="Time limit for the copy in each region.")
    share: Share = Field(default_factory=Share, description="Launch permissions.")
    ssm_parameter: Text | None = Field(
        None,
        description="SSM parameter of the data type `aws:ec2:image` for the image's id, written last in each region. "
        "May use `region`, but neither `source` nor `build`.",
    )
    launch_templates: tuple[LaunchTemplate, ...] = Field(
        (), description="Launch templates that get a new version with the image."
    )
    deprecate_after: DurationOrNever | None = Field(
        None,
        description="Deprecate the image this long after its creation; `never` removes a deprecation. If absent, it "
        "stays as it is.",
    )
    deregistration_protection: Annotated[
        Protection | None,
        BeforeValidator(_protection, json_schema_input_type=bool | DeregistrationProtection),
    ] = Field(
        None,
        description="Protect the image against deregistration: `true`, or `{cooldown: true}`; `false` removes the "
        "protection. If absent, it stays as it is.",
    )

    def everywhere(self, home: str) -> list[str]:
        """Return all regions that get the image: the launch region `home` first, and none twice."""
        return list(dict.fromkeys((home, *self.regions)))


DAY = 86400.0


class Grace(Model):
    """The time that a superfluous image spends on each step before the next one."""

    deprecate: Duration = Field(0.0, description="Time from the moment it is superfluous until it is deprecated.")
    disable: Duration = Field(14 * DAY, description="Time from its deprecation until it is disabled.")
    deregister: Duration = Field(
        30 * DAY, description="Time from when it was disabled until it is deregistered with its snapshots or bundle."
    )


class Retention(Model):
    """The images of the spec that are superfluous. One that meets every condition is retired, if nothing uses it."""

    newest: int | None = Field(
        None, description="An image is kept while it is among this many newest ones; 1 if absent.", ge=1
    )
    max_age: Duration | None = Field(None, description="An image is kept until it is older than this.")
    launched_within: Duration | None = Field(
        None, description="An image is kept if it was launched this recently; EC2 reports launches a day late."
    )
    grace: Grace = Field(default_factory=Grace, description="Waiting time before each step.")


HygieneRule = Literal[
    "builder-key",
    "host-key",
    "authorized-keys",
    "shell-history",
    "editor-history",
    "user-data",
    "cloud-init-data",
    "machine-id",
    "random-seed",
    "dhcp-lease",
    "log",
    "journal",
    "login-record",
    "core-dump",
    "aws-credentials",
    "credentials",
    "private-key",
    "aws-key",
    "build-secret",
    "unreadable",
]
"""Rules of `imagepipe.hygiene.rules`, which `validate` does not load; a test compares the two."""


class HygieneException(Model):
    """A finding that the hygiene scan accepts, with a reason."""

    path: AbsolutePath = Field(description="Path in the image; `*` and `?` stand for any characters.")
    rule: HygieneRule = Field(description="Name of the rule, as in a finding.")
    reason: str = Field(description="Reason why it may be in the image.", min_length=3)


class Hygiene(Model):
    """Exceptions from the hygiene scan."""

    allow: tuple[HygieneException, ...] = Field((), description="Accepted findings.")


class Matrix(Model):
    """Variants of the spec: one image for each combination of the axes' values."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)
    __pydantic_extra__: dict[str, tuple[Scalar, ...]]

    include: tuple[dict[str, Scalar], ...] = Field(
        (), description="Further variants, each with a value for every axis."
    )
    exclude: tuple[dict[str, Scalar], ...] = Field(
        (), description="Combinations to leave out; one that names some of the axes leaves out all that match."
    )
    max_parallel: int | None = Field(None, description="Largest number of variants that are built at once.", ge=1)


class Reuse(Model):
    """The condition for keeping an existing image instead of baking it again."""

    max_age: Duration | None = Field(
        None, description="Bake again if the image is older than this, because a package mirror changes too."
    )


def _reuse(value: Any) -> Any:
    return {} if value == "unchanged" else value


class Engine(Model):
    """The workers that bake the image, if the build runs on Temporal."""

    queue: str = Field(
        DEFAULT_QUEUE,
        description="Task queue: `imagepipe worker --queue`. One for each account or VPC.",
        pattern=QUEUE_NAME,
    )


class Spec(Model):
    """One image."""

    imagepipe: Version = Field(description="Version of the language.")
    name: SpecName = Field(description="Name of the spec; other specs and `{{ spec.name }}` use it.")
    description: str = Field("", description="Purpose of the image.")
    variables: dict[VariableName, Variable] = Field(
        default_factory=dict, description="Values that can be set from outside, used as `{{ var.NAME }}`."
    )
    matrix: Matrix | None = Field(
        None, description="Variants of the spec, by named axes: `{release: [bookworm, trixie]}`."
    )
    source: Source = Field(description="Source image.")
    launch: Launch = Field(default_factory=Launch, description="The instance that is customized.")
    provision: tuple[Step, ...] = Field((), description="Steps that customize the instance, in order.")
    test: tuple[Test, ...] = Field(
        (), description="Tests on a second instance, launched from the new image, before anything is copied."
    )
    fail_fast: bool = Field(False, description="Stop at the first test that fails; otherwise all tests run.")
    output: Output = Field(description="Image to create.")
    publish: Publish = Field(default_factory=Publish, description="Copies, permissions, lifetime and announcement.")
    retention: Retention | None = Field(
        None,
        description="Retire older images of this spec, or variant, in steps: deprecate, disable, deregister. Images in "
        "use and the last image are always kept.",
    )
    hygiene: Hygiene = Field(default_factory=Hygiene, description="Exceptions from the hygiene scan.")
    reuse: Annotated[Reuse | None, BeforeValidator(_reuse, json_schema_input_type=Literal["unchanged"] | Reuse)] = (
        Field(
            None,
            description="`unchanged`, or `{max_age: 7d}`: keep an existing image whose inputs are the same. If absent, "
            "a spec that is named on the command line is always baked.",
        )
    )
    engine: Engine | None = Field(
        None, description="Workers that bake the image, for `imagepipe build --engine`; others ignore it."
    )


class Parameter(Model):
    """A parameter of a provisioner."""

    type: Literal["string", "integer", "number", "boolean", "list", "mapping"] = Field(
        "string", description="Kind of value."
    )
    default: Any = Field(None, description="Value if the step sets none.")
    required: bool = Field(False, description="The step must set a value.")
    description: str = Field(description="Purpose of the parameter.", min_length=1)


class Provisioner(Model):
    """Steps that specs share: `provisioners/NAME/provisioner.yaml`."""

    description: str = Field(description="Purpose of the provisioner.", min_length=1)
    parameters: dict[VariableName, Parameter] = Field(
        default_factory=dict, description="Values that the step sets in `with`, used as `{{ param.NAME }}`."
    )
    steps: tuple[Step, ...] = Field(
        description="The steps, in this language; paths are relative to the folder.", min_length=1
    )


class Defaults(Model):
    """Defaults for the specs of a project."""

    region: str | None = Field(None, description="Default of `launch.region`.")
    instance_types: tuple[InstanceType, ...] | None = Field(
        None, description="Default of `launch.instance_types`.", min_length=1
    )
    ssh_user: UserName | None = Field(None, description="Default of `launch.ssh.user`.")
    tags: dict[str, Text] = Field(default_factory=dict, description="Added to `output.tags`; a spec's own tag wins.")
    engine: Engine | None = Field(None, description="Default of `engine`.")


class Project(Model):
    """`imagepipe.yaml` at the project's root."""

    imagepipe: Version = Field(1, description="Version of the language.")
    defaults: Defaults = Field(default_factory=Defaults, description="Defaults for all specs.")
    allow_unknown_region: bool = Field(False, description="Accept regions that this version does not know.")
    state: str | None = Field(
        None,
        description="Place of runs: `s3://BUCKET/PREFIX`, shared by all machines. Without it, files on this computer.",
        pattern=r"^(local|s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/.*)?)$",
    )
    state_kms_key: str | None = Field(
        None,
        description="KMS key that encrypts shared state: ARN, id or alias. Without it, the bucket's default: SSE-S3.",
        min_length=1,
    )
