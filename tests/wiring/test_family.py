"""Families of specs: their order and their regions."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.errors import SpecError
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.family import bases_first, check_bases

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


def test_a_base_that_may_fail_in_the_region_of_its_layer_is_not_enough(tmp_path: Path) -> None:
    (tmp_path / "family.yaml").write_text(
        FAMILY.replace("regions: [REGION]", "regions: [us-west-2], best_effort: [us-west-2]")
    )
    loaded = load([tmp_path / "family.yaml"], Given())
    with pytest.raises(SpecError, match="images that must not fail only in us-east-1") as error:
        check_bases(loaded, lambda spec: str(spec.launch.region))
    assert "remove us-west-2 from publish.best_effort of runtime" in str(error.value.problems[0].hint)
