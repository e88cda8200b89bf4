"""The cloud of a command: AWS, another endpoint, or the local cloud with its own credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

import click

from imagepipe.cli.options import CloudOptions
from imagepipe.clock import Clock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.rate_limit import Pace
from imagepipe.cloud.session import Access, Session, has_profile
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.spec.models import Spec

AWS_DOMAINS = (
    *(".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"),
    *(".api.amazonwebservices.com.cn", ".api.amazonwebservices.eu"),
    *(".c2s.ic.gov", ".sc2s.sgov.gov", ".csp.hci.ic.gov", ".cloud.adc-e.uk"),
)
"""The domains of AWS's endpoints in all partitions; the list is that of botocore, and a test compares them."""


@dataclass(frozen=True, slots=True)
class CloudTarget:
    """The cloud that a command uses, as a journal records it; without credentials."""

    local: str | None = None
    """Path of the local cloud's store."""
    profile: str | None = None
    endpoint_url: str | None = None
    role: str | None = None
    """ARN of the role to assume."""
    account: str | None = None
    """Account id. With another account's credentials, all resources of the run would appear to be deleted."""

    def record(self) -> dict[str, str]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> CloudTarget:
        return cls(**{key: record.get(key) for key in ("local", "profile", "endpoint_url", "role", "account")})

    def identity(self) -> dict[str, str]:
        """Return the values that tell clouds and accounts apart, whatever credentials are used."""
        values = {"local": self.local, "endpoint_url": self.endpoint_url, "account": self.account}
        return {key: value for key, value in values.items() if value is not None}

    def with_account(self, regions: Regions) -> CloudTarget:
        """Return a copy that records the account; an unchanged one if the endpoint has no STS, as on private clouds."""
        if self.local is not None:
            return self
        try:
            return replace(self, account=regions.session.account())
        except CloudError:
            return self

    def check_account(self, regions: Regions) -> None:
        """Raise UsageError if the run was started in a different account."""
        if self.account is not None and (ours := regions.session.account()) != self.account:
            raise UsageError(
                f"the run is in account {self.account}, and these credentials belong to account {ours}",
                hint="use the AWS profile or login that the run was started with",
            )


def endpoint_of_environment() -> str | None:
    """Return the endpoint that boto3 takes from the environment, so that a journal records it."""
    return os.environ.get("AWS_ENDPOINT_URL_EC2") or os.environ.get("AWS_ENDPOINT_URL") or None


def is_aws(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is AWS's own, such as that of a VPC; None is the default one."""
    host = urlsplit(endpoint_url).hostname if endpoint_url else None
    return endpoint_url is None or (host or "").endswith(AWS_DOMAINS)


def _print_progress(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def open_cloud(
    target: CloudTarget, *, region: str | None, clock: Clock, progress: Callable[[str], None] = _print_progress
) -> Iterator[Regions]:
    """Open the cloud; start the local one if it is not running. Raises CloudError and LocalCloudError."""
    if target.local is None:
        pace = Pace(clock, is_aws=is_aws(target.endpoint_url))
        session = Session(Access(target.profile, target.endpoint_url, region, role=target.role), pace)
        session.check_credentials()
        _check_role(target, session)
        yield Regions(session, clock)
        return
    # Loaded late, because a build on AWS does not need the local cloud's libraries.
    from imagepipe.cli.local_store import open_store
    from imagepipe.local.client.connect import connect

    store = open_store(Path(target.local) if target.local else None)
    with connect(store, progress=progress) as cloud:
        access = Access(
            endpoint_url=cloud.endpoint_url,
            instance_endpoint_url=cloud.instance_endpoint_url,
            region=region or cloud.region,
            access_key_id=cloud.access_key_id,
            secret_access_key=cloud.secret_access_key,
            role=target.role,
            host_ports=cloud.host_ports,
        )
        session = Session(access)
        _check_role(target, session)
        yield Regions(session, clock)


def _check_role(target: CloudTarget, session: Session) -> None:
    """Raise CloudError if the role cannot be assumed, before a run begins."""
    if target.role is None:
        return
    try:
        session.account()
    except CloudError as error:
        raise CloudError(
            f"assuming {target.role}: {error}",
            code=error.code,
            hint="check that the role exists, that its trust policy names you, and that you are allowed sts:AssumeRole",
        ) from error


ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9+=,.@_/-]+")


def cloud_target(options: CloudOptions) -> CloudTarget:
    """Return the cloud that a command's options name. Raises UsageError for options that exclude one another."""
    if options.is_local and (options.profile or options.endpoint_url):
        raise UsageError("--local cannot be combined with --profile or --endpoint-url")
    role = options.role
    if role and not ROLE.fullmatch(role):
        raise UsageError(f"--assume-role {role}: not a role's ARN", hint="such as arn:aws:iam::123456789012:role/NAME")
    if options.is_local:
        return CloudTarget(local_store(), role=role)
    return CloudTarget(None, options.profile, options.endpoint_url or endpoint_of_environment(), role)


def recorded_target(record: Mapping[str, str], given: CloudOptions) -> CloudTarget:
    """Return the cloud of an earlier run, reached with the profile and endpoint of this command line, if it has any.

    On another machine the profile of the run may not exist. Then the credentials of the environment are used, and the
    account is checked in any case.
    """
    target = CloudTarget.from_record(record)
    if target.local is not None:
        return target
    target = replace(
        target, profile=given.profile or target.profile, endpoint_url=given.endpoint_url or target.endpoint_url
    )
    if target.profile and not given.profile and not has_profile(target.profile):
        click.echo(f"note: there is no AWS profile {target.profile} here; using the default credentials", err=True)
        return replace(target, profile=None)
    return target


def local_store() -> str:
    """Return the path of the store that --local uses."""
    from imagepipe.cli.local_store import open_store

    return str(open_store(None).root)


def home_region(given: str | None, regions: Regions) -> str:
    """Return the one region that a command works in: --region, or the session's. Raises UsageError."""
    found = given or regions.session.region
    if not found:
        raise UsageError("no region is set", hint="pass --region, or set AWS_DEFAULT_REGION")
    return found


def region_of(given_region: str | None, regions: Regions) -> Callable[[Spec], str]:
    """Return a function for the region of a spec: --region, launch.region, or the session's."""

    def region(spec: Spec) -> str:
        found = given_region or spec.launch.region or regions.session.region
        if not found:
            raise UsageError(f"spec '{spec.name}' has no region", hint="set launch.region, or pass --region")
        return found

    return region
