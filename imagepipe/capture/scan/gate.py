"""The hygiene gate of a build: the secrets that it searches for, the exceptions that it allows, and its error."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import field

from imagepipe.dataclass import dataclass
from imagepipe.errors import HygieneError
from imagepipe.hygiene.content import LEAST_SECRET
from imagepipe.hygiene.report import Finding, Report, ScanRequest
from imagepipe.hygiene.rules import BY_NAME

SHOWN = 20
"""Number of findings in an error; the log has all of them."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """An exception to a rule."""

    path: str
    """Path pattern; `*` and `?` stand for any characters."""
    rule: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        words = {"*": ".*", "?": "."}
        pattern = "".join(words.get(each) or re.escape(each) for each in self.path)
        return finding.rule == self.rule and re.fullmatch(pattern, finding.path, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class Gate:
    """The secrets and exceptions of one build's gate."""

    allow: tuple[Allowed, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    """Values of the build's sensitive variables; never in an error or event."""

    def request(self, rules: Sequence[str] = tuple(BY_NAME), *, builder_key: str = "") -> ScanRequest:
        """Return the request for a scan."""
        return ScanRequest(tuple(rules), self.secrets, builder_key)

    def judge(
        self,
        say: Callable[[str], None],
        report: Report,
        *,
        where: str,
        is_whole: bool = True,
        record: Callable[[str, str, str, str], None] = lambda rule, path, text, allowed: None,
    ) -> None:
        """Log the extent of the scan and the allowed findings. Raises HygieneError with the other findings.

        `record` is called with the rule, path, description and exception of each finding (`Context.finding`).

        `is_whole`: this is the only scan of the build, so a warning is logged for an exception that matched nothing.
        """
        say(f"{where}: {_extent(report)}")
        for note in report.notes:
            say(note)
        if short := sum(1 for secret in self.secrets if len(secret.strip()) < LEAST_SECRET):
            say(f"{short} sensitive values are shorter than {LEAST_SECRET} characters, so they are not searched for")
        used = set()
        left = []
        for finding in report.findings:
            allowed = next((each for each in self.allow if each.covers(finding)), None)
            record(finding.rule, finding.path, finding.what, allowed.reason if allowed else "")
            if allowed is None:
                left.append(finding)
                say(f"found: {_line(finding)}")
            else:
                used.add(allowed)
                say(f"allowed: {finding.path}: {finding.rule} ({allowed.reason})")
        for each in self.allow:
            if is_whole and each not in used:
                say(f"warning: hygiene.allow has {each.path} ({each.rule}), which matched nothing")
        if left:
            raise HygieneError(_message(left, where), hint=_hint(left))


def _extent(report: Report) -> str:
    size = f"{report.size >> 20} MiB"
    if report.read == report.files:
        return f"{report.files} files, {size}"
    return f"{report.files} files; {report.read} of them, {size}, were read; an earlier scan found the others clean"


def _line(finding: Finding) -> str:
    return f"{finding.path}: {finding.rule} ({finding.what})"


def _message(findings: Sequence[Finding], where: str) -> str:
    lines = [f"the image has {len(findings)} thing{'s'[: len(findings) > 1]} that must not be in an image ({where}):"]
    lines += [f"  {_line(each)}" for each in findings[:SHOWN]]
    if len(findings) > SHOWN:
        lines.append(f"  and {len(findings) - SHOWN} more, in the log")
    return "\n".join(lines)


def _hint(findings: Sequence[Finding]) -> str:
    first = findings[0]
    advice = {each.rule: BY_NAME[each.rule].advice for each in findings}
    example = f"hygiene: {{allow: [{{path: {first.path}, rule: {first.rule}, reason: …}}]}}"
    advices = "; ".join(f"{rule}: {text}" for rule, text in advice.items())
    return f"{advices}. Allow intended content with {example}"
