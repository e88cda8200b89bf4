"""The hygiene gate on disks that were captured: what was planted is found, a clean image is clean, nothing stays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.hygiene.report import Report
from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.search import scan_disk
from imagepipe.local.host import loop
from tests.hygiene.planted import PLANTED, RSA, SECRET, WANTED, put
from tests.machine.bakery import Bakery

pytestmark = pytest.mark.machine

TOKEN = "canary-5813-of-the-deploy"


def _look(disk: Path) -> Report:
    return scan_disk(disk, WANTED, calling=lambda _: nullcontext())


def _found(report: Report) -> set[tuple[str, str]]:
    return {(each.rule, each.path) for each in report.findings}


@pytest.mark.parametrize("form", ["file system", "whole disk"])
def test_a_clean_base_image_raises_no_false_alarm(base: BaseImage, form: str) -> None:
    whole = base.as_disk()
    assert whole is not None
    report = _look(base.path if form == "file system" else whole.path)
    assert report.findings == ()
    assert report.files > 10_000
    assert report.size > 300 << 20


@pytest.fixture
def planted_tree(tmp_path: Path) -> Path:
    for planted in PLANTED:
        put(tmp_path / "tree", planted.path, planted.content)
    return tmp_path / "tree"


def _ext4(target: Path, tree: Path, *, offset: int = 0, mib: int = 64) -> None:
    options = ["-E", f"offset={offset}"] if offset else []
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, "-d", str(tree), str(target), f"{mib}M"], check=True)


def test_what_is_planted_on_a_disk_is_found_offline_and_the_disk_stays_as_it_was(
    tmp_path: Path, planted_tree: Path
) -> None:
    disk = tmp_path / "disk.raw"
    _ext4(disk, planted_tree)
    before = disk.read_bytes()
    assert _found(_look(disk)) == {(rule, planted.path) for planted in PLANTED for rule in planted.rules}
    assert disk.read_bytes() == before


def test_every_partition_is_looked_at_and_bytes_without_a_file_system_too(tmp_path: Path, planted_tree: Path) -> None:
    disk, mib = tmp_path / "disk.raw", 1 << 20
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(400 * mib)
    table = "label: gpt\nstart=2048, size=8192\nstart=16384, size=131072\nstart=163840, size=614400\n"
    subprocess.run(["sfdisk", "--quiet", str(disk)], input=table, text=True, check=True)
    with disk.open("r+b") as file:
        file.seek(2048 * 512 + 70_000)
        file.write(SECRET.encode())
    _ext4(disk, planted_tree, offset=16384 * 512)
    key, proto, other = tmp_path / "key.pem", tmp_path / "proto", tmp_path / "xfs.raw"
    key.write_text(RSA)
    proto.write_text(f"/\n0 0\nd--755 0 0\nkey.pem ---644 0 0 {key}\n$\n")
    with other.open("wb") as file:
        file.truncate(300 * mib)
    subprocess.run(["mkfs.xfs", "-q", "-p", str(proto), str(other)], check=True)
    with disk.open("r+b") as file, other.open("rb") as content:
        file.seek(163840 * 512)
        while block := content.read(16 * mib):
            file.write(block)
    assert _found(_look(disk)) == {
        *((rule, planted.path) for planted in PLANTED for rule in planted.rules),
        ("build-secret", f"/(the disk from byte {2048 * 512})"),
        ("private-key", "/key.pem"),
    }


def test_a_file_system_that_is_damaged_is_an_error_and_no_clean_disk(tmp_path: Path, planted_tree: Path) -> None:
    disk = tmp_path / "disk.raw"
    _ext4(disk, planted_tree)
    with disk.open("r+b") as file:
        file.seek(2048)
        file.write(b"\xff" * 4096)  # the group descriptors, behind a superblock that is sound
    with pytest.raises(LocalCloudError, match="mount"):
        _look(disk)


def test_a_look_that_is_killed_leaves_nothing_mounted_and_no_device(base: BaseImage) -> None:
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "imagepipe.local.disks.search"]
    with subprocess.Popen([*command, str(base.path)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(WANTED.line())
        process.stdin.flush()
        until = time.monotonic() + 30
        while not loop.devices_of(frozenset({base.path})):
            assert time.monotonic() < until, "it never began"
            time.sleep(0.01)
        assert str(base.path) not in Path("/proc/self/mountinfo").read_text()
        process.kill()
    until = time.monotonic() + 10
    while loop.devices_of(frozenset({base.path})):
        assert time.monotonic() < until, "the kernel has not cleared the device"
        time.sleep(0.01)


STEPS = f"""
- name: plants
  shell: |
    mkdir -p /srv/app/deep/down /opt/x/.aws
    cat >/srv/app/deep/down/server.pem <<'END'
{"".join(f"    {line}{chr(10)}" for line in RSA.splitlines())}    END
    printf '[default]\\naws_secret_access_key = %s\\n' uJ4x/Gd0Zk3Pq9Ls+Vb7Yw2Tn6Hc8Rm1Ea5Fi0Ko >/opt/x/.aws/config
    printf 'junk\\0%s\\0junk' "$TOKEN" >/var/lib/state.db
    echo 'ls' >/srv/app/.bash_history
  env: {{TOKEN: "{{{{ var.token }}}}"}}
  sudo: true
