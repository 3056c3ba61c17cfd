//! tar, rsync, cp, dpkg: everything that copies trees.

use e2e::run::{ok, script};
use e2e::{Fixture, on_fs, on_fs_as_root};

/// A tree with one of everything that archives know, in `$PWD/tree`.
const TREE: &str = r#"
    mkdir -p tree/dir/deep tree/empty
    cp -r /etc/ssl /etc/apt tree/dir/ 2>/dev/null || true
    seq 1 100000 > tree/numbers
    truncate -s 64M tree/sparse; printf tail >> tree/sparse
    ln tree/numbers tree/dir/hard; ln -s ../numbers tree/dir/soft; ln -s nowhere tree/dangling
    mkfifo tree/fifo
    setfattr -n user.comment -v 'some words' tree/numbers
    setfacl -m u:65534:rw tree/numbers; setfacl -d -m g:7:rx tree/dir
    chmod 4755 tree/dir/deep; chmod 1777 tree/empty
    if [ $(id -u) = 0 ]; then chown 65534:7 tree/empty; mknod tree/null c 1 3; fi
    touch -d '1999-12-31 23:59:59.123456789' tree/numbers tree/dir
"#;

fn run(fs: &Fixture, text: &str) {
    ok(&mut script(fs.dir(), &format!("{TREE}\n{text}")));
}

#[test]
fn rsync_copies_everything_and_then_finds_nothing_to_do() {
    on_fs_as_root("size=256M", |fs| {
        run(
            fs,
            r#"rsync -aHAXS --numeric-ids tree/ copy/
               test -z "$(rsync -aHAXSni --numeric-ids --delete --checksum tree/ copy/)"
               test $(stat -c %b copy/sparse) -lt 100
               test $(stat -c %i copy/numbers) = $(stat -c %i copy/dir/hard)
               getfattr --only-values -n user.comment copy/numbers | grep -qx 'some words'
               list() { (cd $1; find . ! -type l | sort | xargs getfacl -nP); }
               diff <(list tree) <(list copy)"#,
        );
    });
}

#[test]
fn rsync_to_and_from_another_file_system_agrees() {
    on_fs_as_root("size=256M", |fs| {
        let outside = fs.outside("out");
        let text = format!(
            r#"out={}
               rsync -aHS --numeric-ids tree/ $out/
               rsync -aHS --numeric-ids $out/ back/
               test -z "$(rsync -aHSni --numeric-ids --delete --checksum tree/ back/)"
               diff -r --no-dereference -x fifo -x null tree back"#,
            outside.display()
        );
        run(fs, &text);
    });
}

#[test]
fn tar_keeps_modes_times_links_attributes_and_holes() {
    on_fs_as_root("size=256M", |fs| {
        run(
            fs,
            r#"tar --xattrs --acls --sparse -cf a.tar tree
               mkdir out; tar --xattrs --acls -xpf a.tar -C out
               tar --compare --xattrs --acls -f a.tar -C out
               list() { (cd $1; find . -printf '%p %y %m %U %G %n %l %T@\n' | sort); }
               diff <(list tree) <(list out/tree)
               test $(stat -c %b out/tree/sparse) -lt 100"#,
        );
    });
}

#[test]
fn cp_a_and_diff_agree_and_du_matches() {
    on_fs("size=256M", |fs| {
        run(
            fs,
            r#"cp -a tree copy
               diff -r --no-dereference -x fifo -x null tree copy
               cp -r /usr/share/doc/b* . 2>/dev/null || true
               grep -rlq . copy/dir || true
               test "$(du -s --apparent-size tree | cut -f1)" = "$(du -s --apparent-size copy | cut -f1)"
               rm -rf tree copy; test ! -e copy"#,
        );
    });
}

#[test]
fn a_debian_package_is_built_and_unpacked() {
    on_fs("size=256M", |fs| {
        ok(&mut script(
            fs.dir(),
            r#"mkdir -p p/DEBIAN p/usr/share/x p/usr/bin
               printf 'Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n' > p/DEBIAN/control
               cp /usr/bin/env p/usr/bin/; seq 1 50000 > p/usr/share/x/numbers; ln -s numbers p/usr/share/x/link
               chmod -R u+rwX,go+rX p; chmod 755 p/DEBIAN
               dpkg-deb --root-owner-group -b p x.deb > /dev/null
               for deb in x.deb $(find /var/cache/apt/archives -name '*.deb' -size -20M 2>/dev/null | head -2); do
                   rm -rf out; dpkg-deb -x $deb out
                   dpkg-deb --fsys-tarfile $deb | tar --compare -f - -C out > differences || true
                   # Owners differ unless root unpacks.
                   ! grep -vE 'Uid differs|Gid differs' differences
               done
               rm -rf out; dpkg-deb -x x.deb out; diff -r --no-dereference p/usr out/usr"#,
        ));
    });
}
