"""The scrub on an instance: it empties the folders that the docs list, and nothing that is mounted in them."""

from __future__ import annotations

import pytest

from imagepipe.capture.scrub import script_text
from imagepipe.clock import Deadline, SystemClock
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Watch, public_key
from imagepipe.engine.cancel import Cancel
from tests.machine.bakery import Booted

pytestmark = pytest.mark.machine

EMPTIED = ("/tmp", "/var/tmp", "/var/lib/cloud", "/var/log/journal", "/run/log/journal", "/var/log/amazon")

PLANT = r"""
canary() { mkdir -p "$1" && echo gold >"$1/canary" && mkdir -p "$1/sub" && echo gold >"$1/sub/canary"; }
n=0
bound() {  # shows a folder of ours, of the same file system, at $1
  n=$((n + 1)); canary "/srv/bound-$n"; mkdir -p "$1"; mount --bind "/srv/bound-$n" "$1"
}
for folder in EMPTIED; do
  mkdir -p "$folder/plain/deep"; echo trace >"$folder/plain/deep/trace"; echo trace >"$folder/.trace"
  bound "$folder/m"
  bound "$folder/deep/er/with space"
  bound "$folder/m/inner"
  newline=$(printf 'a\nb\\x'); bound "$folder/$newline"
  mkdir -p "$folder/memory"; mount -t tmpfs tmpfs "$folder/memory"; canary "$folder/memory"
  ln -s /srv/linked "$folder/link"
done
canary /srv/linked
mkdir -p /tmp/file; echo gold >/srv/file; : >/tmp/file/bound; mount --bind /srv/file /tmp/file/bound
"""
LOOK = r"""
echo "bound $n"
for i in $(seq 1 "$n"); do cat "/srv/bound-$i/canary" "/srv/bound-$i/sub/canary"; done | sort | uniq -c | tr -s ' '
cat /srv/linked/canary /srv/file
for folder in EMPTIED; do
  cat "$folder/memory/canary"
  find "$folder" -xdev -name '*trace*'
  mountpoint -q "$folder/m" && mountpoint -q "$folder/m/inner" || echo "unmounted: $folder/m"
done
"""


def _scrub(booted: Booted, before: str, after: str) -> tuple[int | None, list[str]]:
    """Run the scrub between two scripts, in a mount namespace of its own, and with the way in put back."""
    scrub = script_text().removesuffix("[ $fail = 0 ] || exit 1\n")
    assert scrub != script_text()
    keep = "cp -a /etc/sudoers.d /run/kept; cp -a /home/admin/.ssh/authorized_keys /run/kept-keys\n"
    back = (
        "cp -a /run/kept/. /etc/sudoers.d/; cp -a /run/kept-keys /home/admin/.ssh/authorized_keys; rm -r /run/kept*\n"
    )
    text = f"{keep}{before}\n{scrub}\n{back}{after}\nexit 0\n".replace("EMPTIED", " ".join(EMPTIED))
    lines: list[str] = []
    clock = SystemClock()
    watch = Watch(lambda _, line: lines.append(line), Deadline.after(120, clock), Cancel(clock))
    args = (public_key(booted.connection.endpoint),)
    script = Script(text, args=args, sudo=True, interpreter="unshare --mount --propagation private sh")
    return run_script(booted.connection, script, watch).code, lines


def test_what_is_mounted_below_an_emptied_folder_stays_and_all_else_goes(booted: Booted) -> None:
    code, lines = _scrub(booted, PLANT, LOOK)
    assert code == 0, lines
    bound = 4 * len(EMPTIED)
    assert lines == [f"bound {bound}", f" {bound * 2} gold", "gold", "gold", *["gold"] * len(EMPTIED)]


SHOWN_ELSEWHERE = r"""
mkdir -p /srv/tmp /srv/part; echo gold >/srv/tmp/canary; mount --bind /srv/tmp /tmp
mount -t tmpfs tmpfs /srv/part; mkdir /srv/part/tmp; echo gold >/srv/part/tmp/canary
mount --bind /srv/part/tmp /var/tmp
mount -t tmpfs tmpfs /var/log/journal; echo trace >/var/log/journal/trace
"""


def test_an_emptied_folder_that_shows_another_one_is_left_alone_and_one_of_its_own_is_emptied(booted: Booted) -> None:
    code, lines = _scrub(booted, SHOWN_ELSEWHERE, "cat /srv/tmp/canary /srv/part/tmp/canary; ls /var/log/journal")
    assert code == 0, lines
    assert lines == [
        "left alone: /tmp is a bind mount, of /srv/tmp",
        "left alone: /var/tmp is a bind mount, of /tmp",
        "gold",
        "gold",
    ]


OF_OTHERS = r"""
mkdir -p /home/share /var/log/amazon
mount -t hugetlbfs none /home/share || exit 90
mount -t hugetlbfs none /var/log/amazon
: >/home/share/.bash_history; : >/var/log/amazon/canary; mkdir -p /home/own; : >/home/own/.bash_history
ln -s /home/share/.bash_history /home/own/.x_history
"""


def test_files_in_a_file_system_of_other_machines_are_left_alone(booted: Booted) -> None:
    """No network file system can be mounted here; one whose kind is not a disk's either takes its place."""
    code, lines = _scrub(booted, OF_OTHERS, "ls -A /home/share /var/log/amazon /home/own")
    if code == 90:
        pytest.skip("the kernel has no hugetlbfs")
    assert code == 0, lines
    assert [line for line in lines if line.startswith("left alone")] == [
        "left alone: /home/share is in a file system that is not the machine's own",
        "left alone: /var/log/amazon is in a file system that is not the machine's own",
    ]
    rest = [line for line in lines if not line.startswith("left alone")]
    assert rest == ["/home/own:", "", "/home/share:", ".bash_history", "", "/var/log/amazon:", "canary"]


HOOK = r"""
mkdir -p /etc/cloud/clean.d /srv/bound /var/lib/cloud/data/m; echo gold >/srv/bound/canary; rm -f /run/hook-ran
printf '#!/bin/sh\ntouch /run/hook-ran\n' >/etc/cloud/clean.d/hook; chmod +x /etc/cloud/clean.d/hook
"""
AFTER = "cat /srv/bound/canary; ls /run/hook-ran; rm /etc/cloud/clean.d/hook; ls -A /var/lib/cloud 2>/dev/null"


def test_cloud_init_clean_runs_its_hooks(booted: Booted) -> None:
    code, lines = _scrub(booted, HOOK, AFTER)
    assert code == 0, lines
    assert lines[:2] == ["gold", "/run/hook-ran"]


def test_cloud_init_clean_sees_nothing_that_is_mounted_below_its_folder(booted: Booted) -> None:
    code, lines = _scrub(booted, HOOK + "mount --bind /srv/bound /var/lib/cloud/data/m\n", AFTER)
    assert code == 0, lines
    assert "gold" in lines
    assert "cloud-init clean failed" in lines, "it cannot delete the mount point, and says so"
