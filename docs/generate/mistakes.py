"""Ten mistakes, made in a template of Packer and in a spec: `python -m docs.generate.mistakes FILE` writes the page.

Both tools run on a local cloud of the script's own whose machines do not boot. Times are those of one run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.machine.bakery import Bakery, without_boot

SPEC = """\
imagepipe: 1
name: web
variables: {greeting: {default: hello}}
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin, timeout: 30s}}
provision:
  - shell: echo {{ var.greeting }} >/tmp/greeting
output: {name: "web-{{ build.id }}"}
"""
TEMPLATE = """\
variable "greeting" {
  type    = string
  default = "hello"
}
source "amazon-ebs" "web" {
  ENDPOINT
  region        = "us-east-1"
  source_ami_filter {
    filters     = { name = "debian-12-amd64-*" }
    owners      = ["136693071363"]
    most_recent = true
  }
  instance_type = "t3.small"
  ssh_username  = "admin"
  ssh_timeout   = "30s"
  ami_name      = "web-${formatdate("YYYYMMDDhhmmss", timestamp())}"
}
build {
  sources = ["source.amazon-ebs.web"]
  provisioner "shell" {
    inline = ["echo ${var.greeting} >/tmp/greeting"]
  }
}
"""
SHOWN_LINES = 14
"""Lines of a message on the page: the last ones."""
HIDDEN = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"127\.\d+\.\d+\.\d+"), "10.0.0.7"),
    (re.compile(rf"{tempfile.gettempdir()}/imagepipe-mistakes-\w+"), "/home/you/project"),
)
"""Texts of this computer, and those in their place."""


@dataclass(frozen=True)
class Mistake:
    """A mistake, as replacements in the spec and in the template."""

    title: str
    spec: tuple[str, str]
    template: tuple[str, str]
    files: Mapping[str, str] = field(default_factory=dict)


MISTAKES = (
    Mistake("A misspelt key", ("provision:", "provison:"), ('provisioner "shell"', 'provisoner "shell"')),
    Mistake(
        "A misspelt option",
        ("ssh: {user: admin, timeout: 30s}", "ssh: {user: admin, timout: 30s}"),
        ("ssh_timeout  ", "ssh_timout  "),
    ),
    Mistake("A variable that is not declared", ("var.greeting", "var.greting"), ("var.greeting", "var.greting")),
    Mistake(
        "A required variable without a value",
        ("{greeting: {default: hello}}", "{greeting: {}}"),
        ('  default = "hello"\n', ""),
    ),
    Mistake(
        "A script that does not exist",
        ("shell: echo {{ var.greeting }} >/tmp/greeting", "shell: {script: setup.sh}"),
        ('inline = ["echo ${var.greeting} >/tmp/greeting"]', 'script = "setup.sh"'),
        files={"set-up.sh": "true\n"},
    ),
    Mistake(
        "A bracket that is not closed",
        ('owners: ["136693071363"]}}', 'owners: ["136693071363"}}'),
        ('owners      = ["136693071363"]', 'owners      = ["136693071363"'),
    ),
    Mistake("A filter that no image matches", ("debian-12-amd64-*", "debian-21-amd64-*"), ("debian-12", "debian-21")),
    Mistake(
        "A command that fails without a word",
        (
            "shell: echo {{ var.greeting }} >/tmp/greeting",
            "shell: |\n      echo one\n      grep -q nginx /etc/passwd\n      echo two",
        ),
        (
            'inline = ["echo ${var.greeting} >/tmp/greeting"]',
            'inline = ["echo one", "grep -q nginx /etc/passwd", "echo two"]',
        ),
    ),
    Mistake("The wrong user", ("user: admin", "user: ubuntu"), ('"admin"', '"ubuntu"')),
    Mistake(
        "An instance type that does not exist",
        ("launch: {region: us-east-1,", "launch: {region: us-east-1, instance_types: [t3.smal],"),
        ('"t3.small"', '"t3.smal"'),
    ),
)


@dataclass(frozen=True)
class Said:
    """The end of a command."""

    command: str
    text: str
    code: int
    seconds: float
    launched: int
    """Instances that it launched."""
    passed: str = ""
    """The command before it, which ended with exit code 0."""


def main(file: Path) -> None:
    """Make all mistakes and write the page."""
    with tempfile.TemporaryDirectory(prefix="imagepipe-mistakes-") as name, without_boot(Path(name)) as bakery:
        parts = [_part(bakery, number, mistake) for number, mistake in enumerate(MISTAKES, start=1)]
        version = subprocess.run(["packer", "version"], capture_output=True, text=True, check=True).stdout.split()[1]
    file.write_text(_head(version) + "".join(parts), encoding="utf-8")


def _head(packer: str) -> str:
    return f"""# Ten mistakes, in imagepipe and in Packer

