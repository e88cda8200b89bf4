"""The pages of `imagepipe ui`, beside the reports themselves: all runs, all images, one run live, two runs compared."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from imagepipe.report.model import RunReport
from imagepipe.report.text import duration, related_image

FOLDER = Path(__file__).parent
STATES = {"dead": "died"}
"""States of `imagepipe runs` whose style has another name in a report."""
MOST_STAGES = 500
LIVE = """
for (const bar of document.querySelectorAll("[data-changes]")) {
  const source = new EventSource(bar.dataset.changes);
  const frame = document.querySelector("iframe");
  source.addEventListener("change", () => {
    if (!frame) { location.reload(); return; }
    const place = frame.contentWindow.scrollY;
    frame.onload = () => frame.contentWindow.scrollTo(0, place);
    frame.contentWindow.location.reload();
  });
  source.addEventListener("end", () => { source.close(); location.reload(); });
  source.onerror = () => { bar.textContent = "not connected: is imagepipe ui still running?"; };
}
"""
STYLE = """
body.run { max-width: none; height: 100vh; padding: .6rem 1rem 0; display: flex; flex-direction: column; }
iframe { flex: 1; width: 100%; border: 0; border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wide { overflow-x: auto; }
.wide :is(th, td) { overflow-wrap: break-word; }
.wide :is(.badge, code, .image) { white-space: nowrap; }
.image { display: block; }
.slower { color: var(--bad); } .faster { color: var(--good); }
form { display: flex; flex-wrap: wrap; gap: .6rem; align-items: end; }
select { font: inherit; padding: .3rem; }
"""


def runs_page(rows: Sequence[Mapping[str, Any]], unreadable: Sequence[tuple[str, str]]) -> str:
    """Return the page with all runs, newest first: rows as `imagepipe runs --format json` prints them."""
    body = "".join(_run_row(row) for row in rows)
    table = (
        "<table><thead><tr><th>run</th><th>state</th><th>specs</th><th>started (UTC)</th>"
        '<th class="number">took</th><th>images</th>'
        f"<th>still held</th></tr></thead><tbody>{body}</tbody></table>"
        if rows
        else "<p>There is no run yet. <code>imagepipe build web-server --local</code> makes one.</p>"
    )
    problems = "".join(f"<li><code>{escape(run)}</code>: {escape(text)}</li>" for run, text in unreadable)
    parts = [f'<section class="wide"><h2>Runs</h2>{table}</section>']
    if problems:
        parts.append(f"<section><h2>Runs that cannot be read</h2><ul>{problems}</ul></section>")
    if len(rows) > 1:
        parts.append(_compare_form(rows))
    return _page("Runs", "".join(parts), changes="/changes")


def _run_row(row: Mapping[str, Any]) -> str:
    id, state = escape(str(row["run"])), str(row["state"])
    images = "".join(
        f'<span class="image">{escape(str(image["image_id"]))} ({escape(str(image["region"]))})</span>'
        for image in row["images"]
    )
    held = ", ".join(f"{each['kind']} {each['id'] or ''}".strip() for each in row["held"]) if state != "running" else ""
    return (
        f'<tr><td><a href="/runs/{id}"><code>{id}</code></a></td><td>{_badge(state)}</td>'
        f"<td>{escape(', '.join(row['specs']))}</td><td>{escape(str(row['started'])[:19].replace('T', ' '))}</td>"
        f'<td class="number">{escape(duration(row["seconds"]))}</td><td>{images}</td>'
        f'<td class="bad">{escape(held)}</td></tr>'
    )


def _compare_form(rows: Sequence[Mapping[str, Any]]) -> str:
    def choice(label: str, name: str, chosen: int) -> str:
        options = "".join(
            f'<option value="{escape(str(row["run"]))}"{" selected" if number == chosen else ""}>'
            f"{escape(str(row['run']))} {escape(', '.join(row['specs']))}</option>"
            for number, row in enumerate(rows)
        )
        return f'<label>{label}<br><select name="{name}">{options}</select></label>'

    return (
        '<section><h2>Compare two runs</h2><form action="/compare">'
        f"{choice('earlier', 'a', 1)}{choice('later', 'b', 0)}<button>Compare</button></form></section>"
    )


def images_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the page with the images of all runs, from the journals alone."""
    body = "".join(
        f'<tr><td><a href="/images/{escape(str(image["image_id"]))}">'
        f"<code>{escape(str(image['image_id']))}</code></a></td><td>{escape(str(image['region']))}</td>"
        f"<td>{escape(str(image['name']))}</td><td>{escape(', '.join(row['specs']))}</td>"
        f'<td><a href="/runs/{escape(str(row["run"]))}"><code>{escape(str(row["run"]))}</code></a></td>'
        f"<td>{escape(str(row['started'])[:10])}</td></tr>"
        for row in rows
        for image in row["images"]
    )
    note = (
        "<p>As the runs made them. The page of an image asks the cloud whether it still exists, what it is built on and"
        " who uses it. <code>imagepipe images list</code> lists all images of the account.</p>"
    )
    head = "<th>image</th><th>region</th><th>name</th><th>specs</th><th>run</th><th>date</th>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if body else "<p>None yet.</p>"
    return _page("Images", f'<section class="wide"><h2>Images</h2>{note}{table}</section>')


def image_page(image: Mapping[str, Any], problems: Sequence[str]) -> str:
    """Return the page of an image, with the values of `imagepipe images show --format json`."""
    facts = {
        "name": image["name"],
        "region": image["region"],
        "spec": image["spec"],
        "kind": image["kind"],
        "created": str(image["created"]),
        "last launched": image["last_launched"],
        "commit": image["commit"],
        "fingerprint": image["fingerprint"],
        "tests passed": None if image["tests"] is None else ", ".join(image["tests"]) or "none",
    }
    rows = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(str(value)) if value else 'unknown'}</td></tr>"
        for key, value in facts.items()
    )
    run = escape(str(image["run"] or ""))
    rows += f'<tr><th>run</th><td><a href="/runs/{run}"><code>{run}</code></a></td></tr>' if run else ""
    copies = [f"{each['image_id']} in {each['region']}: {each['state']}" for each in image["images"]]
    parts = (
        ("Copies", copies, "none"),
        ("Built on", [related_image(each) for each in image["built_on"]], "not known"),
        ("Layers built on it", [related_image(each) for each in image["layers"]], "none"),
        ("Used by", image["used_by"], "not known" if image["used_by"] is None else "nothing in this account"),
    )
    lists = "".join(_list(title, values or (), empty) for title, values, empty in parts)
    failed = _list("Not answered", problems, "") if problems else ""
    body = f'<h2><code>{escape(str(image["image_id"]))}</code></h2><table class="facts">{rows}</table>{lists}{failed}'
    return _page(str(image["image_id"]), f'<section class="wide">{body}</section>')


