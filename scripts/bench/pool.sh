#!/usr/bin/env bash
# pool.sh: how fast the pool is, beside what it is made of and what one would use instead, in one run.
#
# It brings up two clusters of two racks on this machine, with and without page swap, and measures
#   in the rack    reads and writes beside the same accesses on a bare mapping
#   messages       a question to the daemon by the ring beside a bare ring; Direct IO beside bare TCP
#   between racks  zipf over two racks with half of the data in the other one, with and without swap
#   idle           the processor time of a cluster that does nothing
#   Redis          GET and SET on loopback, if redis-server is installed
# Environment:
#   ROUNDS=3  SECONDS_EACH=2  SPAN=256M  SIZE=1G (a rack's memory)  SWAP_WARM_UP=5
#   HUGE=1   as root: also with huge pages under the regions; sets the system's shmem_enabled meanwhile
# Prints a table, then a line a goal, "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures.
# Raw results and summary go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${ROUNDS:=3}" "${SECONDS_EACH:=2}" "${SPAN:=256M}" "${SIZE:=1G}" "${SWAP_WARM_UP:=5}" "${HUGE:=0}"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RCMP=$TARGET/release/rcmp
NEVER=1e18 # a watermark that no page reaches
SHMEM=/sys/kernel/mm/transparent_hugepage/shmem_enabled

build_release -p pool -p daemon -p master --bins
build_release -p pool --example ring_floor --example tcp_floor
WORK=$(mktemp -d /tmp/rchfs-bench.XXXXXX)
REDIS= SHMEM_BEFORE=

ended() {
    local name
    for name in on off huge; do
        if [ -d "$WORK/$name" ]; then cluster "$name" down || true; fi
    done
    if [ -n "$REDIS" ]; then
        kill "$REDIS" 2>/dev/null || true
        wait "$REDIS" 2>/dev/null || true
    fi
    [ -z "$SHMEM_BEFORE" ] || echo "$SHMEM_BEFORE" >"$SHMEM"
    rm -rf --one-file-system "$WORK"
}
trap ended EXIT
trap 'exit 130' INT TERM

results pool
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"

# note SET KEY: adds lines of `fields` to the raw results. Columns: round, set, then those of `fields`.
note() { awk -v round="$ROUND" -v set="$1" 'BEGIN { OFS = "\t" } { $1 = $1; print round, set, $0 }' >>"$RAW"; }

# bench CLUSTER ARGUMENT...
bench() {
    local master
    master=$(master_of "$1")
    "$RCMP" bench --master "$master" --json --seconds "$SECONDS_EACH" --span "$SPAN" --pattern zipf "${@:2}"
}

in_rack() { # SET CLUSTER
    bench "$2" --floor --payload 64,4K --threads 1,2 --op read,write | fields | note "$1"
    bench "$2" --floor --payload 64 --op read --dependent | fields | note "$1"
}

# The first number of microseconds or nanoseconds that the example prints, in nanoseconds.
floor_of() {
    local out
    out=$("$TARGET/release/examples/$1")
    printf '%s\n' "$out" | sed "s/^/$1: /" >>"$RESULTS/$STAMP.floors.txt"
    awk '{ for (i = 2; i <= NF; i++) { unit = $i; gsub(/[^a-zµ]/, "", unit); scale = unit == "ns" ? 1 : (unit == "us" || unit == "µs") ? 1000 : 0
        if (scale && $(i - 1) + 0 > 0) { print $(i - 1) * scale; exit } } }' <<<"$out"
}
note_floor() { # SET EXAMPLE
    local ns
    ns=$(floor_of "$2") && [ -n "$ns" ] || die "$2 printed no time"
    awk -v on="$2" -v ns="$ns" 'BEGIN { print on, "round-trip", 64, 1, ns, 1e9 / ns, "-", "-", "-" }' | note "$1"
}

messages() {
    note_floor messages ring_floor
    bench off --op message | fields | note messages
    note_floor messages tcp_floor
    bench off --remote 1 --payload 64 --op read,write | sed 's/"on":"pool"/"on":"direct"/' | fields | note messages
}

