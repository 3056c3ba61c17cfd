# Sourced by what runs in the guest: the network, Soft-RoCE and the devdax devices.
# shellcheck shell=bash
guest_up() {
    ip link set lo up
    ip link set eth0 up
    ip addr add 10.9.0.1/24 dev eth0
    ip addr add 10.9.0.2/24 dev eth0
    rdma link add rxe0 type rxe netdev eth0
    # On the memory that was set aside: one for each of two racks.
    ndctl create-namespace -f -e namespace0.0 -m devdax > /dev/null
    ndctl create-namespace -f -e namespace1.0 -m devdax > /dev/null
    ulimit -l unlimited
    echo "guest: $(uname -r), $(rdma link | tr -d '\n'), $(echo /dev/dax*), clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource), up for $(cut -d' ' -f1 /proc/uptime) s"
}