Made by `python -m docs.generate.mistakes`: each mistake is made in the spec and in the template below, and this is the
end of what the tools print. Packer is {packer}, as Debian has it; later versions have other texts here and there. Both
run on the local cloud, with machines that do not boot, so the seconds are for comparison only.

```yaml
{SPEC}```

```hcl
{TEMPLATE.replace("  ENDPOINT", "  # and the endpoint of the local cloud")}```
"""


def _part(bakery: Bakery, number: int, mistake: Mistake) -> str:
    for name, content in mistake.files.items():
        (bakery.folder / name).write_text(content, encoding="utf-8")
    ours, theirs = _imagepipe(bakery, mistake), _packer(bakery, mistake)
    return f"""
## {number}. {mistake.title}

imagepipe, {_facts(ours)}:

```text
{ours.text}
```

Packer, {_facts(theirs)}:

```text
{theirs.text}
```
"""


def _facts(said: Said) -> str:
    launched = f", {said.launched} instance launched" if said.launched else ""
    before = f"`{said.passed}` passes, then " if said.passed else ""
    return f"{before}`{said.command}`, exit code {said.code}, {said.seconds:.1f} s{launched}"


def _imagepipe(bakery: Bakery, mistake: Mistake) -> Said:
    _write(bakery, "web.yaml", SPEC, mistake.spec)
    start = [sys.executable, "-m", "imagepipe"]
    said = _run(bakery, [*start, "validate", "web.yaml"], "imagepipe validate web.yaml", bakery.env)
    if said.code:
        return said
    built = _run(bakery, [*start, "build", "web.yaml", "--local"], "imagepipe build web.yaml", bakery.env)
    return replace(built, passed=said.command)


def _packer(bakery: Bakery, mistake: Mistake) -> Said:
    endpoint = f'custom_endpoint_ec2 = "{bakery.cloud.endpoint_url}"'
    _write(bakery, "web.pkr.hcl", TEMPLATE, mistake.template, ENDPOINT=endpoint)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(bakery.folder),
        "AWS_ACCESS_KEY_ID": bakery.cloud.access_key_id,
        "AWS_SECRET_ACCESS_KEY": bakery.cloud.secret_access_key,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CHECKPOINT_DISABLE": "1",
    }
    said = _run(bakery, ["packer", "validate", "web.pkr.hcl"], "packer validate web.pkr.hcl", env)
    if said.code:
        return said
    built = _run(bakery, ["packer", "build", "-color=false", "web.pkr.hcl"], "packer build web.pkr.hcl", env)
    return replace(built, passed=said.command)


def _write(bakery: Bakery, name: str, text: str, change: tuple[str, str], **more: str) -> None:
    old, new = change
    assert old in text, f"{name} has no {old}"
    for key, value in more.items():
        text = text.replace(key, value)
    (bakery.folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def _run(bakery: Bakery, command: list[str], shown: str, env: Mapping[str, str]) -> Said:
    before = _instances(bakery)
    start = time.monotonic()
    done = subprocess.run(command, cwd=bakery.folder, env=dict(env), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    text = done.stderr if done.returncode and done.stderr.strip() else done.stdout + done.stderr
    for pattern, instead in HIDDEN:
        text = pattern.sub(instead, text)
    lines = [line.rstrip() for line in text.strip().splitlines()]
    cut = ["…"] if len(lines) > SHOWN_LINES else []
    return Said(
        shown, "\n".join(cut + lines[-SHOWN_LINES:]), done.returncode, seconds, len(_instances(bakery) - before)
    )


def _instances(bakery: Bakery) -> set[str]:
    pages: list[dict[str, Any]] = bakery.client().describe_instances()["Reservations"]
    return {each["InstanceId"] for page in pages for each in page["Instances"]}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
