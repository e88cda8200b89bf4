"""Time uploads over SSH: ours against OpenSSH, scp, tar over ssh and packer's `file`, on one sshd on loopback.

    .venv/bin/python benchmarks/transfer.py

Each round runs all of them once, so that other work on the machine affects all. Figures are medians; ratios are taken
round by round. Every measurement includes the connection and the login; those of other programs are of whole processes.
Needs Debian's openssh-server, openssh-client and packer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed wheel comes first

from imagepipe.clock import Deadline, SystemClock  # noqa: E402
from imagepipe.communicator.ssh import Watch, connect  # noqa: E402
from imagepipe.communicator.upload import Placement, upload_path  # noqa: E402
from imagepipe.engine.cancel import Cancel  # noqa: E402
from imagepipe.values import Endpoint  # noqa: E402
from tests.communicator.sshd import sshd  # noqa: E402

LARGE = "256 MiB, one file"
SMALL = "2,000 files of 2 KiB"
TARGETS = {(LARGE, "packer file"): 1 / 3, (LARGE, "OpenSSH"): 1 / 0.75, (SMALL, "tar over ssh"): 1.1}
"""The most that ours may take, as a multiple of theirs."""


class Bench:
    """The sources, their destinations, and the ways to upload them."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.large, self.many, self.there = folder / "large", folder / "many", folder / "there"
        self.large.write_bytes(os.urandom(1 << 20) * 256)
        self.many.mkdir()
        for number in range(2000):
            (self.many / f"{number:04}").write_bytes(os.urandom(2048))
        known = folder / "known_hosts"
        known.write_text(f"[{endpoint.host}]:{endpoint.port} {endpoint.host_key}\n")
        self._options = ["-i", endpoint.private_key, "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]
        self._where = f"{endpoint.user}@{endpoint.host}"
        self._clock = SystemClock()

    def ways(self, packer: str | None) -> dict[str, dict[str, Callable[[], None]]]:
        """Return the ways to upload each load, by load and name."""
        ssh = ["ssh", *self._options, "-p", str(self.endpoint.port), self._where]
        scp = ["scp", "-q", *self._options, "-P", str(self.endpoint.port)]
        there = self.there
        large: dict[str, Callable[[], None]] = {
            "imagepipe": lambda: self._ours("large", f"{there}/large"),
            "OpenSSH": lambda: _run([*ssh, f"cat >{there}/large && sync -f {there}"], stdin=self.large),
            "scp": lambda: _run([*scp, str(self.large), f"{self._where}:{there}/large"]),
        }
        small: dict[str, Callable[[], None]] = {
            "imagepipe": lambda: self._ours("many", f"{there}/many"),
            "tar over ssh": lambda: self._tar(ssh),
            "scp": lambda: _run([*scp, "-r", str(self.many), f"{self._where}:{there}/many"]),
        }
        if packer:
            large["packer file"] = lambda: self._packer(packer, self.large, f"{there}/large")
            small["packer file"] = lambda: self._packer(packer, self.many, f"{there}/")
        return {LARGE: large, SMALL: small}

    def clean(self) -> None:
        shutil.rmtree(self.there, ignore_errors=True)
        self.there.mkdir()

    def _ours(self, source: str, dest: str) -> None:
        connection = connect(self.endpoint)
        try:
            watch = Watch(lambda *_: None, Deadline.after(300, self._clock), Cancel(self._clock))
            result = upload_path(connection, source, self.folder, Placement(dest, sudo=False), watch)
            assert result.code == 0, result
        finally:
            connection.close()

    def _tar(self, ssh: list[str]) -> None:
        command = f"mkdir -p {self.there}/many && tar -x -C {self.there}/many && sync -f {self.there}"
        with subprocess.Popen(["tar", "-c", "-C", str(self.many), "."], stdout=subprocess.PIPE) as tar:
            subprocess.run([*ssh, command], stdin=tar.stdout, check=True, timeout=300)

    def _packer(self, packer: str, source: Path, dest: str) -> None:
        builder = {
            "type": "null",
            "ssh_host": self.endpoint.host,
            "ssh_port": self.endpoint.port,
            "ssh_username": self.endpoint.user,
            "ssh_private_key_file": self.endpoint.private_key,
        }
        step = {"type": "file", "source": str(source), "destination": dest}
        template = self.folder / "template.json"
        template.write_text(json.dumps({"builders": [builder], "provisioners": [step]}))
        env = {**os.environ, "CHECKPOINT_DISABLE": "1", "HOME": str(self.folder)}
        subprocess.run([packer, "build", str(template)], env=env, stdout=subprocess.DEVNULL, check=True, timeout=300)


def _run(command: list[str], stdin: Path | None = None) -> None:
    with (stdin or Path(os.devnull)).open("rb") as source:
        subprocess.run(command, stdin=source, check=True, timeout=300)


def main() -> int:
    parser = argparse.ArgumentParser(description="times uploads over SSH")
    parser.add_argument("--runs", type=int, default=5, help="rounds (5)")
    runs = parser.parse_args().runs
    packer = shutil.which("packer")
    if packer is None:
        print("there is no packer on this machine, so it is left out: apt-get install packer", file=sys.stderr)
    print(_machine(packer))
    rows = [("load", "by", "median", "MB/s or files/s", "ours / theirs", "target")]
    is_good = True
    with tempfile.TemporaryDirectory() as name, sshd(Path(name) / "sshd", "Subsystem=sftp internal-sftp") as server:
        bench = Bench(Path(name), server.endpoint)
        for load, ways in bench.ways(packer).items():
            seconds = _rounds(bench, ways, runs)
            for by, each in seconds.items():
                ratio = statistics.median(mine / other for mine, other in zip(seconds["imagepipe"], each, strict=True))
                most = TARGETS.get((load, by))
                is_good &= most is None or ratio <= most
                median = statistics.median(each)
                speed = f"{(1 << 28) / median / 1e6:.0f} MB/s" if load == LARGE else f"{2000 / median:.0f} files/s"
                shown = "" if by == "imagepipe" else f"{ratio:.2f}"
                rows.append((load, by, f"{median:.2f} s", speed, shown, f"at most {most:.2f}" if most else ""))
    for row in (rows[0], tuple("---" for _ in rows[0]), *rows[1:]):
        print(f"| {' | '.join(row)} |")
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


def _rounds(bench: Bench, ways: dict[str, Callable[[], None]], runs: int) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round, after one round that does not count."""
    seconds: dict[str, list[float]] = {by: [] for by in ways}
    for count in range(runs + 1):
        for by, carry in ways.items():
            bench.clean()
            began = time.perf_counter()
            carry()
            if count:
                seconds[by].append(time.perf_counter() - began)
    return seconds


def _machine(packer: str | None) -> str:
    versions = [subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr.strip()]
    if packer:
        versions += subprocess.run([packer, "version"], capture_output=True, text=True, check=True).stdout.split("\n")[
            :1
        ]
    python = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {python}; {'; '.join(versions)}"


if __name__ == "__main__":
    sys.exit(main())
