"""Names of images that the specs of one run want."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.assembly import plan
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.communicator.ssh import Connections
from imagepipe.engine.graph import Graph
from imagepipe.errors import UsageError
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.spec.load import load, refuse
from imagepipe.spec.variables import Given
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
