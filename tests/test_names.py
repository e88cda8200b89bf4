"""Names of images that the specs of one run want."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imagepipe.assembly import plan
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.graph import Graph
from imagepipe.errors import SpecError, UsageError
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.load import load, refuse
from imagepipe.spec.variables import Given
from imagepipe.wiring.names import check_distinct_names, check_key_regions
from imagepipe.wiring.tools import Tools
from tests.bundle.samples import recipients


def _plan(folder: Path, *specs: tuple[str, str, str]) -> Graph:
    """The graph of specs, given by name, the image's name, and the region that it is copied to."""
    files = []
    for name, image, copy in specs:
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(
            f"imagepipe: 1\nname: {name}\nsource: {{ami: ami-12345678}}\n"
            "launch: {region: us-east-1, ssh: {user: admin}}\n"
            f"provision: [{{shell: 'true'}}]\noutput: {{name: '{image}'}}\npublish: {{regions: [{copy}]}}\n"
        )
    loaded = load(files, Given())
    refuse(loaded)
    access = Access(region="us-east-1", access_key_id="x", secret_access_key="y")
    regions = Regions(Session(access), SystemClock())
    tools = Tools(regions, Connections(), CopyLimits(), folder, "r1", lambda *_: recipients())
    return plan(loaded, tools, region=lambda spec: spec.launch.region or "").graph


def test_two_specs_of_a_run_that_want_one_name_are_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'one' and 'two' both name their image 'same' in us-east-1") as refused:
        _plan(tmp_path, ("one", "same", "us-west-2"), ("two", "same", "eu-west-1"))
    assert "{{ spec.name }}" in str(refused.value.hint)


def test_names_that_differ_are_planned(tmp_path: Path) -> None:
    graph = _plan(tmp_path, ("one", "{{ spec.name }}-x", "us-west-2"), ("two", "{{ spec.name }}-x", "us-west-2"))
    assert {"one/capture", "two/capture"} <= set(graph.stages)


@pytest.mark.parametrize(
    ("publish", "says"),
    [
        (
            "regions: [us-west-2], ssm_parameter: '/x/{{ region }}'",
            "both write SSM parameter /x/us-east-1 in us-east-1",
        ),
        ("launch_templates: [{name: web}]", "both write launch template web in us-east-1"),
    ],
)
def test_two_variants_that_write_the_same_parameter_or_template_are_refused(
    tmp_path: Path, publish: str, says: str
) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "imagepipe: 1\nname: one\nmatrix: {size: [s, m]}\nsource: {ami: ami-12345678}\n"
        "launch: {region: us-east-1, ssh: {user: admin}}\n"
        f"output: {{name: 'one-{{{{ matrix.size }}}}'}}\npublish: {{{publish}}}\n"
    )
    loaded = load([file], Given())
    refuse(loaded)
    with pytest.raises(UsageError, match=re.escape(f"specs 'one[size=s]' and 'one[size=m]' {says}")):
        check_distinct_names(loaded, lambda spec: str(spec.launch.region))


def test_a_key_outside_the_region_of_the_command_line_is_refused_at_its_position(tmp_path: Path) -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
    file = tmp_path / "one.yaml"
    file.write_text(
        "imagepipe: 1\nname: one\nsource: {ami: ami-12345678}\nlaunch: {ssh: {user: admin}}\n"
        f"output: {{name: one, encrypt: {{kms_key: '{key}'}}}}\n"
    )
    loaded = load([file], Given())
    refuse(loaded)
    check_key_regions(loaded, lambda spec: "us-east-1")
    with pytest.raises(SpecError, match=r"the key is in us-east-1, but launch\.region is eu-west-1") as error:
        check_key_regions(loaded, lambda spec: "eu-west-1")
    assert error.value.problems[0].path == "output.encrypt.kms_key"
