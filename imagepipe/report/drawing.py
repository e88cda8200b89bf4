"""A directed graph as text, Mermaid, DOT or SVG, with durations and the critical path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from html import escape
from itertools import pairwise
from typing import Literal, assert_never

from imagepipe.dataclass import dataclass

Format = Literal["text", "mermaid", "dot", "svg"]

COLUMN, ROW = 250, 62
"""Distance of the columns and rows of an SVG, in pixels."""
BOX_WIDTH, BOX_HEIGHT = 210, 44
MARGIN = 20
LABEL_SHOWN = 30
"""Longest label that fits into a box."""
CRITICAL_COLOUR = "#b35900"  # not red, which would say that something failed


@dataclass(frozen=True, slots=True)
class Node:
    """One box of a drawing."""

    label: str
    seconds: float | None = None
    """Duration in the last run; None if it did not run."""
    note: str = ""
    """Text beside the duration, such as `unchanged`."""

    def duration(self) -> str:
        """Return the duration and the note as text; empty if there is neither."""
        shown = "" if self.seconds is None else f"{self.seconds:.1f} s"
        return ", ".join(each for each in (shown, self.note) if each)


@dataclass(frozen=True)
class Drawing:
    """Nodes by name, in an order in which each follows those that it depends on, and the edges into each."""

    nodes: Mapping[str, Node]
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def needs_of(self, name: str) -> list[str]:
        """Return the nodes that this one waits for, without those that others among them wait for already."""
        direct = [each for each in self.needs.get(name, ()) if each in self.nodes]
        implied = {other for each in direct for other in self._before(each)}
        return [each for each in direct if each not in implied]

    def _before(self, name: str) -> frozenset[str]:
        return self._ancestors[name]

    @cached_property
    def _ancestors(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for name in self.nodes:
            direct = [each for each in self.needs.get(name, ()) if each in self.nodes]
            found[name] = frozenset(direct).union(*(found[each] for each in direct))
        return found

    @cached_property
    def critical_path(self) -> list[str]:
        """The chain of nodes with the longest total duration; empty if no duration is known."""
        total: dict[str, float] = {}
        before: dict[str, str] = {}
        for name, node in self.nodes.items():
            needs = [each for each in self.needs.get(name, ()) if each in total]
            longest = max(needs, key=total.__getitem__, default=None)
            total[name] = (node.seconds or 0.0) + (total[longest] if longest else 0.0)
            if longest is not None:
                before[name] = longest
        if not any(total.values()):
            return []
        path = [max(total, key=total.__getitem__)]
        while path[-1] in before:
            path.append(before[path[-1]])
        return path[::-1]

    def draw(self, format: Format) -> str:
        """Return the drawing in a format."""
        match format:
            case "text":
                return self._text()
            case "mermaid":
                return self._mermaid()
            case "dot":
                return self._dot()
            case "svg":
                return self._svg()
            case _:
                assert_never(format)

    def _text(self) -> str:
        """Return a line for each node: its place in the chain, its duration, and the nodes that it waits for."""
        critical = set(self.critical_path)
        width = max((len(node.label) for node in self.nodes.values()), default=0)
        lines = []
        for name, node in self.nodes.items():
            after = ", ".join(self.nodes[each].label for each in self.needs_of(name))
            mark = "*" if name in critical else " "
            line = f"{mark} {node.label:{width}}  {node.duration():>10}  {f'after {after}' if after else ''}"
            lines.append(line.rstrip())
        if self.critical_path:
            seconds = sum(self.nodes[name].seconds or 0 for name in self.critical_path)
            lines += ["", f"* critical path: {seconds:.1f} s"]
        return "".join(f"{line}\n" for line in lines)

    def _ids(self) -> dict[str, str]:
        return {name: f"n{number}" for number, name in enumerate(self.nodes)}

    def _mermaid(self) -> str:
        ids, critical = self._ids(), set(self.critical_path)
        lines = ["flowchart LR"]
        for name, node in self.nodes.items():
            label = escape(node.label).replace('"', "#quot;")
            more = f"<br/>{escape(node.duration())}" if node.duration() else ""
            lines.append(f'  {ids[name]}["{label}{more}"]')
        lines += [f"  {ids[each]} --> {ids[name]}" for name in self.nodes for each in self.needs_of(name)]
        if critical:
            lines.append(f"  classDef critical stroke:{CRITICAL_COLOUR},stroke-width:3px")
            lines.append(f"  class {','.join(ids[name] for name in self.nodes if name in critical)} critical")
        return "".join(f"{line}\n" for line in lines)

    def _dot(self) -> str:
        ids, path = self._ids(), self.critical_path
        lines = ["digraph imagepipe {", "  rankdir=LR; node [shape=box, fontname=sans]"]
        for name, node in self.nodes.items():
            label = "\\n".join(_dot_text(each) for each in (node.label, node.duration()) if each)
            colour = f', color="{CRITICAL_COLOUR}", penwidth=2' if name in path else ""
            lines.append(f'  {ids[name]} [label="{label}"{colour}]')
        for name in self.nodes:
            lines += [f"  {ids[each]} -> {ids[name]}{self._dot_edge(each, name)}" for each in self.needs_of(name)]
        return "".join(f"{line}\n" for line in [*lines, "}"])

    def _dot_edge(self, before: str, after: str) -> str:
        return f' [color="{CRITICAL_COLOUR}"]' if self._is_critical(before, after) else ""

    def _is_critical(self, before: str, after: str) -> bool:
        return (before, after) in pairwise(self.critical_path)

    def _places(self) -> dict[str, tuple[int, int]]:
        """Return column and row of each node: a node is one column to the right of the last one that it waits for."""
        columns: dict[str, int] = {}
        rows: dict[int, int] = {}
        places: dict[str, tuple[int, int]] = {}
        for name in self.nodes:
            column = max((columns[each] + 1 for each in self.needs_of(name)), default=0)
            columns[name] = column
            places[name] = column, rows.get(column, 0)
            rows[column] = rows.get(column, 0) + 1
        return places

    def _svg(self) -> str:
        places = self._places()
        width = (max((column for column, _ in places.values()), default=0) + 1) * COLUMN + MARGIN
        height = (max((row for _, row in places.values()), default=0) + 1) * ROW + MARGIN
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
        ]
        for name in self.nodes:
            lines += [self._svg_edge(places, each, name) for each in self.needs_of(name)]
        lines += [self._svg_box(name, *places[name]) for name in self.nodes]
        return "".join(f"{line}\n" for line in [*lines, "</svg>"])

    def _svg_edge(self, places: Mapping[str, tuple[int, int]], before: str, after: str) -> str:
        (column, row), (to_column, to_row) = places[before], places[after]
        x, y = MARGIN + column * COLUMN + BOX_WIDTH, MARGIN + row * ROW + BOX_HEIGHT // 2
        to_x, to_y = MARGIN + to_column * COLUMN, MARGIN + to_row * ROW + BOX_HEIGHT // 2
        middle = (x + to_x) // 2
        colour, thickness = (CRITICAL_COLOUR, 2) if self._is_critical(before, after) else ("#777", 1)
        curve = f"M{x},{y} C{middle},{y} {middle},{to_y} {to_x},{to_y}"
        return f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="{thickness}"/>'

    def _svg_box(self, name: str, column: int, row: int) -> str:
        node = self.nodes[name]
        x, y = MARGIN + column * COLUMN, MARGIN + row * ROW
        colour, thickness = (CRITICAL_COLOUR, 2) if name in self.critical_path else ("#777", 1)
        shown = node.label if len(node.label) <= LABEL_SHOWN else f"{node.label[: LABEL_SHOWN - 1]}…"
        return (
            f"<g><title>{escape(node.label)}</title>"
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="4" fill="#f7f7f7"'
            f' stroke="{colour}" stroke-width="{thickness}"/>'
            f'<text x="{x + 8}" y="{y + 18}">{escape(shown)}</text>'
            f'<text x="{x + 8}" y="{y + 35}" fill="#555">{escape(node.duration())}</text></g>'
        )


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
