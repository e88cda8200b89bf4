"""Templates of our own, converted in a folder of the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagepipe.convert.conversion import Conversion, convert
from imagepipe.spec.document import parse
from imagepipe.spec.load import load
from imagepipe.spec.variables import Given

SOURCE = """\
source "amazon-ebs" "web" {
  region        = "us-east-1"
  source_ami    = "ami-0123456789abcdef0"
  instance_type = "t3.small"
  ssh_username  = "admin"
  ami_name      = "web-{{timestamp}}"
  imds_support  = "v2.0"
%s
}
"""
BUILD = """\
build {
  sources = ["source.amazon-ebs.web"]
%s
}
"""


def template(options: str = "", steps: str = "", before: str = "") -> str:
    """A template with one source; the further options, provisioners and blocks are given."""
    return before + SOURCE % options + BUILD % steps


@dataclass(frozen=True, slots=True)
class Converted:
    """The result of a conversion, and the written spec as plain values."""

    conversion: Conversion
    documents: tuple[Any, ...]

    @property
    def spec(self) -> Any:
        assert len(self.documents) == 1, self.listed
        return self.documents[0]

    @property
    def steps(self) -> Any:
        return self.spec["provision"]

    @property
    def listed(self) -> list[str]:
        return [f"{each.line}: {each.what}: {each.instead}" for each in self.conversion.problems]


Convert = Callable[..., Converted]


@pytest.fixture
def converted(tmp_path: Path) -> Convert:
    """Convert a template, write the specs, and check that each of them passes `validate` where it is written."""

    def run(text: str, name: str = "web.pkr.hcl", *, var_files: tuple[Path, ...] = ()) -> Converted:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        conversion = convert(file, tmp_path / "specs", working=tmp_path, var_files=var_files)
        documents = []
        for spec in conversion.specs:
            spec.file.parent.mkdir(exist_ok=True)
            spec.file.write_text(spec.text, encoding="utf-8")
            problems = [p.text() for each in load([spec.file], Given()) for p in each.problems if p.severity == "error"]
            assert problems == []
            documents.append(parse(spec.text, str(spec.file))[0].value)
        return Converted(conversion, tuple(documents))

    return run
