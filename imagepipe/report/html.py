"""The report of a run as one HTML page that loads nothing, and is complete even where scripts are not allowed.

The script only adds the search, and the middle of long logs. Those are compressed (gzip, then base64) in a template. A
style or script that is not ours cannot run: the page allows its own by their hashes (CSP level 2). So there is no
`style` attribute either, and bars are SVG.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from textwrap import dedent

from imagepipe.report.model import Log, LogLine, Outcome, RunReport, StageReport, Status
from imagepipe.report.text import SENTENCES, duration, facts

SHOWN_LINES = 100
"""Last lines of a log that are in the page as text. A longer log is compressed, and the script shows it."""
MOST_CHARACTERS = 8 << 20
"""Characters of all logs in a page."""
LARGEST_DRAWING = 80
"""Nodes of a graph that can still be read."""
OPEN_STAGES = 60
"""Stages of a run up to which the timeline shows the stages of all its specs."""
MARKS: dict[Status | Outcome, str] = {
    "succeeded": "✓",
    "failed": "✗",
    "cancelled": "✗",
    "died": "✗",
    "interrupted": "!",
    "running": "▸",
    "not run": "–",
}
SPAN_LABELS = {"boot": "boot of a machine", "command": "command", "bytes": "transfer", "wait": "wait for the cloud"}
FOLDER = Path(__file__).parent


def page(report: RunReport) -> str:
    """Return the page."""
    style, script = _own_file("page.css"), _own_file("page.js")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    sections = [
        section
        for section in (
            _failures(report),
            _images(report),
            _timeline(report),
            _graph(report),
            _tests(report),
            _findings(report),
            _stages(report),
            _resources(report),
            _origin(report),
            _machines(report),
        )
        if section
    ]
    links = "".join(f'<a href="#{id}">{title}</a>' for id, title, _ in sections)
    bodies = "".join(
        f'<section id="{id}" aria-labelledby="{id}-title"><h2 id="{id}-title">{title}</h2>{body}</section>\n'
        for id, title, body in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=False)}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">\n'
        f"<title>{_text(report.title())}: {report.outcome}</title><style>{style}</style></head>\n"
        f'<body class="{report.outcome}"><a class="skip" href="#main">Skip to the content</a>\n'
        f"<header>{_badge(report.outcome)}<h1>{_text(report.title())}</h1>"
        f'<p class="facts">{_text(facts(report))}</p><nav aria-label="Sections">{links}</nav></header>\n'
        f'<main id="main">\n{bodies}</main>\n<footer>Made by imagepipe from the events of the run.</footer>\n'
        f'<template id="logs">{_packed_logs(report.stages)}</template>\n<script>{script}</script></body></html>\n'
    )


Section = tuple[str, str, str] | None
"""Id, title and content of a section; None if there is nothing to show."""


def _failures(report: RunReport) -> Section:
    if report.outcome == "succeeded" and not report.failures and not report.held:
        return None
    parts = [f"<p>{SENTENCES[report.outcome]}</p>"]
    for stage in report.failures:
        alone = " <em>This region may fail alone.</em>" if stage.is_optional else ""
        parts.append(
            f'<article class="failure"><h3>{_link(report, stage)}</h3>{_error(stage)}{alone}'
            + (f'<p class="hint"><b>Hint:</b> {_text(stage.hint)}</p>' if stage.hint else "")
            + _tail(stage)
            + "</article>"
        )
    if stopped := [stage for stage in report.stages if stage.status in ("interrupted", "running")]:
        words = "Still running" if report.outcome == "running" else "Interrupted"
        parts.append(f"<p>{words}: {', '.join(_link(report, stage) for stage in stopped)}.</p>")
    if report.held:
        items = "".join(f"<li>{_text(each)}</li>" for each in report.held)
        parts.append(f"<p>These resources could not be deleted, and cost money:</p><ul>{items}</ul>")
    if report.next_command:
        parts.append(f'<p class="next">Next: <code>{_text(report.next_command)}</code></p>')
    title = {"failed": "Failure", "succeeded": "Problems", "running": "State"}.get(report.outcome, "End of the run")
    return "failure", title, "".join(parts)


def _error(stage: StageReport) -> str:
    """Return the first line of an error, and the others, which often are a command's output."""
    first, _, rest = stage.error.partition("\n")
    return f'<p class="error">{_text(first)}</p>' + (
        f'<pre class="log" tabindex="0">{_text(dedent(rest))}</pre>' if rest else ""
    )


