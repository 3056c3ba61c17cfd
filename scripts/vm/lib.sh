# Sourced by run.sh: a kernel, an initramfs, and a virtual machine that runs a script with the host's files.
# shellcheck shell=bash
#
# The guest is Debian's own kernel under QEMU's software emulation (no KVM needed). It mounts the host's root
# read-only over 9p with a tmpfs on top, so programs and libraries of the host run in it at their own paths.
# Soft-RoCE (rxe0 on eth0) gives real verbs, and a piece of memory set aside at boot a real devdax device.

VM_DIR=$TARGET/vm
VM_TOOLS=(qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio modprobe:kmod rdma:iproute2 ndctl:ndctl
    daxctl:daxctl ibv_devices:ibverbs-utils ib_write_lat:perftest fio:fio)
VM_HEADERS=(libibverbs-dev librdmacm-dev libclang-dev pkg-config)

# Says that nothing was run, also where test.sh collects such lines, and ends well.
vm_skip() {
    local line="vm: skipped: $1"
    printf '%s\n' "$line"
    [ -z "${RCHFS_E2E_SKIPPED:-}" ] || printf '%s\n' "$line" >> "$RCHFS_E2E_SKIPPED"
    exit 0
}

# Whether rdma-sys can be built.
vm_has_headers() { [ -e /usr/include/infiniband/verbs.h ] && [ -e /usr/include/rdma/rdma_cma.h ] && vm_has_clang; }
vm_has_clang() { compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' > /dev/null || [ -n "${LIBCLANG_PATH:-}" ]; }

# Installs what is missing, as root; else ends with a line about it.
vm_tools() {
    local missing=() entry
    for entry in "${VM_TOOLS[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin command -v "${entry%%:*}" > /dev/null || missing+=("${entry##*:}")
    done
    vm_has_headers || missing+=("${VM_HEADERS[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" -eq 0 ] && command -v apt-get > /dev/null || vm_skip "not installed: ${missing[*]}"
    say "installing ${missing[*]}"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "${missing[@]}"; } \
        > "$VM_DIR/apt.log" 2>&1 || vm_skip "could not be installed: ${missing[*]} (see $VM_DIR/apt.log)"
    command -v qemu-system-x86_64 > /dev/null || vm_skip "qemu-system-x86_64 is not there after all"
}

# Debian's kernel, unpacked without being installed; only the modules that matter.
vm_kernel() {
    [ ! -e "$VM_DIR/kernel/done" ] || return 0
    local package dir=$VM_DIR/kernel m='./lib/modules/*/kernel'
    command -v apt-get > /dev/null || vm_skip "the kernel comes from a Debian package, and there is no apt-get"
    package=$(apt-cache depends linux-image-amd64 2> /dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$package" ] || vm_skip "apt knows no linux-image-amd64"
    rm -rf "$dir" && mkdir -p "$dir/package"
    (cd "$dir/package" && apt-get -qq download "$package") > /dev/null 2>&1 || vm_skip "$package could not be downloaded"
    dpkg-deb --fsys-tarfile "$dir"/package/*.deb | tar -x -C "$dir" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
        "$m/crypto/*" "$m/lib/*" "$m/drivers/virtio/*" "$m/drivers/net/*net*.ko" "$m/drivers/infiniband/*" \
        "$m/drivers/nvdimm/*" "$m/drivers/dax/*" "$m/fs/9p/*" "$m/fs/fuse/*" "$m/fs/netfs/*" "$m/fs/fscache/*" \
        "$m/fs/overlayfs/*" "$m/net/*"
    rm -rf "$dir/package"
    depmod -b "$dir" "$(ls "$dir/lib/modules")"
    touch "$dir/done"
}

# busybox, the modules, and init.
vm_initrd() {
    local out=$VM_DIR/initrd.gz here=$ROOT/scripts/vm root version module file
    [ ! -e "$out" ] || [ "$out" -ot "$here/init" ] || [ "$out" -ot "$here/lib.sh" ] || return 0
    version=$(ls "$VM_DIR/kernel/lib/modules")
    root=$(mktemp -d)
    mkdir -p "$root"/{bin,dev,proc,sys,host,top,new,modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for module in virtio_pci virtio_net crc32_generic crc32c_generic 9p 9pnet_virtio rdma_rxe ib_uverbs \
        nd_e820 nd_pmem dax_pmem device_dax kmem fuse overlay; do
        modprobe -C /dev/null -d "$VM_DIR/kernel" -S "$version" --show-depends $module
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' > "$root/modules/paths"
    while read -r file; do
        cp "$file" "$root/modules/" && basename "$file" >> "$root/modules/order"
    done < "$root/modules/paths"
    install -m 755 "$here/init" "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$out"
    rm -rf "$root"
}

# vm_run DIR SCRIPT [ENV=...]...   boots, runs SCRIPT in the guest as root with DIR at /out, and returns its exit code.
vm_run() {
    local out=$1 script=$2 code
    shift 2
    {
        # /tmp is the host's, which this very tree may lie in.
        printf 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run/tmp'
        [ $# -eq 0 ] || printf ' %q' "$@"
        printf '\n'
        printf 'bash %q; echo $? > /out/code; sync; busybox poweroff -f\n' "$script"
    } > "$out/boot"
    rm -f "$out/code"
    # Without erms the kernel's memcpy, by which Soft-RoCE stores what it receives, moves words whole.
    timeout -k 5 "${VM_SECONDS:-600}" qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max,-erms,-fsrm \
        -m "${VM_MEMORY:-3G}" -smp 2 -nographic -no-reboot -nic none \
        -kernel "$VM_DIR"/kernel/boot/vmlinuz-* -initrd "$VM_DIR/initrd.gz" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc memmap=256M!1G memmap=256M!1536M" \
        -netdev user,id=n0,restrict=on -device virtio-net-pci,netdev=n0,romfile= \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs local,path="$out",mount_tag=out,security_model=none < /dev/null || code=$?
    [ -s "$out/code" ] || { say "vm: the guest gave no exit code (QEMU's was ${code:-0})" >&2; return 125; }
    return "$(cat "$out/code")"
}
