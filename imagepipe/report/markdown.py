"""The report of a run as Markdown, for the summary of a CI job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from imagepipe.report.model import RunReport, StageReport
from imagepipe.report.text import SENTENCES, duration, facts

MOST_BYTES = 900_000
"""GitHub refuses a job's summary of more than 1 MiB, and other steps of the job may write to it as well."""
CUT = "\n\n*The rest is left out: the summary of a job has a limit. The HTML report has all of it.*\n"
SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&@:-])")
MARKS = {"succeeded": "✅", "failed": "❌", "interrupted": "⚠️", "running": "⏳", "not run": "–"}


def markdown(report: RunReport) -> str:
    """Return the summary: the failure first, then images, tests and stages. Cut at MOST_BYTES."""
    parts = [f"## {_escaped(report.title())}: {report.outcome}\n", f"{facts(report)}.\n"]
    if report.outcome != "succeeded":
        parts.append(f"{SENTENCES[report.outcome]}\n")
    parts += map(_failure, report.failures)
    if report.held:
        parts.append("**Still held:**\n\n" + "".join(f"- {_escaped(each)}\n" for each in report.held))
    if report.next_command:
        parts.append(f"Next: `{report.next_command}`\n")
    parts += _tables(report)
    return _cut("\n".join(parts))


def _failure(stage: StageReport) -> str:
    lines = [f"### ❌ {_escaped(stage.title)}\n", _block(stage.error)]
    if stage.hint:
        lines.append(f"**Hint:** {_escaped(stage.hint)}\n")
    if tail := stage.last_lines():
        count = f"Last {len(tail)} of {stage.log.count} lines"
        lines.append(f"<details><summary>{count}</summary>\n\n{_block(*(line.text for line in tail))}\n</details>\n")
    return "\n".join(lines)


def _tables(report: RunReport) -> Iterable[str]:
    if report.images:
        rows = [(each.spec, each.region, each.id, each.name) for each in report.images]
        yield _table("Images", ("Spec", "Region", "Image", "Name"), rows)
    if report.tests:
        rows = [(each.spec, each.title, _status(each), duration(each.seconds)) for each in report.tests]
        yield _table("Tests", ("Spec", "Test", "Result", "Time"), rows)
    if report.findings:
        found = [(each.path, each.rule, each.allowed or "not allowed") for each in report.findings]
        yield _table("Hygiene", ("Path", "Rule", "Allowed"), found)
    critical = set(report.critical_path)
    stages = [
        (each.name, each.title, _status(each), duration(each.seconds), "✔" if each.name in critical else "")
        for each in report.stages
    ]
    if stages:
        table = _table("", ("Stage", "Title", "Result", "Time", "Critical path"), stages)
        yield f"<details><summary>{len(stages)} stages</summary>\n\n{table}\n</details>\n"


def _status(stage: StageReport) -> str:
    return f"{MARKS[stage.status]} {stage.status}"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"### {title}\n"] if title else []
    lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(map(_escaped, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return text that has no meaning in Markdown or HTML, in one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _block(*lines: str) -> str:
    """Return lines as a block of code, whose fence is longer than every one in it."""
    text = "\n".join(lines)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}\n"


def _cut(text: str) -> str:
    content = text.encode()
    if len(content) <= MOST_BYTES:
        return text
    kept = content[: MOST_BYTES - 1000].decode(errors="ignore")
    kept = kept[: kept.rfind("\n") + 1]
    # Close what is open, or the note would be a part of it.
    fence = _open_fence(kept)
    is_open = kept.count("<details>") > kept.count("</details>")
    return kept + (f"{fence}\n" if fence else "") + ("\n</details>\n" if is_open else "") + CUT


def _open_fence(text: str) -> str:
    """Return the fence of a block of code that has no end; empty if every block has one."""
    fence = ""
    for line in text.split("\n"):
        if found := re.fullmatch(r"(`{3,})(text)?", line):
            if not fence and found[2]:
                fence = found[1]
            elif fence == found[1] and not found[2]:
                fence = ""
    return fence