"""
EXPECTED = {
    "/srv/app/deep/down/server.pem": "private-key",
    "/opt/x/.aws/config": "aws-key",
    "/var/lib/state.db": "build-secret",
    "/srv/app/.bash_history": "shell-history",
}
ALLOW = "".join(f"    - {{path: {path}, rule: {rule}, reason: it is a test}}\n" for path, rule in EXPECTED.items())


def _dirty(bakery: Bakery, more: str = "") -> Path:
    spec = bakery.spec("dirty", STEPS)
    spec.write_text(spec.read_text().replace("source:", "variables: {token: {sensitive: true}}\nsource:") + more)
    return spec


def _everything(bakery: Bakery, *said: str) -> str:
    return "".join(said) + "".join(path.read_text() for path in bakery.runs.rglob("*.jsonl"))


def test_a_dirty_image_is_not_published_and_an_exception_lets_it_pass(quick: Bakery) -> None:
    before = quick.inventory()
    failed = quick("build", str(_dirty(quick)), "--local", IMAGEPIPE_VAR_token=TOKEN)
    assert failed.code == 10, failed.err
    found = dict(line.strip().split(": ")[:2] for line in failed.err.splitlines() if line.startswith("  /"))
    assert {path: rule.split()[0] for path, rule in found.items()} == EXPECTED
    said = _everything(quick, failed.out, failed.err)
    assert TOKEN not in said
    assert RSA.splitlines()[1] not in said
    assert "uJ4x/Gd0" not in said
    assert "rule: aws-key, reason: …" in failed.err
    assert "read the snapshot offline" in failed.out
    assert not [e for e in quick.events() if e.get("stage", "").startswith("copy") and e["event"] == "StageStarted"]
    assert quick.inventory() == before, "nothing is left"

    more = "    - {path: /gone/*, rule: credentials, reason: it was there once}\n"
    baked = quick.build(_dirty(quick, f"hygiene:\n  allow:\n{ALLOW}{more}"), IMAGEPIPE_VAR_token=TOKEN)
    lines = [e["text"] for e in quick.events() if e["event"] == "Line" and e["stage"] == "hygiene"]
    assert sorted(line for line in lines if line.startswith("allowed: ")) == sorted(
        f"allowed: {path}: {rule} (it is a test)" for path, rule in EXPECTED.items()
    )
    assert [line for line in lines if line.startswith("warning: ")] == [
        "warning: hygiene.allow has /gone/* (credentials), which matched nothing"
    ]
    assert set(baked.images) == {"us-east-1", "us-west-2"}


def _by_endpoint(bakery: Bakery) -> tuple[list[str], dict[str, str]]:
    """The same cloud as if it were Amazon's: nobody can read its snapshots' files."""
    return (
        ["--endpoint-url", bakery.cloud.endpoint_url],
        {
            "AWS_ACCESS_KEY_ID": bakery.cloud.access_key_id,
            "AWS_SECRET_ACCESS_KEY": bakery.cloud.secret_access_key,
        },
    )


def test_where_no_disk_can_be_read_the_machine_is_looked_at_and_the_test_instance(quick: Bakery) -> None:
    options, env = _by_endpoint(quick)
    before = quick.inventory()
    failed = quick("build", str(_dirty(quick)), *options, **env, IMAGEPIPE_VAR_token=TOKEN)
    assert failed.code == 10, failed.err
    assert [path for path, rule in EXPECTED.items() if f"  {path}: {rule} (" not in failed.err] == []
    assert "scrub: the image has 4 things" in failed.err
    assert "scanned the running machine before it stopped" in failed.out
    assert TOKEN not in _everything(quick, failed.out, failed.err)
    assert quick.inventory() == before

    tested = _dirty(quick, f"hygiene:\n  allow:\n{ALLOW}test:\n- shell: 'true'\n")
    baked = quick("build", str(tested), "--format", "json", *options, **env, IMAGEPIPE_VAR_token=TOKEN)
    assert baked.code == 0, baked.err
    assert "scanned the running machine before it stopped" in baked.err
    assert "scanned the test instance after its boot" in baked.err
    image = json.loads(baked.out)["images"][0]
    assert not quick.is_on_disk(baked, RSA.encode()[:300] + b"never"), "the search below is one"
    assert quick.is_on_disk(baked, TOKEN.encode()), f"it is in {image['image_id']} as it was allowed to be"


def test_what_a_boot_of_the_image_writes_is_found_on_the_test_instance(bakery: Bakery) -> None:
    options, env = _by_endpoint(bakery)
    before = bakery.inventory()
    unit = """
