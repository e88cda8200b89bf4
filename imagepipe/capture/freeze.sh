# Freezes the file systems of an instance that EC2 cannot stop: a spot instance.
# They thaw after 15 minutes, so that a machine whose build died can still shut down cleanly.
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
