#!/usr/bin/env bash
# fs.sh [DIR...]: the same jobs on rchfs and on a tmpfs, in turn, and how they compare.
#
# Without DIR it mounts two pools of its own (options of the mount in OPTIONS), one that is served through
# /dev/fuse and one through io_uring, which it switches on for that; with DIRs it measures those.
# Each round runs every job on each target, one after the other; a ratio is the median, over the rounds, of
# what the target did divided by what tmpfs did just before or after. Environment:
#   LABEL=fs (what the results are called)
#   ROUNDS=3  SECONDS_EACH=2  FILES=20000 (metadata job, in all)  SETS="buffered direct mixed prototype metadata"
# Prints a table, then a line a goal, "ratio NAME VALUE goal OP TARGET ok|missed" (io_uring/NAME of the second pool). Exits 0 whatever the figures.
# Raw results, summary and a plot (SVG) go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${ROUNDS:=3}" "${SECONDS_EACH:=2}" "${FILES:=20000}" "${OPTIONS:=quiet,size=8G}"
: "${SETS:=buffered direct mixed prototype metadata}"
MDBENCH=$TARGET/release/examples/mdbench
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

build_release --bins --example mdbench
begin
results "${LABEL:-fs}"
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"

# Targets: names and directories. tmpfs is always the first.
NAMES=(tmpfs) DIRS=("$WORK/tmpfs")
mkdir "$WORK/tmpfs"
mount -t tmpfs -o size=8g tmpfs "$WORK/tmpfs"
if [ $# -eq 0 ]; then
    mkdir "$WORK/rchfs"
    "$MOUNT_RCHFS" "$WORK/rchfs" -o "$OPTIONS,io_uring=off"
    NAMES+=(rchfs) DIRS+=("$WORK/rchfs")
    if enable_uring; then
        mkdir "$WORK/io_uring"
        "$MOUNT_RCHFS" "$WORK/io_uring" -o "$OPTIONS,io_uring=on"
        NAMES+=(io_uring) DIRS+=("$WORK/io_uring")
    else
        say "this kernel has no FUSE over io_uring: only /dev/fuse is measured" >&2
    fi
fi
for dir in "$@"; do
    [ -w "$dir" ] || die "$dir cannot be written"
    NAMES+=("$(basename "$dir")") DIRS+=("$dir")
done

# note ROUND TARGET JOB JOBS KiB/s operations/s mean-us p99-us
note() { printf '%s\t' "$@" | sed 's/\t$/\n/' >>"$RAW"; }

# every FUNCTION ARGUMENT...: calls it for each target, in an order that turns with the rounds.
every() {
    local i t
    for i in "${!DIRS[@]}"; do
        t=$(((i + ROUND) % ${#DIRS[@]}))
        "$1" "${NAMES[$t]}" "${DIRS[$t]}" "${@:2}"
    done
}

# measure TARGET DIR JOB JOBS FIO-ARGUMENT...
measure() {
    local target=$1 dir=$2 job=$3 jobs=$4 got
    got=$(fio_job "$dir" "$SECONDS_EACH" --numjobs="$jobs" "${@:5}")
    # shellcheck disable=SC2086
    note "$ROUND" "$target" "$job" "$jobs" $got
}

# Files as the jobs of a set want them: written in full, so that no job measures the first touch of pages.
lay_out() {
    local dir=$2 jobs=$3 size=$4
    fio --name=lay --directory="$dir" --filename_format='d$jobnum' --rw=write --bs=1m --size="$size" \
        --numjobs="$jobs" --fallocate=none --ioengine=psync --thread --output=/dev/null
}
clean() { rm -rf "$2"/d[0-9]* "$2"/prototype*; }

rw_jobs() { # SET DIRECT
    local jobs size job
    for jobs in 1 4; do
        if [ "$jobs" -eq 1 ]; then size=512m; else size=256m; fi
        every lay_out "$jobs" "$size"
        # The files stay in whatever cache they are in: a warm one, as they have just been written.
        for job in write:1m read:1m randwrite:4k randread:4k; do
            every measure "$1-${job%:*}-${job#*:}" "$jobs" --filename_format='d$jobnum' --rw="${job%:*}" \
                --bs="${job#*:}" --size="$size" --direct="$2" --invalidate=0
        done
        # And once from the pool itself: the cache is dropped before.
        if [ "$2" = 0 ]; then
            every measure "cold-read-1m" "$jobs" --filename_format='d$jobnum' --rw=read --bs=1m --size="$size" \
                --invalidate=1 --loops=1 --time_based=0 --runtime=0
        fi
        every clean
    done
}

mixed_jobs() {
    local jobs
    for jobs in 1 4; do
        every lay_out "$jobs" 256m
        every measure mixed-4k-70-30 "$jobs" --filename_format='d$jobnum' --rw=randrw --rwmixread=70 --bs=4k \
            --size=256m --invalidate=0
        every measure mixed-direct-4k-70-30 "$jobs" --filename_format='d$jobnum' --rw=randrw --rwmixread=70 --bs=4k \
            --size=256m --direct=1
        every clean
    done
}

# The prototype's own job, letter for letter: on a file that does not exist before, and on one that does.
PROTOTYPE=(--filename=prototype --direct=1 --rw=randwrite --bs=16k --size=2G)
lay_out_prototype() { fio --name=lay --filename="$2/prototype" --rw=write --bs=1m --size=2G --fallocate=none --ioengine=psync --output=/dev/null; }
prototype_jobs() {
    every measure prototype-fresh-16k 10 "${PROTOTYPE[@]}"
    every clean
    every lay_out_prototype
    every measure prototype-16k 10 "${PROTOTYPE[@]}"
    every clean
}

metadata() {
    local target=$1 dir=$2 jobs=$3 name threads ops us
    mkdir -p "$dir/md"
    "$MDBENCH" "$dir/md" "$jobs" "$FILES" >"$WORK/md" || echo "mdbench failed on $target" >&2
    while read -r name threads ops us; do note "$ROUND" "$target" "$name" "$threads" 0 "$ops" "$us" 0; done <"$WORK/md"
    rm -rf "$dir/md"
}

for ROUND in $(seq "$ROUNDS"); do
    for set in $SETS; do
        say "round $ROUND of $ROUNDS: $set" >&2
        case $set in
        buffered) rw_jobs buffered 0 ;;
        direct) rw_jobs direct 1 ;;
        mixed) mixed_jobs ;;
        prototype) prototype_jobs ;;
        metadata) for jobs in 1 4; do every metadata "$jobs"; done ;;
        *) die "unknown set $set" ;;
        esac
    done
