# Sourced by peers.sh: MooseFS and GlusterFS on this machine alone, their data in memory.
# shellcheck shell=bash
#
# Each server runs in the foreground as a child of the script, in a network namespace without a way out of the machine
# (MooseFS refuses to use 127.0.0.1; there it gets an address of its own on the namespace's loopback). Process ids are kept
# in NETFS_PIDS, in the order in which they were started; data are under NETFS_STORE.

NETFS_PIDS=() NETFS_STORE=
NETFS_ADDR=10.77.0.1

netfs_begin() {
    local tries
    NETFS_STORE=$(mktemp -d /dev/shm/rchfs-peers.XXXXXX)
    unshare -n sh -c "ip link set lo up && ip addr add $NETFS_ADDR/32 dev lo && exec sleep infinity" &
    NETFS_NAMESPACE=$!
    for ((tries = 0; tries < 100; tries++)); do
        inside ip addr show dev lo 2>/dev/null | grep -q "$NETFS_ADDR" && return 0
        sleep 0.05
    done
    die "no network namespace could be made; this takes root, unshare and ip (package iproute2)"
}

# Runs a program in the namespace.
inside() { nsenter -t "$NETFS_NAMESPACE" -n "$@"; }

# server NAME PROGRAM ARGUMENT...: in the background, its words in $NETFS_STORE/NAME.log.
server() {
    nsenter -t "$NETFS_NAMESPACE" -n "${@:2}" >"$NETFS_STORE/$1.log" 2>&1 &
    NETFS_PIDS+=($!)
}

# until_true WHAT COMMAND...: at most 20 seconds; shows the logs and ends the script if it does not come true.
until_true() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 200; tries++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 0.1
    done
    tail -n 5 "$NETFS_STORE"/*.log >&2
    die "$what; the ends of the logs are above"
}

# moosefs DIR: one master, one chunk server, one copy of each chunk, no trash, long caches in the client.
moosefs() {
    local s=$NETFS_STORE/moosefs
    mkdir -p "$s"/{meta,chunks,hdd}
    cp /var/lib/mfs/metadata.mfs.empty "$s/meta/metadata.mfs"
    printf '%s / rw,alldirs,maproot=0\n' "$NETFS_ADDR" >"$s/exports.cfg"
    : >"$s/topology.cfg"
    printf '%s\n' "$s/hdd" >"$s/hdd.cfg"
    printf '%s = %s\n' WORKING_USER root WORKING_GROUP root DATA_PATH "$s/meta" EXPORTS_FILENAME "$s/exports.cfg" \
        TOPOLOGY_FILENAME "$s/topology.cfg" MATOML_LISTEN_HOST "$NETFS_ADDR" MATOCS_LISTEN_HOST "$NETFS_ADDR" \
        MATOCL_LISTEN_HOST "$NETFS_ADDR" >"$s/master.cfg"
    printf '%s = %s\n' WORKING_USER root WORKING_GROUP root DATA_PATH "$s/chunks" HDD_CONF_FILENAME "$s/hdd.cfg" \
        MASTER_HOST "$NETFS_ADDR" BIND_HOST "$NETFS_ADDR" CSSERV_LISTEN_HOST "$NETFS_ADDR" \
        HDD_LEAVE_SPACE_DEFAULT 64MiB HDD_FSYNC_BEFORE_CLOSE 0 >"$s/chunks.cfg"
    server moosefs-master mfsmaster -f -c "$s/master.cfg" start
    until_true "MooseFS' master does not answer" inside bash -c "exec 3<>/dev/tcp/$NETFS_ADDR/9421"
    server moosefs-chunks mfschunkserver -f -c "$s/chunks.cfg" start
    until_true "MooseFS' chunk server does not answer" inside bash -c "exec 3<>/dev/tcp/$NETFS_ADDR/9422"
    server moosefs-mount mfsmount -f "$1" -H "$NETFS_ADDR" \
        -o mfscachemode=YES,mfsattrcacheto=3600,mfsentrycacheto=3600,mfsdirentrycacheto=3600,mfswritecachesize=512
    until_true "MooseFS is not mounted" mountpoint -q "$1"
    inside mfssettrashtime -r 0 "$1" >/dev/null
    inside mfssetgoal -r 1 "$1" >/dev/null
    # A chunk server is used once it has told the master of its space.
    until_true "MooseFS cannot be written" inside dd if=/dev/zero of="$1/probe" bs=4k count=1 conv=fsync
    rm -f "$1/probe"
}

# A translator of GlusterFS: NAME TYPE SUBVOLUME OPTION...
translator() {
    local option
    printf 'volume %s\n  type %s\n' "$1" "$2"
    for option in "${@:4}"; do printf '  option %s\n' "$option"; done
    [ -z "$3" ] || printf '  subvolumes %s\n' "$3"
    printf 'end-volume\n'
}

# glusterfs_mount DIR: one brick without replicas, the usual translators of a client, long caches.
glusterfs_mount() {
    local s=$NETFS_STORE/gluster id=5d4e3c2b-0000-4000-8000-000000000001
    mkdir -p "$s/brick"
    setfattr -n trusted.glusterfs.volume-id -v "0x${id//-/}" "$s/brick" ||
        die "tmpfs has no trusted extended attributes, which GlusterFS needs; use a newer kernel (6.6)"
    {
        translator posix storage/posix '' "directory $s/brick" "volume-id $id"
        translator locks features/locks posix
        translator threads performance/io-threads locks 'thread-count 16'
        translator "$s/brick" debug/io-stats threads "unique-id $s/brick"
        translator server protocol/server "$s/brick" 'transport-type tcp' "transport.socket.bind-address $NETFS_ADDR" \
            'transport.socket.listen-port 49152' "auth.addr.$s/brick.allow *" 'event-threads 2'
    } >"$s/brick.vol"
    {
        translator client protocol/client '' "remote-host $NETFS_ADDR" 'remote-port 49152' \
            "remote-subvolume $s/brick" 'transport-type tcp' 'event-threads 2'
        translator behind performance/write-behind client 'cache-size 4MB' 'flush-behind on'
        translator ahead performance/read-ahead behind
        translator cache performance/io-cache ahead 'cache-size 512MB'
        translator names performance/md-cache cache 'md-cache-timeout 600'
        translator opens performance/open-behind names
        translator quick performance/quick-read opens
    } >"$s/client.vol"
    server gluster-brick glusterfsd -N -f "$s/brick.vol" -l "$NETFS_STORE/gluster-brick.txt.log"
    until_true "GlusterFS' brick does not answer" inside bash -c "exec 3<>/dev/tcp/$NETFS_ADDR/49152"
    server gluster-mount glusterfs -N -f "$s/client.vol" -l "$NETFS_STORE/gluster-client.txt.log" \
        --entry-timeout=600 --attribute-timeout=600 --negative-timeout=60 --fopen-keep-cache=true "$1"
    until_true "GlusterFS is not mounted" mountpoint -q "$1"
}

# Ends what was started, the last first. What is mounted has been unmounted before.
netfs_end() {
    local i pid tries
    [ -n "$NETFS_STORE" ] || return 0
    for ((i = ${#NETFS_PIDS[@]} - 1; i >= 0; i--)); do
        pid=${NETFS_PIDS[$i]}
        kill "$pid" 2>/dev/null || continue
        for ((tries = 0; tries < 60; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.05
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    kill "${NETFS_NAMESPACE:-}" 2>/dev/null || true
    rm -rf --one-file-system "$NETFS_STORE"
}