def _list(title: str, values: Sequence[str], empty: str) -> str:
    items = "".join(f"<li>{escape(str(value))}</li>" for value in values)
    return f"<h3>{escape(title)}</h3>" + (f"<ul>{items}</ul>" if items else f"<p>{escape(empty)}</p>")


def run_page(run: str, specs: Sequence[str], state: str) -> str:
    """Return the page that shows the report of a run, again whenever there is something new."""
    live = f'<span class="facts" data-changes="/runs/{escape(run)}/changes">live</span>' if state == "running" else ""
    head = (
        f'<nav aria-label="Pages"><a href="/">All runs</a><a href="/images">Images</a><span>{_badge(state)} '
        f"{escape(', '.join(specs))} <code>{escape(run)}</code></span>{live}</nav>"
    )
    frame = f'<iframe src="/runs/{escape(run)}/report" title="Report of run {escape(run)}"></iframe>'
    return _document(f"{', '.join(specs)}: {state}", f'<body class="run">{head}{frame}', has_script=bool(live))


def compare_page(earlier: RunReport, later: RunReport) -> str:
    """Return the page with the stages of two runs side by side, the largest difference first."""
    rows = sorted(_compared(earlier, later), key=lambda row: -abs((row[2] or 0.0) - (row[1] or 0.0)))
    body = "".join(_compared_row(*row) for row in rows[:MOST_STAGES])
    runs = "".join(
        f'<th class="number"><a href="/runs/{escape(each.run)}">{escape(each.run)}</a><br>{_badge(each.outcome)}</th>'
        for each in (earlier, later)
    )
    table = (
        f'<table><thead><tr><th>stage</th>{runs}<th class="number">difference</th></tr></thead><tbody>'
        f"{_compared_row('the whole run', earlier.seconds, later.seconds)}{body}</tbody></table>"
    )
    return _page("Compare two runs", f'<section class="wide"><h2>Compare two runs</h2>{table}</section>')


def _compared(earlier: RunReport, later: RunReport) -> Iterator[tuple[str, float | None, float | None]]:
    before = {stage.name: stage.seconds for stage in earlier.stages}
    after = {stage.name: stage.seconds for stage in later.stages}
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) is not None or after.get(name) is not None:
            yield name, before.get(name), after.get(name)


def _compared_row(name: str, before: float | None, after: float | None) -> str:
    difference, style = "", ""
    if before is not None and after is not None:
        style = " slower" if after - before > 0.05 else " faster" if before - after > 0.05 else ""
        sign = "+" if after >= before else "−"
        difference = f"{sign}{duration(abs(after - before))}"
    cells = "".join(f'<td class="number">{escape(duration(each))}</td>' for each in (before, after))
    return f'<tr><td>{escape(name)}</td>{cells}<td class="number{style}">{escape(difference)}</td></tr>'


def message_page(title: str, text: str) -> str:
    """Return a page that says why there is no other."""
    return _page(title, f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p></section>")


def _badge(state: str) -> str:
    return f'<span class="badge {escape(STATES.get(state, state))}">{escape(state)}</span>'


def _page(title: str, body: str, *, changes: str = "") -> str:
    live = f'<span class="facts" data-changes="{changes}">live</span>' if changes else ""
    head = f'<nav aria-label="Pages"><a href="/">Runs</a><a href="/images">Images</a>{live}</nav>'
    text = f'<body><header><h1>imagepipe</h1>{head}</header><main id="main">{body}</main>'
    return _document(f"imagepipe: {title}", text, has_script=bool(changes))


def _document(title: str, body: str, *, has_script: bool) -> str:
    script = f"<script>{LIVE}</script>" if has_script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>\n{body}{script}</body></html>\n"
    )


def _style() -> str:
    return (FOLDER / "page.css").read_text(encoding="utf-8") + STYLE


def policy() -> str:
    """Return the content security policy of these pages: their own style and script, and the reports in frames."""
    style, script = _hash(_style()), _hash(LIVE)
    own = "connect-src 'self'; frame-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    return f"default-src 'none'; style-src {style}; script-src {script}; {own}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
