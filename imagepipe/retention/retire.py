"""Do the decided steps: check everything once more, then deprecate, disable or deregister, image by image.

Every step can be repeated, and the state of an image is in EC2. So a run that is interrupted is simply run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from imagepipe.clock import Clock, iso
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.errors import BundleError, Cancelled, CloudError, ImagepipeError
from imagepipe.publish import stored_bundle
from imagepipe.publish.retire import retire
from imagepipe.retention.bakes import Bake, BakedImage, baked_image
from imagepipe.retention.decide import Decision
from imagepipe.retention.record import Entry, RetirementRecord
from imagepipe.retention.rules import Step
from imagepipe.retention.uses import uses_now

AT_ONCE = 8
"""Bakes that are worked on at once; EC2's request rates are the limit for more."""


class Cancel(Protocol):
    """The part of a run's cancel flag that retiring needs."""

    def check(self) -> None: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class RetiredImage:
    """The result of a step for one image."""

    id: str
    region: str
    step: Step
    deleted: tuple[str, ...] = ()
    """Deleted snapshots, or the location of the deleted bundle."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Reason for each snapshot or bundle that was not deleted."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """The result of a step for one bake."""

    decision: Decision
    images: tuple[RetiredImage, ...] = ()
    users: tuple[str, ...] = ()
    """Uses that were found right before the step, so that it was not done."""
    problem: str = ""
    """Reason why the step was not done, or not for all images."""
    hint: str | None = None
    is_error: bool = False
    """True if the problem is a failed call, and not a change of the images."""
    is_cancelled: bool = False


class _Changed(ImagepipeError):
    """An image is no longer as it was when it was examined."""


@dataclass(frozen=True, slots=True)
class Retirer:
    """Does the steps of bakes."""

    regions: Regions
    cancel: Cancel
    clock: Clock
    record: RetirementRecord

    def retire_all(self, decisions: Sequence[Decision]) -> list[Retirement]:
        """Do the steps of all bakes that are to be retired. A failure of one does not stop the others."""
        due = [decision for decision in decisions if decision.verdict == "retire"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._retire, due))

    def _retire(self, decision: Decision) -> Retirement:
        done: list[RetiredImage] = []
        try:
            self.cancel.check()
            bake = self._unchanged(decision)
            if users := uses_now(self.regions, bake, self.cancel, self.clock):
                return Retirement(decision, users=tuple(users))
            wanted = {(image.id, image.region) for image in decision.assessment.images}
            for image in bake.images:
                if (image.id, image.region) in wanted:
                    self.cancel.check()
                    done.append(self._step(image, decision.assessment.step))
        except _Changed as error:
            return Retirement(decision, tuple(done), problem=str(error))
        except Cancelled as error:
            return Retirement(decision, tuple(done), problem=str(error), is_cancelled=True)
        except ImagepipeError as error:
            return Retirement(decision, tuple(done), problem=str(error), hint=error.hint, is_error=True)
        return Retirement(decision, tuple(done))

    def _unchanged(self, decision: Decision) -> Bake:
        """Look at the images of a bake again; return those that still exist. Raises an error if one has changed."""
        bake = decision.bake
        found: list[BakedImage] = []
        for region in bake.regions:
            before = {image.id: image for image in bake.images if image.region == region}
            rows = self.regions[region].lifecycle.own({"Name": "image-id", "Values": sorted(before)})
            for image in (baked_image(row, region) for row in rows):
                _check_unchanged(before[image.id], image)
                found.append(image)
        return Bake(bake.spec, bake.variant, bake.run, tuple(found))

    def _step(self, image: BakedImage, step: Step | None) -> RetiredImage:
        ec2 = self.regions[image.region]
        assert step is not None, "only bakes with a step are retired"
        self.record.begin(image, step)
        match step:
            case Step.DEPRECATE:
                ec2.lifecycle.deprecate(image.id, self.clock.now())
                result = RetiredImage(image.id, image.region, step)
            case Step.DISABLE:
                # The tag is first: an image that is disabled without it would wait for ever.
                ec2.images.tag([image.id], {tags.DISABLED: iso(self.clock.now())})
                if image.state != "disabled":
                    ec2.lifecycle.disable(image.id)
                result = RetiredImage(image.id, image.region, step)
            case Step.DEREGISTER:
                result = _deregister(ec2, image)
        self.record.done(image, step)
        return result

    def finish_earlier(self) -> list[RetiredImage]:
        """Delete the data of images that an earlier process deregistered when it was killed.

        An image that still exists is left to its next step. Raises CloudError.
        """
        finished = []
        for entry in self.record.unfinished():
            self.cancel.check()
            ec2 = self.regions[entry.region]
            if not ec2.lifecycle.own({"Name": "image-id", "Values": [entry.id]}):
                finished.append(_delete_data(ec2, entry))
            self.record.settle(entry)
        return finished


def _check_unchanged(before: BakedImage, now: BakedImage) -> None:
    """Raise an error if somebody has changed an image in a way that matters."""
    if now.is_protected:
        raise _Changed(f"{now.describe()} has deregistration protection")
    if (now.spec, now.variant, now.run, now.is_kept) != (before.spec, before.variant, before.run, before.is_kept):
        raise _Changed(f"the tags of {now.describe()} have changed")
    if (now.state, now.last_launched) != (before.state, before.last_launched):
        raise _Changed(f"{now.describe()} was {before.state}, and was launched or is {now.state} now")


def _deregister(ec2: Ec2, image: BakedImage) -> RetiredImage:
    if image.bundle:
        done = retire(ec2, image.described, deletes_data=True)
        return RetiredImage(image.id, image.region, Step.DEREGISTER, done.deleted, done.left)
    results = ec2.lifecycle.deregister_with_snapshots(image.id)
    deleted = tuple(snapshot for snapshot, reason in results.items() if not reason)
    left = {snapshot: reason for snapshot, reason in results.items() if reason}
    return RetiredImage(image.id, image.region, Step.DEREGISTER, deleted, left)


def _delete_data(ec2: Ec2, entry: Entry) -> RetiredImage:
    """Delete the snapshots or the bundle of an image that no longer exists, unless another image uses them."""
    deleted: list[str] = []
    left: dict[str, str] = {}
    for id, snapshot in ec2.snapshots.describe_many(entry.snapshots).items():
        if tags.mapping(snapshot.get("Tags")).get(tags.SPEC) != entry.spec:
            left[id] = "it has no tag of this spec"
        elif users := ec2.images.own_made_of(id):
            left[id] = f"also used by {', '.join(image.id for image in users)}"
        else:
            ec2.snapshots.delete(id)
            deleted.append(id)
    if entry.bundle:
        try:
            bundle = stored_bundle.look_up(ec2.s3, entry.bundle)
            if users_of_bundle := stored_bundle.users(ec2, bundle, but=entry.id):
                left[entry.bundle] = f"also used by {', '.join(users_of_bundle)}"
            else:
                stored_bundle.delete(ec2.s3, bundle)
                deleted.append(entry.bundle)
        except (CloudError, BundleError) as error:
            left[entry.bundle] = str(error)
    return RetiredImage(entry.id, entry.region, Step.DEREGISTER, tuple(deleted), left)
