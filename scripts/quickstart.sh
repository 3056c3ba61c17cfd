#!/usr/bin/env bash
# quickstart.sh [DIR]: builds mount.rchfs, mounts a pool in memory on DIR, writes and reads a file there.
# DIR is /mnt/pool for root and ~/pool for others. Options of the mount: OPTIONS=size=1G quickstart.sh
# Run again it finds the mount and uses it.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;; esac
if [ "$(id -u)" -eq 0 ]; then
    default=/mnt/pool unmount=umount
else
    default=$HOME/pool unmount="fusermount3 -u"
fi
dir=${1:-$default}

[ "$(uname -s)" = Linux ] || die "this needs Linux"
[ -e /dev/fuse ] || die "there is no /dev/fuse; load it with: modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
if [ "$(id -u)" -ne 0 ]; then
    command -v fusermount3 >/dev/null || die "fusermount3 is missing; install the package fuse3, or run this as root"
    [ -w /dev/fuse ] || die "/dev/fuse cannot be opened; an administrator can allow it with: chmod 666 /dev/fuse"
fi

say "== building (the first time takes a minute or two)"
build_release

say "== mounting on $dir"
if [ "$(mounted_type "$dir")" = fuse.rchfs ] && stat -f "$dir" >/dev/null 2>&1; then
    say "already mounted"
else
    [ -d "$dir" ] || [ "$(mounted_type "$dir")" = fuse.rchfs ] || mkdir -p "$dir" || die "$dir cannot be made; name another directory"
    "$MOUNT_RCHFS" "$dir" ${OPTIONS:+-o "$OPTIONS"} || exit
fi

say "== writing and reading"
file=$dir/quickstart.txt
text="written by $(id -un) on $(date)"
printf '%s\n' "$text" >"$file" || die "$file cannot be written"
[ "$(cat "$file")" = "$text" ] || die "$file does not hold what was written; please report this"
cat "$file"
df -h "$dir"
cat <<END

It works. What next:
  cp -a /usr/share/doc $dir; du -sh $dir
        use it as any directory
  $unmount $dir
        ends it; its files go, they are in memory
  $MOUNT_RCHFS --help
        all options; cxl=FILE,state=DIR keep the files
  scripts/install.sh
        makes 'mount -t rchfs' and fstab work
  scripts/test.sh
        tests all of it
END
