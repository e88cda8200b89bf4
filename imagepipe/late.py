"""Templates that are rendered while the graph runs."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Late:
    """A template that can be rendered only while the graph runs, because it names `source` or `region`.

    It replaces the text in the model; the stage that has it renders it in `run()` (`imagepipe.render.render_late`).
    """

    text: str
    """The template."""
    known: tuple[tuple[str, Any], ...] = field(default=(), repr=False)
    """The known values that the template reads, of `var`, `param`, `spec` and `build`."""


Text = str | Late
"""A text, or a template that is rendered while the graph runs."""
