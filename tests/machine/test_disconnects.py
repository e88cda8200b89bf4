"""Steps that end their connection: the next one runs after it, and after a reboot on the new boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

WAYS = {
    "at once": "systemctl reboot",
    "and is killed": "systemctl reboot; sleep 600",
    "later": "(sleep 2; systemctl reboot) >/dev/null 2>&1 &",
    "by the old name": "shutdown -r now",
    "without a shutdown": "sync; reboot -f",
    "slowly": "systemd-run --quiet --property=ExecStop='sleep 3' --remain-after-exit true; systemctl reboot",
}
REBOOTS = "".join(
    f"""
- shell: touch /run/before
- name: reboots {way}
  shell: {command!r}
  expect_disconnect: true
- name: is on the new boot
  shell: test ! -e /run/before && test "$(systemctl is-system-running)" != stopping
"""
    for way, command in WAYS.items()
)


def _as_root(spec: Path) -> Path:
    text = spec.read_text(encoding="utf-8")
    spec.write_text(text.replace("region: us-east-1}", "region: us-east-1, ssh: {sudo: true}}"), encoding="utf-8")
    return spec


def test_what_follows_a_step_that_reboots_runs_on_the_new_boot(bakery: Bakery) -> None:
    last = "\n- shell: touch /run/before /var/before\n- shell: systemctl reboot\n  expect_disconnect: true\n"
    baked = bakery.build(_as_root(bakery.spec("reboots", REBOOTS + last)))
    said = [e["text"] for e in bakery.events() if e.get("text")]
    assert said.count("the machine is back, in a new boot") == len(WAYS) + 1
    assert baked.images


def test_a_connection_that_ends_without_a_reboot_is_made_again(bakery: Bakery) -> None:
    steps = """
- shell: touch /run/before
- shell: "pkill -9 -f 'sshd: admin'; sleep 600"
  expect_disconnect: true
- shell: "(sleep 1; pkill -9 -f 'sshd: admin') >/dev/null 2>&1 &"
  expect_disconnect: true
- shell: test -e /run/before
"""
    bakery.build(_as_root(bakery.spec("disconnects", steps)))
    said = [e["text"] for e in bakery.events() if e.get("text")]
    assert said.count("SSH is back, in the same boot") == 2


def test_a_connection_that_does_not_end_is_said_at_the_deadline(quick: Bakery) -> None:
    spec = quick.spec("stays", "- shell: 'true'\n  expect_disconnect: true\n  timeout: 3s\n")
    failed = quick("build", str(spec), "--local")
    assert failed.code == 7
    assert "the connection did not end within 3 s" in failed.err


def test_a_script_that_fails_has_failed_whatever_is_expected(quick: Bakery) -> None:
    failed = quick("build", str(quick.spec("fails", "- shell: exit 3\n  expect_disconnect: true\n")), "--local")
    assert failed.code == 7
    assert "exit code 3" in failed.err
