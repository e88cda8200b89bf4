"""Say why a spec's image is up to date or stale, by comparing the inputs of then and now. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from imagepipe.dataclass import dataclass
from imagepipe.inputs.compare import Change, compare
from imagepipe.inputs.manifest import InputManifest
from imagepipe.spec.loaded import LoadedSpec

Manifests = Callable[[str, str], InputManifest | str]
"""Returns the inputs of a spec in a run, given the run's id and the spec's key; or the reason why they are not here."""

State = Literal["up to date", "changed", "unknown", "not baked yet"]


@dataclass(frozen=True, slots=True)
class Baked:
    """The image of a spec that the inputs are compared with."""

    id: str
    fingerprint: str
    """Fingerprint of its inputs; empty if it has none."""
    run: str
    """Run that baked it."""
    created: str = ""
    """Time at which it was created."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one spec."""

    spec: str
    state: State
    image: Baked | None = None
    changes: tuple[Change, ...] = ()
    reason: str = ""
    """Explanation in words, if the changes do not say everything."""

    def describe(self) -> list[str]:
        """Return the lines for people."""
        image = f" ({self.image.id}, run {self.image.run or '?'})" if self.image else ""
        reason = f": {self.reason}" if self.reason else ""
        return [f"{self.spec}: {self.state}{image}{reason}", *(f"  {change.describe()}" for change in self.changes)]

    def to_json(self) -> dict[str, Any]:
        """Return the value for `--format json`."""
        changes = [
            {"kind": each.kind, "name": each.name, "old": each.old or None, "new": each.new or None}
            for each in self.changes
        ]
        return {
            "spec": self.spec,
            "state": self.state,
            "image_id": self.image.id if self.image else None,
            "run": self.image.run if self.image else None,
            "reason": self.reason or None,
            "changes": changes,
        }


@dataclass(frozen=True, slots=True)
class Now:
    """The inputs of a spec as they are now."""

    spec: str
    inputs: InputManifest | None
    """The inputs, complete if the source image is known; None if a secret decides how the spec is read."""
    problem: str = ""
    """Reason why the source image was not found."""
    base: Answer | None = None
    """The answer for the base, if the spec is built on another one."""


class Explainer:
    """Explains the specs of a family, each after its base."""

    def __init__(self, manifests: Manifests, images: Callable[[LoadedSpec], Sequence[Baked]]) -> None:
        """`images` returns the images of a spec, newest first."""
        self._manifests, self._images = manifests, images

    def explain(self, spec: LoadedSpec, now: Now, image: Baked | None = None) -> Answer:
        """Return the answer for one spec.

        `image` is the one to compare with; by default an image with the same inputs, which a build would use again, or
        else the newest.
        """
        images = list(self._images(spec))
        mark = now.inputs.fingerprint() if now.inputs is not None and now.inputs.source else None
        image = image or next((each for each in images if each.fingerprint == mark), next(iter(images), None))
        if image is None:
            return Answer(now.spec, "not baked yet")
        old = self._manifests(image.run, now.spec)
        missing = old if isinstance(old, str) else ""
        return answer(now, image, None if isinstance(old, str) else old, missing=missing)


def answer(now: Now, image: Baked, old: InputManifest | None, *, missing: str = "") -> Answer:
    """Return the answer for one spec that has an image. `missing` is the reason why the old inputs are not here."""
    base_is_stale = now.base is not None and now.base.state != "up to date"
    if now.inputs is None:
        return Answer(now.spec, "unknown", image, reason="a secret decides how this spec is read")
    if now.problem:
        return Answer(now.spec, "unknown", image, reason=now.problem)
    if not base_is_stale and now.inputs.source and image.fingerprint == now.inputs.fingerprint():
        return Answer(now.spec, "up to date", image)
    reason = f"its base {now.base.spec} is {now.base.state}" if now.base is not None and base_is_stale else ""
    if old is None:
        if reason:
            return Answer(now.spec, "changed", image, reason=f"{reason}; {missing}")
        return Answer(now.spec, "unknown", image, reason=missing)
    is_unsure = now.base is not None and now.base.state == "unknown"
    changes = compare(old, now.inputs, with_source=bool(now.inputs.source) and not base_is_stale)
    if not changes and not base_is_stale:
        no_source = "" if now.inputs.source else "the source image was not looked up"
        return Answer(now.spec, "up to date", image, reason=no_source)
    return Answer(now.spec, "unknown" if is_unsure and not changes else "changed", image, tuple(changes), reason)
