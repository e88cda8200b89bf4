"""Every sample under specs/ is baked, and so is every provisioner that comes with imagepipe."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.machine.bakery import Bakery, until

pytestmark = pytest.mark.machine

ROOT = Path(__file__).resolve().parents[2]


def _page(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def test_the_site_is_served_from_an_encrypted_larger_root_by_the_provisioner_nginx_site(bakery: Bakery) -> None:
    baked = bakery.build(ROOT / "specs/site.yaml", "--var", "title=It's <here>", "--var", "owner=web")
    [(region, image)] = baked.images.items()
    assert region == "eu-west-1"
    described = bakery.client(region=region).describe_images(ImageIds=[image])["Images"][0]
    assert {"Key": "owner", "Value": "web"} in described["Tags"]
    assert described["Description"] == "It's <here>"
    assert described["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 10
    assert described["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True
    with bakery.instance(image, region, ports=(80,)) as booted:
        page = until(lambda: _page(booted.address), "the page is served")
        assert "<h1>It&#39;s &lt;here&gt;</h1>" in page
        assert "in eu-west-1.</p>" in page
        size = int(booted.sh("df --output=size -BM / | tail -1").strip("M \n"))
        assert size > 9000, "the file system has grown with its volume"


def test_the_build_agent_comes_back_from_its_reboot_and_runs_jobs(bakery: Bakery) -> None:
    baked = bakery.build(ROOT / "specs/build-agent.yaml")
    assert sorted(baked.images) == ["eu-central-1", "us-east-1", "us-west-2"]
    with bakery.instance(baked.images["eu-central-1"], "eu-central-1") as booted:
        assert booted.sh("sudo -u ci job 'echo ran; ls -A'") == "ran"
        assert booted.sh("stat -c '%U %a' /var/lib/jobs") == "ci 750"


def test_apt_install_installs_and_a_second_run_changes_nothing(bakery: Bakery) -> None:
    steps = """
- use: apt-install
  with: {packages: [tree, file]}
- use: apt-install
  with: {packages: [tree]}
- name: what is there
  shell: |
    tree --version && file --version
    test -z "$(ls -A /var/lib/apt/lists)"
- use: apt-install
  with: {packages: [tree], update: false}
"""
    baked = bakery.build(bakery.spec("apt", steps))
    assert "0 upgraded, 0 newly installed" in baked.err


def test_apt_install_says_which_package_is_not_there(bakery: Bakery) -> None:
    steps = "- use: apt-install\n  with: {packages: [no-such-package-anywhere], update: true}\n  retries: 0"
    failed = bakery("build", str(bakery.spec("missing", steps)), "--local")
    assert failed.code == 7
    assert "Unable to locate package no-such-package-anywhere" in failed.err
    assert "provisioners/apt-install/provisioner.yaml" in failed.err, "the step's place"


def test_a_wheel_that_is_installed_elsewhere_has_the_provisioners_and_builds(bakery: Bakery, tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(ROOT),
        ],
        check=True,
        timeout=900,
    )
    [wheel] = tmp_path.glob("imagepipe_ami-*.whl")
    elsewhere = tmp_path / "elsewhere"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(elsewhere)
    spec = bakery.spec("wheel", "- use: apt-install\n  with: {packages: [tree]}")
    built = bakery("build", str(spec), "--local", "--format", "json", PYTHONPATH=str(elsewhere))
    assert built.code == 0, built.err
    assert set(built.images) == {"us-east-1", "us-west-2"}
    where = subprocess.run(
        [sys.executable, "-c", "import imagepipe; print(imagepipe.__file__)"],
        env={**bakery.env, "PYTHONPATH": str(elsewhere)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(elsewhere)), "it is the wheel that was run"
