"""Whole builds, as a user runs them; those of the machine itself are on instances that boot."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.machine.bakery import Bakery, until

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]


def test_the_web_server_is_baked_and_an_instance_of_its_copy_serves_the_page(bakery: Bakery) -> None:
    before = bakery.inventory()
    baked = bakery.build(ROOT / "specs" / "web-server.yaml", "--var", "greeting=tested & true")
    after = bakery.inventory()
    assert {k: v for k, v in after.items() if k.endswith(("instances", "volumes", "keys", "groups"))} == {
        k: v for k, v in before.items() if k.endswith(("instances", "volumes", "keys", "groups"))
    }, "what is temporary is gone"
    host_key = _launched_host_key(bakery)

    with bakery.instance(baked.images["us-west-2"], "us-west-2", ports=(80,)) as booted:
        page = until(lambda: _page(f"http://{booted.address}/"), "the page is served")
        assert "<h1>tested &amp; true</h1>" in page
        assert booted.sh("systemctl is-enabled nginx") == "enabled"
        keys = booted.sh("sudo cat /home/admin/.ssh/authorized_keys; sudo cat /root/.ssh/authorized_keys || true")
        assert f"imagepipe-{baked.run}" not in keys
        assert host_key not in booted.sh(
            "cat /etc/ssh/ssh_host_*_key.pub; sudo grep -rs ssh-ed25519 /var/lib/cloud || true"
        )
    assert not bakery.is_on_disk(baked, host_key.split()[1].encode()), "not in a free block either"
    assert bakery.is_on_disk(baked, b"tested &amp; true"), "the search finds what is there"


def _launched_host_key(bakery: Bakery) -> str:
    """The public host key of the builder: its private half came by user data, and is on no disk."""
    instance = next(r["id"] for r in bakery.journal() if r["type"] == "bound" and r["id"].startswith("i-"))
    data = bakery.client().describe_instance_attribute(InstanceId=instance, Attribute="userData")
    import base64
    import json

    text = base64.b64decode(data["UserData"]["Value"]).decode()
    return str(json.loads(text.partition("\n")[2])["ssh_keys"]["ed25519_public"])


def _page(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


STEPS = """
- name: environment
  shell: |
    test "$COLOUR" = "green; rm -rf /"
    test "$(id -un)" = root
    echo "token $TOKEN"
  env: {COLOUR: "green; rm -rf /", TOKEN: "{{ var.token }}"}
  sudo: true
- name: not root
  shell: [test "$(id -un)" = admin, 'echo "$0" >/tmp/left']
- name: arguments
  shell: {inline: 'test "$1" = "a b" && test "$2" = "*"', args: ["a b", "*"]}
- name: python
  shell: {script: say.py, args: [x]}
- name: other exit codes
  shell: exit 3
  exit_codes: [3]
- name: a second try
  shell: |
    test -e /tmp/tried || { touch /tmp/tried; exit 1; }
  retries: 1
- name: both streams
  shell: |
    i=0; while [ $i -lt 20000 ]; do echo "line $i" >&2; i=$((i+1)); done; echo done
- name: left out
  shell: exit 9
  when: var.token == 'never'
- name: left out late
  shell: exit 9
  when: source.owner != '136693071363'
- name: a tree
  file: {src: tree, dest: /srv/tree}
  sudo: true
- name: its contents, into a folder that is there
  file: {src: tree/, dest: /srv/tree/}
  sudo: true
- name: one file
  file: {src: say.py, dest: /usr/local/bin/, mode: "0750", owner: "admin:root"}
  sudo: true
- name: a late template
  template: {src: page.j2, dest: /srv/page, vars: {from: "{{ source.name }}"}}
  sudo: true
- reboot: {}
- name: after the reboot
  shell: test ! -e /run/before && test -e /srv/page
- name: goes away
  shell: |
    pkill -9 -f 'sshd: admin'
    sleep 5
  sudo: true
  expect_disconnect: true
