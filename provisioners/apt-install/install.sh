#!/bin/sh
# Installs the packages that its arguments name. A second run changes nothing.
# UPDATE=no: do not fetch the package lists first.
set -eu
export DEBIAN_FRONTEND=noninteractive

if [ "$#" -eq 0 ] || [ -z "$*" ]; then
  echo "install.sh: name the packages to install" >&2
  exit 2
fi
# One argument may hold several names, as a list rendered into one does.
# shellcheck disable=SC2086
set -- $*

# A machine that has just booted may be updating its lists by itself: wait for its lock instead of failing.
lock="-o DPkg::Lock::Timeout=120"
if [ "${UPDATE:-yes}" = yes ]; then
  # shellcheck disable=SC2086
  apt-get $lock -q update
fi
# shellcheck disable=SC2086
apt-get $lock -q -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold install "$@"
apt-get clean
# A cache that is mounted there is not the image's.
mountpoint -q /var/lib/apt/lists || find /var/lib/apt/lists -xdev -mindepth 1 -delete
