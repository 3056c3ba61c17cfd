#!/usr/bin/env bash
# page_sizes.sh: what the page size of the pool costs and gains. Mounts a pool of each page size in turn and prints
# speed (1M and 4k, direct, so that the pool and not the kernel's cache is measured) and the memory that many small
# files take. Environment:
#   PAGE_SIZES="4K 16K 64K 256K 2M"  ROUNDS=3  SECONDS_EACH=1  FILES=20000 (small files of each size)
# Ends with "ratio" lines for the goal: a file of n bytes costs at most n rounded up to 4 KiB, plus 1 KiB; it
# holds for the default page size, the first of PAGE_SIZES. Results go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${PAGE_SIZES:=4K 16K 64K 256K 2M}" "${ROUNDS:=3}" "${SECONDS_EACH:=1}" "${FILES:=20000}"
SMALL="100 5000"
MDBENCH=$TARGET/release/examples/mdbench

build_release --bins --example mdbench
begin
results page_sizes
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"
mnt=$WORK/pool
mkdir "$mnt"

# The process that serves $mnt: the one that was started with it as an argument.
server() { pgrep -f -- "$MOUNT_RCHFS $mnt " | head -1; }
mount_pool() { "$MOUNT_RCHFS" "$mnt" -o "quiet,size=$1,page_size=$2"; }
unmount_pool() {
    local pid
    pid=$(server)
    umount "$mnt"
    while [ -n "$pid" ] && [ -e "/proc/$pid/status" ] && ! grep -q 'State:.Z' "/proc/$pid/status"; do sleep 0.05; done
}

speed() { # PAGE ROUND
    local job got
    mount_pool 4G "$1"
    fio --name=lay --directory="$mnt" --filename=d --rw=write --bs=1m --size=512m --fallocate=none --output=/dev/null
    for job in write:1m read:1m randwrite:4k randread:4k; do
        got=$(fio_job "$mnt" "$SECONDS_EACH" --filename=d --rw="${job%:*}" --bs="${job#*:}" --size=512m --direct=1)
        # shellcheck disable=SC2086
        printf '%s\t' "$2" "$1" "${job%:*}-${job#*:}" $got >>"$RAW"
        echo >>"$RAW"
    done
    unmount_pool
}

# Bytes that the process has to itself, so without the pool (which is shared memory).
own_memory() { awk '/^RssAnon/ { print $2 * 1024 }' "/proc/$(server)/status"; }
pool_used() { stat -f -c '%S %b %f' "$mnt" | awk '{ printf "%.0f\n", $1 * ($2 - $3) }'; }

memory() { # PAGE BYTES: bytes of pool and of process that a file takes
    local pool own size
    # Room for one page a file and then some, whatever the page.
    size=$(awk -v p="$1" -v n="$FILES" 'BEGIN { u = p ~ /M$/ ? 1024 : 1; print int(p) * u * n * 1.5 + 65536 "K" }')
    mount_pool "$size" "$1" || { echo "skipping files of $2 bytes in pages of $1: $size is too much here" >&2; return; }
    "$MDBENCH" fill "$mnt/warm" 1000 "$2"
    sync -f "$mnt"
    pool=$(pool_used) own=$(own_memory)
    "$MDBENCH" fill "$mnt/files" "$FILES" "$2"
    sync -f "$mnt"
    pool=$((($(pool_used) - pool) / FILES)) own=$((($(own_memory) - own) / FILES))
    printf '1\t%s\tmemory-%s\t%s\t%s\n' "$1" "$2" "$pool" "$own" >>"$RAW"
    unmount_pool
}

for round in $(seq "$ROUNDS"); do
    for page in $PAGE_SIZES; do
        say "round $round of $ROUNDS: pages of $page" >&2
        speed "$page" "$round"
    done
done
for page in $PAGE_SIZES; do
    for bytes in $SMALL; do memory "$page" "$bytes"; done
done

{
    cat "$RESULTS/$STAMP.machine.txt"
    echo
    awk -F'\t' '/memory/ { next } $4 != "FAIL" { print $2, $3, ($3 ~ /1m/) ? $4 / 1024 : $5 }' "$RAW" | medians |
        awk -v pages="$PAGE_SIZES" -v small="$SMALL" '
            NR == FNR { v[$1, $2] = $3; next }
            { pool[$2, $3] = $4; own[$2, $3] = $5 }
            END { n = split(pages, p, " "); m = split(small, s, " ")
                printf "%-6s %13s %13s %13s %13s", "page", "write 1M", "read 1M", "write 4k", "read 4k"
                for (j = 1; j <= m; j++) printf "  %26s", "file of " s[j] " B: pool+own"
                print ""
                for (i = 1; i <= n; i++) { k = p[i]
                    printf "%-6s %7.0f MiB/s %7.0f MiB/s %9.1f k/s %9.1f k/s", k, v[k, "write-1m"], v[k, "read-1m"], v[k, "randwrite-4k"] / 1000, v[k, "randread-4k"] / 1000
                    for (j = 1; j <= m; j++) printf "  %26s", ((k, "memory-" s[j]) in pool) ? pool[k, "memory-" s[j]] " + " own[k, "memory-" s[j]] : "-"
                    print "" } }' - "$RAW"
    echo
    awk -F'\t' -v page="${PAGE_SIZES%% *}" '$2 == page && sub(/^memory-/, "", $3) {
        most = int(($3 + 4095) / 4096) * 4096 + 1024; r = ($4 + $5) / most
        printf "ratio small-file-%sB-cost-to-allowed %.3f goal <= 1 %s\n", $3, r, r <= 1 ? "ok" : "missed" }' "$RAW"
} | tee "$RESULTS/$STAMP.txt"
say
say "raw results and this text: $RESULTS/$STAMP.{tsv,txt}"
