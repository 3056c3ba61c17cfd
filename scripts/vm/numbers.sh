# Runs in the guest: a 64-byte READ and WRITE by perftest (ib_read_lat, ib_write_lat: the typical latency) and by a link
# of ours, in turn, ROUNDS times; then whole accesses of a client to another rack's page, by RDMA and by TCP, half as often.
# Writes "ROUND WHAT MICROSECONDS" to /out/raw, which run.sh makes ratios of.
#
# ib_write_lat tells half of a round trip of two writes, each seen by polling memory; what is compared with it is the same
# by our links (write-seen). A write until it is acknowledged takes a whole round trip, and is reported beside it.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
guest_up
raw=/out/raw
: > $raw
mkdir -p /tmp/n

# The typical latency of one run, in microseconds.
perftest() {
    local server tries
    timeout 40 "ib_$1_lat" -d rxe0 -s 64 -n 1000 > /tmp/n/server 2>&1 &
    server=$!
    # The server may not listen yet.
    for ((tries = 0; tries < 20; tries++)); do
        sleep 0.5
        timeout 20 "ib_$1_lat" -d rxe0 -s 64 -n 1000 10.9.0.1 > /tmp/n/client 2>&1 && break
    done
    kill "$server" 2> /dev/null
    wait "$server"
    cat /tmp/n/client >> /out/perftest.txt
    awk '$1 == 64 { print $5 }' /tmp/n/client
}

: > /out/perftest.txt
for ((round = 1; round <= ROUNDS; round++)); do
    for kind in read write; do echo "$round perftest-$kind $(perftest $kind)" >> $raw; done
    timeout 60 "$BIN/examples/rdma_floor" 1000 > /tmp/n/ours || echo "guest: rdma_floor failed"
    sed "s/^/$round link-/" /tmp/n/ours >> $raw
    echo "numbers: round $round, us: $(awk -v r="$round" '$1 == r { printf "%s %s  ", $2, $3 }' $raw)"
done

# Whole accesses: two racks, all pages in the other one.
path() {
    local round=$1 way=$2 us
    "$BIN/rcmp-master" --listen 127.0.0.1:31850 > /tmp/n/master.log 2>&1 & local m=$!
    sleep 1
    local daemons=()
    for r in 0 1; do
        "$BIN/rcmp-daemon" --rack $r --cxl /dev/shm/n$r --cxl-size 32M --transport "$way" --rdma-spin 2ms \
            --swap-watermark off --deadline 8s > /tmp/n/rack$r.log 2>&1 & daemons+=($!)
    done
    for ((tries = 0; tries < 60; tries++)); do
        "$BIN/rcmp" status > /tmp/n/status 2>&1
        [ "$(grep -c "  $way:" /tmp/n/status)" -eq 2 ] && break
        [ "$way" = tcp ] && [ "$(grep -c alive /tmp/n/status)" -eq 2 ] && break
        sleep 0.5
    done
    cat /tmp/n/status
    "$BIN/rcmp" bench --rack 0 --remote 1 --remote-rack 1 --span 8M --payload 64 --op read,write,cas --seconds 2 \
        --json > /tmp/n/bench.json 2> /tmp/n/bench.log || cat /tmp/n/bench.log
    for kind in read write cas; do
        us=$(tr '{' '\n' < /tmp/n/bench.json | grep "\"$kind\"" | grep -o '"p50_ns":[0-9.]*' | head -1 | cut -d: -f2)
        [ -z "$us" ] || echo "$round path-$way-$kind $(awk -v ns="$us" 'BEGIN { printf "%.1f", ns / 1000 }')" >> $raw
    done
    kill "${daemons[@]}" "$m"
    wait
    rm -f /dev/shm/n?
}
for ((round = 1; round <= (ROUNDS + 1) / 2; round++)); do
    for way in rdma tcp; do path $round $way; done
done
exit 0
