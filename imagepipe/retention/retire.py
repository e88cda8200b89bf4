"""Do the decided steps: check everything once more, then deprecate, disable or deregister, image by image.

The uses of a bake are checked right before its own deregistration. Before a step that can be undone, those of several
bakes are checked at once: one by one, 1,900 images took two minutes. Every step can be repeated, and the state of an
image is in EC2. So a run that is interrupted is simply run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import field
from typing import Any, Protocol

from imagepipe.clock import Clock, iso
from imagepipe.cloud import tags
from imagepipe.cloud.consistency import chunks
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, Cancelled, CloudError, ImagepipeError
from imagepipe.publish import stored_bundle
from imagepipe.publish.retire import retire
from imagepipe.retention.bakes import Bake, BakedImage, baked_image
from imagepipe.retention.decide import Decision
from imagepipe.retention.record import Entry, RetirementRecord
from imagepipe.retention.rules import Step
from imagepipe.retention.survey import in_regions
from imagepipe.retention.uses import LatestUses, uses_by_others, uses_now

AT_ONCE = 8
"""Groups of bakes that are worked on at once; EC2's request rates are the limit for more."""
CHECKED_TOGETHER = 10
"""Bakes that are checked together before a step that can be undone: the images of one call of the reference check."""


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
class _Latest:
    """Images as they are right before a step."""

    images: Mapping[tuple[str, str], BakedImage]
    """The images that still exist, by id and region."""
    failed: Mapping[str, CloudError]
    """Regions that did not answer, with the reason."""

    def of(self, bake: Bake) -> Bake:
        """Return a bake with the images that still exist. Raises an error if one has changed or is not known."""
        for region in bake.regions:
            if (error := self.failed.get(region)) is not None:
                raise error
        found: list[BakedImage] = []
        for before in bake.images:
            if (image := self.images.get((before.id, before.region))) is not None:
                _check_unchanged(before, image)
                found.append(image)
        return Bake(bake.spec, bake.variant, bake.run, tuple(found))


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
            done = {id(each.decision): each for group in pool.map(self._retire_group, _groups(due)) for each in group}
        return [done[id(decision)] for decision in due]

    def _retire_group(self, group: Sequence[Decision]) -> list[Retirement]:
        """Check the bakes of a group, then do the step of each."""
        images = [image for decision in group for image in decision.bake.images]
        try:
            self.cancel.check()
            latest = self._latest(images)
            uses = uses_now(self.regions, list(latest.images.values()))
        except ImagepipeError as error:
            return [_not_done(decision, (), error) for decision in group]
        return [self._retire(decision, latest, uses) for decision in group]

    def _retire(self, decision: Decision, latest: _Latest, uses: LatestUses) -> Retirement:
        done: list[RetiredImage] = []
        try:
            self.cancel.check()
            bake = latest.of(decision.bake)
            if users := uses.of(bake) or uses_by_others(self.regions, bake, self.cancel, self.clock):
                return Retirement(decision, users=tuple(users))
            wanted = {(image.id, image.region) for image in decision.assessment.images}
            for image in bake.images:
                if (image.id, image.region) in wanted:
                    self.cancel.check()
                    done.append(self._step(image, decision.assessment.step))
        except ImagepipeError as error:
            return _not_done(decision, done, error)
        return Retirement(decision, tuple(done))

    def _latest(self, images: Sequence[BakedImage]) -> _Latest:
        """Look at images again, region by region."""
        by_region: dict[str, list[str]] = {}
        for image in images:
            by_region.setdefault(image.region, []).append(image.id)

        def describe(region: str) -> list[Mapping[str, Any]]:
            lifecycle = self.regions[region].lifecycle
            filters = ({"Name": "image-id", "Values": chunk} for chunk in chunks(sorted(by_region[region])))
            return [row for each in filters for row in lifecycle.own(each)]

        found, failed = in_regions(by_region, describe)
        rows = (baked_image(row, region) for region, described in found.items() for row in described)
        return _Latest({(image.id, image.region): image for image in rows}, failed)

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


def _groups(due: Sequence[Decision]) -> list[list[Decision]]:
    """Return bakes that are checked together: several before a step that can be undone, one before a deregistration."""
    final = [[each] for each in due if each.assessment.step is Step.DEREGISTER]
    others = [each for each in due if each.assessment.step is not Step.DEREGISTER]
    starts = range(0, len(others), CHECKED_TOGETHER)
    return [*final, *(others[start : start + CHECKED_TOGETHER] for start in starts)]


def _not_done(decision: Decision, done: Sequence[RetiredImage], error: ImagepipeError) -> Retirement:
    """Return the result of a bake whose step ended early."""
    match error:
        case _Changed():
            return Retirement(decision, tuple(done), problem=str(error))
        case Cancelled():
            return Retirement(decision, tuple(done), problem=str(error), is_cancelled=True)
        case _:
            return Retirement(decision, tuple(done), problem=str(error), hint=error.hint, is_error=True)


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
