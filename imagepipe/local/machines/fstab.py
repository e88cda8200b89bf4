"""The disks of /etc/fstab in a container: mounted at every boot, as an instance mounts them.

systemd skips the disks of /etc/fstab where there is no udev. A generator of ours (systemd.generator(7)) runs the
image's own systemd-fstab-generator over those lines, with each disk's device in place of its UUID or label. So all
options mean what systemd makes them mean: nofail, noauto, x-systemd.automount, x-systemd.before and the others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.local.machines.driver import Machine

FILE = "fstab-generator"
INSIDE = "/run/systemd/system-generators/imagepipe-fstab"
MAX_BYTES = 1 << 20
DRIVE = re.compile(r"/dev/(?:sd|xvd)([a-z]+)")
WHOLE_DISK = re.compile(r"/dev/(?:sd[a-z]+|xvd[a-z]+|nvme[0-9]+n1|disk/by-(?:uuid|label)/.+)")
TAG = re.compile(r"(UUID|LABEL|PARTUUID|PARTLABEL|ID)=(.*)")
IS_OPTIONAL = frozenset({"nofail", "noauto"})

GENERATOR = r"""#!/bin/sh
# systemd takes /dev/... for a disk that udev must announce, and there is no udev in a container. With /run in front of
# it, its generator writes the unit; then the name is made right. The disk is not checked (fsck) at boot.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
normal=$1 early=$2 late=$3 fstab=$3/.imagepipe-fstab
[ -r /etc/fstab ] || exit 0
say() { printf 'imagepipe: /etc/fstab: %s\n' "$*" >/dev/console; }
find_disk() { # TAG VALUE
  for disk in @DISKS@; do
    [ "$(blkid -p -o value -s "$1" "$disk" 2>/dev/null)" = "$2" ] && { line "$disk"; return; }
  done
  line "/dev/disk/by-$(line "$1" | tr A-Z a-z)/$2"
}
line() { printf '%s\n' "$*"; }
plain() { # as it is without quotes and escapes: \040 of fstab(5), \x20 of udev
  printf '%b' "$(line "$1" | sed 's/^\([A-Z]*=\)"\(.*\)"$/\1\2/; s/\\x20/\\040/g; s/\\x2f/\\057/g; s/\\x5c/\\134/g
    s/\\\([0-7][0-7][0-7]\)/\\0\1/g')"
}
while read -r what where type options pass; do
  case $what in ''|'#'*) continue ;; esac
  [ "$where" = / ] && continue
  case $type in swap) case $what in /dev/*|*=*) say "$what: a container has no swap" ;; esac; continue ;; esac
  case $what in
    UUID=*|LABEL=*) name=$(plain "$what"); disk=$(find_disk "${name%%=*}" "${name#*=}") ;;
    /dev/disk/by-uuid/*) disk=$(find_disk UUID "$(plain "${what##*/}")") ;;
    /dev/disk/by-label/*) disk=$(find_disk LABEL "$(plain "${what##*/}")") ;;
    PARTUUID=*|PARTLABEL=*|ID=*) disk=/dev/disk/by-${what%%=*}/${what#*=} ;;
    /dev/*) disk=$what ;;
    *) continue ;;
  esac
  case ,$options, in
    *,x-systemd.makefs,*) say "$what: x-systemd.makefs needs udev, which a container does not have"; continue ;;
    # There is no autofs in a container: mounted at boot, it is there before somebody asks for it.
    *,x-systemd.automount,*) options=$(line "$options" | sed 's/x-systemd\.automount/nofail/; s/\bnoauto\b/nofail/') ;;
  esac
  [ -b "$disk" ] || say "$what, to be mounted at $where, was not found"
  line "/run/imagepipe$(line "$disk" | sed 's/\\/\\134/g; s/ /\\040/g') $where $type ${options:-defaults} 0 0"
done </etc/fstab >"$fstab"
for generator in /usr/lib/systemd/system-generators/systemd-fstab-generator \
    /lib/systemd/system-generators/systemd-fstab-generator; do
  [ -x "$generator" ] || continue
  SYSTEMD_FSTAB=$fstab "$generator" "$normal" "$early" "$late"
  break
done
rm -f "$fstab"
for unit in "$normal"/*.mount; do
  [ -f "$unit" ] && sed -i 's|^What=/run/imagepipe/|What=/|; s|^SourcePath=.*|SourcePath=/etc/fstab|' "$unit"
done
exit 0
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of /etc/fstab."""

    what: str
    where: str
    kind: str
    options: frozenset[str]

    @property
    def is_optional(self) -> bool:
        """Tell if the boot continues without it."""
        return bool(self.options & IS_OPTIONAL)

    @property
    def is_left_alone(self) -> bool:
        """Tell if it is mounted neither at boot nor on access."""
        return "noauto" in self.options and "x-systemd.automount" not in self.options


def names(device: str, at: int) -> list[str]:
    """List the names that an instance has for its disk number `at`: /dev/sdf, /dev/xvdf, /dev/nvme1n1.

    A root disk has only its own name: on an instance, the other names belong to its partitions.
    """
    drive = DRIVE.fullmatch(device)
    if at == 0 or drive is None:
        return [device]
    return list(dict.fromkeys([device, f"/dev/sd{drive[1]}", f"/dev/xvd{drive[1]}", f"/dev/nvme{at}n1"]))


def write_generator(folder: Path, machine: Machine) -> None:
    """Write the generator, which is bind-mounted under /run of the container."""
    half = folder / f".{FILE}"
    half.write_text(GENERATOR.replace("@DISKS@", " ".join(disk.device for disk in machine.disks[1:])), encoding="utf-8")
    half.chmod(0o755)
    half.rename(folder / FILE)  # the machine may be booting from the old one


def entries(root: Path) -> list[Entry]:
    """Read /etc/fstab of a mounted root. Follow no link: it could lead to a file of this computer."""
    found = []
    for line in _text(root).splitlines():
        words = line.split()
        if len(words) < 3 or words[0].startswith("#"):
            continue
        options = words[3].split(",") if len(words) > 3 else []
        found.append(Entry(words[0], words[1], words[2], frozenset(options)))
    return found


def unsupported_entries(found: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """List the entries that an instance would mount and a container cannot, each with the reason."""
    cannot = []
    for entry in found:
        tag = TAG.fullmatch(entry.what)
        is_disk = tag is not None or entry.what.startswith("/dev/")
        if not is_disk or entry.where == "/" or entry.is_left_alone:
            continue
        if entry.kind == "swap":
            cannot.append((entry, "a container has no swap of its own"))
        elif tag is not None and tag[1] not in ("UUID", "LABEL"):
            cannot.append((entry, "a container sees whole disks, not their partitions"))
        elif tag is None and WHOLE_DISK.fullmatch(entry.what) is None:
            cannot.append((entry, "a container has neither partitions nor volumes of LVM, RAID or encryption"))
        elif "x-systemd.makefs" in entry.options:
            cannot.append((entry, "x-systemd.makefs needs udev, which a container does not have"))
    return cannot


def _text(root: Path) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        folder = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            etc = os.open("etc", flags | os.O_DIRECTORY, dir_fd=folder)
            try:
                file = os.open("fstab", flags | os.O_NONBLOCK, dir_fd=etc)
            finally:
                os.close(etc)
        finally:
            os.close(folder)
        with os.fdopen(file, "rb") as reader:
            if stat.S_ISREG(os.fstat(file).st_mode):
                return reader.read(MAX_BYTES).decode(errors="replace")
    return ""
