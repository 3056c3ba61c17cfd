#!/usr/bin/env bash
# clone.sh: copies a tree of many small files and a large file with `rcmp clone`, `cp`, and `cp` without sharing; and such a
# tree of a cluster, half of it made by the mount that clones it and half by a mount in another rack, which looks at files
# that have nothing to do with it meanwhile.
#
# Prints the seconds of each, and "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures are. Environment:
#   ENTRIES=100000 (in directories of 100)  LARGE=1G (bytes of the large file)  STATE=1 (keep names in a store on disk)
#   EMBEDDED=1 CLUSTER=1 (what is measured; empty for not)  ROUNDS=3 (clones in the cluster)
# Raw results go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${ENTRIES:=100000}" "${LARGE:=1G}" "${STATE:=}" "${EMBEDDED=1}" "${CLUSTER=1}" "${ROUNDS:=3}"
build_release -p master -p daemon -p rchfs -p pool --bins --example mdbench
begin
results clone
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"
RCMP=$TARGET/release/rcmp
MDBENCH=$TARGET/release/examples/mdbench

note() { printf '%s\t%s\n' "$@" | tee -a "$RAW"; }
# timed NAME COMMAND...: how long the command takes, in seconds.
timed() {
    local name=$1 from to
    shift
    from=$(date +%s.%N)
    "$@"
    to=$(date +%s.%N)
    note "$name" "$(awk -v a="$from" -v b="$to" 'BEGIN { printf "%.3f", b - a }')"
}
# The median of all that was noted under a name.
value() { awk -F'\t' -v name="$1" '$1 == name { print "x", $2 }' "$RAW" | medians | cut -d' ' -f2; }
goal() { awk -v n="$1" -v v="$2" -v op="$3" -v t="$4" 'BEGIN {
    printf "ratio %s %.3f goal %s %s %s\n", n, v, op, t, ((op == "<" ? v < t : v > t) ? "ok" : "missed") }'; }

# make_tree DIR FIRST END: these directories, of 100 files each.
make_tree() {
    local d
    for ((d = $2; d < $3; d++)); do
        mkdir -p "$1/$d"
        (cd "$1/$d" && seq 100 | split -l 1 -a 2 - f)
    done
}
DIRS=$((ENTRIES / 101))

embedded() {
    local dir=$WORK/mnt options=size=8G,quiet
    mkdir "$dir"
    [ -z "$STATE" ] || options=$options,cxl=$WORK/pool.img,state=$WORK/state
    "$MOUNT_RCHFS" "$dir" -o "$options"
    say "making $ENTRIES entries of a file or a directory ..."
    make_tree "$dir/tree" 0 "$DIRS"
    head -c "$LARGE" /dev/zero >"$dir/large"
    sync -f "$dir"
    timed clone_tree "$RCMP" clone "$dir/tree" "$dir/clone"
    timed cp_tree cp -a "$dir/tree" "$dir/copy"
    timed clone_large cp "$dir/large" "$dir/large2"
    timed copy_large cp --reflink=never --sparse=never "$dir/large" "$dir/large3"
    say "entries in the clone: $(find "$dir/clone" | wc -l)"
    diff -rq "$dir/tree" "$dir/clone" && say "the clone is equal"
    df -h "$dir"
    umount "$dir"
    goal clone_tree_seconds "$(value clone_tree)" "<" 1
    goal cp_tree/clone_tree "$(awk -v a="$(value cp_tree)" -v b="$(value clone_tree)" 'BEGIN { print a / b }')" ">" 1
}

# cluster_round N: clones the tree, while another mount looks at files that it has not seen yet. Some files of the tree are
# touched before, on the mount that made them.
cluster_round() {
    local looks=$WORK/looks.$1 from files=40000
    mkfifo "$WORK/until.$1"
    "$MDBENCH" fill "$WORK/maker/unrelated$1" "$files" 0
    sync -f "$WORK/maker"
    umount "$WORK/maker"
    "$MOUNT_RCHFS" "$MASTER" "$WORK/maker" -o rack=1
    find "$WORK/other/tree" -name f?a -exec touch {} +
    sync -f "$WORK/other"
    sync -f "$WORK/shared"
    "$MDBENCH" worst "$WORK/other/unrelated$1" "$files" <"$WORK/until.$1" >"$looks" &
    exec 9>"$WORK/until.$1"
    sleep 0.5
    timed cluster_clone_tree "$RCMP" clone "$WORK/shared/tree" "$WORK/shared/clone$1"
    exec 9>&-
    wait $!
    read -r from <"$looks"
    note "cluster_longest_stat" "${from%% *}"
    say "longest, median and number of the other mount's looks, in ms: $from"
}

in_cluster() {
    mkdir "$WORK/shared" "$WORK/other" "$WORK/maker"
    SIZE=2G PAGE_SIZE=16K cluster shared-pool up 2
    MASTER=$(master_of shared-pool)
    "$MOUNT_RCHFS" "$MASTER" "$WORK/shared" -o rack=0
    "$MOUNT_RCHFS" "$MASTER" "$WORK/other" -o rack=1
    "$MOUNT_RCHFS" "$MASTER" "$WORK/maker" -o rack=1
    say "making $ENTRIES entries in a cluster, by two mounts ..."
    make_tree "$WORK/shared/tree" 0 "$((DIRS / 2))"
    make_tree "$WORK/other/tree" "$((DIRS / 2))" "$DIRS"
    local round
    for ((round = 1; round <= ROUNDS; round++)); do
        cluster_round "$round"
    done
    say "entries in the clone: $(find "$WORK/other/clone$ROUNDS" | wc -l)"
    diff -rq "$WORK/shared/tree" "$WORK/other/clone$ROUNDS" && say "the clone is equal"
    goal cluster_clone_tree_seconds "$(value cluster_clone_tree)" "<" 1
    goal cluster_longest_stat_ms "$(value cluster_longest_stat)" "<" 100
}

[ -z "$EMBEDDED" ] || embedded
[ -z "$CLUSTER" ] || in_cluster
