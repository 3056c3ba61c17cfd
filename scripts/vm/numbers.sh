# Runs in the guest: a 64-byte READ and WRITE by perftest (ib_read_lat, ib_write_lat: the typical latency) and by a link
# of ours, in turn, three times; then whole accesses of a client to another rack's page, by RDMA and by TCP.
# ib_write_lat tells half of a round trip of two writes, of which none waits for a completion.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
guest_up

# The typical latency of one run, in microseconds.
perftest() {
    "ib_$1_lat" -d rxe0 -s 64 -n 1000 > /dev/null 2>&1 &
    sleep 2
    "ib_$1_lat" -d rxe0 -s 64 -n 1000 10.9.0.1 2>&1 | awk '$1 == 64 { print $5 }'
    wait $!
}
median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
goal() { awk -v name="$1" -v a="$2" -v b="$3" -v goal="$4" 'BEGIN {
    r = a / b; printf "ratio %s %.2f goal <= %s %s\n", name, r, goal, (r <= goal ? "ok" : "missed") }'; }
report() { awk -v name="$1" -v a="$2" -v b="$3" 'BEGIN { printf "numbers: %s %.2f\n", name, a / b }'; }

mkdir -p /tmp/n
for round in 1 2 3; do
    for kind in read write; do perftest $kind >> /tmp/n/perftest.$kind; done
    "$BIN/examples/rdma_floor" 1000 > /tmp/n/ours
    for kind in read write; do awk -v kind=$kind '$1 == kind { print $2 }' /tmp/n/ours >> /tmp/n/ours.$kind; done
    echo "numbers: round $round, us: $(cd /tmp/n && for f in perftest.read ours.read perftest.write ours.write; do
        printf '%s %s  ' $f "$(tail -1 $f)"; done)"
done
for kind in read write; do
    p=$(median < /tmp/n/perftest.$kind) o=$(median < /tmp/n/ours.$kind)
    goal "rdma-$kind-64-vs-perftest" "$o" "$p" 1.5
done

# Whole accesses: two racks, all pages in the other one.
path() {
    local way=$1 us
    "$BIN/rcmp-master" --listen 127.0.0.1:31850 > /tmp/n/master.log 2>&1 & local m=$!
    sleep 1
    local daemons=()
    for r in 0 1; do
        "$BIN/rcmp-daemon" --rack $r --cxl /dev/shm/n$r --cxl-size 64M --transport "$way" --rdma-spin 2ms \
            --swap-watermark off --deadline 8s > /tmp/n/rack$r.log 2>&1 & daemons+=($!)
    done
    sleep 5
    "$BIN/rcmp" bench --rack 0 --remote 1 --remote-rack 1 --span 16M --payload 64 --op read,write,cas --seconds 3 \
        --json > /tmp/n/bench.json 2> /tmp/n/bench.log || cat /tmp/n/bench.log
    for kind in read write cas; do
        us=$(tr '{' '\n' < /tmp/n/bench.json | grep "\"$kind\"" | grep -o '"p50_ns":[0-9.]*' | head -1 | cut -d: -f2)
        awk -v ns="${us:-0}" 'BEGIN { printf "%.1f", ns / 1000 }' > "/tmp/n/$way.$kind"
    done
    kill "${daemons[@]}" "$m"
    wait
    rm -f /dev/shm/n?
}
for way in rdma tcp; do path $way; done
for kind in read write cas; do
    r=$(cat /tmp/n/rdma.$kind) t=$(cat /tmp/n/tcp.$kind)
    echo "numbers: a client's 64-byte $kind in the other rack (cas: 8 bytes), us: rdma $r, tcp $t"
done
for kind in read write; do
    r=$(cat /tmp/n/rdma.$kind) t=$(cat /tmp/n/tcp.$kind)
    report "path-rdma-$kind-64-vs-link" "$r" "$(median < /tmp/n/ours.$kind)"
    report "path-tcp-vs-rdma-$kind-64" "$t" "$r"
done
exit 0
