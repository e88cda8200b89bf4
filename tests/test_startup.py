"""Each command loads its own libraries only: any other would cost every call of it, so the lists are fixed here.

A library that is added to a list makes a command slower, and needs a reason.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = frozenset(
    {
        *("boto3", "botocore", "s3transfer", "paramiko", "cryptography", "isal", "pydantic", "yaml", "jinja2"),
        *("networkx", "click", "rich", "moto", "cheroot", "werkzeug", "temporalio", "google"),
    }
)
OF_SPECS = {"click", "yaml", "pydantic", "jinja2"}
EBS = "specs/web-server.yaml"
FAMILY = "specs/family"
TEMPLATE = "tests/cases/convert/web.pkr.hcl"
LOADED: dict[tuple[str, ...], set[str]] = {
    ("--version",): {"click"},
    (): {"click"},
    ("validate", EBS): OF_SPECS,
    ("validate", FAMILY): OF_SPECS,
    ("provisioners",): OF_SPECS,
    ("policy", EBS): OF_SPECS,
    ("convert", TEMPLATE, "--dry-run"): OF_SPECS,
    ("completion", "bash"): {"click"},
    ("schema",): {"click", "pydantic"},
    ("fmt", "--check", EBS): {"click", "pydantic", "yaml"},
}
HELPS = [(), *((name,) for name in COMMANDS), ("images", "list"), ("local", "account", "add")]
RUN = """\
import sys
sys.argv[0] = "imagepipe"
from imagepipe.cli.main import run
try:
    run()
finally:
    print("LOADED", *sorted(sys.modules), file=sys.stderr)
"""
PLAN = f"""\
import sys
import imagepipe.cli.build
from pathlib import Path
from imagepipe.assembly import assemble_unrun
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.spec.load import SAMPLE_BUILD, load
from imagepipe.spec.variables import Given
loaded = load([Path({EBS!r})], Given(), build=SAMPLE_BUILD)
session = Session(Access(region="us-east-1", access_key_id="x", secret_access_key="y"))
assemble_unrun(loaded, Regions(session, SystemClock()), lambda _: "us-east-1", {{}}, scans_disks=True)
print("LOADED", *sorted(sys.modules), file=sys.stderr)
"""


def _loaded(code: str, *words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert "LOADED " in done.stderr, done.stderr
    return set(done.stderr.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("words", LOADED, ids=" ".join)
def test_a_command_loads_its_own_libraries_and_no_others(words: tuple[str, ...]) -> None:
    assert {name.partition(".")[0] for name in _loaded(RUN, *words)} & LIBRARIES == LOADED[words]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_loads_click_alone(words: tuple[str, ...]) -> None:
    assert {name.partition(".")[0] for name in _loaded(RUN, *words, "--help")} & LIBRARIES == {"click"}


def test_version_loads_neither_shutil_with_its_compressors_nor_traceback() -> None:
    assert not _loaded(RUN, "--version") & {"shutil", "traceback"}


def test_validate_loads_no_values_of_stages_and_no_mime_parser() -> None:
    """Each takes three to five percent of the command's time."""
    assert not _loaded(RUN, "validate", EBS) & {"imagepipe.values", "email.parser"}


def test_a_build_of_an_ebs_image_loads_nothing_of_bundles_retention_or_the_local_cloud() -> None:
    loaded = _loaded(PLAN)
    rooms = ("bundle", "retention", "local", "state.bucket", "temporal", "planning", "capture.instance_store")
    others = {"networkx", "rich", "boto3", "isal", "cryptography.x509"}
    prefixes = tuple(f"imagepipe.{room}" for room in rooms)
    assert not [name for name in loaded if name in others or name.startswith(prefixes)]
