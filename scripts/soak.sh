#!/usr/bin/env bash
# soak.sh DURATION [SUITE...]   random tests over and over for about so long: 90s, 30m, 8h.
# SUITES: model crash fsx large (default: all, in turn). Stops at the first failure, which shows the seed that
# runs it again. `large` is a directory of a million entries.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { sed -n '2,4s/^# //p' "$0"; exit "$1"; }
case ${1:-} in
-h | --help) usage 0 ;;
*[0-9]s) seconds=${1%s} ;;
*[0-9]m) seconds=$((${1%m} * 60)) ;;
*[0-9]h) seconds=$((${1%h} * 3600)) ;;
*) usage 1 >&2 ;;
esac
shift
[ $# -gt 0 ] || set -- model crash fsx large

TMPDIR=$(mktemp -d /tmp/rchfs-soak.XXXXXX)
chmod 755 "$TMPDIR"
export TMPDIR
clean_up() {
    awk -v top="$TMPDIR/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r -n1 umount -l || true
    rm -rf --one-file-system "$TMPDIR"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

cargo build --quiet --release -p rchfs
run() { # SUITE FILTER: the tests of a suite whose names contain FILTER
    local suite=$1 filter=$2
    shift 2
    cargo test --quiet --release -p e2e --test "$suite" -- --nocapture --test-threads 1 "$@" "$filter"
}

start=$SECONDS
round=0
while [ $((SECONDS - start)) -lt "$seconds" ]; do
    round=$((round + 1))
    for suite; do
        echo "== round $round, $((SECONDS - start)) s: $suite"
        case $suite in
        model) RCHFS_MODEL_ROUNDS=200 run model random_operations ;;
        crash) RCHFS_CRASH_ROUNDS=200 run crash survives_kill_9 ;;
        fsx) RCHFS_FSX_OPERATIONS=100000 run conformance fsx ;;
        large) run posix one_million_entries --ignored ;;
        *) usage 1 >&2 ;;
        esac
    done
done
echo "== $round rounds without a failure"
