"""A key that a package brought is public: everybody has it. One that was put in its place is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imagepipe.hygiene.packages import Packages
from tests.hygiene.planted import RSA, put


def _installed(root: Path, path: str, content: bytes, listed: str | None = None) -> None:
    put(root, path, content)
    digest = hashlib.md5(content).hexdigest()
    put(root, "/var/lib/dpkg/info/pkg.md5sums", f"{digest}  {(listed or path)[1:]}\n")


def test_an_unchanged_file_of_a_package_is_the_packages(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", RSA.encode())
    assert Packages(str(tmp_path)).brought("/usr/share/doc/x/key.pem")


def test_a_changed_file_of_a_package_is_not(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", b"as it was")
    put(tmp_path, "/usr/share/doc/x/key.pem", RSA)
    assert not Packages(str(tmp_path)).brought("/usr/share/doc/x/key.pem")


def test_a_file_of_no_package_is_not(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", RSA.encode())
    put(tmp_path, "/usr/share/doc/x/other.pem", RSA)
    assert not Packages(str(tmp_path)).brought("/usr/share/doc/x/other.pem")


def test_lib_and_usr_lib_are_one(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/lib/x86_64-linux-gnu/libx.so.1", RSA.encode(), listed="/lib/x86_64-linux-gnu/libx.so.1")
    assert Packages(str(tmp_path)).brought("/usr/lib/x86_64-linux-gnu/libx.so.1")


def test_a_conffile_is_known_by_the_status(tmp_path: Path) -> None:
    put(tmp_path, "/etc/x/test.key", RSA)
    digest = hashlib.md5(RSA.encode()).hexdigest()
    put(tmp_path, "/var/lib/dpkg/status", f"Package: x\nConffiles:\n /etc/x/test.key {digest}\nVersion: 1\n")
    assert Packages(str(tmp_path)).brought("/etc/x/test.key")


def test_what_python_compiled_is_as_its_source_is(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/lib/python3/dist-packages/x/y.py", b"KEY = ''")
    put(tmp_path, "/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-311.pyc", RSA)
    packages = Packages(str(tmp_path))
    assert packages.brought("/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-311.pyc")
    assert not packages.brought("/usr/lib/python3/dist-packages/x/__pycache__/z.cpython-311.pyc")


@pytest.mark.parametrize(
    ("path", "content", "brought"),
    [
        ("/usr/lib64/libgnutls.so.30.34.3", b"\x7fELF" + RSA.encode(), True),
        ("/usr/lib64/libgnutls.so.30.34.3", RSA.encode(), False),
        ("/opt/lib/libx.so", b"\x7fELF" + RSA.encode(), False),
        ("/usr/bin/x", b"\x7fELF" + RSA.encode(), False),
    ],
)
def test_without_dpkg_a_shared_library_of_the_system_is_taken_for_a_packages(
    tmp_path: Path, path: str, content: bytes, brought: bool
) -> None:
    put(tmp_path, path, content)
    assert Packages(str(tmp_path)).brought(path) is brought
