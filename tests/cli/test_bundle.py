"""`imagepipe bundle` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests/cases/bundle"
PAIR = ["--certificate", str(CASES / "user-cert.pem"), "--private-key", str(CASES / "user-key.pem")]
KEY = PAIR[2:]
EC2 = ["--ec2-certificate", str(CASES / "ec2-cert.pem")]
ACCOUNT = ["--account", "123456789012"]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "imagepipe.cli.main", "bundle", *words]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "EC2_AMITOOL_HOME": str(folder / "tools")}
    return subprocess.run(command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(b"boot" * 2048)
        file.seek(5 << 20)
        file.write(os.urandom(1 << 20))
        file.truncate(40 << 20)
    return path


def test_a_disk_is_packed_shown_verified_and_unpacked(image: Path) -> None:
    folder = image.parent
    packed = run(folder, "pack", "disk.raw", *PAIR, *ACCOUNT, *EC2, "--name", "web-7", "--output", "out")
    assert (packed.returncode, packed.stderr) == (0, "")
    assert packed.stdout == "out/web-7.manifest.xml: 1 part, 1.0 MiB of 1.0 MiB of data\n"
    shown = json.loads(run(folder, "inspect", "out/web-7.manifest.xml", "--format", "json").stdout)
    assert (shown["name"], shown["account"], shown["size"]) == ("web-7", "123456789012", 40 << 20)
    assert [part["filename"] for part in shown["parts"]] == ["web-7.part.00"]
    text = run(folder, "inspect", "out/web-7.manifest.xml").stdout
    assert "image         40.0 MiB (41943040 bytes), its tar has SHA-1 " in text
    verified = run(folder, "verify", "out/web-7.manifest.xml", *PAIR)
    assert (verified.returncode, verified.stdout.count(": intact")) == (0, 2)
    unpacked = run(folder, "unpack", "out/web-7.manifest.xml", *KEY, "--output", "disks")
    assert (unpacked.returncode, unpacked.stderr) == (0, "")
    assert (folder / "disks/web-7").read_bytes() == image.read_bytes()
    assert (folder / "disks/web-7").stat().st_blocks * 512 < 2 << 20


def test_every_damage_is_named_and_ends_with_8(image: Path) -> None:
    folder = image.parent
    assert run(folder, "pack", "disk.raw", *PAIR, *ACCOUNT, *EC2).returncode == 0
    part = folder / "image.part.00"
    part.write_bytes(b"x" + part.read_bytes()[1:])
    verified = run(folder, "verify", "image.manifest.xml", "--certificate", EC2[1])
    assert verified.returncode == 8
    first, second, third = verified.stderr.splitlines()
    assert first.startswith("part image.part.00 is damaged: ")
    assert second == f"the bundle was not signed with the key of {EC2[1]}"
    assert third == "error: image.manifest.xml is damaged: 2 problems"
    unpacked = run(folder, "unpack", "image.manifest.xml", *KEY, "--output", "disks")
    assert (unpacked.returncode, list((folder / "disks").iterdir())) == (8, [])
    assert unpacked.stderr.startswith("error: part image.part.00 is damaged: ")


def test_checks_that_were_not_requested_are_named(image: Path) -> None:
    folder = image.parent
    run(folder, "pack", "disk.raw", *PAIR, *ACCOUNT, *EC2)
    lines = run(folder, "verify", "image.manifest.xml").stdout.splitlines()
    assert lines[1:] == ["image      not read: pass --private-key", "signature  not checked: pass --certificate"]


REFUSALS: dict[str, tuple[list[str], int, str]] = {
    "no certificate of EC2's": (
        ["pack", "disk.raw", *PAIR, *ACCOUNT],
        2,
        "error: EC2 cannot read a bundle that is packed without its certificate\n  hint: pass --ec2-certificate",
    ),
    "none on this machine": (
        ["pack", "disk.raw", *PAIR, *ACCOUNT, "--region", "us-east-1"],
        8,
        "error: EC2's certificate for us-east-1 was not found in ",
    ),
    "a region with its own": (
        ["pack", "disk.raw", *PAIR, *ACCOUNT, "--region", "af-south-1"],
        8,
        "error: imagepipe does not know EC2's certificate for af-south-1\n  hint: pass its file",
    ),
    "an account with dashes": (
        ["pack", "disk.raw", *PAIR, *EC2, "--account", "1234-5678-9012"],
        8,
        "error: the manifest cannot have '1234-5678-9012' for its account\n  hint: an account is twelve digits",
    ),
    "a name that is a path": (
        ["pack", "disk.raw", *PAIR, *EC2, *ACCOUNT, "--name", "../x"],
        8,
        "error: a bundle's files cannot be called '../x'\n  hint: ",
    ),
    "a key of another certificate": (
        ["pack", "disk.raw", *PAIR[:3], str(CASES / "ec2-key.pem"), *EC2, *ACCOUNT],
        8,
        "error: the private key ",
    ),
    "no image": (
        ["pack", "none.raw", *PAIR, *EC2, *ACCOUNT],
        1,
        "error: none.raw: No such file or directory",
    ),
    "an image of 11 GiB": (
        ["pack", "large.raw", *PAIR, *EC2, *ACCOUNT],
        8,
        "error: packing image: the image has 11.0 GiB; EC2's limit is 10\n  hint: make the disk smaller",
    ),
    "no manifest": (["inspect", "none.xml"], 8, "error: reading the manifest none.xml: No such file or directory"),
    "a manifest that is none": (["inspect", "disk.raw"], 8, "error: disk.raw: the manifest is "),
}


@pytest.mark.parametrize(("words", "code", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_has_a_hint_and_leaves_no_files(image: Path, words: list[str], code: int, message: str) -> None:
    folder = image.parent
    with (folder / "large.raw").open("wb") as large:
        large.truncate(11 << 30)
    before = sorted(folder.iterdir())
    result = run(folder, *words)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith(message), result.stderr
    assert sorted(folder.iterdir()) == before


def test_any_size_and_force_lift_their_limits(image: Path) -> None:
    folder = image.parent
    with image.open("r+b") as large:
        large.truncate(11 << 30)
    words = ["pack", "disk.raw", *PAIR, *EC2, *ACCOUNT, "--any-size"]
    assert run(folder, *words).returncode == 0
    again = run(folder, *words)
    assert (again.returncode, "image.manifest.xml already exists" in again.stderr) == (8, True)
    assert run(folder, *words, "--force").returncode == 0


WAIT_AT_THE_THIRD_PART = """
import os, sys, time
from imagepipe.cli.main import run

