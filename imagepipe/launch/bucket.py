"""What an instance-store image needs of S3 and of EC2 beside the launch: seen before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagepipe import render
from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import SourceImage, late_names
from imagepipe.cloud.s3 import folder_of
from imagepipe.cloud.session import Session
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.errors import CloudError
from imagepipe.spec.bundle_rules import prefix_problem
from imagepipe.values import Text


@dataclass(frozen=True)
class CheckBucket(Stage[None]):
    """That bundles can be put into the bucket of each region, for EC2 there to read and this account to register."""

    ec2: Mapping[str, Ec2] = field(repr=False, compare=False)
    """By region: every region that gets the image."""
    session: Session = field(repr=False, compare=False)
    source: Ref[SourceImage]
    buckets: Mapping[str, str]
    """By region."""
    prefix: Text
    account: str
    """In the manifest: whose image it will be."""
    is_local: bool = False
    """On the local cloud a bucket that is not there is made, and accounts are its own."""

    def run(self, ctx: Context) -> None:
        if not self.is_local:
            check_account(self.session, self.account)
        for region, bucket in self.buckets.items():
            ctx.cancel.check()
            self._check(ctx, region, bucket)

    def _check(self, ctx: Context, region: str, bucket: str) -> None:
        s3 = self.ec2[region].s3
        if self.is_local and not s3.has_bucket(bucket):
            s3.make_bucket(bucket)
            ctx.say(f"made bucket {bucket} in {region}: the local cloud had none")
        prefix = render.finish(self.prefix, late_names(ctx[self.source], region))
        if problem := prefix_problem(prefix):
            raise CloudError(f"output.prefix is {prefix!r} in {region}: {problem}", code="InvalidPrefix")
        details = {"bucket": bucket, "prefix": prefix}
        claim = ctx.intend("bundle", region, lifetime=Lifetime.RUN, details=details)
        s3.check_bucket(bucket, folder_of(prefix, claim.token))
        ctx.released(claim)

    def title(self) -> str:
        return "see that bundles can be put into S3"

    def summary(self, output: None) -> str:
        return ", ".join(f"{bucket} in {region}" for region, bucket in self.buckets.items())


@dataclass(frozen=True)
class CheckTypes(Stage[None]):
    """That instances of all types can have their root on instance store, as instances of the image will."""

    ec2: Ec2 = field(repr=False, compare=False)
    instance_types: tuple[str, ...]

    def run(self, ctx: Context) -> None:
        for error in type_errors(self.ec2, self.instance_types).values():
            raise error

    def title(self) -> str:
        return "see that the instance types can run the image"


def check_account(session: Session, account: str) -> None:
    """Raise CloudError where the credentials are of another account; an endpoint of one's own may have no STS."""
    try:
        ours = session.account()
    except CloudError:
        return
    if ours != account:
        raise CloudError(
            f"output.account is {account}, and these credentials are of account {ours}",
            hint="EC2 registers a bundle only for the account that its manifest names: write that of the credentials",
        )


def type_errors(ec2: Ec2, instance_types: Sequence[str]) -> Mapping[str, CloudError]:
    """By type, what is wrong with it as the type of an instance-store image. Raises CloudError."""
    roots = ec2.instances.root_device_types(instance_types)
    return {
        one: _no_root(one, ec2.region, roots) for one in instance_types if "instance-store" not in roots.get(one, ())
    }


def _no_root(instance_type: str, region: str, roots: Mapping[str, Sequence[str]]) -> CloudError:
    if instance_type not in roots:
        return CloudError(f"there is no instance type {instance_type} in {region}", code="InvalidInstanceType")
    return CloudError(
        f"{instance_type} in {region} cannot have its root on instance store",
        code="InvalidParameterCombination",
        hint="C1, C3, D2, I2, M1, M2, M3, R3 and X1 can, where a region has them: launch.instance_types: [m3.medium]",
    )
