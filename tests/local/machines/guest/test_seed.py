"""What cloud-init is told: the caller's user data as it came, and the cloud's own words apart from it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from imagepipe.local.machines.driver import Seed
from imagepipe.local.machines.guest.seed import seed_documents, write_seed


@pytest.mark.parametrize("user_data", [b"", b"#cloud-config\n{}", b"#!/bin/sh\nexit 0\n", b"\x1f\x8b\x08\x00gzip"])
def test_user_data_is_untouched(user_data: bytes) -> None:
    assert seed_documents(Seed("i-1", "host", "r", user_data, ()))["user-data"] == user_data


def test_keys_and_names_are_meta_data() -> None:
    documents = seed_documents(Seed("i-1", "host", "r", b"", ("ssh-ed25519 AAAA one", "ssh-rsa BBBB two")))
    meta = json.loads(documents["meta-data"])
    assert (meta["instance-id"], meta["local-hostname"]) == ("i-1", "host")
    assert meta["public-keys"] == ["ssh-ed25519 AAAA one", "ssh-rsa BBBB two"]


def test_the_clouds_own_settings_are_vendor_data() -> None:
    header, _, body = seed_documents(Seed("i-1", "host", "r", b"", ()))["vendor-data"].partition(b"\n")
    assert header == b"#cloud-config"
    assert json.loads(body)["manage_etc_hosts"] == "localhost"


def test_only_root_may_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "seed"
    write_seed(folder, Seed("i-1", "host", "r", b"private", ()))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (folder / "user-data").read_bytes() == b"private"