def _tail(stage: StageReport) -> str:
    lines = stage.last_lines()
    if not lines:
        return ""
    return f"<p>Last {len(lines)} of {stage.log.count} lines:</p>{_log(lines)}"


def _images(report: RunReport) -> Section:
    if not report.images:
        return None
    rows = [
        (
            _text(image.spec),
            _text(image.region),
            f"<code>{_text(image.id)}</code>",
            _text(image.name) + ("" if image.is_new else " <em>(unchanged)</em>"),
        )
        for image in report.images
    ]
    return "images", "Images", _table(("Spec", "Region", "Image", "Name"), rows)


def _timeline(report: RunReport) -> Section:
    ran = [stage for stage in report.stages if stage.start is not None]
    if not ran:
        return None
    whole = max(report.seconds, 0.001)
    ticks = "".join(
        f'<text x="{share}%" y="11" text-anchor="{anchor}">{duration(whole * share / 100)}</text>'
        for share, anchor in ((0, "start"), (50, "middle"), (100, "end"))
    )
    axis = f'<div class="bar axis" aria-hidden="true"><span></span><svg>{ticks}</svg><span></span></div>'
    critical = set(report.critical_path)
    by_spec = {spec: own for spec, own in report.by_spec().items() if report.span_of(own)}
    groups = []
    for spec, every in by_spec.items():
        own = [stage for stage in every if stage.start is not None]
        bars = "".join(f"<li>{_bar(report, stage, whole, is_critical=stage.name in critical)}</li>" for stage in own)
        rows = f"<ol>{bars}</ol>"
        if len(by_spec) > 1:
            span = report.span_of(own) or (0.0, 0.0)
            is_open = len(ran) <= OPEN_STAGES or any(stage.status != "succeeded" for stage in own)
            head = f"<b>{_text(spec)}</b>{_svg(_rect(span[0], span[1], whole, 'all'))}<span>{duration(span[1])}</span>"
            rows = f'<details{" open" * is_open}><summary class="bar">{head}</summary>{rows}</details>'
        groups.append(rows)
    used = {span.label for stage in ran for span in stage.spans}
    keys = "".join(f'<span class="key {label}">{text}</span>' for label, text in SPAN_LABELS.items() if label in used)
    if critical:
        seconds = sum(report.elapsed(stage) or 0.0 for stage in ran if stage.name in critical)
        keys += (
            f'<span class="key path">critical path, {duration(seconds)}: the chain of stages that decided how long'
            " the run took</span>"
        )
    return "timeline", "Timeline", f'<p class="keys">{keys}</p>{axis}{"".join(groups)}'


def _bar(report: RunReport, stage: StageReport, whole: float, *, is_critical: bool) -> str:
    start, seconds = stage.start or 0.0, report.elapsed(stage) or 0.0
    parts = [_rect(start, seconds, whole, stage.status.replace(" ", "-"))]
    parts += [_rect(span.start, span.seconds, whole, f"span {span.label}") for span in stage.spans]
    words = "" if stage.status == "succeeded" else f' <b class="bad">{stage.status}</b>'
    path = '<span class="hidden"> on the critical path</span>' if is_critical else ""
    return (
        f'<a class="bar{" critical" * is_critical}" href="#{_id(stage)}"><span>{_text(stage.title)}</span>'
        f"{_svg(''.join(parts))}<span>{duration(seconds)}{words}{path}</span></a>"
    )


def _svg(content: str) -> str:
    return f'<svg aria-hidden="true">{content}</svg>'


