#!/bin/sh
# Unpack the base image that the container has, unless it was unpacked before, and run imagepipe.
set -eu
folder=$(dirname "$IMAGEPIPE_LOCAL_BASE_CACHE")
if [ ! -e "$IMAGEPIPE_LOCAL_BASE_CACHE" ]; then
  mkdir -p "$folder"
  tar --extract --zstd --directory "$folder" --file "${IMAGEPIPE_BASE_ARCHIVE:-/opt/base.tar.zst}"
fi
exec imagepipe "$@"
