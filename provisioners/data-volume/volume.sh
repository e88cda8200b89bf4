#!/bin/sh
# Makes and mounts a file system on a volume. A second run changes nothing; data that is there is never formatted.
set -eu
device=$1 mount=$2 type=$3 owner=$4 needed_by=$5
letter=${device#/dev/sd}
letter=${letter#/dev/xvd}

# On Nitro an EBS volume is an NVMe disk, which carries the name that it was mapped as (EC2 user guide, "Map NVMe disks").
nvme() {
  for disk in /dev/nvme[0-9]*n1; do
    [ -b "$disk" ] || continue
    name=$(ebsnvme-id -u "$disk" 2>/dev/null || command nvme id-ctrl -v "$disk" 2>/dev/null | sed -n 's/.*"\(\/*[a-z/]*sd[a-z]\).*/\1/p' || true)
    case $name in "$device" | "${device#/dev/}") echo "$disk"; return ;; esac
  done
}
found=
for candidate in "$device" "/dev/xvd$letter" "/dev/sd$letter" "$(nvme)"; do
  if [ -n "$candidate" ] && [ -b "$candidate" ]; then found=$candidate; break; fi
done
if [ -z "$found" ]; then
  echo "volume.sh: no device $device (nor /dev/xvd$letter, /dev/sd$letter, or an NVMe disk of that name); there are:" >&2
  lsblk >&2 || ls /dev >&2
  exit 2
fi
if [ "$(findmnt -no SOURCE / || true)" = "$found" ]; then
  echo "volume.sh: $found is the root device" >&2
  exit 2
fi

there=$(blkid -p -o value -s TYPE "$found" || true)
if [ -z "$there" ]; then
  case $type in
    ext4) mkfs.ext4 -q -F "$found" ;;
    xfs) mkfs.xfs -q "$found" ;;
    *) echo "volume.sh: type '$type': ext4 or xfs" >&2; exit 2 ;;
  esac
elif [ "$there" != "$type" ]; then
  echo "volume.sh: $found has a file system of type $there already, not $type" >&2
  exit 2
fi
uuid=$(blkid -p -o value -s UUID "$found")
mkdir -p "$mount"
# nofail: an instance without the volume is to boot all the same. It would also let services start before the mount,
# so local-fs.target, which they start after, waits for it.
line="UUID=$uuid $mount $type defaults,nofail,x-systemd.before=local-fs.target,x-systemd.device-timeout=30s 0 2"
grep -qF "UUID=$uuid " /etc/fstab || echo "$line" >>/etc/fstab
# And where the mount fails, these do not start: they would write to the root disk.
for unit in $needed_by; do
  folder=/etc/systemd/system/$unit.d
  mkdir -p "$folder"
  printf '[Unit]\nRequiresMountsFor="%s"\n' "$mount" >"$folder/data-volume.conf"
done
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
mountpoint -q "$mount" || mount "$found" "$mount"
chown "$owner" "$mount"
