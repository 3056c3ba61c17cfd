#!/usr/bin/env bash
# mounts.sh: a mount of a cluster (master on loopback) beside the embedded mount and a bare round trip on loopback.
#
# Prints microseconds an operation on names for 1 and 4 threads, seconds to copy in and remove a tree of small files,
# messages to the master an operation and a file, the master's memory a file, and what fio does on either mount; then
# lines "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures are. Both mounts have pages of 16K and
# use io_uring where the kernel has it.
#
# Names. To make, rename and remove a file, and to open one that the mount knows nothing of, each has to ask the master:
# by as few messages as can be, each as cheap as the machine lets it be. Both are measured, and each has a goal.
#   OP-embedded/round_trip   how much longer the operation takes than on the embedded mount, which does the same work and
#                            sends nothing, over a bare round trip: 64 bytes between two threads that block, of as many
#                            pairs at once as there are threads, since with more threads than processors each waits for others
#   OP-messages              messages to the master (attribute trusted.rchfs.messages of the mount) an operation
#   OP/round_trip            for information: all that the operation takes, with what it takes on any FUSE mount
# Environment:
#   FILES=2000 (of each thread)  TREE=100000 (small files copied)  FILL=0 (as many files are made in the end, to see what
#   memory the master needs: 100000 one by one, the others as clones of their tree)
#   ROUNDS=3  SECONDS_EACH=2 (of each fio job)  OPTIONS= (further options of both mounts)
# Raw results go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${FILES:=2000}" "${TREE:=100000}" "${FILL:=0}" "${ROUNDS:=3}" "${SECONDS_EACH:=2}" "${OPTIONS:=}"
need getfattr:attr
build_release -p master -p daemon -p rchfs -p pool --bins --example mdbench --example tcp_floor
begin
results mounts
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"
MDBENCH=$TARGET/release/examples/mdbench
enable_uring || say "this kernel has no FUSE over io_uring" >&2

mkdir "$WORK/embedded" "$WORK/shared" "$WORK/other" "$WORK/far" "$WORK/writeback"
SIZE=3G PAGE_SIZE=16K cluster shared-pool up 2
MASTER=$(master_of shared-pool)
MASTER_PID=$(cut -d' ' -f1 "$WORK/shared-pool/master.pid")
"$MOUNT_RCHFS" "$WORK/embedded" -o "quiet,size=3G,page_size=16K${OPTIONS:+,$OPTIONS}"
"$MOUNT_RCHFS" "$MASTER" "$WORK/shared" -o "rack=0${OPTIONS:+,$OPTIONS}"
"$MOUNT_RCHFS" "$MASTER" "$WORK/other" -o rack=1
"$MOUNT_RCHFS" "$MASTER" "$WORK/far" -o rack=0,cxl=none
"$MOUNT_RCHFS" "$MASTER" "$WORK/writeback" -o "rack=0,cache=writeback${OPTIONS:+,$OPTIONS}"

note() { printf '%s\t%s\t%s\t%s\n' "$@" | tee -a "$RAW"; }
# The median of all rounds; of what is measured once, that.
value() {
    awk -F'\t' -v n="$1" -v w="$2" -v t="$3" '$1 == n && $2 == w && $3 == t { print "it", $4 }' "$RAW" | medians | cut -d' ' -f2
}
# Messages about files that the mount has sent to the master so far.
messages() { getfattr --absolute-names --only-values -n trusted.rchfs.messages "$WORK/shared"; }

# A bare round trip of 64 bytes between two threads that block, $1 pairs of them at once, in microseconds.
round_trip() { "$TARGET/release/examples/tcp_floor" 2 "$1" | awk '$1 == "bare" { print $2 }'; }

# What mdbench counts on mount $1: it takes the attribute's name.
counter() { [ "$1" = embedded ] || echo trusted.rchfs.messages; }

# One round: the bare round trip, then both mounts, for 1 and for 4 threads. Of files that the mount knows nothing of: what
# the kernel forgets, the mount gives back a moment later.
NAMES="create+close open+read4k+close rename unlink"
UNKNOWN=open+read4k+close-unknown
for ((round = 1; round <= ROUNDS; round++)); do
    for threads in 1 4; do
        note "round trip" loopback "$threads" "$(round_trip "$threads")"
        for where in embedded shared; do
            mkdir "$WORK/$where/md"
            # shellcheck disable=SC2046 # no word or one
            "$MDBENCH" "$WORK/$where/md" "$threads" "$((FILES * threads))" $(counter "$where") |
                awk -v w="$where" -v t="$threads" '{ printf "%s\t%s\t%s\t%s\n", $1, w, t, $4
                    if (NF > 4) printf "%s messages\t%s\t%s\t%s\n", $1, w, t, $5 }' | tee -a "$RAW"
            rm -rf "$WORK/$where/md"
            "$MDBENCH" fill "$WORK/$where/unknown" "$((FILES * threads))" 4096
            sync
            echo 3 >/proc/sys/vm/drop_caches
            sleep 2
            # shellcheck disable=SC2046
            read -r took sent < <("$MDBENCH" read "$WORK/$where/unknown" "$((FILES * threads))" "$threads" $(counter "$where"))
            note "$UNKNOWN" "$where" "$threads" "$took"
            [ "$where" = embedded ] || note "$UNKNOWN messages" "$where" "$threads" "$sent"
            rm -rf "$WORK/$where/unknown"
        done
    done
done

