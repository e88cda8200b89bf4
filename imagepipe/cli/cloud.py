"""The cloud that a command works on: AWS, another endpoint, or the local cloud with its own credentials."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click

from imagepipe.clock import Clock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError, UsageError


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the cloud is reached, as a journal keeps it; never a credential."""

    local: str | None = None
    """The local cloud's store."""
    profile: str | None = None
    endpoint_url: str | None = None
    account: str | None = None
    """Whose cloud it is: in another account all of a run's things would look as if they were gone."""

    def record(self) -> dict[str, str]:
        values = {
            "local": self.local,
            "profile": self.profile,
            "endpoint_url": self.endpoint_url,
            "account": self.account,
        }
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Chosen:
        return cls(record.get("local"), record.get("profile"), record.get("endpoint_url"), record.get("account"))

    def with_account(self, regions: Regions) -> Chosen:
        """The same, with the account where it can be learned; an endpoint of somebody's own may have no STS."""
        if self.local is not None:
            return self
        try:
            return replace(self, account=regions.session.account())
        except CloudError:
            return self

    def check_account(self, regions: Regions) -> None:
        """Raise UsageError where the credentials are of another account than the run's."""
        if self.account is not None and (ours := regions.session.account()) != self.account:
            raise UsageError(
                f"the run is in account {self.account}, and these credentials are of account {ours}",
                hint="set AWS_PROFILE, or log in, as it was when the run began",
            )


def endpoint_of_environment() -> str | None:
    """The endpoint that boto3 would take by itself, so that a journal has it too."""
    return os.environ.get("AWS_ENDPOINT_URL_EC2") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextmanager
def opened(chosen: Chosen, *, region: str | None, clock: Clock) -> Iterator[Regions]:
    """The cloud, while inside; the local one is started where it does not run. Raises CloudError, LocalCloudError."""
    if chosen.local is None:
        session = Session(Access(chosen.profile, chosen.endpoint_url, region))
        session.check_credentials()
        yield Regions(session, clock)
        return
    # The local cloud's libraries take their time to load; whoever builds on AWS need not have them.
    from imagepipe.cli.local import open_store
    from imagepipe.local.control import connect

    store = open_store(Path(chosen.local) if chosen.local else None)
    with connect(store, progress=lambda line: click.echo(line, err=True)) as cloud:
        access = Access(
            endpoint_url=cloud.endpoint_url,
            region=region or cloud.region,
            access_key_id=cloud.access_key_id,
            secret_access_key=cloud.secret_access_key,
        )
        yield Regions(Session(access), clock)


def local_store() -> str:
    """The path of the store that --local means."""
    from imagepipe.cli.local import open_store

    return str(open_store(None).root)