def wait(event, arguments):
    if event == "open" and str(arguments[0]).endswith("part.02"):
        os.close(os.open("waiting", os.O_CREAT | os.O_WRONLY))
        while not os.path.exists("signalled"):
            time.sleep(0.01)

sys.addaudithook(wait)
sys.argv = ["imagepipe", "bundle", *sys.argv[1:]]
run()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_ctrl_c_and_sigterm_leave_no_files(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "disk.raw").write_bytes(os.urandom(40 << 20))
    with subprocess.Popen(
        [sys.executable, "-c", WAIT_AT_THE_THIRD_PART, "pack", "disk.raw", *PAIR, *ACCOUNT, *EC2, "--output", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until = time.monotonic() + 60
        while not (tmp_path / "waiting").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert list(tmp_path.glob("out/.image.*.half/image.part.00"))
        process.send_signal(number)
        (tmp_path / "signalled").touch()
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (130, "cancelled")
    assert list((tmp_path / "out").iterdir()) == []


def test_help_and_the_other_commands_load_no_library_of_bundles(tmp_path: Path) -> None:
    script = (
        "import sys; from imagepipe.cli.main import _exit_code; sys.argv = ['imagepipe', 'bundle', 'pack', '--help'];"
        "_exit_code(); print([name for name in ('isal', 'cryptography', 'pydantic', 'boto3') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
