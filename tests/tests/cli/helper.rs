//! Through mount(8) and fstab, with the helper where mount looks for it: in a mount namespace of the
//! test's own, so that nothing is installed on the machine.

use crate::Place;
use e2e::run::{ok, script};
use e2e::{binary, fixture};

/// Runs a script in which `mount -t rchfs` works; `$DIR` is the mount point, `$TOP` a directory for files.
fn with_helper(text: &str) {
    let Some(place) = Place::new() else { return };
    if !e2e::rustix::process::geteuid().is_root() {
        return fixture::skipped("needs root");
    }
    // mount(8) looks in /sbin only. What else is there is hidden for this one script, which needs none of it.
    let prepare = r#"
        sbin=$(readlink -f /sbin)
        cp "$BIN" "$TOP/mount.rchfs"
        cp "$(command -v mkfs.ext4 || echo /bin/true)" "$TOP/" 2>/dev/null || true
        mount -t tmpfs helper "$sbin"
        cp "$TOP/mount.rchfs" "$sbin/mount.rchfs"
        trap 'umount -l "$DIR" 2>/dev/null || true' EXIT
    "#;
    let body = format!("{prepare}\n{text}");
    let mut command =
        script(&place.beside(""), r#"exec unshare -m --propagation private bash -euo pipefail -c "$BODY""#);
    command.env("BODY", body).env("BIN", binary::mount_rchfs());
    ok(command.env("DIR", place.dir()).env("TOP", place.beside("")));
}

#[test]
fn mount_8_finds_the_helper() {
    with_helper(
        r#"mount -t rchfs embedded "$DIR" -o size=64M,nosuid
           echo text > "$DIR/a"
           findmnt -no FSTYPE,SOURCE,OPTIONS "$DIR" | grep -q 'fuse.rchfs *embedded .*nosuid'
           umount "$DIR"
           ! mountpoint -q "$DIR""#,
    );
}

#[test]
fn mount_8_passes_on_a_failure() {
    with_helper(
        r#"code=0; mount -t rchfs embedded "$DIR" -o size=1K 2> said || code=$?
           test $code = 32
           grep -q size said
           ! mountpoint -q "$DIR""#,
    );
}

#[test]
fn fstab_mounts_once_and_with_the_options_given() {
    with_helper(
        r#"echo "embedded $DIR rchfs size=64M,nofail,x-systemd.automount,nodev 0 0" > fstab
           mount -T fstab -a
           mount -T fstab -a
           test $(grep -c " $DIR " /proc/self/mountinfo) = 1
           test $(df --output=size -B1 "$DIR" | tail -1) -le 67108864
           umount "$DIR"
           mount -T fstab "$DIR"
           umount "$DIR""#,
    );
}

#[test]
fn mount_8_with_fake_does_nothing() {
    with_helper(r#"mount -f -t rchfs embedded "$DIR" -o size=64M; ! mountpoint -q "$DIR""#);
}
