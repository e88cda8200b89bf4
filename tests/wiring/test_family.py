"""Families of specs: their order, their regions, and the choice of those to build."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import SpecError, UsageError
from imagepipe.spec.keys import SpecKey
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.family import bases_first, check_bases, narrow, select_variants

FAMILY = """\
imagepipe: 1
name: app
source: {image: runtime}
launch: {region: us-west-2, ssh: {user: admin}}
output: {name: app-1}
---
imagepipe: 1
name: runtime
source: {image: base}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: runtime-1}
publish: {regions: [REGION]}
---
imagepipe: 1
name: base
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: base-1}
---
imagepipe: 1
name: other
matrix: {size: [s, m]}
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: "other-{{ matrix.size }}"}
"""


def _family(folder: Path, region: str = "us-west-2") -> list[LoadedSpec]:
    (folder / "family.yaml").write_text(FAMILY.replace("REGION", region))
    loaded = load([folder / "family.yaml"], Given())
    assert [problem.text() for each in loaded for problem in each.problems] == []
    return loaded


def _keys(loaded: list[LoadedSpec]) -> list[str]:
    return [str(each.key) for each in loaded]


def test_bases_come_before_what_is_built_on_them(tmp_path: Path) -> None:
    assert _keys(bases_first(_family(tmp_path))) == ["base", "runtime", "app", "other[size=s]", "other[size=m]"]


def test_a_base_must_have_an_image_in_the_region_of_its_layer(tmp_path: Path) -> None:
    check_bases(_family(tmp_path), lambda spec: str(spec.launch.region))
    with pytest.raises(SpecError) as refused:
        check_bases(_family(tmp_path, "eu-west-1"), lambda spec: str(spec.launch.region))
    (problem,) = refused.value.problems
    assert "'app' is launched in us-west-2, but 'runtime' has images only in us-east-1, eu-west-1" in problem.message
    assert (problem.line, problem.path) == (3, "source.image")
    assert f"add us-west-2 to publish.regions of runtime ({tmp_path}/family.yaml:12)" in str(problem.hint)


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


def test_a_base_that_may_fail_in_the_region_of_its_layer_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "family.yaml").write_text(
        FAMILY.replace("regions: [REGION]", "regions: [us-west-2], best_effort: [us-west-2]")
    )
    loaded = load([tmp_path / "family.yaml"], Given())
    with pytest.raises(SpecError, match="images that must not fail only in us-east-1") as error:
        check_bases(loaded, lambda spec: str(spec.launch.region))
    assert "remove us-west-2 from publish.best_effort of runtime" in str(error.value.problems[0].hint)
