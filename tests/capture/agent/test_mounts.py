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
