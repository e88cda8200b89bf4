"""A run in shared state that died on one machine is resumed on another: other home, other user, other folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.bakery import Bakery, kill, until, without_boot
from tests.plain_user import PlainUser, plain_user

pytestmark = pytest.mark.machine

STATE = "s3://our-state/team"
STEPS = """
- shell: echo once | sudo tee -a /etc/steps
  idempotent: true
- shell: echo sleeping; sleep 15
  idempotent: true
"""


@pytest.fixture
def bakery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bakery]:
    with without_boot(tmp_path_factory.mktemp("shared")) as bakery:
        bakery.client("s3").create_bucket(Bucket="our-state")
        yield bakery


def _credentials(bakery: Bakery) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": bakery.cloud.access_key_id,
        "AWS_SECRET_ACCESS_KEY": bakery.cloud.secret_access_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "IMAGEPIPE_STATE": STATE,
    }


def _sources(user: PlainUser, spec: Path) -> Path:
    """Check the sources out in another folder, as on another machine."""
    folder = user.home / "checkout"
    folder.mkdir()
    for file in (spec, spec.parent / "imagepipe.yaml"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    for path in (folder, *folder.iterdir()):
        os.chown(path, user.id, user.id)
    return folder


def test_a_run_that_died_on_one_machine_is_resumed_by_another_user_in_another_folder(bakery: Bakery) -> None:
    before = bakery.inventory()
    endpoint = ("--endpoint-url", bakery.cloud.endpoint_url)
    first = _credentials(bakery)
    spec = bakery.spec("moved", STEPS)
    process = bakery.start("build", str(spec), *endpoint, **first)

    def row() -> Any:
        found = bakery("runs", *endpoint, "--format", "json", **first)
        return found.out if '"kind": "instance"' in found.out else None

    until(row, "the instance is in the shared state")
    until(lambda: "sleeping" in bakery("show", "latest", *endpoint, **first).out or None, "a step runs")
    kill(process)
    [instance] = bakery.inventory()["us-east-1 instances"]
    assert list(bakery.runs.glob("*/id_ed25519*")), "the private key is on the first machine only"

    with plain_user() as user:
        folder = _sources(user, spec)
        program = (sys.executable, "-m", "imagepipe.cli.main")
        inside = ("sh", "-c", f'cd {folder} && exec "$@"', "sh")

        def there(*words: str) -> tuple[int, str, str]:
            done = user.run(*inside, *program, *words, *endpoint, env=first)
            return done.returncode, done.stdout, done.stderr

        refused = there("resume", "latest")
        assert refused[0] == 2
        assert "in progress" in refused[2], "the lease has not run out"
        until(lambda: " dead " in there("runs")[1] or None, "the lease has run out")
        code, out, err = there("resume", "latest")
        assert code == 0, err
        assert "launch runs again, because the private key" in out
        shown = there("show", "latest")
        assert shown[1].rstrip().endswith(": succeeded")
        assert there("runs")[1].count("succeeded") == 1
    after = bakery.inventory()
    assert instance not in after["us-east-1 instances"]
    assert after["us-east-1 instances"] == before["us-east-1 instances"]
    assert after["us-east-1 keys"] == before["us-east-1 keys"]
    assert [len(after[f"{region} images"]) for region in ("us-east-1", "us-west-2")] == [1, 1]
    stored = bakery.client("s3").list_objects_v2(Bucket="our-state")["Contents"]
    private = b"PRIVATE KEY"
    for each in stored:
        body = bakery.client("s3").get_object(Bucket="our-state", Key=each["Key"])["Body"].read()
        assert private not in body, each["Key"]
