"""The hygiene gate passes allowed findings and reports the others; a script scans a running machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagepipe.capture import agent_loader
from imagepipe.capture.scan.gate import SHOWN, Allowed, Gate
from imagepipe.capture.scan.over_ssh import SCAN_FAILED, parse_report, scan_script
from imagepipe.capture.scan.stages import Offline, gate_on_machine
from imagepipe.cloud.images import SourceImage
from imagepipe.errors import HygieneError
from imagepipe.hygiene.report import Finding, Report
from imagepipe.local.host.foreign import is_foreign, set_mode
from tests.hygiene.planted import PLANTED, SECRET, WANTED, put

KEY = Finding("private-key", "/srv/app/tls/server.key", "a private key, in PEM")
HISTORY = Finding("shell-history", "/root/.bash_history", "the history of a shell")


def _judged(gate: Gate, *findings: Finding, is_whole: bool = True) -> list[str]:
    said: list[str] = []
    gate.judge(
        said.append, Report(findings, 12, 3 << 20, read=12), where="read the snapshot offline", is_whole=is_whole
    )
    return said


def test_nothing_found_says_what_was_looked_at() -> None:
    assert _judged(Gate()) == ["read the snapshot offline: 12 files, 3 MiB"]


def test_files_that_an_earlier_scan_found_clean_are_counted_apart() -> None:
    said: list[str] = []
    Gate().judge(said.append, Report((), 15000, 3 << 20, read=12), where="read the snapshot offline")
    assert said == [
        "read the snapshot offline: 15000 files; 12 of them, 3 MiB, were read; an earlier scan found the others clean"
    ]


def test_a_finding_fails_with_its_path_its_rule_and_how_to_allow_it() -> None:
    with pytest.raises(HygieneError) as raised:
        _judged(Gate(), KEY, HISTORY)
    assert raised.value.exit_code == 10
    assert raised.value.message.splitlines() == [
        "the image has 2 things that must not be in an image (read the snapshot offline):",
        "  /srv/app/tls/server.key: private-key (a private key, in PEM)",
        "  /root/.bash_history: shell-history (the history of a shell)",
    ]
    assert "{path: /srv/app/tls/server.key, rule: private-key, reason: …}" in (raised.value.hint or "")
    assert "create it at the first boot" in (raised.value.hint or "")


def test_every_finding_is_recorded_with_the_reason_for_which_it_is_allowed() -> None:
    recorded: list[tuple[str, str, str, str]] = []
    gate = Gate((Allowed("/srv/*", "private-key", "a test key"),))
    report = Report((KEY, HISTORY), 12, 3 << 20, read=12)
    with pytest.raises(HygieneError):
        gate.judge(lambda line: None, report, where="read", record=lambda *row: recorded.append(row))
    assert recorded == [
        ("private-key", KEY.path, KEY.what, "a test key"),
        ("shell-history", HISTORY.path, HISTORY.what, ""),
    ]


def test_of_many_findings_twenty_are_listed_and_the_rest_counted() -> None:
    many = [KEY._replace(path=f"/key-{number:02}") for number in range(SHOWN + 5)]
    with pytest.raises(HygieneError, match="and 5 more") as raised:
        _judged(Gate(), *many)
    assert f"/key-{SHOWN - 1:02}" in raised.value.message
    assert f"/key-{SHOWN:02}" not in raised.value.message


@pytest.mark.parametrize("path", ["/srv/app/tls/server.key", "/srv/*.key", "/srv/app/tls/serve?.key", "*"])
def test_an_exception_lets_pass_what_its_path_and_rule_name(path: str) -> None:
    said = _judged(Gate((Allowed(path, "private-key", "a test key"),)), KEY)
    assert said[1:] == ["allowed: /srv/app/tls/server.key: private-key (a test key)"]


@pytest.mark.parametrize(
    "allowed",
    [
        Allowed("/srv/app/tls/server.key", "aws-key", "another rule"),
        Allowed("/srv/app/tls", "private-key", "its folder alone"),
        Allowed("/srv/app/tls/server.ke[y]", "private-key", "brackets are brackets"),
        Allowed("/srv/app/tls/server?key?", "private-key", "one letter too many"),
    ],
    ids=lambda each: each.reason,
)
def test_an_exception_lets_nothing_else_pass(allowed: Allowed) -> None:
    with pytest.raises(HygieneError):
        _judged(Gate((allowed,)), KEY)


def test_an_exception_that_nothing_needs_is_said() -> None:
    gate = Gate((Allowed("/gone", "private-key", "it was there once"),))
    assert _judged(gate)[1:] == ["warning: hygiene.allow has /gone (private-key), which matched nothing"]
    assert _judged(gate, is_whole=False)[1:] == [], "another look may need it"


def test_secrets_that_are_too_short_are_counted_and_none_is_in_the_gates_words() -> None:
    gate = Gate(secrets=("hunter2hunter2", "prod"))
    assert _judged(gate)[1:] == ["1 sensitive values are shorter than 8 characters, so they are not searched for"]
    assert "hunter2" not in repr(gate)


def _run(tmp_path: Path, script: str, **env: str) -> tuple[list[str], int]:
    file = tmp_path / "script"
    file.write_text(script)
    done = subprocess.run(["/bin/sh", str(file)], capture_output=True, text=True, check=False, env=env or None)
    return (done.stdout + done.stderr).splitlines(), done.returncode


def test_the_script_looks_between_what_goes_before_and_after_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for planted in PLANTED:
        put(root, planted.path, planted.content)
    wanted = WANTED._replace(roots=(str(root),))
    script = scan_script(wanted, before="set -u\necho before", after="set -eu\necho frozen")
    said, code = _run(tmp_path, script)
    assert (said[0], said[-1], code) == ("before", "frozen", 0)
    report = parse_report(said, code, "looking")
    assert {(each.rule, each.path) for each in report.findings} == {(r, p.path) for p in PLANTED for r in p.rules}
    assert SECRET not in "".join(said)


def test_the_script_has_no_secret_that_a_process_list_could_show() -> None:
    script = scan_script(WANTED)
    shell, _, _ = script.partition("# no shell from here on\n")
    assert SECRET not in script
    assert "base64 -d" in shell


def test_a_machine_without_python_is_a_failure_that_says_so(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "sed", "base64"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    said, code = _run(tmp_path, scan_script(WANTED, after="echo never"), PATH=str(tools))
    assert code == agent_loader.NO_PYTHON
    with pytest.raises(HygieneError, match="python3 was not found on the machine") as raised:
        parse_report(said, code, "looking at i-1")
    assert "install it" in (raised.value.hint or "")


def test_a_python_that_is_too_old_is_a_failure_of_the_look_and_not_of_what_went_before(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text(
        "#!/bin/sh\necho 'SyntaxError: future feature annotations is not defined' >&2; exit 1\n"
    )
    (tools / "python3").chmod(0o755)
    said, code = _run(tmp_path, scan_script(WANTED, after="echo never"), PATH=f"{tools}:/usr/bin:/bin")
    assert code == SCAN_FAILED
    with pytest.raises(HygieneError, match="future feature annotations") as raised:
        parse_report(said, code, "looking at i-1")
    assert "Python 3.7 or newer" in (raised.value.hint or "")


def test_what_goes_before_and_fails_ends_the_script(tmp_path: Path) -> None:
    said, code = _run(tmp_path, scan_script(WANTED, before="echo no; exit 5"))
    assert (said, code) == (["no"], 5)


def _never(*args: object, **keys: object) -> Report:
    pytest.fail("a disk that comes from elsewhere was mounted")


def _image(snapshot: str) -> SourceImage:
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    return SourceImage("ami-1", "an image", "self", "x86_64", "hvm", "/dev/xvda", "ebs", (mapping,))


def test_the_machine_itself_is_scanned_where_its_disks_come_from_elsewhere(tmp_path: Path) -> None:
    for name, is_foreign_itself in (("own", False), ("foreign", True)):
        (tmp_path / name).touch()
        set_mode(tmp_path / name, 0o400, is_foreign_itself=is_foreign_itself)
    offline, gate = Offline(tmp_path.joinpath, _never, lambda disk: not is_foreign(disk)), Gate()
    assert gate_on_machine(gate, offline, _image("own")) is None
    assert gate_on_machine(gate, offline, _image("foreign")) is gate
    assert gate_on_machine(gate, None, _image("own")) is gate, "EC2 lends nobody its disks"
    assert not offline.reads(["own", "foreign"])
