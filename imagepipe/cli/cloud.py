"""The cloud that a command works on: AWS, another endpoint, or the local cloud with its own credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from imagepipe.clock import Clock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the cloud is reached, as a journal keeps it; never a credential."""

    local: str | None = None
    """The local cloud's store."""
    profile: str | None = None
    endpoint_url: str | None = None

    def record(self) -> dict[str, str]:
        values = {"local": self.local, "profile": self.profile, "endpoint_url": self.endpoint_url}
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def of(cls, record: Mapping[str, str]) -> Chosen:
        return cls(record.get("local"), record.get("profile"), record.get("endpoint_url"))


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
