# Sourced by the benchmark scripts: temporary mounts, one fio job, where results go, medians.
# shellcheck shell=bash source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

# A directory for everything temporary; what is mounted under it is unmounted when the script ends.
begin() {
    command -v fio >/dev/null || die "fio is not installed; install the package fio"
    [ "$(id -u)" -eq 0 ] || die "this mounts a tmpfs to compare with, which takes root"
    WORK=$(mktemp -d /tmp/rchfs-bench.XXXXXX)
    trap finish EXIT
    trap 'exit 130' INT TERM
}

# Switches FUSE over io_uring on for as long as the script runs; fails where the kernel has it not.
URING_SWITCH=/sys/module/fuse/parameters/enable_uring URING_BEFORE=
enable_uring() {
    [ -w "$URING_SWITCH" ] || return 1
    URING_BEFORE=$(cat "$URING_SWITCH")
    echo Y >"$URING_SWITCH"
}

finish() {
    local name
    # The clusters last: a mount says goodbye to its master.
    finish_mounts
    for name in $CLUSTERS_UP; do (cluster "$name" down) || true; done
    rm -rf --one-file-system "$WORK"
}
finish_mounts() {
    local m
    [ -z "$URING_BEFORE" ] || echo "$URING_BEFORE" >"$URING_SWITCH"
    for m in $(awk -v w="$WORK/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | sort -r); do
        umount "$m" 2>/dev/null || umount -l "$m"
    done
}

# Sets RESULTS to this day's directory on this machine and STAMP to what names this run's files there.
results() {
    local commit
    commit=$(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo unknown)
    git -C "$ROOT" diff --quiet HEAD -- ':!scripts/bench/results' 2>/dev/null || commit=$commit-changed
    RESULTS=$ROOT/scripts/bench/results/$(date +%F)-$(uname -n)
    STAMP=$1-$commit
    mkdir -p "$RESULTS"
    {
        echo "commit: $commit"
        echo "date:   $(date -Is)"
        echo "kernel: $(uname -r)"
        echo "cpu:    $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
        echo "memory: $(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo)"
        echo "fio:    $(fio --version 2>/dev/null || echo none)"
        echo "huge pages for shared memory: $(cat /sys/kernel/mm/transparent_hugepage/shmem_enabled 2>/dev/null)"
        echo "FUSE pages a request, at most: $(cat /proc/sys/fs/fuse/max_pages_limit 2>/dev/null)"
    } >"$RESULTS/$STAMP.machine.txt"
}

# fio_job DIR SECONDS ARGUMENT...: prints "KiB/s operations/s mean-us p99-us", reads and writes together,
# or "FAIL" with fio's own words on standard error.
fio_job() {
    local dir=$1 seconds=$2 out
    shift 2
    if ! out=$(timeout $((seconds * 10 + 60)) fio --name=job --directory="$dir" --ioengine=psync --thread --iodepth=1 \
        --runtime="$seconds" --time_based --group_reporting --norandommap --randrepeat=0 --fallocate=none \
        --output-format=terse --terse-version=3 "$@" 2>&1); then
        printf '%s\n' "$out" | tail -3 >&2
        echo FAIL
        return
    fi
    # Terse version 3: reads from field 6, writes from field 47; bandwidth, operations, percentiles, latency.
    awk -F';' '
        function p99(from,  i, a) { for (i = from; i < from + 20; i++) if ($i ~ /^99\.000000%=/) { split($i, a, "="); return a[2] } }
        /^3;/ { r = $8; w = $49; n = r + w; if (!n) next
            printf "%d %d %.2f %d\n", $7 + $48, n, ($40 * r + $81 * w) / n, (r >= w) ? p99(18) : p99(59); ok = 1 }
        END { if (!ok) print "FAIL" }' <<<"$out"
}

# Lines "KEY... VALUE" in, lines "KEY... MEDIAN" out, keys in the order of their first appearance.
medians() {
    awk '{ v = $NF; sub(/[ \t]+[^ \t]+$/, ""); if (!($0 in n)) order[++keys] = $0; val[$0, ++n[$0]] = v }
        END { for (k = 1; k <= keys; k++) { key = order[k]; c = n[key]
            for (i = 1; i <= c; i++) a[i] = val[key, i] + 0
            for (i = 1; i <= c; i++) for (j = i + 1; j <= c; j++) if (a[j] < a[i]) { t = a[i]; a[i] = a[j]; a[j] = t }
            m = c % 2 ? a[(c + 1) / 2] : (a[c / 2] + a[c / 2 + 1]) / 2
            printf "%s %.6g\n", key, m } }'
}

# cluster NAME up|down [RACKS]: a cluster of the release build in $WORK/NAME; further settings from the environment.
CLUSTERS_UP=
cluster() {
    [ "$2" != up ] || CLUSTERS_UP="$1 $CLUSTERS_UP"
    RCHFS_CLUSTER_DIR=$WORK/$1 RCHFS_BIN_DIR=$TARGET/release SIZE=${SIZE:-1G} LISTEN=127.0.0.1:0 \
        "$ROOT/scripts/cluster.sh" "${@:2}" >"$WORK/said" 2>&1 || { cat "$WORK/said" >&2; die "cluster $1: $2 failed"; }
}
master_of() { sed -n 's/.*listening on \([^, ]*\).*/\1/p' "$WORK/$1/master.log" | head -1; }

# Lines of `rcmp bench --json` in, "ON OPERATION PAYLOAD THREADS MEAN-NS PER-SECOND P50 P99 P99.9" out.
fields() {
    awk 'function f(name,  s) { if (!match($0, "\"" name "\":\"?[^,\"}]*")) return "-"
            s = substr($0, RSTART, RLENGTH); sub(/^[^:]*:"?/, "", s); return s }
        /"per_second"/ { print f("on"), f("operation"), f("payload"), f("threads"), f("mean_ns"), f("per_second"),
            f("p50_ns"), f("p99_ns"), f("p999_ns") }'
}

# need PROGRAM:PACKAGE...: installs what is missing, without starting any service, if that can be done; else says what.
need() {
    local missing=() entry policy=/usr/sbin/policy-rc.d
    for entry in "$@"; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]}; install them with your package manager (Debian: apt-get install ${missing[*]})"
    fi
    say "installing ${missing[*]}" >&2
    if [ -e "$policy" ]; then policy=; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"; fi
    apt-get -qq update >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null 2>&1 || true
    [ -z "$policy" ] || rm -f "$policy"
    for entry in "$@"; do
        command -v "${entry%%:*}" >/dev/null || die "the package ${entry##*:} could not be installed; try apt-get install ${entry##*:}"
    done
}

# free_port: a port of loopback that nobody listens on.
free_port() {
    local port
    while port=$((20000 + RANDOM % 20000)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}
# wait_port HOST PORT: until somebody listens there, at most ten seconds.
wait_port() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return 0
        sleep 0.05
    done
    return 1
}