# Both racks at once, each with half of its data in the other.
between() { # CLUSTER
    local name rack pids=()
    name=between-$1-$ROUND-$$
    for rack in 0 1; do
        bench "$1" --rack "$rack" --remote 0.5 --remote-rack $((1 - rack)) --parties 2 --barrier "$name" \
            --payload 64 --op read,write --warm-up "$SWAP_WARM_UP" >"$WORK/between.$rack" &
        pids+=($!)
    done
    wait "${pids[0]}" && wait "${pids[1]}" || die "the benchmark between racks failed"
    cat "$WORK/between.0" "$WORK/between.1" | sed "s/\"on\":\"pool\"/\"on\":\"swap-$1\"/" | fields |
        awk '{ k = $1 " " $2 " " $3 " " $4; n[k] += $6; t[k] += $5 * $6; if (!(k in seen)) { seen[k]; order[++c] = k } }
            END { for (i = 1; i <= c; i++) print order[i], t[order[i]] / n[order[i]], n[order[i]], "-", "-", "-" }' | note between
}

ticks() { # of all processes of a cluster
    local file pid rest sum=0
    for file in "$WORK/$1"/*.pid; do
        read -r pid rest <"$file"
        sum=$((sum + $(sed 's/^.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }')))
    done
    echo "$sum"
}
idle() {
    local before after
    sleep 2
    before=$(ticks on)
    sleep 10
    after=$(ticks on)
    awk -v d=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { print "cluster", "idle", 0, 0, d / hz / 10, 0, "-", "-", "-" }' | note idle
}

redis() {
    local port clients
    command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || return 0
    if [ -z "$REDIS" ]; then
        port=$((20000 + RANDOM % 20000))
        redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$WORK" >"$WORK/redis.log" 2>&1 &
        REDIS=$! REDIS_PORT=$port
        for _ in $(seq 100); do redis-cli -p "$port" ping >/dev/null 2>&1 && break || sleep 0.05; done
        kill -0 "$REDIS" 2>/dev/null || { REDIS=; say "redis-server did not start; its part is left out" >&2; return 0; }
    fi
    for clients in 1 32; do
        redis-benchmark -p "$REDIS_PORT" -t get,set -d 64 -r 100000 -n $((clients * 20000)) -c "$clients" --csv 2>/dev/null |
            awk -F'"' -v c="$clients" '$2 == "SET" || $2 == "GET" { print "redis", tolower($2), 64, c, 1e9 * c / $4, $4, "-", "-", "-" }' | note redis
    done
}

cluster on up 2
DAEMON_OPTIONS="--swap-watermark $NEVER" cluster off up 2
if [ "$HUGE" = 1 ]; then
    [ -w "$SHMEM" ] || die "HUGE=1 takes root"
    SHMEM_BEFORE=$(sed 's/.*\[\(.*\)\].*/\1/' "$SHMEM")
    echo advise >"$SHMEM"
    DAEMON_OPTIONS="--swap-watermark $NEVER" cluster huge up 1
fi
for ROUND in $(seq "$ROUNDS"); do
    for step in "in_rack rack off" messages "between on" "between off" redis; do
        say "round $ROUND of $ROUNDS: $step" >&2
        # shellcheck disable=SC2086
        $step
    done
    [ "$HUGE" != 1 ] || in_rack huge huge
done
ROUND=1
say "idle" >&2
idle
"$RCMP" status --master "$(master_of on)" >"$RESULTS/$STAMP.status.txt"

# Columns of RAW: 1 round, 2 set, 3 on, 4 operation, 5 payload, 6 threads, 7 mean ns, 8 per second, 9-11 percentiles.
FIGURES=$WORK/figures RATIOS=$WORK/ratios
awk -F'\t' '{ print $2, $3, $4, $5, $6, "mean", $7; print $2, $3, $4, $5, $6, "rate", $8
        if ($9 != "-") { print $2, $3, $4, $5, $6, "p50", $9; print $2, $3, $4, $5, $6, "p99", $10; print $2, $3, $4, $5, $6, "p99.9", $11 } }' "$RAW" |
    medians >"$FIGURES"
