"""Decide for each spec whether it is baked or an existing image is used, and say why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from imagepipe.dataclass import dataclass
from imagepipe.reuse import Examined, may_reuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.why.answer import Answer
from imagepipe.wiring.existing import Existing


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision for one spec."""

    spec: str
    action: Literal["bake", "use"]
    reason: str
    source: str = ""
    """Id of the source image; empty if it is the image of a base that is baked in the same run."""
    fingerprint: str = ""
    """Fingerprint of the inputs; empty if the source image is not known yet."""
    existing: Existing | None = None
    """The images that are used."""

    def to_json(self) -> dict[str, Any]:
        """Return the value for a plan file."""
        return {
            "spec": self.spec,
            "action": self.action,
            "reason": self.reason,
            "source_image": self.source or None,
            "fingerprint": self.fingerprint or None,
            "existing": self.existing.record() if self.existing else None,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Decision:
        """Return the decision of a plan file. Raises KeyError or TypeError for a damaged one."""
        existing = Existing.from_record(row["existing"]) if row["existing"] else None
        action: Literal["bake", "use"] = "use" if row["action"] == "use" else "bake"
        return cls(
            str(row["spec"]),
            action,
            str(row["reason"]),
            str(row["source_image"] or ""),
            str(row["fingerprint"] or ""),
            existing,
        )

    def differs_from(self, planned: Decision) -> str | None:
        """Return the difference from the decision of a plan; None if a build would do the same."""
        if self.action != planned.action:
            return f"{self.spec}: the plan says '{planned.action}', now it is '{self.action}': {self.reason}"
        if self.source != planned.source:
            return (
                f"{self.spec}: the source image was {planned.source or 'unknown'}, now it is {self.source or 'unknown'}"
            )
        if self.fingerprint != planned.fingerprint:
            return f"{self.spec}: its inputs have changed since the plan; `imagepipe why` lists them"
        if self.existing != planned.existing:
            return f"{self.spec}: its images, or their permissions, have changed since the plan"
        return None


def decide(
    loaded: Sequence[LoadedSpec],
    existing: Mapping[str, Existing],
    answers: Mapping[str, Answer],
    examined: Mapping[str, Examined],
    *,
    force: bool,
) -> list[Decision]:
    """Return the decision for each spec. `loaded` has bases first; the mappings are by key."""
    decisions: dict[str, Decision] = {}
    for spec in loaded:
        key = str(spec.key)
        inputs = examined[key].inputs
        base = decisions[str(spec.base_spec.key)] if spec.base_spec else None
        is_on_new_base = base is not None and base.action == "bake"
        source = "" if is_on_new_base or inputs is None else inputs.source
        mark = "" if is_on_new_base or inputs is None or not source else inputs.fingerprint()
        if key in existing:
            reason = f"nothing has changed since {existing[key].describe()}"
            decisions[key] = Decision(key, "use", reason, source, mark, existing[key])
        else:
            reason = _reason(spec, answers[key], base if is_on_new_base else None, force=force)
            decisions[key] = Decision(key, "bake", reason, source, mark)
    return list(decisions.values())


def _reason(spec: LoadedSpec, answer: Answer, base: Decision | None, *, force: bool) -> str:
    """Return the reason why a spec is baked."""
    if base is not None:
        return f"its base {base.spec} is baked"
    if answer.state == "not baked yet":
        return "it was not baked yet"
    if answer.state == "up to date":
        if not may_reuse(spec, force=force):
            named = "--force" if force else "it is named, and its spec does not say `reuse`"
            return f"{named}; nothing has changed since {answer.image.id if answer.image else 'the last image'}"
        return "its image is older than reuse.max_age, or not kept"
    changes = "; ".join(change.describe() for change in answer.changes[:3])
    more = f"; and {len(answer.changes) - 3} more" if len(answer.changes) > 3 else ""
    return f"{answer.state}: {answer.reason or changes + more}"
