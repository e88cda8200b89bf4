# Makes the file systems stand still, for an instance that EC2 does not stop: a spot instance.
# They thaw by themselves, so that a machine whose build died can still be ended in order.
set -eu
mounts=$(awk '$1 ~ "^/dev/" && $4 !~ "^ro" && !seen[$1]++ {print $2}' /proc/mounts | sort -r)
thaw="sleep 900; for mount in $(printf '%s ' $mounts); do fsfreeze --unfreeze \$mount; done"
setsid sh -c "$thaw" </dev/null >/dev/null 2>&1 &
sync
for mount in $mounts; do
  # A file system that cannot be frozen (vfat of a boot partition) has at least been written out.
  [ "$mount" = / ] || fsfreeze --freeze "$mount" 2>/dev/null || true
done
fsfreeze --freeze /
echo frozen
