"""Pages whose commands are run: each page by one shell, in the order of its blocks, as a reader would copy them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks_of

OFFLINE = {
    "docs/how-to/bundles.md": (),
    "docs/how-to/come-from-image-builder.md": ("1 spec, valid",),
    "docs/how-to/come-from-packer.md": ("written from amazon-ebs.", "specs/web.yaml"),
    "docs/how-to/editors.md": (),
    "docs/how-to/instance-store.md": ("1 spec, valid",),
}
"""Pages whose commands need no cloud, and texts that the commands print (tests/docs/test_command_blocks.py)."""

LOCAL_CLOUD: dict[str, tuple[str, ...]] = {
    "docs/how-to/bastion.md": ("host key verified", "(private)"),
    "docs/tutorial.md": ("1 spec, valid", "us-west-2       motd-", '"region": "us-west-2"'),
    "docs/how-to/faults.md": ("InsufficientInstanceCapacity",),
    "docs/how-to/images-on-images.md": (),
    "docs/how-to/kms.md": ("\tTrue\n", "key/"),
    "docs/how-to/least-privilege.md": (),
    "docs/how-to/local-cloud-with-other-tools.md": ("debian-12-amd64-", "hello"),
    "docs/how-to/local-ec2.md": ("Linux",),
    "docs/how-to/many-regions.md": ("ap-southeast-2", "eu-central-1"),
    "docs/how-to/reports.md": (),
    "docs/how-to/shared-state.md": (),
    "docs/how-to/ssm-parameters.md": ("/images/web-server/stable",),
}
"""Pages whose commands need the local cloud, and texts that they print (tests/machine/test_docs_blocks.py)."""

ELSEWHERE = {"docs/tutorial-family.md": "tests/machine/test_tutorial_family.py"}
"""Pages that a test of their own runs."""

IDS = {"7f3a91c2": "latest"}
"""Ids of runs in the pages, and what stands for them here."""

SPEC = """\
imagepipe: 1
name: web-server
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, ssh: {user: admin}}
provision: [{shell: "echo hello >/etc/stamp", sudo: true}]
output: {name: "web-server-{{ build.timestamp }}"}
"""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def script_of(blocks: list[Block]) -> str:
    """The commands of a page as one script. It saves the page's files, and ends what the page leaves running."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
    for block in blocks:
        if block.file is not None:
            lines += [f"cat >{block.file} <<'END OF FILE'", block.text.rstrip("\n"), "END OF FILE"]
        elif block.is_commands and block.not_run is None:
            lines += [f"echo '# {block.place}'", block.script.rstrip("\n")]
    script = "\n".join(lines)
    for id, here in IDS.items():
        script = script.replace(id, here)
    return f"{script}\n"


def commands_of(page: Path) -> Iterator[str]:
    """Yield each line of the page's blocks that are run."""
    for block in blocks_of(page):
        if block.is_commands and block.not_run is None and block.file is None:
            yield from block.script.splitlines()


def programs(folder: Path) -> Path:
    """Make a folder for the PATH with `imagepipe`, and an `aws` that any endpoint in the environment reaches."""
    folder.mkdir()
    _program(folder / "imagepipe", f'exec {sys.executable} -m imagepipe.cli.main "$@"')
    # Debian 12's AWS CLI is older than AWS_ENDPOINT_URL.
    _program(folder / "aws", 'exec /usr/bin/aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} "$@"')
    return folder


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def run_page(page: Path, folder: Path, env: Mapping[str, str], *, seconds: float) -> str:
    """Run the commands of a page in a folder, which is the home folder too; return all that they print."""
    script = folder / "page.sh"
    script.write_text(script_of(blocks_of(page)), encoding="utf-8")
    path = f"{programs(folder / 'programs')}:{env.get('PATH', os.environ['PATH'])}"
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            ["bash", str(script)],
            cwd=folder,
            env={**env, "PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            code = 124
    text = output.read_text(encoding="utf-8", errors="replace")
    assert code == 0, f"{name_of(page)}: exit code {code}:\n{text[-3000:]}"
    return text
