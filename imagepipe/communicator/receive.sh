# Puts the content of a tar stream in place. $1: the destination; $2: a name for temporary files; $3: mode or empty;
# $4: owner or empty; $5: `file`, `folder`, or `into` for the contents of a folder. The stream has `it`, and `end` as its last member.
#
# Nothing at the destination changes until everything is on its file system and can be renamed: all of it is staged, checked
# against what exists, and moved into a temporary folder in each existing folder that gets something. An existing
# folder is only entered, even through a link or a mount, so it keeps its mode and owner. If a rename fails, the replaced
# files are put back.
set -eu
dest=$1; name=$2; mode=$3; owner=$4; kind=$5
case $kind in into) parent=$dest ;; *) parent=$(dirname "$dest") ;; esac
missing=; above=$parent
while [ ! -e "$above" ] && [ ! -L "$above" ]; do missing=$above; above=$(dirname "$above"); done
stage=${parent%/}/$name.stage
count=0; renaming=no; export name

each() { # runs a script with the entries of folder $1 as its arguments, and $2 as its $0; $3: the script; $4: a test
  find "$1" -mindepth 1 -maxdepth 1 $4 -exec sh -c "$3" "$2" {} +
}
full() { # names the file system of the destination if it has no room; $1: option of df, $2: the unit, $3: the least
  df -P"$1" -- "$above" 2>/dev/null | tail -n 1 | {
    read -r device size _ free _ point || return
    case $size$free in '' | *[!0-9]*) return ;; esac
    if [ "$size" != 0 ] && [ "$free" -lt "$3" ]; then
      echo "the file system $point ($device) is full: $free of $size $2 left" >&2
    fi
  }
}
clean() {
  code=$?
  trap - EXIT
  set +e
  if [ $code != 0 ]; then full k KiB 256; full i inodes 8; fi
  for at in "$stage"/at/*; do
    if [ -L "$at" ]; then
      if [ $renaming = yes ] && [ $code != 0 ]; then each "$at/$name.old" "$at" 'mv -f -- "$@" "$0/"' ''; fi
      find "$at/$name" "$at/$name.old" -xdev -depth -delete 2>/dev/null
    fi
  done
  find "$stage" -xdev -depth -delete 2>/dev/null
  if [ $code != 0 ] && [ -n "$missing" ]; then find "$missing" -xdev -depth -type d -exec rmdir {} \; 2>/dev/null; fi
  exit $code
}
refuse() { echo "$1; nothing was changed" >&2; exit 1; }

check() { # $1: a staged folder, $2: the folder that exists in its place
  for child in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ ! -e "$child" ] && [ ! -L "$child" ]; then continue; fi
    target=${2%/}/${child##*/}
    if [ -d "$child" ] && [ ! -L "$child" ]; then
      if [ -d "$target" ]; then check "$child" "$target"
      elif [ -e "$target" ] || [ -L "$target" ]; then refuse "$target exists and is not a folder"; fi
    elif [ -d "$target" ] && { [ ! -L "$target" ] || [ ! -L "$child" ]; }; then refuse "$target is a folder"
    fi
  done
}
prepare() { # same arguments; moves new and replacing files onto the file system of $2
  count=$((count + 1)); at=$stage/at/$count
  ln -s -- "$2" "$at"
  mkdir -m 700 "$at/$name" "$at/$name.old"
  each "$1" "$at/$name/" 'exec mv -- "$@" "$0"' '! -type d'
  # Hard links if possible, so that an old file stays in place until it is replaced. Names come without folders, so they
  # are the old files' names too; ln and cp skip names without an old file.
  (cd "$at/$name" && each . "$at" '
    cd "$0" || exit 1
    ln -- "$@" "./$name.old/" 2>/dev/null
    [ -n "$(ls -A "./$name.old")" ] || cp -pP -- "$@" "./$name.old/" 2>/dev/null || :' '')
  for child in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -d "$child" ] && [ ! -L "$child" ] && [ ! -d "${2%/}/${child##*/}" ]; then mv -- "$child" "$at/$name/"; fi
  done
  for child in "$1"/* "$1"/.[!.]* "$1"/..?*; do
    if [ -d "$child" ] && [ ! -L "$child" ]; then prepare "$child" "${2%/}/${child##*/}"; fi
  done
}
rename() {
  renaming=yes
  for at in "$stage"/at/*; do
    (cd "$at/$name.old" && each . "$at/$name" 'cd "$0" && exec mv -f -- "$@" ../' '')
  done
  for at in "$stage"/at/*; do each "$at/$name" "$at" 'exec mv -f -- "$@" "$0/"' ''; done
}

trap clean EXIT
trap 'exit 143' TERM HUP
mkdir -p "$parent"
mkdir "$stage" "$stage/at"
tar -xpf - -C "$stage"
if [ ! -e "$stage/end" ]; then refuse "the upload was cut off"; fi
if [ -n "$owner" ]; then
  # The kernel clears these bits when the owner of a file changes.
  find "$stage/it" ! \( -type f \( -perm -4000 -o -perm -2000 \) \) -exec chown -h "$owner" {} +
  find "$stage/it" -type f \( -perm -4000 -o -perm -2000 \) -exec sh -c '
    for file; do bits=$(stat -c %a -- "$file"); chown "$0" "$file" && chmod "$bits" "$file" || exit 1; done' "$owner" {} +
fi
if [ -n "$mode" ]; then chmod "$mode" "$stage/it"; fi
sync -f "$stage" 2>/dev/null || sync
if [ $kind = file ]; then
  if [ -d "$dest" ]; then refuse "$dest is a folder; end dest with a slash to copy into it"; fi
  mv -f "$stage/it" "$dest"
elif [ ! -e "$dest" ] && [ ! -L "$dest" ]; then
  mv "$stage/it" "$dest"
else
  if [ ! -d "$dest" ]; then refuse "$dest exists and is not a folder"; fi
  check "$stage/it" "$dest"
  prepare "$stage/it" "$dest"
  sync -f "$stage" 2>/dev/null || sync
  rename
fi
sync -f "$parent" 2>/dev/null || sync