- shell: test -x /usr/local/bin/say.py
"""


def test_every_kind_of_step_and_option_does_what_it_says(bakery: Bakery) -> None:
    tree = bakery.folder / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    os.link(tree / "run.sh", tree / "sub" / "hard")
    (tree / ".hidden").write_text("x")
    spec = bakery.spec(
        "steps",
        STEPS,
        **{
            "say.py": "#!/usr/bin/env python3\nimport sys\nprint('from python', sys.argv[1:])\n",
            "page.j2": "{{ from }} in {{ region }}\n",
        },
    )
    text = spec.read_text().replace("source:", "variables: {token: {sensitive: true}}\nsource:")
    spec.write_text(text)
    baked = bakery.build(spec, IMAGEPIPE_VAR_token="canary-4711-secret")

    everything = baked.err + baked.out + "".join(p.read_text() for p in bakery.runs.rglob("*.jsonl"))
    assert "canary-4711-secret" not in everything
    assert "token ***" in baked.err
    assert "from python ['x']" in baked.err
    errors = [e["text"] for e in bakery.events() if e["event"] == "Line" and e["stream"] == "err"]
    assert [line for line in errors if line.startswith("line ")] == [f"line {i}" for i in range(20000)]

    with bakery.instance(baked.images["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /srv/page").startswith("debian-12-amd64-")
        assert booted.sh("stat -c '%a %U:%G' /usr/local/bin/say.py") == "750 admin:root"
        assert booted.sh("readlink /srv/tree/link; stat -c %h /srv/tree/sub/hard; stat -c %U /srv/tree/.hidden") == (
            "run.sh\n2\nroot"
        )
        assert booted.sh("ls -A /srv/tree | sort | tr '\\n' ' '") == ".hidden link run.sh sub "
    assert not bakery.is_on_disk(baked, b"canary-4711")


def test_a_script_that_fails_shows_its_last_lines_and_leaves_nothing(quick: Bakery) -> None:
    before = quick.inventory()
    spec = quick.spec("fails", "- name: breaks\n  shell: |\n    echo before the end\n    false\n    echo never")
    failed = quick("build", str(spec), "--local")
    assert failed.code == 7
    assert "step 'breaks' (" in failed.err
    assert f"{spec}:6" in failed.err, "the step's line in the spec"
    assert "before the end" in failed.err
    assert "never" not in failed.err
    assert quick.inventory() == before


def test_a_wrong_user_ends_the_build_long_before_the_timeout_and_says_what_was_checked(bakery: Bakery) -> None:
    before = bakery.inventory()
    spec = bakery.spec("nobody", "- shell: 'true'")
    spec.write_text(
        spec.read_text().replace("region: us-east-1", "region: us-east-1, ssh: {user: nobody-here, timeout: 5m}")
    )
    failed = bakery("build", str(spec), "--local")
    assert failed.code == 6
    for word in ("nobody-here", "instance state: running", "security groups: sg-", "console:", "the login user of"):
        assert word in failed.err, failed.err
    assert "so imagepipe did not wait for the 300 s" in failed.err
    assert "Error reading SSH protocol banner" not in failed.err
    assert bakery.inventory() == before


def test_an_image_that_refuses_root_names_its_user(bakery: Bakery) -> None:
    before = bakery.inventory()
    spec = bakery.spec("root", "- shell: 'true'")
    spec.write_text(spec.read_text().replace("region: us-east-1", "region: us-east-1, ssh: {user: root}"))
    failed = bakery("build", str(spec), "--local")
    assert failed.code == 6, failed.err
    assert "the image refuses logins as 'root'" in failed.err
    assert "hint: set launch.ssh.user: admin" in failed.err
    assert "cloud-init on the instance failed" not in failed.err
    assert bakery.inventory() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_undoes_everything_and_exits_130(quick: Bakery, number: signal.Signals) -> None:
    before = quick.inventory()
    spec = quick.spec("slow", "- shell: echo sleeping; sleep 60")
    process = quick.start("build", str(spec), "--local")
    until(lambda: any("sleeping" in e.get("text", "") for e in quick.events()) or None, "the step runs")
    process.send_signal(number)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert quick.inventory() == before


def test_the_next_instance_type_is_tried_on_lack_of_capacity(quick: Bakery) -> None:
    spec = quick.spec("capacity", "- shell: 'true'")
    spec.write_text(
        spec.read_text().replace("region: us-east-1", "region: us-east-1, instance_types: [t3.small, t3a.small]")
    )
    with quick.fault(
        effect="refuse",
        action="RunInstances",
        where={"InstanceType": "t3.small"},
        code="InsufficientInstanceCapacity",
        status=500,
    ):
        baked = quick.build(spec)
    launched = [e for e in quick.events() if e["event"] == "StageFinished" and e["stage"] == "launch"]
    assert "t3a.small" in launched[0]["summary"], baked.err


def test_a_failed_build_can_be_kept_and_cleaned_later(quick: Bakery) -> None:
    before = quick.inventory()
    spec = quick.spec("kept", "- shell: exit 1")
    failed = quick("build", str(spec), "--local", "--keep-on-failure")
    assert failed.code == 7
    command = next(line for line in failed.err.splitlines() if line.startswith("kept: ")).partition(": ssh ")[2]
    import shlex
    import subprocess

    got_in = subprocess.run(["ssh", *shlex.split(command), "echo in"], capture_output=True, text=True, timeout=30)
    assert got_in.stdout == "in\n", got_in.stderr
    run = quick.journal()[0]["id"]
    cleaned = quick("clean", run, "--local")
    assert cleaned.code == 0, cleaned.err
    assert quick.inventory() == before
