#!/usr/bin/env bash
# run.sh suite     runs what needs RDMA and devdax devices in a virtual machine that has them (Soft-RoCE and a device
#                  made of the guest's memory); the exit code is that of the tests, the log target/vm/suite/log
# run.sh numbers   one-sided accesses beside perftest's in the same boot: ratios, since emulated time means nothing else;
#                  exits 0 whatever the ratios are; raw results under scripts/bench/results
# run.sh shell SCRIPT [NAME=VALUE...]   runs a script in the guest (see guest.sh), for looking into things
# VM_NO_BUILD=1 runs a suite that was built before; FILTER gives parts of the names of the tests to run; VM_SECONDS how
# long the guest may take.
# As root what is missing is installed with apt-get. Without QEMU says so in a line that begins with "vm: skipped" and
# exits 0. The kernel, the initramfs and the programs (target/rdma) are kept between runs.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
. "$ROOT/scripts/bench/lib.sh"
. "$ROOT/scripts/vm/lib.sh"
export PATH=$PATH:/usr/sbin:/sbin

build() {
    local profile=(--profile "${RCHFS_TEST_PROFILE:-dev}")
    # A target directory of its own: the features would have everything else built anew each time.
    local cargo=(cargo build --quiet --target-dir "$TARGET/rdma" --features "pool/rdma,daemon/rdma")
    (cd "$ROOT" && case $1 in
        suite) "${cargo[@]}" "${profile[@]}" -p pool -p daemon -p master -p rchfs -p e2e --bins --test rdma --test vm ;;
        numbers) "${cargo[@]}" --release -p pool -p daemon -p master --bins --example rdma_floor ;;
    esac)
}

# The newest test program of that name.
newest() { find "$TARGET/rdma/$1/deps" -name "$2-*" -type f -executable -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2; }

mode=${1:-}
case $mode in
    suite | numbers) ;;
    shell) [ -f "${2:-}" ] || die "which script?" ;;
    *) die "run.sh suite | numbers | shell SCRIPT" ;;
esac
mkdir -p "$VM_DIR/$mode"
vm_tools
vm_kernel
vm_initrd
out=$VM_DIR/$mode
code=0
case $mode in
    suite)
        [ -n "${VM_NO_BUILD:-}" ] || build suite
        directory=${RCHFS_TEST_PROFILE:-dev}
        [ "$directory" != dev ] || directory=debug
        say "booting; the log is $out/log"
        VM_SECONDS=${VM_SECONDS:-420} vm_run "$out" "$ROOT/scripts/vm/suite.sh" "POOL_TESTS=$(newest "$directory" rdma)" \
            "VM_TESTS=$(newest "$directory" vm)" "FILTER=${FILTER:-}" > "$out/log" 2>&1 || code=$?
        tr -d '\r' < "$out/log" | grep -aE '^(test |guest:|vm:|suite:|failures:|    [a-z_:]+$)|panicked|operations' || true
        [ $code -eq 0 ] && say "vm: all passed" || say "vm: FAILED ($code); the log is $out/log"
        ;;
    numbers)
        build numbers
        rm -f "$out/raw"
        results rdma
        vm_run "$out" "$ROOT/scripts/vm/numbers.sh" "BIN=$TARGET/rdma/release" "ROUNDS=${ROUNDS:-5}" > "$out/log" 2>&1 || code=$?
        tr -d '\r' < "$out/log" | grep -aE '^(numbers:|guest:|vm:)' || true
        [ -s "$out/raw" ] || die "nothing was measured (exit code $code); the log is $out/log"
        {
            cat "$RESULTS/$STAMP.machine.txt"
            echo "load:   $(cut -d' ' -f1-3 /proc/loadavg) at the end, on $(nproc) processors"
            echo "guest:  $(tr -d '\r' < "$out/log" | sed -n 's/.*guest: //p' | head -1), QEMU's software emulation"
            echo
            awk -f "$ROOT/scripts/vm/numbers.awk" "$out/raw"
        } | tee "$RESULTS/$STAMP.txt"
        tr ' ' '\t' < "$out/raw" > "$RESULTS/$STAMP.tsv"
        cp "$out/perftest.txt" "$RESULTS/$STAMP.perftest.txt"
        say
        say "raw results and this text: $RESULTS/$STAMP.{tsv,perftest.txt,txt}"
        code=0
        ;;
    shell) vm_run "$out" "$(readlink -f "$2")" "${@:3}" || code=$? ;;
esac
exit $code