done

# Medians of the figures, and of the ratios of each round. Large transfers are shown in MiB/s, the rest in
# thousands of operations a second.
FIGURES=$WORK/figures RATIOS=$WORK/ratios
awk -F'\t' '$5 != "FAIL" { print $2, $3, $4, $6 }' "$RAW" | medians >"$FIGURES"
awk -F'\t' '$5 != "FAIL" { k = $1 SUBSEP $3 SUBSEP $4; v[k, $2] = $6; if ($2 == "tmpfs") base[k] = $6; line[++n] = k SUBSEP $2 }
    END { for (i = 1; i <= n; i++) { split(line[i], a, SUBSEP); k = a[1] SUBSEP a[2] SUBSEP a[3]
        if (a[4] != "tmpfs" && base[k] > 0) print a[4], a[2], a[3], v[k, a[4]] / base[k] } }' "$RAW" | medians >"$RATIOS"
grep -q FAIL "$RAW" && { say "jobs that failed:"; awk -F'\t' '$5 == "FAIL" { print "  " $2, $3, $4 }' "$RAW" | sort -u; } >&2

{
    cat "$RESULTS/$STAMP.machine.txt"
    echo
    awk -v names="${NAMES[*]}" '
        FILENAME == ARGV[1] { f[$2 " " $3, $1] = $4; if (!(($2 " " $3) in seen)) { seen[$2 " " $3]; order[++n] = $2 " " $3 } next }
        { r[$2 " " $3, $1] = $4 }
        function show(job, v) { return job ~ /-1m/ ? sprintf("%.0f MiB/s", v) : sprintf("%.1f k/s", v / 1000) }
        END {
            c = split(names, t, " "); printf "%-24s %4s %14s", "job", "jobs", t[1]
            for (i = 2; i <= c; i++) printf " %14s %6s", t[i], "ratio"
            print ""
            for (k = 1; k <= n; k++) { split(order[k], a, " "); printf "%-24s %4s %14s", a[1], a[2], show(a[1], f[order[k], t[1]])
                for (i = 2; i <= c; i++) printf " %14s %6.2f", show(a[1], f[order[k], t[i]]), r[order[k], t[i]]
                print "" } }' "$FIGURES" "$RATIOS"
    echo
    # The goals hold for the first target that is not tmpfs, and for the pool behind io_uring.
    for target in "${NAMES[1]}" $([[ " ${NAMES[*]:2} " == *" io_uring "* ]] && echo io_uring); do
        [ "$target" = "${NAMES[1]}" ] && prefix="" || prefix=$target/
        awk -v target="$target" -v prefix="$prefix" '
            NR == FNR { if ($1 == target) r[$2 "-" $3] = $4; next }
            /^#/ || NF < 2 { next }
            { if (!($1 in r)) next
              printf "ratio %s%s %.3f goal >= %s %s\n", prefix, $1, r[$1], $2, (r[$1] >= $2) ? "ok" : "missed" }' "$RATIOS" "$HERE/fs.goals"
    done
} | tee "$RESULTS/$STAMP.txt"

# The last target is plotted: the pool behind io_uring, where there is one.
shown=${NAMES[-1]}
awk -v target="$shown" '
    NR == FNR { if ($1 !~ /^#/ && NF > 1) goal[$1] = $2; next }
    $1 == target { print $2 "-" $3, $4, ($2 "-" $3) in goal ? goal[$2 "-" $3] : 0 }' "$HERE/fs.goals" "$RATIOS" |
    awk -v title="$shown as a ratio to tmpfs, $(head -1 "$RESULTS/$STAMP.machine.txt")" -f "$HERE/bars.awk" >"$RESULTS/$STAMP.svg"
say
say "raw results, this text and a plot: $RESULTS/$STAMP.{tsv,txt,svg}"
