"""The choice of specs: `--only`, `--with-dependents`, and variants in brackets."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import UsageError
from imagepipe.spec.keys import SpecKey
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.selection import narrow, select_variants
from imagepipe.spec.variables import Given

FAMILY = """\
imagepipe: 1
name: app
source: {image: runtime}
output: {name: app-1}
---
imagepipe: 1
name: runtime
source: {image: base}
output: {name: runtime-1}
---
imagepipe: 1
name: base
source: {ami: ami-0123456789abcdef0}
launch: {ssh: {user: admin}}
output: {name: base-1}
---
imagepipe: 1
name: other
matrix: {size: [s, m]}
source: {ami: ami-0123456789abcdef0}
launch: {ssh: {user: admin}}
output: {name: "other-{{ matrix.size }}"}
"""


def _family(folder: Path) -> list[LoadedSpec]:
    (folder / "family.yaml").write_text(FAMILY)
    return load([folder / "family.yaml"], Given())


def _keys(loaded: list[LoadedSpec]) -> list[str]:
    return [str(each.key) for each in loaded]


@pytest.mark.parametrize(
    ("only", "with_dependents", "built", "named"),
    [
        (["runtime"], False, ["runtime", "base"], ["runtime"]),
        (["runtime"], True, ["app", "runtime", "base"], ["app", "runtime"]),
        (["base"], True, ["app", "runtime", "base"], ["app", "runtime", "base"]),
        (["other"], False, ["other[size=s]", "other[size=m]"], ["other[size=s]", "other[size=m]"]),
        (["other[size=m]", "base"], False, ["base", "other[size=m]"], ["base", "other[size=m]"]),
    ],
)
def test_only_chooses_specs_and_keeps_their_bases(
    tmp_path: Path, only: list[str], with_dependents: bool, built: list[str], named: list[str]
) -> None:
    found = narrow(_family(tmp_path), only, with_dependents=with_dependents)
    assert _keys(found) == built
    assert [str(each.key) for each in found if each.is_named] == named


def test_only_a_spec_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--only runtmie: no spec has this name; did you mean 'runtime'\?"):
        narrow(_family(tmp_path), ["runtmie"], with_dependents=False)


def test_the_command_line_can_name_one_variant(tmp_path: Path) -> None:
    loaded = _family(tmp_path)
    file = str((tmp_path / "family.yaml").resolve())
    assert _keys(select_variants(loaded, [(file, SpecKey("", (("size", "m"),)))])) == ["other[size=m]"]
    with pytest.raises(UsageError, match=r"\[size=xl\]: .*family.yaml has no such variant"):
        select_variants(_family(tmp_path), [(file, SpecKey("", (("size", "xl"),)))])
