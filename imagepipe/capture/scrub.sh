# Removes the build's own traces from the machine. Runs as root, last of all; afterwards nobody can log in with the
# build's key. $1: that key in base64, as in authorized_keys. Every line must work on any distribution, so a missing
# file is not an error.
set -u
key=$1
fail=0
newline='
'

# Nothing here deletes files in file systems other than the machine's own (docs/how-to/hygiene.md lists what is deleted).
# `is_own` recognizes a file system by its type: a share from another machine is not ours, wherever it is mounted. Paths
# are checked only if another type is mounted at all, because a process for each path takes half of the scrub's time.
only_own=1
while read -r _ _ _ _ point rest; do
  kind=${rest#* - }
  case $point/:${kind%% *} in
    /proc/* | /sys/* | /dev/* | /snap/*) ;;
    *:ext[234] | *:xfs | *:btrfs | *:bcachefs | *:f2fs | *:nilfs2 | *:zfs | *:jfs | *:reiserfs | *:vfat | *:msdos) ;;
    *:exfat | *:tmpfs | *:ramfs | *:overlay) ;;
    *) only_own= ;;
  esac
done </proc/self/mountinfo || only_own=
is_own() {
  if [ -n "$only_own" ]; then return 0; fi
  case $(stat -f -c %T -- "$1" 2>/dev/null) in
    ext* | xfs | btrfs | bcachefs | f2fs | nilfs | zfs | jfs | reiserfs | msdos | vfat | exfat | tmpfs | ramfs | overlay*) return 0 ;;
  esac
  echo "left alone: $1 is in a file system that is not the machine's own"
  return 1
}
drop() {
  for file; do
    if [ -e "$file" ] || [ -L "$file" ]; then
      if is_own "${file%/*}/"; then rm -f -- "$file"; fi
    fi
  done
}
blank() {
  for file; do
    if [ -f "$file" ] && is_own "$file"; then : >"$file"; fi
  done
}
# $1: a name that is kept in each folder, with its contents; the rest are folders. Each is emptied through a bind mount,
# which does not show other mounts in the folder, and the kernel keeps every mount point. A folder that is a bind mount
# of another one is left alone. A separate mount namespace hides the view from everybody else.
empty() {
  keep=$1 folders=
  shift
  for folder; do
    if [ -d "$folder" ] && [ ! -L "$folder" ] && is_own "$folder"; then folders="$folders $folder"; fi
  done
  # shellcheck disable=SC2086 - no name here has a blank
  unshare -m sh -c '
    keep=$1; shift
    mount --make-rprivate / || exit 1
    view=$(mktemp -d /run/imagepipe-view-XXXXXX) || exit 1
    code=0
    for folder; do
      place=$(cd -P "$folder" 2>/dev/null && pwd -P) || continue
      at= shows=
      while read -r _ _ _ root point rest; do
        case $place/ in
          "${point%/}"/*) if [ ${#point} -ge ${#at} ]; then at=$point shows=$root kind=${rest#* - }; fi ;;
        esac
      done </proc/self/mountinfo
      case $kind in btrfs*) shows=/ ;; esac  # subvolumes
      if [ "$at" != / ] && [ "$shows" != / ]; then
        echo "left alone: $folder is a bind mount, of $shows"
      elif ! mount --bind "$place" "$view"; then
        code=1
      else
        find "$view" -mindepth 1 -maxdepth 1 ! -name "$keep" \
          -exec sh -c "exec find \"\$@\" -xdev -depth -delete" sh {} + 2>/dev/null
        umount "$view" || exit 1
      fi
    done
    rmdir "$view"
    exit $code' sh "$keep" $folders || { echo "emptying folders failed: the script needs unshare and mount" >&2; fail=1; }
}

# cloud-init may still be running, even after a reboot, and logs what it does until it ends.
i=0
while [ $i -lt 600 ] && systemctl list-jobs --no-legend 2>/dev/null | grep -qE 'cloud-(init|config|final)'; do
  sleep 0.2
  i=$((i + 1))
done
# Services that would write deleted files again. They start at the next boot, and nobody needs them before that.
# systemd-random-seed and systemd-update-utmp write when they are stopped, so they are stopped now, before the shutdown.
units="syslog.socket rsyslog.service syslog-ng.service auditd.service amazon-ssm-agent.service
  systemd-random-seed.service systemd-update-utmp.service"
# shellcheck disable=SC2086 - no unit's name has a blank
states=$(systemctl is-active $units 2>/dev/null)  # a line for each
for unit in $units; do
  state=${states%%"$newline"*} states=${states#*"$newline"}
  if [ "$state" = active ]; then
    systemctl stop "$unit" >/dev/null 2>&1 || systemctl kill "$unit" >/dev/null 2>&1  # auditd refuses to be stopped
  fi
done
# dhclient would write its lease again when the shutdown takes its interface down, because ifupdown remembers (in memory)
# that it is up. The address stays valid until the lease ends.
for state in /run/network/ifstate*; do
  if [ -f "$state" ]; then : >"$state"; fi
done
for pid in $(cat /run/dhclient*.pid 2>/dev/null); do
  if [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dhclient ]; then kill -9 "$pid"; fi
done
journalctl --relinquish-var >/dev/null 2>&1  # into memory from here on: journald would create a deleted journal again

# The build's SSH key.
homes=$(cut -d: -f6 /etc/passwd 2>/dev/null | grep -E '^/[^/]' | grep -vE '^/(bin|dev|proc|sbin|usr/s?bin)(/|$)' | sort -u)
for home in /root /home/* $homes; do
  if [ ! -d "$home" ] || ! is_own "$home"; then continue; fi
  file=$home/.ssh/authorized_keys
  if [ -f "$file" ] && grep -qF "$key" "$file" && is_own "$file"; then
    rest=$(grep -vF "$key" "$file" || true)
    if [ -n "$rest" ]; then printf '%s\n' "$rest" >"$file"; else rm -f "$file"; fi
  fi
  # Histories of shells and editors.
  drop "$home"/.*_history "$home"/.lesshst "$home"/.local/state/lesshst "$home"/.viminfo "$home"/.wget-hsts \
    "$home"/.local/share/fish/fish_history "$home"/.local/share/nano/search_history "$home"/.vim/.netrwhist \
    "$home"/.local/share/nvim/shada/* "$home"/.local/state/nvim/shada/* "$home"/.cache/motd.legal-displayed
done

# The machine's identity: a copy that kept it could pass for this machine.
drop /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
blank /etc/machine-id
if [ ! -L /var/lib/dbus/machine-id ]; then drop /var/lib/dbus/machine-id; fi
drop /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed \
  /boot/loader/random-seed /boot/efi/loader/random-seed /efi/loader/random-seed

# cloud-init keeps user data, which has the machine's private host key. Its `clean` deletes its logs and all of its
# folder but the seed, and runs hooks. Python takes 0.3 s for that, so it runs only if there are hooks, or if its
# logs or its folder are elsewhere. It does not see other mounts in its folder, as with `empty`.
cloud_config=$(cat /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg /var/lib/cloud/instance/*cloud-config.txt 2>/dev/null |
  grep -E '^[^#]*(cloud_dir:|def_log_file:|tee -a|>)' |
  grep -vE "cloud_dir: */var/lib/cloud/?\$|def_log_file: */var/log/cloud-init.log\$|/var/log/cloud-init-output.log['\"]?}?\$")
cloud_hooks=$(find /etc/cloud/clean.d -type f -perm /111 2>/dev/null)
cloud_dir=$(printf '%s\n' "$cloud_config" | sed -n "s/^[^#]*cloud_dir: *[\"']\{0,1\}\([^\"' ]*\).*/\1/p" | tail -n 1)
if command -v cloud-init >/dev/null 2>&1 && [ -n "$cloud_config$cloud_hooks" ]; then
  cloud_dir=${cloud_dir:-/var/lib/cloud}
  if [ ! -d "$cloud_dir" ] || is_own "$cloud_dir"; then
    unshare -m sh -c 'mount --make-rprivate / && { [ ! -d "$1" ] || mount --bind "$1" "$1"; } && cloud-init clean --logs' \
      sh "$cloud_dir" >/dev/null 2>&1 || { echo "cloud-init clean failed" >&2; fail=1; }
  fi
fi
empty seed /var/lib/cloud
drop /var/log/cloud-init.log* /var/log/cloud-init-output.log* /etc/sudoers.d/90-cloud-init-users

# Leases, and logs of this boot.
drop /var/lib/dhcp/*.lease* /var/lib/dhclient/*.lease* /var/lib/dhcpcd/*.lease* /var/lib/wicked/lease-* \
  /var/lib/NetworkManager/*.lease
for log in auth.log secure syslog messages daemon.log kern.log user.log debug cron cron.log mail.log maillog boot.log \
  sudo.log audit/audit.log lastlog faillog tallylog; do
  blank "/var/log/$log"
  drop /var/log/"$log"[-.][0-9]*  # rotated
done
# The end of this session and the shutdown are recorded if the file exists. It is deleted if every boot creates it.
drop /var/log/wtmp[-.][0-9]* /var/log/btmp[-.][0-9]* /var/lib/wtmpdb/wtmp.db /var/lib/lastlog/lastlog2.db
for record in /var/log/wtmp /var/log/btmp; do
  if grep -qsF "$record" /usr/lib/tmpfiles.d/*.conf /etc/tmpfiles.d/*.conf; then drop "$record"; else blank "$record"; fi
done
empty 'systemd-private-*' /var/log/journal /run/log/journal /var/log/amazon /run/cloud-init /tmp /var/tmp

# Deleted data must not stay in free blocks: discard them.
sync
fstrim / >/dev/null 2>&1 || true

# Verify the result.
left=$(for home in /root /home/* $homes; do grep -rlsF "$key" "$home/.ssh"; done)
if [ -n "$left" ]; then echo "the build's key is still in an authorized_keys" >&2; fail=1; fi
for host_key in /etc/ssh/ssh_host_*_key; do
  if [ -e "$host_key" ]; then echo "a host key is still there: $host_key" >&2; fail=1; fi
done
if grep -rqs "PRIVATE KEY" /var/lib/cloud; then echo "cloud-init still has a private key" >&2; fail=1; fi
[ $fail = 0 ] || exit 1
