"""`validate --online`: check a spec against the cloud before a build. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from imagepipe.capture.instance_store.preconditions import check_account, type_errors
from imagepipe.cloud.dry_run import DryRun, PermissionProbe
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.errors import DENIED, NO_CAPACITY
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.instances import LaunchRequest
from imagepipe.errors import CloudError, Problem, UsageError
from imagepipe.launch.access import subnets_of
from imagepipe.launch.devices import check_boot_mode, devices_of
from imagepipe.launch.source import FindSource, checked_tags, image_description, image_names
from imagepipe.launch.user_data import user_data
from imagepipe.publish.share import check_keys
from imagepipe.spec.bundle_rules import LARGEST_ROOT_GIB, bundle_region
from imagepipe.spec.document import KeyPath
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import AmiBySsm, EbsOutput, InstanceStoreOutput, Spec
from imagepipe.wiring.build import (
    audience_of,
    device_plan,
    devices_wanted,
    image_keys,
    image_parameter,
    source_wanted,
    template_targets,
)

SPENT = frozenset({"NoCredentials", "NoAnswer", "AuthFailure", "InvalidClientTokenId", "ExpiredToken"})
"""Error codes that end the check."""


class Preflight:
    """The check of one spec in its regions."""

    def __init__(self, loaded: LoadedSpec, regions: Regions, region: str) -> None:
        self._loaded = loaded
        self._regions = regions
        self._region = region
        self._ec2 = regions[region]
        self._dry = DryRun(regions.session, region)
        self.problems: list[Problem] = []

    def check(self) -> list[Problem]:
        """Return every problem that the cloud reports. Raises CloudError if the cloud cannot be reached."""
        spec = self._loaded.checked()
        source: SourceImage | None = None
        ssm = isinstance(spec.source.ami, AmiBySsm)
        if spec.source.ami is not None:  # the image of another spec does not exist yet
            with self._at("source", "ami", *(["ssm"] if ssm else [])):
                source = FindSource(self._ec2, source_wanted(spec), needs_ebs=isinstance(spec.output, EbsOutput)).find(
                    lambda _: None
                )
        if source is not None:
            self._names(spec, source)
            self._volumes(spec, source)
        subnets, vpc = self._subnets(spec)
        self._own_access(spec)
        if isinstance(spec.output, InstanceStoreOutput):
            self._bundle(spec, spec.output, source)
        self._keys(spec)
        if source is not None:
            self._launches(spec, source, subnets)
        if spec.publish.share.public:
            self._public(spec)
        self._announcements(spec)
        if source is not None:
            self._sharing_keys(spec, source)
        self._permissions(spec, vpc)
        return self.problems

    @contextmanager
    def _at(self, *path: str | int) -> Iterator[None]:
        """Turn a CloudError into a problem at this place of the spec."""
        try:
            yield
        except (CloudError, UsageError) as error:
            if isinstance(error, CloudError) and error.code in SPENT:
                raise
            self._add(path, error)

    def _add(self, path: KeyPath, error: CloudError | UsageError) -> None:
        hint = error.hint
        if isinstance(error, CloudError) and error.code in DENIED:
            # A dry run uses made-up ids, which have no tags.
            hint = f"{hint}; ignore this if a policy allows it only with the spec's tags (`imagepipe policy`)"
        self.problems.append(self._loaded.problem(path, str(error), hint=hint))

    def _add_once(self, path: KeyPath, error: CloudError) -> None:
        """Add a problem that does not depend on the instance type, for the first type only."""
        if ".".join(map(str, path)) not in {problem.path for problem in self.problems}:
            self._add(path, error)

    def _everywhere(self, spec: Spec) -> list[str]:
        return spec.publish.everywhere(self._region)

    def _names(self, spec: Spec, source: SourceImage) -> None:
        everywhere = self._everywhere(spec)
        with self._at("output", "description"):
            for region in everywhere:
                image_description(spec.output.description, late_names(source, region), region)
        with self._at("output", "tags"):
            for region in everywhere:
                checked_tags("output.tags", spec.output.tags, late_names(source, region), region)
        with self._at("launch", "tags"):
            checked_tags("launch.tags", spec.launch.tags, late_names(source, self._region), self._region)
        if spec.output.on_name_taken == "replace":
            return
        with self._at("output", "name"):
            for region, name in image_names(spec.output.name, source, self._everywhere(spec)).items():
                if taken := self._regions[region].images.own_named(name):
                    raise CloudError(f"name '{name}' is taken by {taken[0].id} in {region}")

    def _bundle(self, spec: Spec, output: InstanceStoreOutput, source: SourceImage | None) -> None:
        """Check account, buckets and types of an instance-store image, but not the permission to write."""
        is_local = self._regions.session.is_local
        if not is_local:
            with self._at("output", "account"):
                check_account(self._regions.session, output.account)
        for region in self._everywhere(spec):
            is_own = region in output.per_region
            if region != self._region and not is_own:
                continue  # the check of the spec reports it
            with self._at("output", *(["per_region", region] if is_own else []), "bucket"):
                s3, bucket = self._regions[region].s3, bundle_region(output, region, home=self._region).bucket
                if s3.has_bucket(bucket) or not is_local:  # on the local cloud, a build creates the bucket
                    s3.check_settings(bucket)
        with self._at("launch", "instance_types"):
            types = spec.launch.instance_types
            for instance_type, error in type_errors(self._ec2, types).items():
                self._add(("launch", "instance_types", types.index(instance_type)), error)
        if source is not None:
            self._root_size(spec, output, source)

    def _root_size(self, spec: Spec, output: InstanceStoreOutput, source: SourceImage) -> None:
        """Check the size of the source's root if the spec does not change it; `validate` checks a size in the spec."""
        named = any(
            volume.device == source.root_device_name and volume.size_gib for volume in spec.launch.block_devices
        )
        is_whole = output.method == "block" or (output.method == "auto" and not output.exclude)
        if named or not is_whole or output.size_gib is not None:
            return
        sizes = {mapping["DeviceName"]: mapping.get("Ebs", {}).get("VolumeSize", 0) for mapping in source.mappings}
        with self._at("output"):
            if (size := sizes.get(source.root_device_name, 0)) > LARGEST_ROOT_GIB:
                raise CloudError(
                    f"the root of {source.id} has {size} GiB; an instance-store image has at most {LARGEST_ROOT_GIB}",
                    hint="set output.size_gib for a new file system, or use a source image with a smaller root",
                )

    def _volumes(self, spec: Spec, source: SourceImage) -> None:
        plan = device_plan(spec)
        for found in plan.problems(source):
            self._add((found.section, "block_devices", found.index, found.key), found.error())
        if plan.snapshots:
            with self._at("launch", "block_devices"):
                for found in plan.snapshot_problems(self._ec2.snapshots.describe_many(plan.snapshots)):
                    self._add((found.section, "block_devices", found.index, found.key), found.error())
        with self._at("output", "boot_mode"):
            check_boot_mode(source, spec.output.boot_mode)

    def _subnets(self, spec: Spec) -> tuple[tuple[str, ...], str | None]:
        """Return the ids of the subnets and their VPC; problems are reported at each subnet."""
        found: list[str] = []
        vpc: str | None = None
        for index, subnet in enumerate(spec.launch.subnets):
            with self._at("launch", "subnets", index):
                ids = subnets_of(self._ec2, (subnet if isinstance(subnet, str) else subnet.tags,))
                vpcs = self._ec2.subnets.vpcs_of(ids)
                if vpc is not None and set(vpcs.values()) != {vpc} and not spec.launch.security_groups:
                    raise CloudError(
                        f"{', '.join(ids)}: in {', '.join(vpcs.values())}, but the earlier subnets are in {vpc}"
                    )
                vpc = next(iter(vpcs.values()))
                found += ids
        if not spec.launch.subnets:
            with self._at("launch"):
                vpc = self._ec2.subnets.default_vpc()
                if vpc is None:
                    raise CloudError(f"{self._region} has no default VPC", hint="name a subnet in launch.subnets")
        return tuple(found), vpc

    def _own_access(self, spec: Spec) -> None:
        if key := spec.launch.ssh.key_pair:
            with self._at("launch", "ssh", "key_pair"):
                self._dry.key_pair(key)
        if groups := spec.launch.security_groups:
            with self._at("launch", "security_groups"):
                self._dry.groups(groups)

    def _keys(self, spec: Spec) -> None:
        encrypt = spec.output.encrypt if isinstance(spec.output, EbsOutput) else None
        if encrypt and encrypt.kms_key:
            with self._at("output", "encrypt", "kms_key"):
                self._dry.kms_key(encrypt.kms_key)
        for region, wanted in encrypt.per_region.items() if encrypt else ():
            with self._at("output", "encrypt", "per_region", region, "kms_key"):
                DryRun(self._regions.session, region).kms_key(wanted.kms_key)

    def _launches(self, spec: Spec, source: SourceImage, subnets: tuple[str, ...]) -> None:
        """Check each instance type: a build uses the later ones only when the first has no capacity."""
        launch = spec.launch
        for index, instance_type in enumerate(launch.instance_types):
            encrypted = isinstance(spec.output, EbsOutput) and spec.output.encrypt is not None
            devices = devices_of(devices_wanted(launch.block_devices), source, encrypt=encrypted, kms_key=None)
            with self._at("launch", "instance_types", index):
                request = LaunchRequest(
                    image=source.id,
                    instance_type=instance_type,
                    subnet=subnets[0] if subnets else None,
                    security_groups=launch.security_groups,
                    key_pair=launch.ssh.key_pair,
                    user_data=user_data(None, launch.user_data),
                    mappings=tuple(device.launched() for device in devices),
                    instance_profile=launch.iam_instance_profile,
                    spot=launch.spot is not None,
                    max_price=launch.spot.max_price if launch.spot else None,
                )
                self._launch(request)

    def _launch(self, request: LaunchRequest) -> None:
        """Check one launch and report at the responsible place of the spec. Ignores capacity, which changes."""
        try:
            self._dry.launch(request)
        except CloudError as error:
            if error.code == "InvalidBlockDeviceMapping":
                self._add_once(("launch", "block_devices"), error)
            elif "iamInstanceProfile" in str(error):
                self._add_once(("launch", "iam_instance_profile"), error)
            elif error.code not in NO_CAPACITY - {"Unsupported"}:
                raise

    def _public(self, spec: Spec) -> None:
        with self._at("publish", "share", "public"):
            for region in self._everywhere(spec):
                if (state := self._regions[region].images.block_public_access()) != "unblocked":
                    raise CloudError(
                        f"this account blocks public images in {region}: block public access is {state}",
                        hint="an administrator can allow them: `aws ec2 disable-image-block-public-access`",
                    )

    def _announcements(self, spec: Spec) -> None:
        """Check the SSM parameter and the launch templates in every region."""
        parameter = image_parameter(self._loaded)
        for region in self._everywhere(spec):
            if parameter is not None:
                with self._at("publish", "ssm_parameter"):
                    parameter.look_up(self._regions[region])
            for target in template_targets(spec, region, self._region):
                with self._at("publish", "launch_templates"):
                    target.look_up(self._regions[region])

    def _sharing_keys(self, spec: Spec, source: SourceImage) -> None:
        audience = audience_of(spec)
        if audience and (keys := image_keys(spec, self._region)):
            ec2 = {region: self._regions[region] for region in self._everywhere(spec)}
            with self._at("publish", "share"):
                check_keys(ec2, source, audience, keys, lambda text: None)

    def _permissions(self, spec: Spec, vpc: str | None) -> None:
        """Report missing IAM actions at the part of the spec that needs them."""
        share = spec.publish.share
        for region in self._everywhere(spec):
            asked = PermissionProbe(
                makes_key=spec.launch.ssh.key_pair is None,
                makes_group=not spec.launch.security_groups,
                vpc=vpc,
                shares=bool(share.accounts or share.organizations or share.ous or share.public),
                copies=region != self._region,
                source_region=self._region,
                bundles=isinstance(spec.output, InstanceStoreOutput),
                deprecates=bool(spec.publish.deprecate_after),
                protects=bool(spec.publish.deregistration_protection),
                updates_templates=any(True for _ in template_targets(spec, region, self._region)),
            )
            at: KeyPath = ("publish", "regions") if asked.copies else ("launch",)
            with self._at(*at):
                for error in DryRun(self._regions.session, region).denied(asked):
                    self._add(at, error)


def check_online(loaded: LoadedSpec, regions: Regions, region: Callable[[Spec], str]) -> list[Problem]:
    """Return every problem of a spec that the cloud reports."""
    return Preflight(loaded, regions, region(loaded.checked())).check()
