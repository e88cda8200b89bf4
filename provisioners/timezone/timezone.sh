#!/bin/sh
# Sets the time zone that its argument names. A second run changes nothing.
set -eu
zone=$1
case $zone in
  *..* | /* | '') echo "timezone.sh: not a time zone: '$zone'" >&2; exit 2 ;;
esac
if [ ! -f "/usr/share/zoneinfo/$zone" ]; then
  echo "timezone.sh: time zone '$zone' does not exist in /usr/share/zoneinfo" >&2
  exit 2
fi
[ "$(readlink /etc/localtime || true)" = "/usr/share/zoneinfo/$zone" ] ||
  ln -sfn "/usr/share/zoneinfo/$zone" /etc/localtime
[ "$(cat /etc/timezone 2>/dev/null || true)" = "$zone" ] || echo "$zone" >/etc/timezone
