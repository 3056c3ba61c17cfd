# Sourced by the other scripts: where things are, and how to say that something is missing.
# shellcheck shell=bash
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
MOUNT_RCHFS=$TARGET/release/mount.rchfs

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# Builds the release program; cargo may be where rustup puts it without being in PATH.
build_release() {
    local cargo
    cargo=$(command -v cargo || true)
    [ -n "$cargo" ] || cargo=$HOME/.cargo/bin/cargo
    [ -x "$cargo" ] || die "cargo is not installed: install Rust (rustup, or the packages of your system), then run this again"
    "$cargo" build --release --manifest-path "$ROOT/Cargo.toml" --target-dir "$TARGET" -p rchfs "$@" ||
        die "the build failed; what is above says why"
}

# The type of what is mounted on exactly the directory $1; empty if nothing is.
mounted_type() {
    awk -v dir="$(readlink -f "$1" 2>/dev/null || printf '%s' "$1")" '
        { point = $5; gsub(/\\040/, " ", point); for (i = 7; i <= NF; i++) if ($i == "-") break }
        point == dir { type = $(i + 1) } END { print type }' /proc/self/mountinfo
}
