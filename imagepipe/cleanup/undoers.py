"""The reverse of the recipe: find each kind of resource by id or token, and delete it.

The same code undoes a run at its end and cleans up after a dead one. A resource that is already gone is a success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any, TypeVar

from imagepipe.clock import Clock, Deadline
from imagepipe.cloud import tags
from imagepipe.cloud.consistency import ignore_missing
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.s3 import folder_of
from imagepipe.communicator import keys
from imagepipe.dataclass import dataclass
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal import Claim, State
from imagepipe.engine.undo import Undoer
from imagepipe.errors import CloudError

T = TypeVar("T")

TERMINATE_SECONDS = 600
IN_USE_SECONDS = 120
"""Time for which EC2 may report a group or snapshot as in use after its last user is gone."""
SHOWN_SECONDS = 10
MANIFEST = ".manifest.xml"
IN_USE = frozenset({"DependencyViolation", "InvalidSnapshot.InUse", "InvalidGroup.InUse", "ResourceInUse"})


@dataclass(frozen=True, slots=True)
class Undoers:
    """Functions that delete the resources of one account."""

    regions: Regions
    clock: Clock
    shown_seconds: float = SHOWN_SECONDS
    """Time in seconds that EC2 may take to show a new resource; after that, it counts as gone."""

    def undoers(self) -> Mapping[str, Undoer]:
        """Return the functions by kind of claim."""
        return {
            "instance": self.instance,
            "key-pair": self.key_pair,
            "security-group": self.security_group,
            "image": self.image,
            "snapshots": self.snapshots,
            "bundle": self.bundle,
        }

    def instance(self, claim: Claim) -> bool:
        """Terminate an instance and wait for it: its group and volumes are in use until then."""
        ec2 = self.regions[claim.region]
        ids = _ids(claim, ec2.instances.of_token(claim.token))
        for id in ids:
            if id == claim.id:
                self._wait_until_visible(ec2, id)
            ec2.instances.terminate(id)
            # A cancel may have caused the clean-up, and must not stop it.
            ec2.await_terminated(id, deadline=Deadline.after(TERMINATE_SECONDS, self.clock), cancel=Cancel(self.clock))
        keys.delete_private_key(claim.details)
        return bool(ids)

    def _wait_until_visible(self, ec2: Ec2, id: str) -> None:
        """Wait until EC2 shows an instance whose id it returned; after `shown_seconds` the instance counts as gone.

        A call may fail with NotFound for seconds after RunInstances (EC2 API guide, "Eventual consistency"). If undo
        took the instance for gone, it would leak.
        """
        deadline = Deadline.after(self.shown_seconds, self.clock)
        while id not in ec2.instances.describe_many([id]) and not deadline.is_past():
            self.clock.wait(Event(), 0.5)

    def key_pair(self, claim: Claim) -> bool:
        """Delete the key pair in EC2 and the private key here."""
        ec2 = self.regions[claim.region]
        ids = _by_name(claim, ec2.keys.of_token)
        for id in ids:
            self._delete_claimed(claim, id, ec2.keys.delete)
        keys.delete_private_key(claim.details)
        return bool(ids)

    def security_group(self, claim: Claim) -> bool:
        ec2 = self.regions[claim.region]
        ids = _by_name(claim, ec2.groups.of_token)
        for id in ids:
            self._delete_claimed(claim, id, partial(self._once_free, ec2.groups.delete))
        return bool(ids)

    def image(self, claim: Claim) -> bool:
        """Deregister unfinished images, but never one that is tagged as kept, even if its claim is still open.

        The one exception is a claim of which the journal says that the tag is wrong.
        """
        ec2 = self.regions[claim.region]
        kept = set() if claim.state is State.UNKEPT else _kept(ec2, claim)
        ids = [id for id in _ids(claim, [i.id for i in ec2.images.own_of_token(claim.token)]) if id not in kept]
        for id in ids:
            self._delete_claimed(claim, id, ec2.images.deregister)
        return bool(ids)

    def snapshots(self, claim: Claim) -> bool:
        """Delete snapshots that are not kept. Finds them by tag too, because CopyImage does not return their ids."""
        ec2 = self.regions[claim.region]
        found = self._shown_snapshots(ec2, claim)
        for id, snapshot in found.items():
            is_kept = tags.mapping(snapshot.get("Tags")).get(tags.STATE) == tags.KEPT
            if claim.state is State.UNKEPT or not is_kept:
                self._once_free(ec2.snapshots.delete, id)
        return bool(found or claim.id)

    def bundle(self, claim: Claim) -> bool:
        """Delete all objects in the claim's folder, unless a kept image is registered from it."""
        ec2 = self.regions[claim.region]
        bucket, folder = claim.details["bucket"], folder_of(claim.details["prefix"], claim.token)
        keys: Sequence[str] = ()
        with ignore_missing("NoSuchBucket"):
            keys = ec2.s3.keys(bucket, f"{folder}/")
            manifests = {claim.id, *(f"{bucket}/{key}" for key in keys if key.endswith(MANIFEST))}
            if not any(_is_registered(ec2, location) for location in manifests if location):
                ec2.s3.delete(bucket, keys)
        return bool(keys or claim.id)

    def _shown_snapshots(self, ec2: Ec2, claim: Claim) -> Mapping[str, Mapping[str, Any]]:
        """Return a claim's snapshots. Waits for those whose ids EC2 returned, as `_wait_until_visible` does."""
        bound = set(claim.id.split(",")) if claim.id else set()
        deadline = Deadline.after(self.shown_seconds, self.clock)
        while True:
            found = ec2.snapshots.describe_many(_ids(claim, ec2.snapshots.of_token(claim.token)))
            if bound <= found.keys() or deadline.is_past():
                return found
            self.clock.wait(Event(), 0.5)

    def _delete_claimed(self, claim: Claim, id: str, delete: Callable[[str], bool]) -> None:
        """Delete a resource. Retry for a while if EC2 does not know an id that it returned (`_wait_until_visible`)."""
        deadline = Deadline.after(self.shown_seconds, self.clock)
        while not delete(id) and id == claim.id and not deadline.is_past():
            self.clock.wait(Event(), 0.5)

    def _once_free(self, delete: Callable[[str], T], id: str) -> T:
        deadline = Deadline.after(IN_USE_SECONDS, self.clock)
        pause = 0.1
        while True:
            try:
                return delete(id)
            except CloudError as error:
                if error.code not in IN_USE or deadline.is_past():
                    raise
            self.clock.wait(Event(), pause)
            pause = min(pause * 2, 5.0)


def _ids(claim: Claim, found: list[str]) -> list[str]:
    """Return the ids that the claim is bound to, and those of everything tagged with its token."""
    bound = claim.id.split(",") if claim.id else []
    return sorted({*bound, *found})


def _by_name(claim: Claim, of_token: Callable[[str], list[str]]) -> list[str]:
    """Return the ids for a claim on a key pair or group. They are named after the token, so a bound claim has one."""
    return [claim.id] if claim.id else of_token(claim.token)


def _is_registered(ec2: Ec2, location: str) -> bool:
    """Return whether a kept image was registered from this manifest."""
    return any(image.tags.get(tags.STATE) == tags.KEPT for image in ec2.images.own_registered_from(location))


def _kept(ec2: Ec2, claim: Claim) -> set[str]:
    known: Mapping[str, Mapping[str, Any]] = ec2.images.describe_many([claim.id]) if claim.id else {}
    of_token = {i.id for i in ec2.images.own_of_token(claim.token) if i.tags.get(tags.STATE) == tags.KEPT}
    bound = {id for id, image in known.items() if tags.mapping(image.get("Tags")).get(tags.STATE) == tags.KEPT}
    return of_token | bound
