#!/usr/bin/env bash
# test.sh   checks everything: formatting, lints, unit tests, random operations against a reference, end to
#           end on real mounts, crashes, real programs, pjdfstest and fsx; and most of it once more on mounts
#           whose requests come through io_uring, where root can switch that on.
# As root it installs what the tests run with apt-get; otherwise it says what is missing. Takes about a
# quarter of an hour on two cores from nothing. Leaves nothing behind but target/ and ~/.cargo.
#   RCHFS_ALLOW_NO_FUSE=1   where there is no /dev/fuse, skip what needs it instead of failing
#   RCHFS_TEST_PROFILE=dev|release   how to build (dev, optimised a little)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$PWD

say() { printf '== %s\n' "$*"; }
die() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

# Program and the Debian package it comes in.
tools=(fusermount3:fuse3 fio:fio rsync:rsync setfacl:acl setfattr:attr sqlite3:sqlite3 gcc:gcc make:make git:git
    setpriv:util-linux unshare:util-linux dpkg-deb:dpkg setcap:libcap2-bin pkg-config:pkg-config)
# The same of what RDMA and the virtual machine take, without which those parts are skipped; and headers.
vm_tools=(qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio depmod:kmod rdma:iproute2 ndctl:ndctl
    daxctl:daxctl)
headers=(/usr/include/infiniband/verbs.h:libibverbs-dev /usr/include/rdma/rdma_cma.h:librdmacm-dev
    '/usr/lib/llvm-*/lib/libclang*.so*:libclang-dev')

install_tools() {
    local missing=() entry
    for entry in "${tools[@]}"; do
        command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing ${missing[*]}"
        apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}" >/dev/null
    else
        die "missing: ${missing[*]}; install them with your package manager (Debian: apt-get install ${missing[*]})"
    fi
}

# Packages of the above that are missing, on one line.
missing_for_rdma() {
    local entry
    for entry in "${vm_tools[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${entry%%:*}" >/dev/null || printf '%s ' "${entry##*:}"
    done
    for entry in "${headers[@]}"; do
        compgen -G "${entry%%:*}" >/dev/null || printf '%s ' "${entry##*:}"
    done
}

# Installs them where that is possible; false, with a line for the end, if something is missing then.
has_rdma() {
    local missing
    missing=$(missing_for_rdma)
    if [ -n "$missing" ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing $missing"
        # shellcheck disable=SC2086
        { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $missing; } >/dev/null || true
        missing=$(missing_for_rdma)
    fi
    [ -z "$missing" ] || printf 'rdma and vm: not installed: %s\n' "$missing" >>"$RCHFS_E2E_SKIPPED"
    [ -z "$missing" ]
}

# A conformance suite at the version that the settings in tests/conformance/ were written for.
install_suite() {
    local name=$1 version=$2 bin=${CARGO_HOME:-$HOME/.cargo}/bin/$1
    [[ "$("$bin" --version 2>/dev/null)" == *"$version"* ]] && return 0
    say "installing $name $version"
    cargo install --quiet --locked --target-dir "$top/target/tools" "$name@$version"
}

# The kernel's switch for FUSE over io_uring, and how it stood before we touched it.
uring_switch=/sys/module/fuse/parameters/enable_uring
uring_before=
restore_uring() {
    [ -z "$uring_before" ] || echo "$uring_before" >"$uring_switch"
    uring_before=
}

# Mounts that a test left behind because it was killed, and its directories.
clean_up() {
    local dir
    restore_uring
    while read -r dir; do
        umount -l "$dir" 2>/dev/null || fusermount3 -uz "$dir" 2>/dev/null || true
    done < <(awk -v top="$TMPDIR/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    rm -rf --one-file-system "$TMPDIR"
}

install_tools
TMPDIR=$(mktemp -d /tmp/rchfs-test.XXXXXX)
chmod 755 "$TMPDIR"
export TMPDIR RCHFS_E2E_SKIPPED=$TMPDIR/skipped
trap clean_up EXIT
trap 'exit 130' INT TERM

[ -e /dev/fuse ] || { [ "$(id -u)" -ne 0 ] || modprobe fuse 2>/dev/null || true; }
install_suite pjdfstest 0.2.2
install_suite fsx 0.3.2

profile=${RCHFS_TEST_PROFILE:-dev}
say "formatting"
cargo fmt --all --check
say "lints"
cargo clippy --quiet --workspace --all-targets --profile "$profile" -- -D warnings
# A program that only links the library gets it without the command-line tool.
cargo clippy --quiet -p pool --no-default-features --profile "$profile" -- -D warnings
say "build ($profile)"
cargo build --quiet --workspace --profile "$profile"

rdma=
if has_rdma; then
    rdma=1
    # In a target directory of its own: the features would have everything else built anew.
    say "lints with RDMA"
    cargo clippy --quiet --target-dir target/rdma -p pool -p daemon --features pool/rdma,daemon/rdma --all-targets --profile "$profile" -- -D warnings
fi

say "tests"
code=0
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --cargo-profile "$profile" --profile ci || code=$?
else
    # The crash, program and conformance suites keep both cores busy by themselves: few at a time.
    cargo test --quiet --workspace --profile "$profile" --no-fail-fast -- --test-threads "$(nproc)" || code=$?
fi

if [ "$(id -u)" -eq 0 ] && [ -w "$uring_switch" ] && [ -e /dev/fuse ]; then
    say "tests through io_uring"
    uring_before=$(cat "$uring_switch")
    echo Y >"$uring_switch"
    suites=(--test posix --test model --test cli --test crash --test conformance)
    if cargo nextest --version >/dev/null 2>&1; then
        RCHFS_TEST_OPTIONS=io_uring=on cargo nextest run -p e2e "${suites[@]}" --cargo-profile "$profile" --profile ci || code=$?
    else
        RCHFS_TEST_OPTIONS=io_uring=on cargo test --quiet -p e2e "${suites[@]}" --profile "$profile" --no-fail-fast \
            -- --test-threads "$(nproc)" || code=$?
    fi
    restore_uring
else
    say "tests through io_uring skipped: that takes root, and a kernel with $uring_switch (Linux 6.14)"
fi

say "tests of mounts that collect what is written"
# But for those that ask for it by themselves, count messages, or have no memory mapped.
if cargo nextest --version >/dev/null 2>&1; then
    RCHFS_TEST_OPTIONS=cache=writeback cargo nextest run -p e2e --test mounts -E 'not test(/^(writeback|messages|far)::/)' \
        --cargo-profile "$profile" --profile ci || code=$?
else
    RCHFS_TEST_OPTIONS=cache=writeback cargo test --quiet -p e2e --test mounts --profile "$profile" --no-fail-fast \
        -- --test-threads "$(nproc)" --skip writeback:: --skip messages:: --skip far:: || code=$?
fi

say "documentation tests"
cargo test --quiet --workspace --profile "$profile" --doc || code=$?

if [ -n "$rdma" ]; then
    say "RDMA and devdax, in a virtual machine"
    if ! scripts/vm/run.sh suite; then
        if scripts/vm/run.sh suite; then say "FLAKY: the suite in the virtual machine passed at the second attempt"; else code=1; fi
    fi
fi

if [ -s "$RCHFS_E2E_SKIPPED" ]; then
    say "skipped"
    sort -u "$RCHFS_E2E_SKIPPED"
fi
[ $code -eq 0 ] && say "all passed" || say "FAILED"
exit $code
