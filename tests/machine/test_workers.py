"""A build of twelve specs on Temporal under a few kills, by a seed that is printed.

`python -m tests.reliability.workers` makes fifty.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import pytest

from tests.reliability.workers import BUCKET, DEBIAN, SPEC, Chaos, lab

pytestmark = pytest.mark.machine

KILLS = 3
SEED = int(os.environ.get("IMAGEPIPE_WORKERS_SEED", "2"))


def test_a_build_goes_on_when_workers_its_client_and_the_server_are_killed(tmp_path: Path) -> None:
    said: list[str] = []
    with lab(tmp_path) as own:
        chaos = Chaos(own, SEED, said.append)
        chaos.start()
        chaos.build(KILLS)
        run = own.bakery("runs", "--local", **own.env).out.splitlines()[1].split()[0]
        shown = own.bakery("show", run, "--local", **own.env).out
    sys.stdout.write("\n".join((f"IMAGEPIPE_WORKERS_SEED={SEED}", *said, chaos.found.words(), "")))
    assert chaos.found.ok, chaos.found.words()
    assert "succeeded" in shown, "each bake is a run that any machine can show"
    assert "Traceback" not in own.worker_logs()


def test_a_sensitive_variable_is_nowhere_but_in_the_workers_environment(tmp_path: Path) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    with lab(tmp_path) as own:
        text = SPEC.format(name="secret", source=DEBIAN, region="")
        text = text.replace("launch:", "variables: {token: {sensitive: true}}\nlaunch:", 1)
        text = text.replace("provision:", "provision:\n  - shell: 'echo {{ var.token }}; exit 3'", 1)
        spec = own.bakery.write("secret.yaml", text)
        own.start_worker(IMAGEPIPE_VAR_token=canary)
        client = own.client("secret", str(spec))
        out, err = client.communicate(timeout=900)
        assert client.returncode == 4, err
        assert "exit 3" in err, "the bake got as far as the step"
        assert canary not in out + err
        assert canary not in own.worker_logs()
        assert own.bakery.inventory()["us-east-1 instances"] == [], "the failed bake cleaned up"
        s3 = own.bakery.client("s3")
        stored = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        bodies = [s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in stored]
    database = b"".join(path.read_bytes() for path in tmp_path.glob("temporal.db*"))
    assert b"secret" in database
    for content in (database, *bodies):
        assert canary.encode() not in content
