#!/usr/bin/env bash
# cluster.sh up|down|status [RACKS]: a cluster on this machine, as one would start it by hand.
#   up [RACKS]   starts a master and RACKS daemons (2 unless said); what runs already goes on, what has ended
#                is started again
#   down         ends them; the pages go, they are in memory
#   status       what runs, and rcmp status
# Environment:
#   RCHFS_CLUSTER_DIR=/tmp/rchfs-cluster-UID   logs, process ids, addresses, the master's state
#   SIZE=1G  PAGE_SIZE=64K  LISTEN=127.0.0.1:0   a rack's memory, the size of a page, where the master listens
#   MASTER_OPTIONS  DAEMON_OPTIONS               further options, as on the command line
#   RCHFS_BIN_DIR                                programs that are built already, instead of a release build
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }

DIR=${RCHFS_CLUSTER_DIR:-/tmp/rchfs-cluster-$UID}
BIN=${RCHFS_BIN_DIR:-$TARGET/release}
: "${SIZE:=1G}" "${PAGE_SIZE:=64K}" "${LISTEN:=127.0.0.1:0}" "${MASTER_OPTIONS:=}" "${DAEMON_OPTIONS:=}"

# Regions are files with this name and the number of the rack; clusters in other directories have others.
REGION=/dev/shm/rchfs-$UID-$(printf %s "$DIR" | cksum | cut -d' ' -f1)-rack

# When process $1 began, in the kernel's ticks: with its id this names a process for good.
began() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# The id of the process called $1 (master, rack0, ...) if it is one of ours and still there.
running() {
    local pid since
    read -r pid since 2>/dev/null <"$DIR/$1.pid" || return 1
    [ -n "$since" ] && [ "$(began "$pid")" = "$since" ] && [ "$(state "$pid")" != Z ] && printf '%s\n' "$pid"
}
state() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f1; }

# Where the process called $1 said that it listens; empty if it did not.
address() { [ ! -e "$DIR/$1.log" ] || sed -n 's/.*listening on \([^, ]*\).*/\1/p' "$DIR/$1.log" | head -1; }

racks() { # those that were ever started
    local file
    for file in "$DIR"/rack*.pid; do
        [ -e "$file" ] && basename "$file" .pid | sed 's/^rack//'
    done | sort -n
}

# start NAME PROGRAM ARGUMENT...: in the background, on its own; returns when it is ready.
start() {
    local name=$1 pid tries
    shift
    [ ! -e "$DIR/$name.log" ] || mv "$DIR/$name.log" "$DIR/$name.log.old"
    setsid "$@" >"$DIR/$name.log" 2>&1 </dev/null &
    pid=$!
    printf '%s %s\n' "$pid" "$(began "$pid")" >"$DIR/$name.pid"
    for ((tries = 0; tries < 400; tries++)); do
        [ -z "$(address "$name")" ] || return 0
        running "$name" >/dev/null || break
        sleep 0.05
    done
    sed 's/^/  /' "$DIR/$name.log" >&2
    running "$name" >/dev/null && die "$name is not ready after 20 s; what it said is above"
    rm -f "$DIR/$name.pid"
    die "$name did not start; what it said is above"
}

# Binds the memory of rack $1 to a node, where there are several and numactl is there to do it.
bound() {
    local nodes=(/sys/devices/system/node/node[0-9]*)
    [ ${#nodes[@]} -gt 1 ] && command -v numactl >/dev/null || return 0
    printf 'numactl --membind=%s' "${nodes[$(($1 % ${#nodes[@]}))]##*/node}"
}

programs() {
    if [ -z "${RCHFS_BIN_DIR:-}" ]; then build_release -p pool -p daemon -p master -p rchfs --bins; fi
    local program
    for program in rcmp-master rcmp-daemon rcmp; do
        [ -x "$BIN/$program" ] || die "$BIN/$program is not there; leave RCHFS_BIN_DIR unset to build it"
    done
}

up() {
    local racks=${1:-2} rack listen master
    [[ $racks =~ ^[1-9][0-9]{0,2}$ ]] || die "$racks is no number of racks"
    programs
    (umask 077 && mkdir -p "$DIR")
    [ -O "$DIR" ] || die "$DIR belongs to somebody else; set RCHFS_CLUSTER_DIR to another directory"
    if ! running master >/dev/null; then
        # Daemons and mounts that are still there look for it where it was.
        listen=$(address master)
        # shellcheck disable=SC2086
        start master "$BIN/rcmp-master" --listen "${listen:-$LISTEN}" --state "$DIR/state" \
            --page-size "$PAGE_SIZE" $MASTER_OPTIONS
    fi
    master=$(address master)
    for ((rack = 0; rack < racks; rack++)); do
        running "rack$rack" >/dev/null && continue
        # shellcheck disable=SC2046,SC2086
        start "rack$rack" $(bound "$rack") "$BIN/rcmp-daemon" --master "$master" --listen 127.0.0.1:0 \
            --rack "$rack" --cxl "$REGION$rack" --cxl-size "$SIZE" $DAEMON_OPTIONS
    done
    "$BIN/rcmp" status --master "$master"
    cat <<END

It runs. What next:
  $BIN/rcmp status --master $master --watch
  $BIN/rcmp bench --master $master --remote 0.5
  $BIN/mount.rchfs $master /mnt/pool -o rack=0
  ${BASH_SOURCE[0]} down
Logs are in $DIR.
END
}

# stop NAME: asks it to end, and makes it if it does not.
stop() {
    local pid tries
    if pid=$(running "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        for ((tries = 0; tries < 200; tries++)); do
            running "$1" >/dev/null || break
            [ "$tries" -ne 160 ] || { say "$1 (pid $pid) does not end: killed" >&2; kill -KILL "$pid" 2>/dev/null || true; }
            sleep 0.05
        done
        running "$1" >/dev/null && die "$1 (pid $pid) cannot be ended; it is left as it is"
    fi
    rm -f "$DIR/$1.pid"
}

down() {
    local rack
    [ -d "$DIR" ] || { say "there is no cluster in $DIR"; return 0; }
    [ -O "$DIR" ] || die "$DIR belongs to somebody else"
    for rack in $(racks); do
        stop "rack$rack"
    done
    stop master
    rm -f "$REGION"[0-9]*
    rm -rf "$DIR/state"
    rm -f "$DIR"/*.log "$DIR"/*.log.old
    rmdir "$DIR" 2>/dev/null || say "$DIR holds something else and is left"
}

status() {
    local name pid
    [ -e "$DIR/master.pid" ] || die "there is no cluster in $DIR; start one with: ${BASH_SOURCE[0]} up"
    for name in master $(racks | sed 's/^/rack/'); do
        if pid=$(running "$name"); then say "$name: pid $pid at $(address "$name")"; else say "$name: has ended; see $DIR/$name.log"; fi
    done
    if running master >/dev/null; then "$BIN/rcmp" status --master "$(address master)"; fi
}

case ${1:-} in
up) up "${2:-}" ;;
down) down ;;
status) status ;;
-h | --help) usage ;;
*) usage >&2; exit 2 ;;
esac
