#!/usr/bin/env bash
# ycsb.sh: the workloads of YCSB on the pool's hash table, beside Redis and memcached on loopback, in one run.
#
#   rack     workloads A to F in one rack, zipf and uniform, one thread and many; the same on the two servers
#   remote   reads of a table that lies in the other rack, without page swap, beside Redis
#   swap     the same workloads on such a table with page swap and without
# Environment:
#   ROUNDS=3  SECONDS_EACH=2  RECORDS=100K  VALUES=64,1K  MANY=8 (threads)  SIZE=1G (a rack's memory)
#   REMOTE_RECORDS=10K  SWAP_WARM_UP=5
# Starts its own servers on ports that it picks, installs them if it is root and they are missing, and ends them. Prints a table,
# then a line a goal, "ratio NAME VALUE goal OP TARGET ok|missed". Exits 0 whatever the figures.
# Raw results and summary go to scripts/bench/results/<date>-<host>/.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

: "${ROUNDS:=3}" "${SECONDS_EACH:=2}" "${RECORDS:=100K}" "${VALUES:=64,1K}" "${MANY:=8}" "${SIZE:=1G}"
: "${REMOTE_RECORDS:=10K}" "${SWAP_WARM_UP:=5}"
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RCMP=$TARGET/release/rcmp
NEVER=1e18 # a watermark that no page reaches

need redis-server:redis-server memcached:memcached
build_release -p pool -p daemon -p master --bins
WORK=$(mktemp -d /tmp/rchfs-bench.XXXXXX)
SERVERS=()
ended() {
    local name pid
    for name in on off; do
        if [ -d "$WORK/$name" ]; then cluster "$name" down || true; fi
    done
    for pid in "${SERVERS[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf --one-file-system "$WORK"
}
trap ended EXIT
trap 'exit 130' INT TERM

results ycsb
RAW=$RESULTS/$STAMP.tsv
: >"$RAW"

REDIS=$(free_port)
redis-server --port "$REDIS" --bind 127.0.0.1 --save '' --appendonly no --dir "$WORK" >"$WORK/redis.log" 2>&1 &
SERVERS+=($!)
MEMCACHED=$(free_port)
[ "$MEMCACHED" != "$REDIS" ] || MEMCACHED=$((REDIS + 1))
user=()
[ "$(id -u)" -ne 0 ] || user=(-u nobody)
memcached -l 127.0.0.1 -p "$MEMCACHED" -U 0 -m 1024 "${user[@]}" >"$WORK/memcached.log" 2>&1 &
SERVERS+=($!)
wait_port 127.0.0.1 "$REDIS" || { cat "$WORK/redis.log" >&2; die "redis-server does not answer"; }
wait_port 127.0.0.1 "$MEMCACHED" || { cat "$WORK/memcached.log" >&2; die "memcached does not answer"; }
cluster on up 2
DAEMON_OPTIONS="--swap-watermark $NEVER" cluster off up 2

# ycsb SET CLUSTER ARGUMENT...: adds "round set pattern on workload bytes threads mean-ns per-second p50 p99 p99.9" a case.
ycsb() {
    local set=$1 master pattern=${3:?}
    master=$(master_of "$2")
    "$RCMP" bench ycsb --json --master "$master" --redis "127.0.0.1:$REDIS" --memcached "127.0.0.1:$MEMCACHED" \
        --seconds "$SECONDS_EACH" --pattern "$pattern" "${@:4}" >"$WORK/ycsb" || die "rcmp bench ycsb failed"
    fields <"$WORK/ycsb" |
        awk -v round="$ROUND" -v set="$set" -v pattern="$pattern" 'BEGIN { OFS = "\t" } { $1 = $1; print round, set, pattern, $0 }' >>"$RAW"
}

for ROUND in $(seq "$ROUNDS"); do
    say "round $ROUND of $ROUNDS" >&2
    for pattern in zipf uniform; do
        ycsb rack off "$pattern" --value "$VALUES" --records "$RECORDS" --threads "1,$MANY" --on pool,redis,memcached
    done
    ycsb remote off uniform --table-rack 1 --workload c --records "$REMOTE_RECORDS" --on pool,redis
    for which in off on; do
        ycsb "swap-$which" "$which" zipf --table-rack 1 --workload a,b,c --records "$REMOTE_RECORDS" --warm-up "$SWAP_WARM_UP"
    done
done

RATIOS=$WORK/ratios
# A ratio is the median, over the rounds, of the ratios within a round.
awk -F'\t' '
    { k = $1 SUBSEP $2 SUBSEP $3 SUBSEP $5 "-" $6 "-" $7; mean[k, $4] = $8; rate[k, $4] = $9; seen[k] }
    END { for (k in seen) { split(k, a, SUBSEP); name = a[3] "-" a[4]
        if (a[2] == "rack" && rate[k, "pool"] > 0) {
            if (rate[k, "redis"] > 0) print "redis-" name, rate[k, "pool"] / rate[k, "redis"]
            if (rate[k, "memcached"] > 0) print "memcached-" name, rate[k, "pool"] / rate[k, "memcached"] }
        if (a[2] == "remote" && mean[k, "redis"] > 0) print "remote-get-to-redis", mean[k, "pool"] / mean[k, "redis"]
        off = a[1] SUBSEP "swap-off" SUBSEP a[3] SUBSEP a[4]
        if (a[2] == "swap-on" && rate[off, "pool"] > 0) print "swap-" name, rate[k, "pool"] / rate[off, "pool"] } }' "$RAW" |
    sort | medians >"$RATIOS"

{
    cat "$RESULTS/$STAMP.machine.txt"
    echo
    awk -F'\t' '{ print $2, $3, $4, $5, $6, $7, "rate", $9; print $2, $3, $4, $5, $6, $7, "p50", $10; print $2, $3, $4, $5, $6, $7, "p99", $11 }' "$RAW" |
        medians | awk '{ k = $1 " " $2 " " $3 " " $4 " " $5 " " $6; v[k, $7] = $8; if (!(k in seen)) { seen[k]; order[++n] = k } }
            END { printf "%-9s %-8s %-10s %-8s %6s %8s %12s %12s %12s\n", "set", "keys", "on", "workload", "bytes", "threads", "k/s", "p50 us", "p99 us"
                for (i = 1; i <= n; i++) { k = order[i]; split(k, a, " "); printf "%-9s %-8s %-10s %-8s %6s %8s %12.1f %12.2f %12.2f\n",
                    a[1], a[2], a[3], a[4], a[5], a[6], v[k, "rate"] / 1000, v[k, "p50"] / 1000, v[k, "p99"] / 1000 } }'
    echo
    sed 's/^/times /' "$RATIOS"
    echo
    awk 'NR == FNR { r[$1] = $2; next } /^#/ || NF < 3 || !($1 in r) { next }
        { good = $2 == "<=" ? r[$1] <= $3 : r[$1] >= $3
          printf "ratio %s %.3f goal %s %s %s\n", $1, r[$1], $2, $3, good ? "ok" : "missed" }' "$RATIOS" "$HERE/ycsb.goals"
} | tee "$RESULTS/$STAMP.txt"
say
say "raw results and this text: $RESULTS/$STAMP.{tsv,txt}"
