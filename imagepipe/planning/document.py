"""A plan as a whole, and its file. A reader ignores keys that it does not know, and refuses another major version."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.files import write_atomically
from imagepipe.planning.actions import Action
from imagepipe.planning.cost import Cost, total_json
from imagepipe.planning.decisions import Decision
from imagepipe.planning.prices import PriceTable
from imagepipe.regular_files import read_regular

FORMAT_VERSION = "1.0"
MAX_AGE = timedelta(days=7)
"""Age at which a plan is refused: mirrors, prices and neighbours have moved on, whatever the fingerprints say."""


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a plan that `build --plan` needs to load the same specs."""

    files: tuple[str, ...]
    specs: tuple[str, ...]
    """Keys of the specs, with the bases that nobody named."""
    named: tuple[str, ...]
    variables: Mapping[str, Any]
    """Values of variables; sensitive ones are not stored."""
    region: str | None
    cloud: Mapping[str, str]
    force: bool


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """Everything that a build would do."""

    created: datetime
    request: Request
    decisions: tuple[Decision, ...]
    actions: tuple[Action, ...] = ()
    seconds: Mapping[str, float | None] = field(default_factory=dict)
    """Expected duration of each spec that is baked, from its last bake on this computer; None if there was none."""
    total_seconds: float | None = None
    """Expected duration of the build: that of the longest chain of layers."""
    cost: Cost = field(default_factory=Cost)
    prices: PriceTable | None = None

    @property
    def changes(self) -> bool:
        """True if the build would create or change anything that stays."""
        return any(action.verb != "find" and not action.is_temporary for action in self.actions)

    def to_json(self) -> dict[str, Any]:
        """Return the plan for `--format json` and for a file."""
        request = self.request
        return {
            "format_version": FORMAT_VERSION,
            "created": self.created.isoformat(timespec="seconds"),
            "request": {
                "files": list(request.files),
                "specs": list(request.specs),
                "named": list(request.named),
                "variables": dict(request.variables),
                "region": request.region,
                "cloud": dict(request.cloud),
                "force": request.force,
            },
            "changes": self.changes,
            "decisions": [decision.to_json() for decision in self.decisions],
            "actions": [action.to_json() for action in self.actions],
            "duration": {"seconds": self.total_seconds, "by_spec": dict(self.seconds)},
            "cost": self._cost(),
        }

    def _cost(self) -> dict[str, Any]:
        prices = self.prices
        return {
            "currency": prices.currency if prices else None,
            "prices_of": prices.date.isoformat() if prices else None,
            "once": total_json(self.cost.once()),
            "monthly": total_json(self.cost.monthly()),
            "lines": self.cost.to_json(),
        }

    def write(self, file: Path) -> None:
        """Write the plan. Raises UsageError if the file cannot be written."""
        try:
            write_atomically(file, json.dumps(self.to_json(), indent=2) + "\n")
        except OSError as error:
            raise UsageError(f"the plan cannot be written to {file}: {error.strerror}") from error


def read_plan(file: Path, now: datetime) -> tuple[Request, tuple[Decision, ...]]:
    """Return the request and the decisions of a plan file. Raises UsageError if it is damaged, foreign or too old."""
    again = "make a new one: imagepipe plan SPEC… --out FILE"
    try:
        document = json.loads(read_regular(file))
    except OSError as error:
        raise UsageError(f"the plan {file} cannot be read: {error.strerror}", hint=again) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not a plan: {error}", hint=again) from error
    version = document.get("format_version") if isinstance(document, dict) else None
    if not isinstance(version, str) or version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise UsageError(f"{file} is not a plan that this imagepipe reads: format_version is {version!r}", hint=again)
    try:
        created = datetime.fromisoformat(document["created"])
        age = now - created
        rows = document["request"]
        request = Request(
            _texts(rows["files"]),
            _texts(rows["specs"]),
            _texts(rows["named"]),
            dict(rows["variables"]),
            rows["region"],
            {str(key): str(value) for key, value in rows["cloud"].items()},
            bool(rows["force"]),
        )
        decisions = tuple(Decision.from_json(row) for row in document["decisions"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} is a damaged plan: {error!r}", hint=again) from error
    if age > MAX_AGE:
        raise UsageError(f"the plan {file} is {age.days} days old; at most {MAX_AGE.days} are accepted", hint=again)
    return request, decisions


def _texts(value: Sequence[object]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise TypeError("a list of texts was expected")
    return tuple(str(each) for each in value)
