"""Playbooks on machines: run from here and on the machine itself, with a secret that appears nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

CANARY = "canary-5bd1e995"
PLAYBOOK = """\
- hosts: web
  tasks:
    - name: who works
      command: id -un
      register: who
      changed_when: false
    - name: write the facts
      copy:
        content: "{{ who.stdout }} {{ port }} {{ greeting }}\\n"
        dest: /etc/{{ stamp }}
        mode: "0640"
    - name: the secret is here
      assert: {that: "lookup('env', 'API_TOKEN') | length > 5", quiet: true}
      no_log: true
    - name: says the secret
      debug: {msg: "the token is {{ lookup('env', 'API_TOKEN') }}"}
"""
ROLE = """\
- name: from the role
  copy: {content: "role\\n", dest: /etc/role-was-here}
"""


def _write(bakery: Bakery, steps: str) -> Path:
    plays = bakery.folder / "plays"
    tasks = plays / "roles" / "web" / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "main.yml").write_text(ROLE, encoding="utf-8")
    (plays / "site.yml").write_text(PLAYBOOK + "  roles: [web]\n", encoding="utf-8")
    (plays / "fails.yml").write_text("- hosts: all\n  tasks: [{command: 'false'}]\n", encoding="utf-8")
    (plays / "hangs.yml").write_text("- hosts: all\n  tasks: [{command: sleep 600}]\n", encoding="utf-8")
    return bakery.spec("played", steps)


def _path() -> str:
    """Return a PATH with the environment of these tests, where ansible-playbook is."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"


HERE = """\
- ansible:
    playbook: plays/site.yml
    groups: [web]
    extra_vars: {port: 8080, greeting: "{{ source.name }}", stamp: from-here}
    args: [--diff]
  sudo: true
  env: {API_TOKEN: "%s"}
- shell: cat /etc/from-here /etc/role-was-here; stat -c '%%a %%U' /etc/from-here
  sudo: true
"""


def test_a_playbook_runs_from_here_and_leaves_no_connection_behind(quick: Bakery) -> None:
    spec = _write(quick, HERE % "none-at-all")
    baked = quick("build", str(spec), "--local", PATH=_path())
    assert baked.code == 0, baked.err
    assert "root 8080 debian-12-amd64" in baked.out
    assert "640 root" in baked.out
    assert "| role" in baked.out
    assert "ok=" in baked.out, "the recap of ansible-playbook is in the log"
    masters = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_master(path)]
    assert masters == []


def _is_master(path: Path) -> bool:
    try:
        return b"ControlPath=" in path.read_bytes() and b"imagepipe-" in path.read_bytes()
    except OSError:
        return False


def test_a_playbook_that_fails_or_hangs_fails_its_step(quick: Bakery) -> None:
    before = quick.inventory()
    failed = quick("build", str(_write(quick, "- ansible: plays/fails.yml\n")), "--local", PATH=_path())
    assert failed.code == 7
    assert failed.err.count("step 'fails.yml'") == 1
    assert "non-zero return code" in failed.err
    hangs = quick.spec("hangs", "- ansible: plays/hangs.yml\n  timeout: 20s\n")
    hung = quick("build", str(hangs), "--local", PATH=_path())
    assert "not done within 20 s" in hung.err
    assert quick.inventory() == before


ON_THE_MACHINE = """\
- shell: apt-get -q update >/dev/null && apt-get -q install --yes --no-install-recommends ansible-core >/dev/null
  sudo: true
- ansible:
    playbook: plays/site.yml
    run: machine
    groups: [web]
    extra_vars: {port: 8080, greeting: hello, stamp: from-machine}
  sudo: true
  env: {API_TOKEN: "{{ var.token }}"}
- ansible: {playbook: plays/fails.yml, run: machine}
  exit_codes: [2]
- shell: cat /etc/from-machine /etc/role-was-here; ls -A /tmp; ls -A ~
  sudo: true
"""


def test_a_playbook_runs_on_the_machine_itself_and_its_files_and_secrets_are_gone_afterwards(bakery: Bakery) -> None:
    spec = _write(bakery, ON_THE_MACHINE)
    variables = f"variables: {{token: {{sensitive: true, default: {CANARY}}}}}\n"
    spec.write_text(spec.read_text(encoding="utf-8") + variables, encoding="utf-8")
    baked = bakery("build", str(spec), "--local")
    assert baked.code == 0, baked.err
    assert "root 8080 hello" in baked.out
    assert "the token is ***" in baked.out
    assert "imagepipe-ansible" not in baked.out.rpartition("role-was-here")[2]
    assert CANARY not in baked.out + baked.err
    for path in (bakery.folder / "state").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
