#!/usr/bin/env bash
# mounts.sh: metadata through a master on loopback, beside the embedded mount and a bare round trip on loopback; and data of a
# mount without CXL beside one with it.
#
# Prints microseconds an operation for 1 and 4 threads, seconds to copy in and remove a tree of small files, the master's
# memory a file, and "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures are. Environment:
#   FILES=2000 (of each thread)  SECONDS_DATA=4  TREE=100000 (small files copied)  FILL=0 (files made to see what the master needs)
# Raw results go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${FILES:=2000}" "${TREE:=100000}" "${FILL:=0}"
build_release -p master -p daemon -p rchfs -p pool --bins
build_release -p rchfs --example mdbench
build_release -p pool --example tcp_floor
begin
results mounts
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"
MDBENCH=$TARGET/release/examples/mdbench

cluster() {
    RCHFS_CLUSTER_DIR=$WORK/cluster RCHFS_BIN_DIR=$TARGET/release SIZE=2G PAGE_SIZE=16K \
        "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh" "$@" >/dev/null
}
mkdir "$WORK/embedded" "$WORK/shared" "$WORK/other" "$WORK/far"
ended() {
    for dir in shared other far; do umount "$WORK/$dir" 2>/dev/null || true; done
    cluster down || true
    finish
}
trap ended EXIT
cluster up 2
MASTER=$(sed -n 's/.*listening on \([^, ]*\).*/\1/p' "$WORK/cluster/master.log" | head -1)
MASTER_PID=$(cut -d' ' -f1 "$WORK/cluster/master.pid")
"$MOUNT_RCHFS" "$WORK/embedded" -o quiet,size=2G
"$MOUNT_RCHFS" "$MASTER" "$WORK/shared" -o rack=0
"$MOUNT_RCHFS" "$MASTER" "$WORK/other" -o rack=1
"$MOUNT_RCHFS" "$MASTER" "$WORK/far" -o rack=0,cxl=none

# A bare round trip of 64 bytes between two threads that block, in microseconds.
RTT=$("$TARGET/release/examples/tcp_floor" 2 | awk '$1 == "bare" { a[n++] = $2 } END { print a[int(n / 2)] }')
printf 'round trip\tloopback\t1\t%s\n' "$RTT" | tee -a "$RAW"
for threads in 1 4; do
    for where in embedded shared; do
        mkdir "$WORK/$where/md"
        "$MDBENCH" "$WORK/$where/md" "$threads" "$FILES" |
            awk -v w="$where" -v t="$threads" '{ printf "%s\t%s\t%s\t%s\n", $1, w, t, $NF }' | tee -a "$RAW"
        rm -rf "$WORK/$where/md"
    done
done

# Data with and without CXL, past the kernel's cache: MiB/s of 1 MiB at a time, microseconds of 4 KiB at a time.
for where in shared far; do
    dd if=/dev/zero of="$WORK/$where/data-$where" bs=1M count=256 status=none
    for rw in read write; do
        for bs in 1m 4k; do
            fio --name=data --filename="$WORK/$where/data-$where" --rw="$rw" --bs="$bs" --size=256M --direct=1 --ioengine=psync \
                --time_based --runtime="${SECONDS_DATA:-4}" --output-format=terse |
                awk -F';' -v n="$rw-$bs" -v w="$where" -v b="$bs" '{
                    kib = $7 + $48; printf "%s\t%s\t1\t%.1f\n", n, w, (b == "4k" ? 4e6 / kib : kib / 1024) }' | tee -a "$RAW"
        done
    done
    rm "$WORK/$where/data-$where"
done

# timed NAME WHERE COMMAND...: seconds that the command takes.
timed() {
    local name=$1 where=$2 from to
    shift 2
    from=$(date +%s.%N)
    "$@"
    to=$(date +%s.%N)
    awk -v n="$name" -v w="$where" -v a="$from" -v b="$to" 'BEGIN { printf "%s\t%s\t1\t%.3f\n", n, w, b - a }' | tee -a "$RAW"
}
mkdir "$WORK/tree"
for ((d = 0; d < TREE / 100; d++)); do
    mkdir "$WORK/tree/$d"
    (cd "$WORK/tree/$d" && seq 100 | split -l 1 -a 2 - f)
done
rss() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$MASTER_PID/status"; }
before=$(rss)
for where in embedded shared; do
    timed cp-a "$where" cp -a "$WORK/tree" "$WORK/$where/tree"
    [ "$where" = embedded ] || awk -v a="$before" -v b="$(rss)" -v n="$TREE" \
        'BEGIN { printf "master memory a file\tshared\t1\t%.0f\n", (b - a) / n }' | tee -a "$RAW"
    timed rm-rf "$where" rm -rf "$WORK/$where/tree"
done
if [ "$FILL" -gt 0 ]; then
    mkdir "$WORK/shared/fill"
    "$MDBENCH" fill "$WORK/shared/fill" "$FILL" 0
    awk -v b="$(rss)" -v n="$FILL" 'BEGIN {
        g = b / 2 ^ 30
        printf "ratio master_gib_for_%d_files %.2f goal < 8 %s\n", n, g, (g < 8 ? "ok" : "missed") }'
fi
value() { awk -F'\t' -v n="$1" -v w="$2" -v t="$3" '$1 == n && $2 == w && $3 == t { print $4 }' "$RAW"; }
for op in read write; do
    awk -v n="$op" -v f="$(value "$op-1m" far 1)" -v s="$(value "$op-1m" shared 1)" -v a="$(value "$op-4k" far 1)" \
        -v c="$(value "$op-4k" shared 1)" -v r="$RTT" 'BEGIN {
        printf "ratio %s_1m_without_cxl/with %.2f goal > 0.3 %s\n", n, f / s, (f > 0.3 * s ? "ok" : "missed")
        printf "ratio %s_4k_without_cxl-with/round_trip %.2f goal < 2 %s\n", n, (a - c) / r, (a - c < 2 * r ? "ok" : "missed") }'
done
for op in create+close open+read4k+close rename unlink; do
    awk -v n="$op" -v a="$(value "$op" shared 1)" -v r="$RTT" 'BEGIN {
        printf "ratio %s/round_trip %.2f goal < 1.5 %s\n", n, a / r, (a < 1.5 * r ? "ok" : "missed") }'
done
for op in cp-a rm-rf; do
    awk -v n="$op" -v s="$(value "$op" shared 1)" -v e="$(value "$op" embedded 1)" 'BEGIN {
        printf "ratio %s_shared/embedded %.2f goal < 2 %s\n", n, s / e, (s < 2 * e ? "ok" : "missed") }'
done
