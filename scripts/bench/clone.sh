#!/usr/bin/env bash
# clone.sh: copies a tree of many small files and a large file with `rcmp clone`, `cp`, and `cp` without sharing.
#
# Prints the seconds of each, and "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures are. Environment:
#   ENTRIES=100000 (in directories of 100)  LARGE=1G (bytes of the large file)  STATE=1 (keep names in a store on disk)
# Raw results go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${ENTRIES:=100000}" "${LARGE:=1G}" "${STATE:=}"
build_release -p pool --bins
begin
results clone
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"
DIR=$WORK/mnt
mkdir "$DIR"
options=size=8G,quiet
[ -z "$STATE" ] || options=$options,cxl=$WORK/pool.img,state=$WORK/state
"$MOUNT_RCHFS" "$DIR" -o "$options"

# timed NAME COMMAND...: how long the command takes, in seconds.
timed() {
    local name=$1 from to
    shift
    from=$(date +%s.%N)
    "$@"
    to=$(date +%s.%N)
    awk -v name="$name" -v a="$from" -v b="$to" 'BEGIN { printf "%s\t%.3f\n", name, b - a }' | tee -a "$RAW"
}
seconds() { awk -F'\t' -v name="$1" '$1 == name { print $2 }' "$RAW"; }

make_tree() {
    local dirs=$((ENTRIES / 101)) d
    for ((d = 0; d < dirs; d++)); do
        mkdir -p "$DIR/tree/$d"
        (cd "$DIR/tree/$d" && seq 100 | split -l 1 -a 2 - f)
    done
}
say "making $ENTRIES entries of a file or a directory ..."
make_tree
head -c "$LARGE" /dev/zero >"$DIR/large"
sync -f "$DIR"

timed clone_tree "$TARGET/release/rcmp" clone "$DIR/tree" "$DIR/clone"
timed cp_tree cp -a "$DIR/tree" "$DIR/copy"
timed clone_large cp "$DIR/large" "$DIR/large2"
timed copy_large cp --reflink=never --sparse=never "$DIR/large" "$DIR/large3"
say "entries in the clone: $(find "$DIR/clone" | wc -l)"
diff -rq "$DIR/tree" "$DIR/clone" && say "the clone is equal"
df -h "$DIR"
awk -v s="$(seconds clone_tree)" 'BEGIN { printf "ratio clone_tree_seconds %.3f goal < 1 %s\n", s, (s < 1 ? "ok" : "missed") }'
awk -v s="$(seconds clone_tree)" -v c="$(seconds cp_tree)" 'BEGIN { printf "ratio cp_tree/clone_tree %.1f goal > 1 %s\n", c / s, (c > s ? "ok" : "missed") }'
