"""The diagrams of the docs, as SVG: `python -m docs.generate.diagrams FOLDER`.

The capture paths come from the stages of two sample specs, and the rooms from the table in tests/test_layers.py.
Colours follow the reader's theme, and each diagram has its own background, so that it can be read on any page.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from imagepipe.cli.graph import unrun_graph
from imagepipe.cli.loading import load_buildable
from imagepipe.cli.options import NamedSpecs
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.variables import Given
from tests.test_layers import FOUNDATION, INPUTS, LAYER_1, MAY_IMPORT, STAGES

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 760
MARGIN = 20
LINE = 16
TITLE_HEIGHT = 34
"""Height of a box whose note is empty."""
CHIP_HEIGHT, CHIP_GAP, CHIP_LETTER = 26, 8, 7.9
"""Chips are in a monospaced font, so that their width is known without a browser."""
NOTE_LETTER = 6.3
"""Widest average of a letter in a note."""
STYLE = """<style>
  .page { fill: #ffffff; stroke: #dcdfe3; } .box { fill: #eef3fa; stroke: #5b7ba6; } .band { fill: #f5f6f7; }
  .later { fill: #fdf1dc; stroke: #a97a2c; } .kept { fill: #e3f3e8; stroke: #4d8b66; }
  .chip { fill: #ffffff; stroke: #8a929c; } .line { fill: none; stroke: #5a6069; stroke-width: 1.5; }
  .dashed { stroke-dasharray: 5 4; } .head { fill: #5a6069; }
  text { fill: #22252a; font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  .title { font-weight: 600; font-size: 14px; } .note { fill: #4a5059; font-size: 12px; }
  .room { font: 13px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; text-anchor: middle; }
  .middle { text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #16181c; stroke: #353a42; } .box { fill: #1f2b3d; stroke: #6d93c7; } .band { fill: #20242a; }
    .later { fill: #33270f; stroke: #c29a4e; } .kept { fill: #17301f; stroke: #69b587; }
    .chip { fill: #16181c; stroke: #7b838e; } .line { stroke: #a5abb5; } .head { fill: #a5abb5; }
    text { fill: #e4e6ea; } .note { fill: #b4bac3; }
  }
</style>"""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a title and a note, which is wrapped."""

    x: int
    y: int
    width: int
    title: str
    note: str = ""
    kind: str = "box"
    lines: int = 0
    """Number of lines that the note has room for; if 0, as many as it needs."""

    @property
    def note_lines(self) -> list[str]:
        """The note, wrapped to the width."""
        return textwrap.wrap(self.note, int((self.width - 20) / NOTE_LETTER))

    @property
    def height(self) -> int:
        """The height that the title and the note need."""
        rows = max(self.lines, len(self.note_lines))
        return TITLE_HEIGHT + (LINE * rows + 4 if rows else 0)

    def svg(self) -> Iterator[str]:
        """Return the elements of the box."""
        yield "<g>"
        yield (
            f'<rect class="{self.kind}" x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="6"/>'
        )
        yield f'<text class="title" x="{self.x + 10}" y="{self.y + 22}">{escape(self.title)}</text>'
        for number, line in enumerate(self.note_lines):
            yield f'<text class="note" x="{self.x + 10}" y="{self.y + 40 + LINE * number}">{escape(line)}</text>'
        yield "</g>"

    def head(self, part: float = 0.5) -> tuple[int, int]:
        """Return a point of the upper side: its middle, or another part of the width from the left."""
        return self.x + int(self.width * part), self.y

    def foot(self, part: float = 0.5) -> tuple[int, int]:
        """Return a point of the lower side."""
        return self.x + int(self.width * part), self.y + self.height

    def after(self, other: Box) -> str:
        """Return an arrow from a box on the left to this one."""
        middle = self.y + self.height // 2
        return _arrow((other.x + other.width, middle), (self.x, middle))


def _arrow(*points: tuple[int, int], more: str = "") -> str:
    path = " L".join(f"{x},{y}" for x, y in points)
    return f'<path class="line{more}" marker-end="url(#head)" d="M{path}"/>'


def _words(x: int, y: int, text: str, kind: str = "note") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _picture(title: str, about: str, height: int, elements: Sequence[str]) -> str:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" aria-labelledby="title about">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="about">{escape(about)}</desc>',
        "<!-- Made by: make docs -->",
        STYLE,
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path class="head" d="M0,0 L8,4 L0,8 z"/></marker></defs>',
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        *elements,
        "</svg>",
    ]
    return "".join(f"{line}\n" for line in lines)


BUILD = {
    "create": "an instance is launched, provisioned, captured",
    "register": "it becomes an image, tagged unfinished",
    "test": "a second instance boots from it",
    "copy": "to every region of publish",
    "share": "with accounts; it is tagged kept",
}
"""The stages of an image's life during its build."""
RETIREMENT = {
    "deprecate": "others no longer find it; it can still be launched",
    "disable": "nobody can launch it, and its launch permissions are gone",
    "deregister": "it is deleted, with its snapshots or its bundle",
}
"""The stages of its life when newer images have replaced it."""
RESTORE = "imagepipe images restore undoes each of these steps, as long as EC2 keeps the image"


def life_cycle() -> str:
    """Draw the life of an image."""
    gap, wide_gap = 22, 34
    width = (WIDTH - 2 * MARGIN - gap * (len(BUILD) - 1)) // len(BUILD)
    build = [
        Box(MARGIN + number * (width + gap), 48, width, name, note, "kept" if name == "share" else "box", lines=4)
        for number, (name, note) in enumerate(BUILD.items())
    ]
    *before, kept = build
    undone = Box(
        MARGIN,
        kept.foot()[1] + 40,
        4 * width + 3 * gap,
        "delete",
        "after a failure or Ctrl-C at any moment: everything that the build created",
    )
    wide = (WIDTH - 2 * MARGIN - 2 * wide_gap) // 3
    turn = undone.foot()[1] + 34
    retired = [
        Box(MARGIN + number * (wide + wide_gap), turn + 56, wide, name, note, "later", lines=2)
        for number, (name, note) in enumerate(RETIREMENT.items())
    ]
    down = retired[0].head(0.85)
    elements = [
        _words(MARGIN, 32, "imagepipe build", "title"),
        *(line for box in [*build, undone, *retired] for line in box.svg()),
        *(box.after(other) for boxes in (build, retired) for other, box in pairwise(boxes)),
        *(_arrow(box.foot(), (box.foot()[0], undone.y), more=" dashed") for box in before),
        _arrow(kept.foot(), (kept.foot()[0], turn), (down[0], turn), down),
        _words(down[0] + 14, turn + 32, "retention: after grace periods, and never an image in use", "title"),
        _words(MARGIN, retired[0].foot()[1] + 26, RESTORE),
    ]
    return _picture(
        "The life cycle of an image",
        f"A build has these stages: {_told(BUILD)}. A failure at any moment deletes everything that it created. When"
        f" newer images have replaced the image, retention has these: {_told(RETIREMENT)}. {RESTORE}.",
        retired[0].foot()[1] + 44,
        elements,
    )


def _told(stages: Mapping[str, str]) -> str:
    return "; ".join(f"{name} ({note})" for name, note in stages.items())


PATHS = {
    "EBS-backed image": "web-server",
    "instance-store image": "web-server-instance-store",
}
"""A sample spec for each kind of image."""
NOTES = {
    "scrub": "removes keys, histories, logs and every trace of the build",
    "stop": "stops the instance, so that its disks no longer change",
    "capture": "takes a snapshot of every volume at one moment, and registers the image",
    "bundle": "scrubs; ends every process that writes; compresses, encrypts and uploads the root, its manifest last",
    "register": "registers the manifest in the bucket as an image",
}
"""The work of each stage between the last step and the test."""
RESULTS = {
    "capture": "now in EBS: snapshots",
    "bundle": "now in S3: parts and a manifest",
}
"""The place of the image's bytes, after the stage that writes them."""


def capture_stages(spec: str) -> list[str]:
    """Return the stages of a sample spec from its last step to the first stage of its test, in order."""
    loaded = load_buildable(NamedSpecs.of((str(ROOT / f"specs/{spec}.yaml"),)), Given(), SAMPLE_BUILD)
    graph = unrun_graph(loaded, None, scans_disks=False).graph
    order = list(graph.order())
    last = max((name for name in order if name.startswith("step-")), key=order.index)
    before: set[str] = {"test-image"}
    for name in reversed(order):
        if name in before:
            before |= set(graph.needs(name))
    after: set[str] = {last}
    for name in order:
        if after & set(graph.needs(name)):
            after.add(name)
    return [name for name in order if name in before & after and name not in (last, "test-image")]


def capture_paths() -> str:
    """Draw both ways from a provisioned instance to an image that can be tested."""
    lane, gap, middle, track = 345, 30, WIDTH // 2, 0.75
    first = Box(middle - 200, 20, 400, "provision", "the steps of the spec have run on the instance, over SSH")
    lanes: list[list[Box]] = []
    for number, spec in enumerate(PATHS.values()):
        y, boxes = first.foot()[1] + 70, []
        for name in capture_stages(spec):
            boxes.append(Box(MARGIN + number * (WIDTH - 2 * MARGIN - lane), y, lane, name, NOTES[name]))
            y += boxes[-1].height + gap
        lanes.append(boxes)
    last = Box(
        middle - 200,
        max(boxes[-1].foot()[1] for boxes in lanes) + 60,
        400,
        "test",
        "a second instance boots from the new image",
        "kept",
    )
    turn, join = first.foot()[1] + 20, last.y - 22
    elements = [line for box in [first, *(box for boxes in lanes for box in boxes), last] for line in box.svg()]
    for title, boxes in zip(PATHS, lanes, strict=True):
        top, end = boxes[0].head(track), boxes[-1].foot(track)
        elements += [
            _words(boxes[0].x, top[1] - 12, title, "title"),
            _arrow(first.foot(), (middle, turn), (top[0], turn), top),
            *(_arrow(before.foot(track), after.head(track)) for before, after in pairwise(boxes)),
            _arrow(end, (end[0], join), (middle, join), last.head()),
            *(_words(box.x + 10, box.foot()[1] + 20, RESULTS[box.title]) for box in boxes if box.title in RESULTS),
        ]
    told = ". ".join(
        f"{title}: {_told({box.title: box.note for box in boxes})}" for title, boxes in zip(PATHS, lanes, strict=True)
    )
    return _picture(
        "The two capture paths",
        f"After the steps of the spec, the image is captured in one of two ways. {told}. Both end in the same test.",
        last.foot()[1] + 20,
        elements,
    )


LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Layer 4: commands, and the Python library", frozenset({"cli", "library"})),
    (
        "Layer 3: from a spec to a build, and back",
        frozenset(MAY_IMPORT)
        - frozenset({"__init__", "__main__", "cli", "library", "local", "report", *INPUTS})
        - STAGES
        - LAYER_1
        - FOUNDATION,
    ),
    ("Layer 2: stages, the local cloud, output", frozenset({*STAGES, *INPUTS, "local", "report"})),
    ("Layer 1: EC2, SSH, bundles, disks; no room imports another", frozenset(LAYER_1)),
    ("Layer 0: small parts that all rooms use", frozenset(FOUNDATION)),
)
"""The rooms of the table in tests/test_layers.py, by layer, from the top."""


def rooms() -> str:
    """Draw the rooms of the program in their layers."""
    elements: list[str] = []
    y = MARGIN
    for title, names in LAYERS:
        chips, height = _chips(sorted(names), MARGIN + 14, y + 38)
        elements += [
            f'<rect class="band" x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height + 52}" rx="6"/>',
            _words(MARGIN + 14, y + 24, title, "title"),
            *chips,
        ]
        y += height + 52
        if names != LAYERS[-1][1]:
            elements += [_arrow((WIDTH // 2, y + 2), (WIDTH // 2, y + 26))]
            if title == LAYERS[0][0]:
                elements.append(_words(WIDTH // 2 + 14, y + 19, "imports only from below"))
            y += 30
    told = ". ".join(f"{title}: {', '.join(sorted(names))}" for title, names in LAYERS)
    return _picture(
        "The rooms of the program, in layers",
        f"A room imports only from lower layers, with the exceptions of the table. {told}.",
        y + MARGIN,
        elements,
    )


def _chips(names: Sequence[str], left: int, top: int) -> tuple[list[str], int]:
    """Return a chip for each name, in as many rows as they need, and the height of the rows."""
    elements: list[str] = []
    x, y = left, top
    for name in names:
        width = int(len(name) * CHIP_LETTER) + 20
        if x + width > WIDTH - MARGIN - 14:
            x, y = left, y + CHIP_HEIGHT + CHIP_GAP
        elements.append(
            f'<g><rect class="chip" x="{x}" y="{y}" width="{width}" height="{CHIP_HEIGHT}" rx="5"/>'
            f'<text class="room" x="{x + width / 2:g}" y="{y + 17}">{escape(name)}</text></g>'
        )
        x += width + CHIP_GAP
    return elements, y + CHIP_HEIGHT - top


DIAGRAMS: Mapping[str, Callable[[], str]] = {
    "life-cycle.svg": life_cycle,
    "capture-paths.svg": capture_paths,
    "rooms.svg": rooms,
}


if __name__ == "__main__":
    for name, draw in DIAGRAMS.items():
        (Path(sys.argv[1]) / name).write_text(draw(), encoding="utf-8")
