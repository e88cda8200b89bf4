#!/bin/sh
# Runs one job in a folder of its own, which is gone afterwards.
set -eu
folder=$(mktemp -d /var/lib/jobs/job.XXXXXX)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
sh -eu -c "$1"
