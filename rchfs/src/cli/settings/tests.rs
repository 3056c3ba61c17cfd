//! Whole command lines, from words to settings or to the sentence that refuses them.

use super::super::{Command, command};
use super::*;
use std::ffi::OsString;

const ROOT: Host = Host { uid: 0, gid: 0, memory: 24 << 30, cpus: 2, user_allow_other: false };
const USER: Host = Host { uid: 1000, gid: 1000, ..ROOT };

fn run(host: &Host, line: &str) -> Result<Settings, CliError> {
    let words = format!("mount.rchfs {line}");
    match command(words.split_whitespace().map(OsString::from), host)? {
        Command::Mount(settings) => Ok(*settings),
        other => panic!("{line}: {other:?}"),
    }
}

fn ok(line: &str) -> Settings {
    run(&ROOT, line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// The settings of the pool in the process.
fn embedded(settings: &Settings) -> &PoolSettings {
    match &settings.pool {
        PoolChoice::Embedded(pool) => pool,
        other => panic!("{other:?}"),
    }
}

/// The line is refused on `host`, with exit status 32, and one line that has all of `parts`.
fn refused(host: &Host, line: &str, parts: &[&str]) {
    let error = run(host, line).expect_err(line);
    let text = error.to_string();
    assert_eq!(error.exit_code(), 32, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{line}: {part:?} is not in {text:?}");
    }
}

#[test]
fn only_a_directory_is_a_whole_command_line() {
    let s = ok("/mnt/pool");
    assert_eq!((s.source.as_str(), s.dir.as_path()), ("embedded", Path::new("/mnt/pool")));
    assert_eq!(embedded(&s).backing, Backing::Volatile);
    assert_eq!((embedded(&s).size, embedded(&s).default_size), (None, 4 << 30));
    assert_eq!((embedded(&s).page_size, s.threads, s.cache), (None, 4, Cache::Auto));
    assert!(s.flags.allow_other && s.flags.dev && s.flags.suid && s.flags.exec && !s.flags.read_only);
    assert!(!s.foreground);
}

#[test]
fn the_default_size_is_at_most_half_of_memory() {
    let small = Host { memory: 2 << 30, ..ROOT };
    assert_eq!(embedded(&run(&small, "/mnt").unwrap()).default_size, 1 << 30);
    assert_eq!(embedded(&run(&small, "/mnt -o size=50%").unwrap()).size, Some(1 << 30));
}

#[test]
fn the_source_is_kept_as_written() {
    for source in ["embedded", "none", "rchfs"] {
        assert_eq!(ok(&format!("{source} /mnt")).source, source);
    }
}

#[test]
fn an_address_is_the_master_of_a_cluster() {
    let cluster = |line: &str| match ok(line) {
        Settings { source, pool: PoolChoice::Cluster(c), .. } => (source, c.master, c.rack.0),
        other => panic!("{line}: {other:?}"),
    };
    let master = "127.0.0.1:31850".to_owned();
    assert_eq!(cluster("127.0.0.1:31850 /mnt"), (master.clone(), master.clone(), 0));
    assert_eq!(cluster("127.0.0.1:31850 /mnt -o rack=7,transport=tcp"), (master.clone(), master, 7));
    assert_eq!(cluster("[::1]:31850 /mnt").1, "[::1]:31850");
    refused(&ROOT, "host:1 /mnt -o rack=65536", &["rack=65536", "65535"]);
    refused(&ROOT, "host:1 /mnt -o transport=rdma", &["transport=tcp"]);
    for option in
        ["size=1G", "page_size=4K", "inodes=5", "cxl=/a,state=/b", "repair", "uid=1", "gid=1", "mode=700"]
    {
        refused(&ROOT, &format!("host:1 /mnt -o {option}"), &["rcmp-master", "leave it out"]);
    }
}

#[test]
fn options_have_their_effects() {
    let s = ok("/mnt -o size=1G,page_size=64K,inodes=1M,cache=none,threads=8,ro,nodev,nosuid,noexec,noatime");
    assert_eq!((embedded(&s).size, embedded(&s).page_size), (Some(1 << 30), PageSize::from_bytes(65536)));
    assert_eq!((embedded(&s).inodes, s.cache, s.threads), (Some(1 << 20), Cache::None, 8));
    let f = s.flags;
    assert!(f.read_only && !f.dev && !f.suid && !f.exec && f.noatime);
    let s = ok("/mnt -o uid=5,gid=6,mode=1777,sync,dirsync,log=/l,quiet,repair --foreground -v");
    assert_eq!(embedded(&s).root, RootSettings { uid: 5, gid: 6, mode: Some(0o1777) });
    assert!(s.flags.sync && s.flags.dirsync && s.quiet && s.foreground && s.verbose);
    assert!(embedded(&s).repair && !embedded(&ok("/mnt")).repair);
    assert_eq!(s.log.as_deref(), Some(Path::new("/l")));
}

#[test]
fn of_an_option_given_twice_the_last_counts() {
    let s = ok("/mnt -o ro,size=1G -o size=2G,rw");
    assert_eq!((embedded(&s).size, s.flags.read_only), (Some(2 << 30), false));
}

#[test]
fn what_fstab_and_mount8_pass_along_is_ignored() {
    let fstab = "defaults,_netdev,nofail,noauto,auto,user,users,owner,group,user=joe,comment=a,async,lazytime,\
                 x-systemd.automount,x-gvfs-show,X-mount.mkdir=0755";
    assert_eq!(ok(&format!("/mnt -o {fstab}")), ok("/mnt"));
    assert!(matches!(command(["m", "embedded", "/mnt", "-f"].map(OsString::from), &ROOT), Ok(Command::Fake)));
}

#[test]
fn sloppy_ignores_unknown_options_but_not_bad_values() {
    assert_eq!(ok("/mnt -s -o bogus,other=1"), ok("/mnt"));
    refused(&ROOT, "/mnt -s -o size=bogus", &["size=bogus is not a size"]);
}

#[test]
fn unknown_options_are_refused_with_what_was_meant() {
    refused(&ROOT, "/mnt -o szie=1G", &["unknown option \"szie\"", "did you mean \"size\""]);
    refused(&ROOT, "/mnt -o zzz", &["unknown option \"zzz\"", "--help"]);
    refused(&ROOT, "/mnt -o strictatime", &["unknown option \"strictatime\""]);
    refused(&ROOT, "/mnt -o ro=1", &["ro takes no value", "\"1\""]);
    refused(&ROOT, "/mnt -o remount,ro", &["remount is not supported", "umount /mnt"]);
}

#[test]
fn impossible_values_are_refused() {
    refused(&ROOT, "/mnt -o size=1K", &["size=1K is too small", "at least 1M"]);
    refused(&ROOT, "/mnt -o size=0", &["too small"]);
    refused(&ROOT, "/mnt -o size=64M,page_size=2M", &["size=64M is too small", "pages of 2M", "128M"]);
    refused(&ROOT, "/mnt -o size=25G", &["size=25G is more than the 24G of memory", "cxl="]);
    refused(&ROOT, "/mnt -o size=99999999999%", &["more than the 24G"]);
    refused(&ROOT, "/mnt -o size", &["size needs a value", "size=4G"]);
    refused(&ROOT, "/mnt -o size=", &["size needs a value"]);
    for page in ["3K", "5000", "2K", "4M", "0"] {
        refused(&ROOT, &format!("/mnt -o page_size={page}"), &["page_size=", "power of two from 4K to 2M"]);
    }
    refused(&ROOT, "/mnt -o threads=0", &["threads=0", "1 to 256"]);
    refused(&ROOT, "/mnt -o threads=many", &["threads=many is not a number"]);
    refused(&ROOT, "/mnt -o cache=all", &["cache=all", "auto, none"]);
    refused(&ROOT, "/mnt -o inodes=0", &["inodes=0"]);
    refused(&ROOT, "/mnt -o mode=999", &["mode=999", "octal"]);
    refused(&ROOT, "/mnt -o uid=joe", &["uid=joe", "numeric"]);
    refused(&ROOT, "/mnt -t ext4", &["-t ext4"]);
}

#[test]
fn persistence_needs_both_paths_outside_the_mount_point() {
    let s = ok("/mnt -o cxl=/var/pool,state=/var/state,size=64G");
    let want = Backing::Persistent { cxl: "/var/pool".into(), state: "/var/state".into() };
    assert_eq!(embedded(&s).backing, want);
    refused(&ROOT, "/mnt -o cxl=/p", &["cxl=/p", "without state=DIR"]);
    refused(&ROOT, "/mnt -o state=/s", &["state=/s", "without cxl=PATH"]);
    refused(&ROOT, "/mnt -o cxl=/p,state=/p", &["are the same"]);
    refused(&ROOT, "/mnt -o cxl=/mnt/p,state=/s", &["cxl=/mnt/p lies under the mount point"]);
    refused(&ROOT, "/mnt -o cxl=/p,state=/mnt/s", &["state=/mnt/s lies under"]);
    refused(&ROOT, "/mnt -o log=/mnt/log", &["log=/mnt/log lies under"]);
}

#[test]
fn writeback_with_a_cluster_is_for_root_and_for_those_who_write() {
    assert_eq!(ok("127.0.0.1:31850 /mnt -o cache=writeback").cache, Cache::Writeback);
    assert_eq!(ok("127.0.0.1:31850 /mnt -o ro,cache=writeback").cache, Cache::Auto);
    refused(&USER, "127.0.0.1:31850 /mnt -o cache=writeback", &["cache=writeback", "root only"]);
    assert_eq!(run(&USER, "/mnt -o cache=writeback").unwrap().cache, Cache::Writeback);
}

#[test]
fn what_belongs_to_clusters_is_refused_by_name() {
    refused(&ROOT, "/mnt embedded", &["\"/mnt\" is no source", "directory comes last"]);
    refused(&ROOT, "/mnt -o rack=1", &["rack= belongs to a pool in a cluster", "HOST:PORT"]);
    refused(&ROOT, "/mnt -o transport=tcp", &["transport="]);
    refused(&ROOT, "/mnt -o transport=pigeon", &["auto, rdma, tcp"]);
    assert_eq!(ok("/mnt -o transport=auto"), ok("/mnt"));
}

#[test]
fn an_ordinary_user_gets_what_fuse_allows() {
    let s = run(&USER, "/mnt").unwrap();
    assert!(!s.flags.allow_other && !s.flags.dev && !s.flags.suid && s.flags.exec);
    assert_eq!(embedded(&s).root, RootSettings { uid: 1000, gid: 1000, mode: None });
    refused(&USER, "/mnt -o allow_other", &["allow_other", "user_allow_other", "/etc/fuse.conf"]);
    refused(&USER, "/mnt -o dev", &["dev is for root"]);
    refused(&USER, "/mnt -o suid", &["suid is for root"]);
    let allowed = Host { user_allow_other: true, ..USER };
    assert!(run(&allowed, "/mnt -o allow_other").unwrap().flags.allow_other);
}

#[test]
fn wrong_usage_has_status_1() {
    let error = command(["m".into()], &ROOT).unwrap_err();
    assert_eq!(error.exit_code(), 1);
}
