"""The conditions under which an image of a spec is superfluous, and the waiting time before each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import timedelta
from enum import StrEnum

from imagepipe.dataclass import dataclass
from imagepipe.spec.keys import SpecKey
from imagepipe.spec.models import Spec


class Step(StrEnum):
    """A step towards the deletion of an image."""

    DEPRECATE = "deprecate"
    DISABLE = "disable"
    DEREGISTER = "deregister"


@dataclass(frozen=True, slots=True)
class Rules:
    """The retention of one spec or variant."""

    newest: int = 1
    """An image is kept while it is among this many newest ones."""
    max_age: timedelta | None = None
    """An image is kept until it is older than this."""
    launched_within: timedelta | None = None
    """An image that was launched this recently is kept."""
    grace: Mapping[Step, timedelta] = field(default_factory=dict)
    """Waiting time before each step."""
    regions: tuple[str, ...] = ()
    """The regions of the spec, each of which keeps its last image."""


def rules_of(spec: Spec, home: str) -> Rules | None:
    """Return the retention of a spec that is launched in `home`; None if it has none."""
    if (retention := spec.retention) is None:
        return None
    grace = retention.grace
    return Rules(
        retention.newest or 1,
        _time(retention.max_age),
        _time(retention.launched_within),
        {
            Step.DEPRECATE: timedelta(seconds=grace.deprecate),
            Step.DISABLE: timedelta(seconds=grace.disable),
            Step.DEREGISTER: timedelta(seconds=grace.deregister),
        },
        tuple(sorted({home, *spec.publish.regions})),
    )


def _time(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class RuleBook:
    """The retention of several specs, by spec and variant."""

    rules: Mapping[tuple[str, str], Rules]
    """Rules by name and variant of the spec."""
    whole: Mapping[str, Rules] = field(default_factory=dict)
    """Rules for further variants of a spec, which its matrix no longer has, by name."""

    @classmethod
    def of(cls, specs: Iterable[tuple[SpecKey, Rules]], *, whole: Iterable[str]) -> RuleBook:
        """Collect rules. `whole` names the specs that are given without a choice of variants."""
        by_key = {(key.name, key.variant): rules for key, rules in specs}
        first: dict[str, Rules] = {}
        for (name, _), rules in by_key.items():
            first.setdefault(name, rules)
        return cls(by_key, {name: first[name] for name in whole if name in first})

    def rules_for(self, spec: str, variant: str) -> Rules | None:
        """Return the rules for the images of a spec and variant; None if they are not to be retired."""
        return self.rules.get((spec, variant)) or self.whole.get(spec)

    @property
    def names(self) -> list[str]:
        """The names of all specs."""
        return sorted({name for name, _ in self.rules})
