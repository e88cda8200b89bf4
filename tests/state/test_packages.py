"""Packages: the files of a build travel through the state bucket by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imagepipe.clock import SystemClock
from imagepipe.errors import CloudError, ImagepipeError, UsageError
from imagepipe.state import packages
from imagepipe.state.packages import Package, PackedFile, read_package, store_package, unpack
from tests.local.aws.harness import Cloud
from tests.state.shared import BUCKET, Machine


def _stored(cloud: Cloud) -> set[str]:
    listed = cloud.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="team/files/")
    return {row["Key"].removeprefix("team/files/") for row in listed.get("Contents", ())}


def _project(folder: Path) -> list[Path]:
    (folder / "specs").mkdir(parents=True)
    (folder / "specs" / "web.yaml").write_text("name: web\n")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "scripts" / "run.sh").chmod(0o750)
    (folder / "scripts" / "name with ü").write_bytes(b"\x00\xff")
    (folder / "scripts" / "empty").mkdir(mode=0o755)
    (folder / "scripts" / "link").symlink_to("run.sh")
    (folder / "scripts" / "broken").symlink_to("nowhere")
    return [folder / "specs" / "web.yaml", folder / "scripts", *(folder / "scripts").rglob("*")]


def _values(root: Path) -> Mapping[str, Any]:
    return {"root": str(root), "region": None}


def test_files_folders_links_and_modes_arrive_as_they_were(here: Machine, there: Machine, tmp_path: Path) -> None:
    files = _project(tmp_path / "project")
    digest = store_package(here.bucket, SystemClock(), files, _values)
    package = read_package(there.bucket, digest)
    assert package.root == str(tmp_path / "project")
    assert package.values == {"root": str(tmp_path / "project"), "region": None}
    target = tmp_path / "target"
    unpack(there.bucket, package, target)
    assert (target / "specs" / "web.yaml").read_text() == "name: web\n"
    script = target / "scripts" / "run.sh"
    assert (script.read_text(), script.stat().st_mode & 0o7777) == ("#!/bin/sh\n", 0o750)
    assert (target / "scripts" / "name with ü").read_bytes() == b"\x00\xff"
    assert (target / "scripts" / "empty").is_dir()
    assert (target / "scripts" / "link").readlink() == Path("run.sh")
    assert (target / "scripts" / "broken").readlink() == Path("nowhere")


def test_a_link_that_is_followed_leads_to_a_file_of_the_package(here: Machine, there: Machine, tmp_path: Path) -> None:
    project = tmp_path / "project"
    files = [*_project(project), project / "current", project / "scripts" / "log"]
    files[-2].symlink_to(project / "scripts")
    files[-1].symlink_to("/var/log")
    digest = store_package(here.bucket, SystemClock(), files, _values, followed={project / "current"})
    target = tmp_path / "target"
    unpack(there.bucket, read_package(there.bucket, digest), target)
    assert (target / "current" / "run.sh").resolve() == (target / "scripts" / "run.sh").resolve()
    assert (target / "scripts" / "log").readlink() == Path("/var/log"), "a link that is uploaded stays as it is"


def test_a_content_is_stored_once_under_its_digest(cloud: Cloud, here: Machine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
    first = store_package(here.bucket, SystemClock(), [tmp_path / "one", tmp_path / "two"], _values)
    stored = _stored(cloud)
    assert stored == {first, hashlib.sha256(b"same").hexdigest()}
    (tmp_path / "two").write_text("other")
    second = store_package(here.bucket, SystemClock(), [tmp_path / "one", tmp_path / "two"], _values)
    assert _stored(cloud) == stored | {second, hashlib.sha256(b"other").hexdigest()}


def test_the_order_of_the_files_does_not_change_the_package(here: Machine, tmp_path: Path) -> None:
    files = _project(tmp_path)
    first = store_package(here.bucket, SystemClock(), files, _values)
    assert store_package(here.bucket, SystemClock(), [*reversed(files), *files], _values) == first


def test_an_object_that_was_changed_in_the_bucket_is_refused(cloud: Cloud, here: Machine, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("true")
    package = read_package(here.bucket, store_package(here.bucket, SystemClock(), [tmp_path / "script"], _values))
    digest = hashlib.sha256(b"true").hexdigest()
    cloud.client("s3").put_object(Bucket=BUCKET, Key=f"team/files/{digest}", Body=b"rm -rf /")
    with pytest.raises(ImagepipeError, match="was changed"):
        unpack(here.bucket, package, tmp_path / "target")
    assert not (tmp_path / "target" / "script").exists()


def test_an_object_that_is_gone_is_named(cloud: Cloud, here: Machine) -> None:
    with pytest.raises(CloudError, match="files/0000 does not exist"):
        read_package(here.bucket, "0000")


def test_a_package_of_another_version_is_refused() -> None:
    with pytest.raises(ImagepipeError, match="another version"):
        Package.from_bytes(b'{"format": 2}')


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../outside"])
def test_a_package_writes_nothing_outside_of_its_folder(path: str) -> None:
    content = Package("/", (PackedFile(path, 0o644, digest="0" * 64),), {}).to_bytes()
    with pytest.raises(ImagepipeError, match="outside"):
        Package.from_bytes(content)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    here: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "LARGEST", 10)
    (tmp_path / "image.iso").write_bytes(bytes(11))
    with pytest.raises(UsageError, match=r"image\.iso") as refused:
        store_package(here.bucket, SystemClock(), [tmp_path / "image.iso"], _values)
    assert "shell step" in str(refused.value.hint)


def test_a_file_that_is_gone_is_named(here: Machine, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"reading .*gone for the workers: No such file"):
        store_package(here.bucket, SystemClock(), [tmp_path / "gone"], _values)
