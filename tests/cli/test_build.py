"""`imagepipe build` as a user runs it, as far as it refuses before any cloud is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORE = """\
imagepipe: 1
name: store
source: {ami: ami-0123456789abcdef0}
launch: {region: us-east-1, instance_types: [m3.medium]}
output: {type: instance-store, name: store-1, bucket: my-images, account: "123456789012"}
"""


def build(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    local = {"IMAGEPIPE_LOCAL_STORE": str(folder / "local")}
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    return subprocess.run(
        [sys.executable, "-m", "imagepipe.cli.main", "build", *words],
        cwd=folder,
        env={**os.environ, **nowhere, "PYTHONPATH": str(ROOT), "EC2_AMITOOL_HOME": str(folder), **local},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_instance_store_image_is_not_begun_without_the_certificate_of_its_ec2(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE)
    result = build(tmp_path, "store.yaml")
    assert result.returncode == 2
    assert f"output: EC2's certificate for us-east-1 is in none of {tmp_path}/etc/ec2/amitools" in result.stderr


def test_a_region_of_the_command_line_asks_for_the_certificate_of_that_region(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE)
    result = build(tmp_path, "store.yaml", "--region", "il-central-1")
    assert result.returncode == 2
    assert "output: EC2's certificate for il-central-1 is not known here" in result.stderr


def test_an_instance_store_image_is_not_begun_with_a_key_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "store.yaml").write_text(STORE.replace('"}', '", certificate: a, private_key: a}'))
    (tmp_path / "a").write_text("garbage")
    result = build(tmp_path, "store.yaml", "--local")
    assert result.returncode == 2
    assert "output.certificate: a is not an X.509 certificate" in result.stderr
    assert "output.private_key: a is not a private key" in result.stderr
    assert "EC2's certificate" not in result.stderr, "the local cloud has its own"