# timed NAME WHERE COMMAND...: seconds that the command takes, and the messages that it costs.
timed() {
    local name=$1 where=$2 from to sent=0
    shift 2
    [ "$where" = embedded ] || sent=$(messages)
    from=$(date +%s.%N)
    "$@"
    to=$(date +%s.%N)
    note "$name" "$where" 1 "$(awk -v a="$from" -v b="$to" 'BEGIN { printf "%.3f", b - a }')"
    [ "$where" = embedded ] ||
        note "$name messages a file" "$where" 1 "$(awk -v a="$sent" -v b="$(messages)" -v n="$TREE" 'BEGIN { printf "%.2f", (b - a) / n }')"
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
    [ "$where" = embedded ] || note "master memory a file" shared 1 "$(((($(rss) - before)) / TREE))"
done

# Looking at what is held again sends nothing. (find(1) would ask statfs(2), whose counts nobody holds.)
look() { cat "$WORK/shared/tree/0"/* >/dev/null; ls -lR "$WORK/shared/tree/0" >/dev/null; }
look; look; sleep 1
sent=$(messages)
look
HELD=$(($(messages) - sent))
note "messages to look at what is held" shared 1 "$HELD"

for where in embedded shared; do
    timed rm-rf "$where" rm -rf "$WORK/$where/tree"
done
# Data of a file that no other mount uses: the mounts in turn. "far" has no CXL: its data goes through the daemon.
# The kernel of "writeback" collects what is written.
for where in embedded shared writeback far; do
    fio --name=lay --filename="$WORK/$where/data-$where" --rw=write --bs=1m --size=256m --fallocate=none --output=/dev/null
done
JOBS="read-4k read-1m write-4k write-1m direct-read-4k direct-read-1m direct-write-4k direct-write-1m"
for ((round = 1; round <= ROUNDS; round++)); do
    for job in $JOBS; do
        how=${job#direct-} direct=0
        [ "$how" = "$job" ] || direct=1
        for where in embedded shared writeback far; do
            got=$(fio_job "$WORK/$where" "$SECONDS_EACH" --filename="data-$where" --size=256m --direct="$direct" \
                --rw="$([ "${how#*-}" = 4k ] && echo rand)${how%-*}" --bs="${how#*-}")
            note "$job" "$where" "$round" "$(cut -d' ' -f1 <<<"$got")"
        done
    done
done

ratio() { awk -v n="$1" -v v="$2" -v op="$3" -v t="$4" 'BEGIN {
    ok = op == "<" ? v < t : op == "<=" ? v <= t : v > t
    printf "ratio %s %.2f goal %s %s %s\n", n, v, op, t, (ok ? "ok" : "missed") }'; }
divide() { awk -v a="$1" -v b="$2" 'BEGIN { print (b > 0 ? a / b : 0) }'; }
for threads in 1 4; do
    bare=$(value "round trip" loopback "$threads")
    for op in create+close rename unlink "$UNKNOWN"; do
        shared=$(value "$op" shared "$threads")
        ratio "$op-embedded/round_trip-$threads" \
            "$(divide "$(awk -v a="$shared" -v b="$(value "$op" embedded "$threads")" 'BEGIN { print a - b }')" "$bare")" "<" 1.5
        ratio "$op-messages-$threads" "$(value "$op messages" shared "$threads")" "<=" 1.5
    done
    for op in $NAMES "$UNKNOWN"; do
        printf 'information %s/round_trip-%s %.2f\n' "$op" "$threads" "$(divide "$(value "$op" shared "$threads")" "$bare")"
    done
done
for op in cp-a rm-rf; do
    ratio "$op/embedded" "$(divide "$(value "$op" shared 1)" "$(value "$op" embedded 1)")" "<" 2
done
ratio messages_for_what_is_held "$HELD" "<" 1
for job in $JOBS; do
    for ((round = 1; round <= ROUNDS; round++)); do
        divide "$(value "$job" shared "$round")" "$(value "$job" embedded "$round")"
    done | sed "s|^|$job |" | medians | while read -r name middle; do ratio "$name/embedded" "$middle" ">" 0.9; done
done
for job in $JOBS; do
    for ((round = 1; round <= ROUNDS; round++)); do
        divide "$(value "$job" writeback "$round")" "$(value "$job" embedded "$round")"
    done | sed "s|^|$job |" | medians | while read -r name middle; do ratio "${name}_writeback/embedded" "$middle" ">" 0.9; done
done
# Microseconds of 4 KiB are 4e6 by KiB/s.
for op in read write; do
    ratio "${op}_1m_without_cxl/with" "$(divide "$(value "direct-$op-1m" far 1)" "$(value "direct-$op-1m" shared 1)")" ">" 0.3
    ratio "${op}_4k_without_cxl-with/round_trip" "$(awk -v f="$(value "direct-$op-4k" far 1)" \
        -v s="$(value "direct-$op-4k" shared 1)" -v r="$(value "round trip" loopback 1)" \
        'BEGIN { print (f * s > 0 ? (4e6 / f - 4e6 / s) / r : 0) }')" "<" 2
done
if [ "$FILL" -gt 0 ]; then
    FIRST=$((FILL < 100000 ? FILL : 100000)) MADE=0
    mkdir "$WORK/shared/fill"
    for ((i = 0; MADE + FIRST <= FILL; i++)); do
        if [ "$i" -eq 0 ]; then
            for ((d = 0; d < FIRST / 1000; d++)); do "$MDBENCH" fill "$WORK/shared/fill/0/$d" 1000 0; done
        else
            "$TARGET/release/rcmp" clone "$WORK/shared/fill/0" "$WORK/shared/fill/$i"
        fi
        MADE=$((MADE + FIRST))
    done
    note "master memory" "$MADE files" 1 "$(rss)"
    awk -v b="$(rss)" -v n="$MADE" 'BEGIN {
        g = b / 2 ^ 30
        printf "ratio master_gib_for_%d_files %.2f goal < 8 %s\n", n, g, (g < 8 ? "ok" : "missed") }'
fi
