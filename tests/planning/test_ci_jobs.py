"""The jobs of a CI pipeline: their levels, and the forms in which GitHub and GitLab take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagepipe.errors import UsageError
from imagepipe.planning.ci_jobs import Job, github, gitlab, job_of, levels
from imagepipe.planning.decisions import Decision
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.existing import Change, Existing

FAMILY = """\
imagepipe: 1
name: base
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, ssh: {user: admin}}
output: {name: base-1}
---
imagepipe: 1
name: runtime
source: {image: base}
output: {name: runtime-1}
---
imagepipe: 1
name: app
matrix: {size: [s, m]}
source: {image: runtime}
output: {name: "app-{{ matrix.size }}"}
publish: {regions: [us-west-2]}
"""


@pytest.fixture
def family(tmp_path: Path) -> list[LoadedSpec]:
    (tmp_path / "family.yaml").write_text(FAMILY)
    return load([tmp_path / "family.yaml"], Given())


def _job(key: str) -> Job:
    return Job("family.yaml", key, "build", "changed")


def _levels(family: list[LoadedSpec], *keys: str) -> list[list[str]]:
    return [[job.key for job in level] for level in levels(family, {key: _job(key) for key in keys})]


def test_each_spec_is_in_a_later_level_than_its_base(family: list[LoadedSpec]) -> None:
    keys = [str(spec.key) for spec in family]
    assert _levels(family, *keys) == [["base"], ["runtime"], ["app[size=s]", "app[size=m]"]]


def test_unchanged_specs_leave_no_empty_level(family: list[LoadedSpec]) -> None:
    assert _levels(family, "runtime", "app[size=m]") == [["runtime"], ["app[size=m]"]]
    assert _levels(family, "base", "app[size=m]") == [["base"], ["app[size=m]"]], "its base's base is baked"
    assert _levels(family, "app[size=s]", "app[size=m]") == [["app[size=s]", "app[size=m]"]]
    assert _levels(family) == []


def test_an_image_that_lacks_a_region_or_a_permission_is_published_and_a_complete_one_is_left(
    family: list[LoadedSpec],
) -> None:
    app = family[-1]

    def command(existing: Existing | None) -> tuple[str, str] | None:
        decision = Decision("app[size=m]", "use" if existing else "bake", "it was not baked yet", existing=existing)
        job = job_of(app, decision, ["us-east-1", "us-west-2"])
        return (job.command, job.reason) if job else None

    everywhere = {"us-east-1": "ami-1", "us-west-2": "ami-2"}
    assert command(None) == ("build", "it was not baked yet")
    assert command(Existing(everywhere)) is None
    assert command(Existing({"us-east-1": "ami-1"})) == ("publish", "ami-1 in us-east-1 is not in us-west-2 yet")
    lacking = command(Existing(everywhere, (Change("us-west-2", "share", ("+ 1", "+ 2")),)))
    assert lacking == ("publish", "ami-1 in us-east-1, ami-2 in us-west-2 lacks: share in us-west-2")


def test_github_gets_a_matrix_for_each_level_of_the_workflow_and_nothing_for_the_others() -> None:
    lines = dict(line.split("=", 1) for line in github([[_job("base")]], 2).splitlines())
    assert lines.keys() == {"levels", "level0", "level1"}
    assert (lines["levels"], lines["level1"]) == ("1", "")
    [row] = json.loads(lines["level0"])["include"]
    assert row == {"file": "family.yaml", "key": "base", "command": "build", "reason": "changed"}


def test_a_reason_of_several_lines_stays_on_one_line_of_github() -> None:
    job = Job("family.yaml", "base", "build", "changed:\nlevel1={}")
    assert len(github([[job]], 1).splitlines()) == 2


def test_more_levels_or_jobs_than_the_workflow_can_hold_are_refused() -> None:
    with pytest.raises(UsageError, match="3 levels of bases, and the workflow has 2") as refused:
        github([[_job("a")], [_job("b")], [_job("c")]], 2)
    assert "--levels 3" in (refused.value.hint or "")
    with pytest.raises(UsageError, match="level 0 has 257 jobs"):
        github([[_job(f"app-{number}") for number in range(257)]], 1)


def test_gitlab_gets_a_stage_for_each_level_and_no_matrix_that_is_too_large() -> None:
    many = [_job(f"app-{number}") for number in range(201)]
    pipeline = json.loads(gitlab([[_job("base")], many], ".gitlab/imagepipe.yml"))
    assert pipeline["stages"] == ["level 0", "level 1"]
    assert pipeline["include"] == [{"local": ".gitlab/imagepipe.yml"}]
    assert [
        len(pipeline[name]["parallel"]["matrix"]) for name in ("level 0", "level 1 from 0", "level 1 from 200")
    ] == [
        1,
        200,
        1,
    ]


def test_a_dollar_in_a_path_is_not_expanded_by_gitlab() -> None:
    [row] = json.loads(gitlab([[Job("a$b.yaml", "a", "build", "")]], None))["level 0"]["parallel"]["matrix"]
    assert row["IMAGEPIPE_FILE"] == "a$$b.yaml"


def test_gitlab_gets_a_job_even_if_everything_is_up_to_date() -> None:
    assert "script" in json.loads(gitlab([], None))["up to date"]