def _rect(start: float, seconds: float, whole: float, kind: str) -> str:
    x = min(99.6, max(0.0, 100 * start / whole))
    width = min(100 - x, max(0.4, 100 * seconds / whole))
    is_span = kind.startswith("span")
    y, height = ("12", "4") if is_span else ("6", "6") if kind == "all" else ("2", "14")
    return f'<rect class="{kind}" x="{x:.2f}%" y="{y}" width="{width:.2f}%" height="{height}"/>'


def _graph(report: RunReport) -> Section:
    if not report.has_graph:
        return None
    several = len(report.by_spec()) > 1
    drawing = report.spec_drawing() if several else report.drawing()
    if len(drawing.nodes) > LARGEST_DRAWING:
        return (
            "graph",
            "Graph",
            "<p>The graph is too large for this page. Draw it with <code>imagepipe graph</code>.</p>",
        )
    svg = drawing.draw("svg").replace("<svg ", '<svg class="graph" role="img" aria-label="Graph of stages" ', 1)
    body = f'<div class="scroll" tabindex="0" role="region" aria-label="Graph, scrollable">{svg}</div>'
    return "graph", "Graph of specs" if several else "Graph of stages", body


def _tests(report: RunReport) -> Section:
    if not report.tests:
        return None
    rows = [
        (
            _text(each.spec),
            f'<a href="#{_id(each)}">{_text(each.title)}</a>',
            _mark(each.status),
            duration(each.seconds),
            _text(_first(each.error)),
        )
        for each in report.tests
    ]
    return "tests", "Tests", _table(("Spec", "Test", "Result", "Time", "Error"), rows)


def _findings(report: RunReport) -> Section:
    if not report.findings:
        return None
    rows = [
        (
            f"<code>{_text(each.path)}</code>",
            _text(each.rule),
            _text(each.text),
            f"allowed: {_text(each.allowed)}" if each.allowed else "must not be in the image",
            _text(each.stage),
        )
        for each in report.findings
    ]
    return "findings", "Hygiene", _table(("Path", "Rule", "Found", "Verdict", "Stage"), rows)


def _stages(report: RunReport) -> Section:
    if not report.stages:
        return None
    search = (
        '<div class="search" hidden><label for="search">Search in stages and logs</label>'
        '<input id="search" type="search" autocomplete="off" spellcheck="false" aria-describedby="hits">'
        '<output id="hits" for="search"></output></div>'
    )
    return "stages", "Stages", search + "".join(_stage(report, stage) for stage in report.stages)


def _stage(report: RunReport, stage: StageReport) -> str:
    lines = stage.log.lines()
    parts = []
    if stage.summary:
        parts.append(f"<p>{_text(stage.summary)}</p>")
    if stage.error:
        parts.append(_error(stage))
    if stage.hint:
        parts.append(f'<p class="hint"><b>Hint:</b> {_text(stage.hint)}</p>')
    if stage.spans:
        totals: dict[str, float] = {}
        for span in stage.spans:
            totals[span.label] = totals.get(span.label, 0.0) + span.seconds
        parts.append(f"<p>{', '.join(f'{SPAN_LABELS[label]} {duration(s)}' for label, s in totals.items())}</p>")
    if len(lines) > SHOWN_LINES:
        note = (
            f"The last {SHOWN_LINES} of {stage.log.count} lines; all are in <code>imagepipe show {report.run}</code>."
        )
        parts.append(f'<p class="cut">{note}</p>')
    if lines:
        parts.append(_log(lines[-SHOWN_LINES:]))
    count = f", {stage.log.count} line{'s'[: stage.log.count != 1]}" if lines else ""
    region = f" <span>{_text(stage.region)}</span>" if stage.region else ""
    return (
        f'<details class="stage" id="{_id(stage)}"><summary>{_mark(stage.status)} <b>{_text(stage.title)}</b>'
        f" <code>{_text(stage.name)}</code>{region} <span>{duration(stage.seconds)}{count}</span></summary>"
        f"{''.join(parts) or '<p>No output.</p>'}</details>\n"
    )


