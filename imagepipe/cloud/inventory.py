"""Find every resource of imagepipe in a region by its tags alone, without a journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass

OURS = [{"Name": "tag-key", "Values": [tagging.RUN]}]
GONE = frozenset({"terminated", "shutting-down"})


@dataclass(frozen=True, slots=True)
class TaggedResource:
    """A resource that a run created, with its tags."""

    kind: str
    """Kind as in a claim: `instance`, `image`, `snapshots`, `security-group`, `key-pair`, `bundle`."""
    id: str
    region: str
    tags: Mapping[str, str]
    details: Mapping[str, str] = field(default_factory=dict)
    """Details as in a claim."""

    @property
    def run(self) -> str:
        return self.tags[tagging.RUN]

    @property
    def token(self) -> str:
        return self.tags.get(tagging.TOKEN, "")


def everything_of_ours(session: Session, region: str) -> Iterator[TaggedResource]:
    """Return everything with a run's tag, in the order in which it can be deleted. Raises CloudError."""
    client: Any = session.client("ec2", region)
    with translating(f"looking for resources of imagepipe in {region}"):
        for page in client.get_paginator("describe_instances").paginate(Filters=OURS):
            for reservation in page["Reservations"]:
                for each in reservation["Instances"]:
                    if each["State"]["Name"] not in GONE:
                        yield _of("instance", each["InstanceId"], region, each)
        for page in client.get_paginator("describe_images").paginate(Owners=["self"], Filters=OURS):
            for each in page["Images"]:
                yield _of("image", each["ImageId"], region, each)
        for page in client.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=OURS):
            for each in page["Snapshots"]:
                yield _of("snapshots", each["SnapshotId"], region, each)
        for page in client.get_paginator("describe_security_groups").paginate(Filters=OURS):
            for each in page["SecurityGroups"]:
                yield _of("security-group", each["GroupId"], region, each)
        for each in client.describe_key_pairs(Filters=OURS)["KeyPairs"]:
            yield _of("key-pair", each["KeyPairId"], region, each)


def _of(kind: str, id: str, region: str, described: Mapping[str, Any]) -> TaggedResource:
    return TaggedResource(kind, str(id), region, tagging.mapping(described.get("Tags")))
