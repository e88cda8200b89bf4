"""Checks of S3 and EC2 for an instance-store image, made before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.s3 import folder_of
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.late import Text
from imagepipe.spec.bundle_rules import prefix_problem
from imagepipe.values import BundlePlace


@dataclass(frozen=True)
class CheckBucket(Stage[BundlePlace]):
    """Check that bundles can be written to each region's bucket, and that EC2 there can read and register them.

    The bundle's place in the launch region is claimed here, before the instance is launched. Undo works backwards, so
    it terminates the instance before it deletes the objects, and nothing writes new ones in between.
    """

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """EC2 by region, for every region that gets the image."""
    session: Session = field(repr=False, compare=False)
    source: Ref[SourceImage]
    buckets: Mapping[str, str]
    """Buckets by region, the launch region first."""
    prefix: Text
    account: str
    """Account in the manifest, which will own the image."""
    is_local: bool = False
    """On the local cloud, a missing bucket is created, and the account is not checked."""

    def run(self, ctx: Context) -> BundlePlace:
        if not self.is_local:
            check_account(self.session, self.account)
        home, *others = self.buckets.items()
        place, _ = self._check(ctx, *home, Lifetime.PRODUCT)
        for region, bucket in others:
            ctx.cancel.check()
            _, claim = self._check(ctx, region, bucket, Lifetime.RUN)
            ctx.released(claim)
        return place

    def _check(self, ctx: Context, region: str, bucket: str, lifetime: Lifetime) -> tuple[BundlePlace, Claim]:
        s3 = self.ec2[region].s3
        if self.is_local and not s3.has_bucket(bucket):
            s3.make_bucket(bucket)
            ctx.say(f"created bucket {bucket} in {region}, because the local cloud had none")
        prefix = render.render_late(self.prefix, late_names(ctx[self.source], region))
        if problem := prefix_problem(prefix):
            raise CloudError(f"output.prefix is {prefix!r} in {region}: {problem}", code="InvalidPrefix")
        details = {"bucket": bucket, "prefix": prefix}
        claim = ctx.intend("bundle", region, lifetime=lifetime, details=details)
        folder = folder_of(prefix, claim.token)
        s3.check_bucket(bucket, folder)
        return BundlePlace(bucket, folder, claim.token), claim

    def title(self) -> str:
        return "check that bundles can be put into S3"

    def summary(self, output: BundlePlace) -> str:
        return ", ".join(f"{bucket} in {region}" for region, bucket in self.buckets.items())


@dataclass(frozen=True)
class CheckTypes(Stage[None]):
    """Check that all instance types support a root on instance store, as instances of the image have."""

    ec2: Ec2 = field(repr=False, compare=False)
    instance_types: tuple[str, ...]

    def run(self, ctx: Context) -> None:
        for error in type_errors(self.ec2, self.instance_types).values():
            raise error

    def title(self) -> str:
        return "check that the instance types can run the image"


def check_account(session: Session, account: str) -> None:
    """Raise CloudError if the credentials belong to another account. A custom endpoint may have no STS."""
    try:
        ours = session.account()
    except CloudError:
        return
    if ours != account:
        raise CloudError(
            f"output.account is {account}, but these credentials belong to account {ours}",
            hint="EC2 registers a bundle only for the account in its manifest: set output.account to "
            "that of the credentials",
        )


def type_errors(ec2: Ec2, instance_types: Sequence[str]) -> Mapping[str, CloudError]:
    """Return an error for each type that cannot run an instance-store image. Raises CloudError."""
    roots = ec2.instances.root_device_types(instance_types)
    return {
        instance_type: _no_root(instance_type, ec2.region, roots)
        for instance_type in instance_types
        if "instance-store" not in roots.get(instance_type, ())
    }


def _no_root(instance_type: str, region: str, roots: Mapping[str, Sequence[str]]) -> CloudError:
    if instance_type not in roots:
        return CloudError(f"instance type {instance_type} does not exist in {region}", code="InvalidInstanceType")
    return CloudError(
        f"{instance_type} in {region} cannot have its root on instance store",
        code="InvalidParameterCombination",
        hint="C1, C3, D2, I2, M1, M2, M3, R3 and X1 can, where a region has them: launch.instance_types: [m3.medium]",
    )
