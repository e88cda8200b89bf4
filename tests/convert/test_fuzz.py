"""Any bytes are converted or refused, and every spec that is written passes `validate`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagepipe.convert.conversion import Conversion, convert
from imagepipe.errors import SpecError
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given
from tests.fuzzing import BOUNDED, within_bounds

from .conftest import template
from .test_template import LEGACY

HCL = template(
    """\
  tags = merge(local.tags, { at = "${timestamp()}-{{ build `SourceAMI` }}", v = var.a == "x" ? var.a : "y" })
  launch_block_device_mappings {
    device_name = "/dev/xvda"
    volume_size = var.size
  }
  ami_users    = [for u in ["1", "2"] : format("%012d", u)]
  encrypt_boot = true
""",
    """\
  provisioner "shell" {
    inline           = [<<-EOF
      echo ${upper(var.a)} %{ if var.size > 3 }big%{ endif }
    EOF
    ]
    environment_vars = ["A=${var.a}"]
    execute_command  = "sudo {{ .Vars }} bash {{ .Path }}"
    pause_before     = "5s"
  }
  provisioner "file" {
    content     = jsonencode({ a = [1, true, null] })
    destination = "/tmp/a"
  }
  post-processor "manifest" {}
""",
    """\
variable "a" { default = "x" }
variable "size" {
  type    = number
  default = 8
}
locals {
  tags = { team = "web", n = length([1, 2]) }
}
""",
)
JSON = json.dumps(LEGACY, indent=1)
PIECES = [
    *('"', "${", "}", "{", "[", "]", "(", ")", "null", "-1", "{{", "}}", "<<EOF\n", "%{ if true }", "[*]", "...", "\\"),
    *('timeadd(timestamp(), "1h")', "var.a", "local.tags", "=", ",", ":", "?", "\n", "\0", "é", "\u2028", "!", "0x1"),
    *("dynamic", "source", "{{ user `a` }}", "sudo reboot", "*", "/", "~}", "for", " in ", "=>", "9" * 400),
]


def _checked(folder: Path, name: str, raw: bytes) -> Conversion | None:
    file = folder / name
    file.write_bytes(raw)
    try:
        with within_bounds():
            conversion = convert(file, folder / "specs", working=folder)
    except SpecError as error:
        refused = error.problems
    else:
        return _valid(raw, conversion)
    assert all(problem.message for problem in refused)
    return None


def _valid(raw: bytes, conversion: Conversion) -> Conversion:
    for entry in conversion.problems:
        assert entry.what
        assert entry.instead
        assert 0 <= entry.line <= raw.count(b"\n") + 1
    for spec in conversion.specs:
        spec.file.parent.mkdir(exist_ok=True)
        spec.file.write_text(spec.text, encoding="utf-8")
        assert [p.text() for each in load([spec.file], Given()) for p in each.problems if p.severity == "error"] == []
    return conversion


def test_the_templates_of_these_tests_are_converted(tmp_path: Path) -> None:
    for name, text in (("x.pkr.hcl", HCL), ("x.json", JSON)):
        found = _checked(tmp_path, name, text.encode())
        assert found is not None
        assert len(found.specs) == 1


@BOUNDED
@given(raw=st.binary(max_size=200), name=st.sampled_from(["x.pkr.hcl", "x.json"]))
def test_any_bytes_are_refused(tmp_path: Path, raw: bytes, name: str) -> None:
    _checked(tmp_path, name, raw)


@BOUNDED
@given(seed=st.sampled_from([("x.pkr.hcl", HCL), ("x.json", JSON)]), draw=st.randoms(use_true_random=False))
def test_a_template_that_is_cut_or_changed_is_converted_or_refused(
    tmp_path: Path, seed: tuple[str, str], draw: random.Random
) -> None:
    name, text = seed
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + draw.randrange(30))
        change = draw.choice(["cut", "remove", "repeat", "insert", "insert", "replace"])
        if change == "cut":
            text = text[:start]
        elif change == "remove":
            text = text[:start] + text[end:]
        elif change == "repeat":
            text = text[:end] + text[start:]
        else:
            text = text[:start] + draw.choice(PIECES) + text[end if change == "replace" else start :]
    _checked(tmp_path, name, text.encode())


@pytest.mark.parametrize("name", ["x.pkr.hcl", "x.json"])
def test_ten_thousand_lines_are_converted(tmp_path: Path, name: str) -> None:
    count, lines = 500, 20
    if name == "x.json":
        steps = [{"type": "shell", "inline": [f"echo {n}"] * lines} for n in range(count)]
        text = json.dumps({**LEGACY, "provisioners": steps}, indent=1)
    else:
        inline = "".join('    "echo",\n' for _ in range(lines))
        text = template(steps=f'provisioner "shell" {{\n  inline = [\n{inline}  ]\n}}\n' * count)
    assert text.count("\n") >= 10_000
    found = convert_file(tmp_path / name, text)
    assert found.specs[0].text.count("echo") == count * lines


def convert_file(file: Path, text: str) -> Conversion:
    file.write_text(text, encoding="utf-8")
    return convert(file, file.parent / "specs", working=file.parent)