- shell: |
    cat >/etc/systemd/system/leak.service <<'END'
    [Service]
    Type=oneshot
    ExecStart=/bin/sh -c 'echo ls >/srv/.zsh_history'
    [Install]
    WantedBy=sysinit.target
    END
    systemctl enable leak
  sudo: true
"""
    spec = bakery.spec("later", unit)
    spec.write_text(spec.read_text() + "test:\n- shell: 'true'\n")
    failed = bakery("build", str(spec), *options, **env)
    assert failed.code == 10, failed.err
    assert "test-hygiene: the image has 1 thing that must not be in an image" in failed.err
    assert "/srv/.zsh_history: shell-history" in failed.err
    assert bakery.inventory() == before


def test_a_machine_without_python_says_what_the_gate_needs(quick: Bakery) -> None:
    options, env = _by_endpoint(quick)
    spec = quick.spec("bare", "- shell: rm /usr/bin/python3*\n  sudo: true")
    failed = quick("build", str(spec), *options, **env)
    assert failed.code == 10, failed.err
    assert "python3 was not found on the machine" in failed.err
    assert "install it in a provisioning step" in failed.err


BUNDLED = """\
imagepipe: 1
name: bundled
source: {ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}
launch: {region: us-east-1, instance_types: [m3.medium]}
provision:
- shell: mkdir -p ~/deep && ssh-keygen -q -t ed25519 -N "" -f ~/deep/key
output:
  {type: instance-store, name: "bundled-{{ build.id }}", bucket: hygiene-bundles, prefix: x, account: "000000000000",
   bundle_on: controller, exclude: [/usr/share, /usr/lib/modules, /usr/lib/firmware]}
"""


def test_a_bundle_is_unpacked_and_looked_at_and_a_dirty_one_is_cleaned_up(quick: Bakery) -> None:
    s3 = quick.client("s3")
    s3.create_bucket(Bucket="hygiene-bundles", ObjectOwnership="ObjectWriter")
    before = quick.inventory()
    failed = quick("build", str(quick.write("bundled.yaml", BUNDLED)), "--local")
    assert failed.code == 10, failed.err
    lines = [line for line in failed.err.splitlines() if line.startswith("  /")]
    assert lines == ["  /home/admin/deep/key: private-key (a private key, in PEM)"]
    assert "unpacked the bundle and read its disk offline" in failed.out
    assert quick.inventory() == before
    assert "Contents" not in s3.list_objects_v2(Bucket="hygiene-bundles")
    assert not list(quick.runs.rglob("*.raw")), "nor is the disk that was laid out"
    s3.delete_bucket(Bucket="hygiene-bundles")
