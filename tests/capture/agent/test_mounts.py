"""Mounting by the kernel's own call, in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import errno, os, sys
from imagepipe.capture.agent import mounts
place, view = sys.argv[1:]
mounts.bind(place, place)
mounts.bind(place, view)
held = open(place + "/held", "w")
try:
    mounts.remount_view_read_only(place)
except OSError as error:
    print(error.errno == errno.EBUSY)
held.close()
mounts.remount_view_read_only(place)
try:
    open(place + "/new", "w")
except OSError as error:
    print(error.errno == errno.EROFS)
open(view + "/by the other way", "w").close()
print(sorted(os.listdir(place)))
print(all(not each.is_read_only for each in mounts.mounted() if each.point in (place, view)))
"""


def test_a_view_that_is_closed_to_writers_leaves_the_other_open(tmp_path: Path) -> None:
    """A tree's: who opens a file for a moment now and then writes by `/`, and the agent by a view of its own."""
    places = [tmp_path / "a place", tmp_path / "view"]
    for place in places:
        place.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("as root alone")
    command = ["unshare", "--mount", sys.executable, "-c", SCRIPT, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["True", "True", "['by the other way', 'held']", "True"], done.stderr


DELETES = """
import os, subprocess, sys
from imagepipe.capture.agent import mounts
from imagepipe.capture.agent.errors import AgentError
place, other = sys.argv[1:]
os.makedirs(place + "/in")
mounts.bind(other, place + "/in")
try:
    mounts.delete_tree(place)
except AgentError as trouble:
    print(trouble)
print(os.listdir(other))
mounts.unmount(place + "/in")
os.symlink(other, place + "/link")
mounts.delete_tree(place + "/link")
mounts.delete_tree(place)
mounts.delete_tree(place)
print(os.path.exists(place), os.listdir(other))
"""


def test_a_folder_of_the_agent_is_deleted_and_nothing_that_is_mounted_or_linked_in_it(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("as root alone")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "canary").touch()
    places = [str(tmp_path / "a place"), str(tmp_path / "other")]
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", DELETES, *places]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"deleting {places[0]}: {places[0]}/in is a mount point",
        "['canary']",
        "False ['canary']",
    ], done.stderr
