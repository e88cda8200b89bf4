"""imagepipe: Amazon Machine Images baked from YAML.

As a library: `from imagepipe import load_specs, plan, build, Events` (docs/reference/library.md). The names are loaded
when they are first used, because every command imports this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagepipe.errors import (
        CloudError,
        ImagepipeError,
        LocalCloudError,
        Problem,
        SpecError,
        UsageError,
    )
    from imagepipe.library import (
        BuildError,
        BuildResult,
        BuiltImage,
        Cloud,
        Event,
        Events,
        Failure,
        Plan,
        PlannedAction,
        PlannedSpec,
        Specs,
        build,
        load_specs,
        plan,
    )
    from imagepipe.step_kinds import Machine, StepKind, StepKindError

__version__ = "0.1.0"

__all__ = [
    "BuildError",
    "BuildResult",
    "BuiltImage",
    "Cloud",
    "CloudError",
    "Event",
    "Events",
    "Failure",
    "ImagepipeError",
    "LocalCloudError",
    "Machine",
    "Plan",
    "PlannedAction",
    "PlannedSpec",
    "Problem",
    "SpecError",
    "Specs",
    "StepKind",
    "StepKindError",
    "UsageError",
    "__version__",
    "build",
    "load_specs",
    "plan",
]

_HOMES = {
    **dict.fromkeys(
        ("CloudError", "ImagepipeError", "LocalCloudError", "Problem", "SpecError", "UsageError"), "errors"
    ),
    **dict.fromkeys(("Machine", "StepKind", "StepKindError"), "step_kinds"),
}
"""Modules of the public names that are not in `library`."""


if not TYPE_CHECKING:  # or type checkers would accept any name

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'imagepipe' has no attribute {name!r}")
        home = importlib.import_module(f"imagepipe.{_HOMES.get(name, 'library')}")
        found: object = getattr(home, name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
