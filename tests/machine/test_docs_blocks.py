"""Pages about the local cloud: their commands are run on one, in order, as a reader would copy them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.page_runs import LOCAL_CLOUD, SPEC, run_page
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

SECONDS = 1200
NEEDS_SPEC = (
    "docs/how-to/least-privilege.md",
    "docs/how-to/reports.md",
    "docs/how-to/shared-state.md",
)
"""Pages that take a spec `web-server.yaml` for granted."""

FAMILY = {
    "base": "source: {ami: {name: 'debian-12-amd64-*', owners: ['136693071363']}}",
    "runtime": "source: {image: base}",
    "api": "source: {image: runtime}",
    "worker": "matrix: {queue: [mail, video]}\nsource: {image: base}",
}


def _write_family(folder: Path) -> None:
    """A family as small as the page's commands allow; tests/machine/test_tutorial_family.py bakes the real one."""
    folder.mkdir(parents=True)
    for name, source in FAMILY.items():
        variant = "{{ spec.name }}-{{ matrix.queue }}" if name == "worker" else name
        text = f"""\
            imagepipe: 1
            name: {name}
            reuse: unchanged
            SOURCE
            launch: {{region: us-east-1, ssh: {{user: admin}}}}
            provision: [{{shell: "echo {name} >/etc/stamp", sudo: true}}]
            output: {{name: "{variant}-{{{{ build.id }}}}"}}
            """
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text).replace("SOURCE", source), encoding="utf-8")


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Bakery:
    """A cloud of the page's own, because pages create keys and buckets with the same names."""
    boots = request.param == "docs/tutorial.md"
    bakery: Bakery = request.getfixturevalue("fresh_bakery" if boots else "quick_bakery")
    return bakery


@pytest.mark.parametrize(("page", "cloud"), [(page, page) for page in LOCAL_CLOUD], indirect=["cloud"], ids=LOCAL_CLOUD)
def test_the_commands_of_a_page_run_in_order_on_the_local_cloud(page: str, cloud: Bakery) -> None:
    (cloud.folder / "imagepipe.yaml").unlink()
    if page in NEEDS_SPEC:
        (cloud.folder / "web-server.yaml").write_text(SPEC, encoding="utf-8")
    if page == "docs/how-to/images-on-images.md":
        _write_family(cloud.folder / "specs/family")
    output = run_page(ROOT / page, cloud.folder, cloud.env, seconds=SECONDS)
    for text in LOCAL_CLOUD[page]:
        assert text in output
