"""The container file installs what the Makefile installs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = (ROOT / "container/Containerfile").read_text(encoding="utf-8")
OWN = {"python3", "python3-venv", "zstd"}


def variable(name: str) -> set[str]:
    """The words of a variable of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(rf"^{name} := (.*)$", text, re.MULTILINE)
    assert found is not None
    return set(found[1].split())


def installed() -> set[str]:
    [words] = re.findall(r"--no-install-recommends ([^&]*)&&", CONTAINERFILE.replace("\\\n", " "))
    return set(words.split())


def test_the_container_has_the_packages_of_the_makefile() -> None:
    assert installed() == variable("SYSTEM") | variable("SYSTEM_ROOTLESS") | OWN


@pytest.mark.parametrize(
    ("file", "one"), [("Containerfile", "container/entrypoint.sh"), ("ci.Containerfile", "requirements.txt")]
)
def test_the_files_that_the_container_copies_exist(file: str, one: str) -> None:
    text = (ROOT / "container" / file).read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert one in copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_entry_point_unpacks_the_base_image_once_and_passes_its_arguments_on(tmp_path: Path) -> None:
    (tmp_path / "made/base").mkdir(parents=True)
    (tmp_path / "made/base/disk.raw").write_text("disk")
    archive = tmp_path / "base.tar.zst"
    done = subprocess.run(
        ["tar", "--create", "--zstd", "--directory", str(tmp_path / "made"), "--file", str(archive), "base"],
        check=False,
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "imagepipe").write_text('#!/bin/sh\nprintf "%s|" "$@"; cat "$IMAGEPIPE_LOCAL_BASE_CACHE/disk.raw"\n')
    (tools / "imagepipe").chmod(0o755)
    cache = tmp_path / "var/imagepipe/base"
    environ = {
        "PATH": f"{tools}:/usr/bin:/bin", "IMAGEPIPE_LOCAL_BASE_CACHE": str(cache),
        "IMAGEPIPE_BASE_ARCHIVE": str(archive),
    }  # fmt: skip
    command = ["sh", str(ROOT / "container/entrypoint.sh"), "build", "a b.yaml"]
    assert done.returncode == 0, "needs zstd"
    for text in ("disk", "changed"):
        out = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
        assert out == f"build|a b.yaml|{text}"
        (cache / "disk.raw").write_text("changed")
