#!/usr/bin/env bash
# install.sh [PREFIX]              builds mount.rchfs and installs it as PREFIX/sbin/mount.rchfs
# install.sh --uninstall [PREFIX]  takes it away again
# Without PREFIX it goes to /sbin, the only place where mount(8) looks for "mount -t rchfs" and fstab.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

uninstall=
case ${1:-} in
-h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
--uninstall) uninstall=1; shift ;;
-*) die "unknown option $1; see --help" ;;
esac
[ $# -le 1 ] || die "one prefix at most; see --help"
dest=${1:+${1%/}}/sbin/mount.rchfs

if [ -n "$uninstall" ]; then
    [ -e "$dest" ] || { say "$dest is not there"; exit 0; }
    rm "$dest" || die "no permission to remove $dest; run: sudo $0 --uninstall ${1:-}"
    say "removed $dest"
    exit 0
fi

# Under sudo there may be no cargo, but what the user built before.
if [ "$(id -u)" -eq 0 ] && ! command -v cargo >/dev/null && [ -x "$MOUNT_RCHFS" ]; then
    say "no cargo here; installing what was built already"
else
    build_release
fi
parent=$(dirname "$dest")
mkdir -p "$parent" 2>/dev/null || true
if [ ! -w "$parent" ]; then
    die "built, but no permission to write to $parent; run: sudo $0 ${1:-} (or use $MOUNT_RCHFS as it is)"
fi
# A new file in the place of the old one: a program that is running cannot be overwritten.
install -m 755 "$(readlink -f "$MOUNT_RCHFS")" "$dest.new"
mv "$dest.new" "$dest"
say "installed $dest"
case $dest in
/sbin/*) say "try: mount -t rchfs embedded /mnt/pool" ;;
*) say "mount(8) looks in /sbin only: 'mount -t rchfs' and fstab need 'ln -s $dest /sbin/mount.rchfs'" ;;
esac
