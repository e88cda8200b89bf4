#!/bin/sh
# Umask, core dumps, root's password, packages. A second run changes nothing.
set -eu
umask_wanted=$1
remove=$2
case $umask_wanted in
  0[0-7][0-7]) ;;
  *) echo "harden.sh: not a umask: '$umask_wanted'" >&2; exit 2 ;;
esac

# The host keys may not be there yet, or no longer: sshd's own check needs one.
key=$(mktemp -u)
ssh-keygen -q -t ed25519 -N '' -f "$key"
trap 'rm -f "$key" "$key.pub"' EXIT
mkdir -p /run/sshd
sshd -t -h "$key"

sed -i -E "s/^UMASK[[:space:]].*/UMASK\t\t$umask_wanted/" /etc/login.defs
printf '* hard core 0\n* soft core 0\n' >/etc/security/limits.d/10-no-core-dumps.conf
mkdir -p /etc/systemd/coredump.conf.d
printf '[Coredump]\nStorage=none\nProcessSizeMax=0\n' >/etc/systemd/coredump.conf.d/10-hardening.conf
passwd --quiet --lock root
chmod 0700 /root
chmod 0600 /etc/crontab 2>/dev/null || true

for package in $remove; do
  if dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
    DEBIAN_FRONTEND=noninteractive apt-get -q -y purge "$package"
  fi
done
