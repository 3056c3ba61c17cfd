#!/usr/bin/env bash
# mounted.sh DIR [SOURCE [OPTIONS]]: mounts rchfs on an empty directory, uses it as any program would, unmounts it.
# SOURCE is the HOST:PORT of a master; without it the pool is in the mount's own process.
# MOUNT=/path/to/mount.rchfs says which program; else it is looked for in PATH.
set -euo pipefail
dir=${1:?usage: mounted.sh DIR [SOURCE [OPTIONS]]} source=${2:-embedded} options=${3:-quiet}

"${MOUNT:-mount.rchfs}" "$source" "$dir" -o "$options"
trap 'umount "$dir"' EXIT

mkdir "$dir/notes"
for number in 1 2 3; do printf 'note %s\n' "$number" >"$dir/notes/$number"; done
ln "$dir/notes/1" "$dir/first"
tar -cf "$dir/notes.tar" -C "$dir" notes
tar -tf "$dir/notes.tar" | grep -c '^notes/[0-9]$'
rm -r "$dir/notes"
cat "$dir/first"
rm "$dir/first" "$dir/notes.tar"