# A ratio is the median, over the rounds, of the ratios within a round.
awk -F'\t' '
    { mean[$1, $2, $3, $4 "-" $5 "-" $6] = $7; rate[$1, $2, $3, $4 "-" $5 "-" $6] = $8; rounds[$1]
      if ($3 == "pool") jobs[$2, $4 "-" $5 "-" $6]; if ($2 == "idle") print "idle-cores", $7 }
    function ratio(name, a, b) { if (a > 0 && b > 0) print name, a / b }
    END { for (r in rounds) {
        for (j in jobs) { split(j, a, SUBSEP); if (a[1] == "rack" || a[1] == "huge")
            ratio((a[1] == "huge" ? "huge-" : "") a[2], mean[r, a[1], "pool", a[2]], mean[r, a[1], "bare", a[2]]) }
        split("read-64 write-64 read-4096 write-4096", s, " ")
        for (i = 1; i <= 4; i++) if (rate[r, "rack", "bare", s[i] "-1"] > 0 && rate[r, "rack", "pool", s[i] "-1"] > 0)
            ratio(s[i] "-scaling", rate[r, "rack", "pool", s[i] "-2"] / rate[r, "rack", "pool", s[i] "-1"],
                rate[r, "rack", "bare", s[i] "-2"] / rate[r, "rack", "bare", s[i] "-1"])
        ratio("message-to-ring", mean[r, "messages", "pool", "message-64-1"], mean[r, "messages", "ring_floor", "round-trip-64-1"])
        split("read write", o, " ")
        for (i = 1; i <= 2; i++) { k = o[i] "-64-1"
            ratio("direct-" o[i] "-to-tcp", mean[r, "messages", "direct", k], mean[r, "messages", "tcp_floor", "round-trip-64-1"])
            ratio("swap-" o[i] "-throughput", rate[r, "between", "swap-on", k], rate[r, "between", "swap-off", k])
            ratio("swap-" o[i] "-latency", mean[r, "between", "swap-on", k], mean[r, "between", "swap-off", k]) } } }' "$RAW" |
    medians >"$RATIOS"

{
    cat "$RESULTS/$STAMP.machine.txt"
    echo
    awk '{ k = $1 " " $2 " " $3 " " $4 " " $5; v[k, $6] = $7; if (!(k in seen)) { seen[k]; order[++n] = k } }
        function t(ns) { return ns == "" ? "" : ns < 1000 ? sprintf("%.1f ns", ns) : ns < 1e6 ? sprintf("%.2f us", ns / 1000) : sprintf("%.2f ms", ns / 1e6) }
        END { printf "%-9s %-11s %-15s %6s %8s %12s %11s %11s %11s %11s\n", "set", "on", "operation", "bytes", "threads", "k/s", "mean", "p50", "p99", "p99.9"
            for (i = 1; i <= n; i++) { k = order[i]; split(k, a, " "); if (a[1] == "idle") continue
                printf "%-9s %-11s %-15s %6s %8s %12.1f %11s %11s %11s %11s\n", a[1], a[2], a[3], a[4], a[5],
                    v[k, "rate"] / 1000, t(v[k, "mean"]), t(v[k, "p50"]), t(v[k, "p99"]), t(v[k, "p99.9"]) } }' "$FIGURES"
    echo
    awk 'NR == FNR { r[$1] = $2; next } /^#/ || NF < 3 || !($1 in r) { next }
        { good = $2 == "<=" ? r[$1] <= $3 : r[$1] >= $3
          printf "ratio %s %.3f goal %s %s %s\n", $1, r[$1], $2, $3, good ? "ok" : "missed" }' "$RATIOS" "$HERE/pool.goals"
} | tee "$RESULTS/$STAMP.txt"
say
say "raw results and this text: $RESULTS/$STAMP.{tsv,txt}"
