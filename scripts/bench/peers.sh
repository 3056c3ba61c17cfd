#!/usr/bin/env bash
# peers.sh: rchfs beside what one would use instead: the jobs of fs.sh, in one run, on
#   tmpfs  rchfs (embedded)  rchfs-cluster (a mount of a cluster of two racks)  moosefs  glusterfs
# All of them keep their data in memory, on this machine. Takes root; installs fio, MooseFS and GlusterFS if they are missing.
# Environment:
#   ROUNDS=3  SECONDS_EACH=2  FILES=20000  SETS="buffered direct mixed prototype metadata"   as for fs.sh
#   SIZE=6G (memory of each rack, taken as it is used)  PEERS="moosefs glusterfs"
# Prints the table of fs.sh, then a line a goal, "ratio NAME VALUE goal OP TARGET ok|missed": on every job at least as fast as
# each peer, on random 4k and on metadata twice as fast. Where tmpfs itself is not that far ahead of the peer, because the kernel
# answers from its caches whoever keeps the files, a missed goal says so: "missed, tmpfs VALUE". Exits 0 whatever the figures.
# Raw results, summary and plots (SVG) go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/netfs.sh"
case ${1:-} in -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${SIZE:=6G}" "${PEERS:=moosefs glusterfs}" "${PAGE_SIZE:=4K}"
export PAGE_SIZE
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ "$(id -u)" -eq 0 ] || die "this mounts file systems and makes a network namespace, which takes root"
packages=(fio:fio ip:iproute2 setfattr:attr)
for peer in $PEERS; do
    case $peer in
    moosefs) packages+=(mfsmaster:moosefs-master mfschunkserver:moosefs-chunkserver mfsmount:moosefs-client) ;;
    glusterfs) packages+=(glusterfsd:glusterfs-server glusterfs:glusterfs-client) ;;
    *) die "$peer is no peer; moosefs and glusterfs are" ;;
    esac
done
need "${packages[@]}"
build_release -p pool -p daemon -p master --bins

begin # sets WORK, and unmounts what is under it in the end
all_ended() {
    finish_mounts
    [ ! -d "$WORK/cluster" ] || cluster cluster down || true
    netfs_end
    rm -rf --one-file-system "$WORK"
}
trap all_ended EXIT

enable_uring || say "this kernel has no FUSE over io_uring: rchfs is measured through /dev/fuse" >&2
mkdir "$WORK"/{rchfs,rchfs-cluster}
"$MOUNT_RCHFS" "$WORK/rchfs" -o quiet,size=8G
cluster cluster up 2
"$MOUNT_RCHFS" "$(master_of cluster)" "$WORK/rchfs-cluster" -o rack=0
targets=("$WORK/rchfs" "$WORK/rchfs-cluster")
netfs_begin
for peer in $PEERS; do
    mkdir "$WORK/$peer"
    case $peer in moosefs) moosefs "$WORK/$peer" ;; glusterfs) glusterfs_mount "$WORK/$peer" ;; esac
    targets+=("$WORK/$peer")
done

results peers
LABEL=peers "$HERE/fs.sh" "${targets[@]}" | sed '/^ratio /d'

# Ratios within a round of each of ours to each peer, and their medians over the rounds.
RATIOS=$WORK/ratios
awk -F'\t' -v peers="$PEERS" '
    $5 != "FAIL" { k = $1 SUBSEP $3 "-" $4; v[k, $2] = $6; seen[k] }
    END { n = split(peers, p, " "); m = split("rchfs rchfs-cluster tmpfs", ours, " ")
        for (k in seen) { split(k, a, SUBSEP); for (i = 1; i <= m; i++) for (j = 1; j <= n; j++)
            if (v[k, p[j]] > 0 && v[k, ours[i]] > 0) print ours[i] "-to-" p[j] "-" a[2], v[k, ours[i]] / v[k, p[j]] } }' \
    "$RESULTS/$STAMP.tsv" | sort | medians >"$RATIOS"
# Twice as fast: accesses of 4k at random places, and what metadata jobs do.
awk 'NR == FNR { if (sub(/^tmpfs-/, "", $1)) tmpfs[$1] = $2; next }
    /^tmpfs-/ { next }
    { goal = ($1 ~ /rand(read|write)-4k/ || $1 !~ /-(buffered|direct|cold|mixed|prototype)-/) ? 2 : 1
    job = $1; sub(/^rchfs(-cluster)?-/, "", job)
    said = ($2 >= goal) ? "ok" : (tmpfs[job] < goal) ? sprintf("missed, tmpfs %.3f", tmpfs[job]) : "missed"
    printf "ratio %s %.3f goal >= %s %s\n", $1, $2, goal, said
    print $1, $2, goal > plot }' plot="$WORK/plot" "$RATIOS" "$RATIOS" | tee -a "$RESULTS/$STAMP.txt"
for peer in $PEERS; do
    sed -n "s/^rchfs-cluster-to-$peer-//p" "$WORK/plot" |
        awk -v title="rchfs-cluster as a ratio to $peer, $(head -1 "$RESULTS/$STAMP.machine.txt")" -v most=12 -f "$HERE/bars.awk" \
            >"$RESULTS/$STAMP.$peer.svg"
done
say
say "raw results, this text and plots: $RESULTS/$STAMP.*"
