"""`imagepipe convert` as a user runs it: files, output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = """\
source "amazon-ebs" "web" {
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  instance_type = "t3.small"
  ssh_username  = "admin"
  ami_name      = "web-{{timestamp}}"
}
build {
  sources = ["source.amazon-ebs.web"]
  provisioner "shell" {
    inline = ["id"]
  }
}
"""
MANIFEST = TEMPLATE.replace("  provisioner", '  post-processor "manifest" {}\n  provisioner')


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagepipe.cli.main", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_complete_conversion_writes_specs_that_are_valid_and_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "web.pkr.hcl").write_text(TEMPLATE)
    result = run(tmp_path, "convert", "web.pkr.hcl")
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        "specs/web.yaml: written from amazon-ebs.web\n1 spec, complete\n",
        "",
    )
    assert (tmp_path / "specs/web.yaml").read_text() == (
        "# Converted from ../web.pkr.hcl by imagepipe convert.\n"
        "imagepipe: 1\nname: web\n\nsource:\n  ami: ami-0123456789abcdef0\n\n"
        "launch:\n  region: us-east-1\n  instance_types: [t3.small]\n  ssh: {user: admin}\n\n"
        "provision:\n  - shell: id\n\n"
        'output:\n  name: "web-{{ build.timestamp }}"\n  imds_support: source\n'
    )
    assert run(tmp_path, "validate").stdout == "1 spec, valid\n"


def test_an_incomplete_conversion_lists_the_rest_and_ends_with_11(tmp_path: Path) -> None:
    (tmp_path / "web.pkr.hcl").write_text(MANIFEST)
    result = run(tmp_path, "convert", "web.pkr.hcl", "--output", "out")
    assert result.returncode == 11
    assert result.stdout == (
        "out/web.yaml: written from amazon-ebs.web\n"
        "web.pkr.hcl:10: post-processor `manifest`: `imagepipe build --format json` prints the images, their regions"
        " and ids\n1 spec, 1 part of the template left out\n"
    )


def test_json_has_the_specs_the_problems_and_whether_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "web.pkr.hcl").write_text(MANIFEST)
    result = run(tmp_path, "convert", "web.pkr.hcl", "--format", "json")
    assert result.returncode == 11
    assert json.loads(result.stdout) == {
        "format_version": 1,
        "complete": False,
        "specs": [{"name": "web", "file": "specs/web.yaml", "source": "amazon-ebs.web"}],
        "problems": [
            {
                "file": "web.pkr.hcl",
                "line": 10,
                "what": "post-processor `manifest`",
                "instead": "`imagepipe build --format json` prints the images, their regions and ids",
            }
        ],
    }
    (tmp_path / "web.pkr.hcl").write_text(TEMPLATE)
    result = run(tmp_path, "convert", "web.pkr.hcl", "--format", "json", "--dry-run")
    shown = json.loads(result.stdout)
    assert (result.returncode, shown["complete"], shown["problems"]) == (0, True, [])
    assert shown["specs"][0]["text"].startswith("# Converted from")


def test_an_existing_spec_is_overwritten_only_by_force(tmp_path: Path) -> None:
    (tmp_path / "web.pkr.hcl").write_text(TEMPLATE)
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/web.yaml").write_text("mine")
    result = run(tmp_path, "convert", "web.pkr.hcl")
    assert result.returncode == 2
    assert "error: writing specs: specs/web.yaml already exists\n  hint: use --force" in result.stderr
    assert (tmp_path / "specs/web.yaml").read_text() == "mine"
    assert run(tmp_path, "convert", "web.pkr.hcl", "--force").returncode == 0
    assert (tmp_path / "specs/web.yaml").read_text().startswith("# Converted")


def test_a_dry_run_prints_the_specs_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "web.pkr.hcl").write_text(MANIFEST)
    result = run(tmp_path, "convert", "web.pkr.hcl", "--dry-run")
    assert result.returncode == 11
    assert result.stdout.startswith("# Converted from ../web.pkr.hcl")
    assert "web.pkr.hcl:10: post-processor `manifest`" in result.stderr
    assert not (tmp_path / "specs").exists()


@pytest.mark.parametrize(
    ("name", "content", "words", "message"),
    [
        ("x.pkr.hcl", None, [], "error: reading x.pkr.hcl: the file does not exist"),
        ("x.pkr.hcl", "", [], "x.pkr.hcl: the file is empty"),
        ("x.pkr.hcl", "source {\n", [], "x.pkr.hcl:2:1: not HCL: the block of line 1 has no } at its end"),
        ("x.json", "{}", [], "the file is JSON, but not a Packer template"),
        (".", None, [], "the folder has no *.pkr.hcl"),
        ("x.pkr.hcl", TEMPLATE, ["--var-file", "none.json"], "none.json: cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_template_ends_with_2(
    tmp_path: Path, name: str, content: str | None, words: list[str], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    result = run(tmp_path, "convert", name, *words)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_another_builder_gives_no_spec_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "g.pkr.hcl").write_text(TEMPLATE.replace("amazon-ebs", "googlecompute"))
    result = run(tmp_path, "convert", "g.pkr.hcl")
    assert result.returncode == 2
    assert "g.pkr.hcl:1: source `googlecompute.web`: keep Packer for it" in result.stdout
    assert json.loads(run(tmp_path, "convert", "g.pkr.hcl", "--format", "json").stdout)["complete"] is False