def _resources(report: RunReport) -> Section:
    if not report.resources:
        return None
    rows = [
        (
            _text(each.kind.replace("_", " ")),
            f"<code>{_text(each.id)}</code>",
            _text(each.region),
            f'<span class="{"bad" * (each.state == "still held")}">{each.state}</span>',
            duration(each.created),
            duration(each.deleted),
        )
        for each in report.resources
    ]
    head = ("Kind", "Id", "Region", "State", "Created after", "Deleted after")
    return "resources", "Created and cleaned up", _table(head, rows)


def _origin(report: RunReport) -> Section:
    if not report.sources:
        return None
    rows = [
        (
            _text(each.spec),
            f"<code>{_text(each.id)}</code> {_text(each.name)}",
            f"made by <b>{_text(each.base)}</b> in this run" if each.base else "",
            f"<code>{_text(each.fingerprint)}</code>" if each.fingerprint else "",
        )
        for each in report.sources
    ]
    commit = f"<p>Commit of the specs: <code>{_text(report.commit)}</code></p>" if report.commit else ""
    return "origin", "Origin", _table(("Spec", "Source image", "Base", "Fingerprint of the inputs"), rows) + commit


def _machines(report: RunReport) -> Section:
    if not report.machines:
        return None
    rows = [
        (
            f"<code>{_text(each.id)}</code>",
            _text(each.instance_type),
            _text(each.region),
            duration(each.seconds),
            "unknown" if each.cost is None else f"{each.cost:.4f}",
        )
        for each in report.machines
    ]
    head = ["Instance", "Type", "Region", "Time"]
    if not report.currency:
        return "machines", "Machine time", _table(head, [row[:4] for row in rows])
    note = (
        f"<p>List prices of {_text(report.price_date)}, for instances only: disks, snapshots, transfer and requests are"
        " not included.</p>"
    )
    return "machines", "Machine time and cost", _table([*head, f"Cost ({_text(report.currency)})"], rows) + note


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; on a narrow screen each cell is a line with its column's title."""
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    body = "".join(
        "<tr>" + "".join(f'<td data-title="{t}">{cell}</td>' for t, cell in zip(head, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def _log(lines: Iterable[LogLine]) -> str:
    return f'<pre class="log lines" tabindex="0">{"".join(_line(line) for line in lines)}</pre>'


def _line(line: LogLine) -> str:
    kind = "" if line.stream == "out" else f' class="{line.stream}"'
    return f"<span{kind}>{_text(line.text)}\n</span>"


def _packed_logs(stages: Sequence[StageReport]) -> str:
    """Return all lines of the logs that the page shows in part, by the stage's number; empty if there are none."""
    long = {number: stage.log for number, stage in enumerate(stages) if len(stage.log.lines()) > SHOWN_LINES}
    if not long:
        return ""
    share = MOST_CHARACTERS // len(long)
    packed = {number: [[each.stream, each.text] for each in _within(log, share)] for number, log in long.items()}
    content = json.dumps(packed, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _within(log: Log, share: int) -> list[LogLine]:
    """Return the last lines that have no more characters than `share`."""
    found, left = list[LogLine](), share
    for line in reversed(log.lines()):
        left -= len(line.text)
        if left < 0:
            found.append(LogLine("say", "… earlier lines are left out of this report …"))
            break
        found.append(line)
    return found[::-1]


def _link(report: RunReport, stage: StageReport) -> str:
    spec = f"{_text(stage.spec)}: " if len(report.specs) > 1 else ""
    return f'<a href="#{_id(stage)}">{spec}{_text(stage.title)}</a>'


def _id(stage: StageReport) -> str:
    return f"stage-{stage.number}"


def _badge(outcome: Outcome) -> str:
    return f'<p class="badge {outcome}"><span aria-hidden="true">{MARKS[outcome]}</span> {outcome}</p>'


def _mark(status: Status) -> str:
    kind = status.replace(" ", "-")
    return f'<span class="mark {kind}"><span aria-hidden="true">{MARKS[status]}</span> {status}</span>'


def _first(text: str) -> str:
    return next(iter(text.splitlines()), "")


def _text(text: str) -> str:
    return escape(text)


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _own_file(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
