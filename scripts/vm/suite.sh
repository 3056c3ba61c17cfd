# Runs in the guest: the tests of the transport, then those of whole racks. POOL_TESTS and VM_TESTS are the programs,
# FILTER parts of the names of those to run.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"
guest_up
export RCHFS_VM=1 RUST_BACKTRACE=1 RUST_LOG=info,pool=debug
code=0
for program in $POOL_TESTS $VM_TESTS; do
    # The devices are there once.
    # shellcheck disable=SC2086
    timeout 330 "$program" --test-threads 1 --nocapture $FILTER || code=$?
done
dmesg | grep -E 'BUG:|WARNING:|Oops:' && code=${code/#0/99}
echo "suite: exit code $code, $(cut -d. -f1 /proc/uptime) s after boot"
exit "$code"
