"""A key that a package brought is public: everybody has it. One that was put in its place is not."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from pathlib import Path

import pytest

from imagepipe.hygiene import rpm
from imagepipe.hygiene.packages import Packages
from tests.hygiene.planted import RSA, put


def _installed(root: Path, path: str, content: bytes, listed: str | None = None) -> None:
    put(root, path, content)
    digest = hashlib.md5(content).hexdigest()
    put(root, "/var/lib/dpkg/info/pkg.md5sums", f"{digest}  {(listed or path)[1:]}\n")


def test_an_unchanged_file_of_a_package_is_the_packages(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", RSA.encode())
    assert Packages(str(tmp_path)).is_as_installed("/usr/share/doc/x/key.pem")


def test_a_changed_file_of_a_package_is_not(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", b"as it was")
    put(tmp_path, "/usr/share/doc/x/key.pem", RSA)
    assert not Packages(str(tmp_path)).is_as_installed("/usr/share/doc/x/key.pem")


def test_a_file_of_no_package_is_not(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/share/doc/x/key.pem", RSA.encode())
    put(tmp_path, "/usr/share/doc/x/other.pem", RSA)
    assert not Packages(str(tmp_path)).is_as_installed("/usr/share/doc/x/other.pem")


def test_lib_and_usr_lib_are_one(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/lib/x86_64-linux-gnu/libx.so.1", RSA.encode(), listed="/lib/x86_64-linux-gnu/libx.so.1")
    assert Packages(str(tmp_path)).is_as_installed("/usr/lib/x86_64-linux-gnu/libx.so.1")


def test_a_conffile_is_known_by_the_status(tmp_path: Path) -> None:
    put(tmp_path, "/etc/x/test.key", RSA)
    digest = hashlib.md5(RSA.encode()).hexdigest()
    put(tmp_path, "/var/lib/dpkg/status", f"Package: x\nConffiles:\n /etc/x/test.key {digest}\nVersion: 1\n")
    assert Packages(str(tmp_path)).is_as_installed("/etc/x/test.key")


def test_what_python_compiled_is_as_its_source_is(tmp_path: Path) -> None:
    _installed(tmp_path, "/usr/lib/python3/dist-packages/x/y.py", b"KEY = ''")
    put(tmp_path, "/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-311.pyc", RSA)
    packages = Packages(str(tmp_path))
    assert packages.is_as_installed("/usr/lib/python3/dist-packages/x/__pycache__/y.cpython-311.pyc")
    assert not packages.is_as_installed("/usr/lib/python3/dist-packages/x/__pycache__/z.cpython-311.pyc")


@pytest.mark.parametrize(
    ("path", "content", "brought"),
    [
        ("/usr/lib64/libgnutls.so.30.34.3", b"\x7fELF" + RSA.encode(), True),
        ("/usr/lib64/libgnutls.so.30.34.3", RSA.encode(), False),
        ("/opt/lib/libx.so", b"\x7fELF" + RSA.encode(), False),
        ("/usr/bin/x", b"\x7fELF" + RSA.encode(), False),
        ("/usr/share/doc/cloud-init/examples/keys.txt", RSA.encode(), True),
    ],
)
def test_without_a_database_libraries_and_documentation_of_the_system_are_taken_for_a_packages(
    tmp_path: Path, path: str, content: bytes, brought: bool
) -> None:
    put(tmp_path, path, content)
    assert Packages(str(tmp_path)).is_as_installed(path) is brought


def _header(files: dict[str, str]) -> bytes:
    """A package's header as rpm 4.18 writes it: each file's folder, name and digest, among other tags."""
    folders = sorted({path.rpartition("/")[0] + "/" for path in files})
    texts = {
        1000: ["a name"],
        rpm.FILE_DIGESTS: list(files.values()),
        rpm.BASE_NAMES: [path.rpartition("/")[2] for path in files],
        rpm.DIRECTORY_NAMES: folders,
    }
    values = {tag: (8, len(each), "".join(f"{text}\0" for text in each).encode()) for tag, each in texts.items()}
    indexes = [folders.index(path.rpartition("/")[0] + "/") for path in files]
    values[rpm.DIRECTORY_INDEXES] = (4, len(indexes), struct.pack(f">{len(indexes)}I", *indexes))
    index, content = b"", b""
    for tag, (kind, count, value) in sorted(values.items()):
        index += rpm.ENTRY.pack(tag, kind, len(content), count)
        content += value
    return struct.pack(">II", len(values), len(content)) + index + content


def _rpm_database(root: Path, *headers: bytes) -> None:
    put(root, f"/{rpm.DATABASES[0]}", b"")
    connection = sqlite3.connect(root / rpm.DATABASES[0])
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
    connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
    connection.commit()
    connection.close()


def test_rpms_digests_are_known_as_dpkgs_are(tmp_path: Path) -> None:
    library, manual = "/usr/lib64/libgnutls.so.30", "/usr/share/doc/x/keys.txt"
    for path in (library, manual):
        put(tmp_path, path, RSA)
    digest = hashlib.sha256(RSA.encode()).hexdigest()
    nothing = struct.pack(">II", 0, 0)
    _rpm_database(
        tmp_path, nothing, _header({"/usr/bin/other": "", library: digest, "/etc/folder": "", manual: digest})
    )
    packages = Packages(str(tmp_path))
    assert packages.is_as_installed(library)
    assert packages.is_as_installed(manual)
    put(tmp_path, manual, RSA + "changed")
    put(tmp_path, "/usr/share/doc/x/more.txt", RSA)
    assert not packages.is_as_installed(manual)
    assert not packages.is_as_installed("/usr/share/doc/x/more.txt"), "where there are digests, they alone count"


def test_a_database_that_is_none_is_as_if_there_were_none(tmp_path: Path) -> None:
    put(tmp_path, f"/{rpm.DATABASES[1]}", b"SQLite format 3\0 and then nonsense")
    _rpm_database(tmp_path, struct.pack(">II", 9, 9) + b"cut off")
    put(tmp_path, "/usr/share/doc/x", RSA)
    assert Packages(str(tmp_path)).is_as_installed("/usr/share/doc/x")
