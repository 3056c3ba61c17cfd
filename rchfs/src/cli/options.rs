//! The text behind `-o`: its syntax, and the one table of options.
//!
//! Commas separate; a backslash takes the next character literally, and double quotes protect commas,
//! as in mount(8). The table feeds the help text, the search for what an unknown name may have meant,
//! and tells which options are someone else's business.

use super::error::CliError;
use std::fmt::Write;

/// One option as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    /// Before the `=`.
    pub name: String,
    /// After it, if there is one.
    pub value: Option<String>,
}

/// An option that `mount.rchfs` knows.
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// The name of its value in the help; empty if it takes none.
    pub value: &'static str,
    /// One line for the help; empty for what is accepted only because mount(8) and fstab use it.
    pub help: &'static str,
}

const fn option(name: &'static str, value: &'static str, help: &'static str) -> Known {
    Known { name, value, help }
}

const fn silent(name: &'static str) -> Known {
    option(name, "", "")
}

/// Every option there is, in the order of the help text.
pub const OPTIONS: &[Known] = &[
    option("size", "SIZE", "memory of the pool: 512M, 4G, 50% (of RAM)    [4G, at most half of RAM]"),
    option("page_size", "SIZE", "page of the pool, 4K to 2M, a power of two    [4K]"),
    option("inodes", "N", "most files and directories there can be       [one for each 2K of size]"),
    option("cxl", "PATH", "keep the pool in this file or /dev/dax device; needs state="),
    option("state", "DIR", "keep the names and attributes in this directory; needs cxl="),
    option("repair", "", "mend names in state= that are damaged, keeping what can be kept"),
    option("cache", "MODE", "kernel caching: auto, none or writeback       [auto]"),
    option("io_uring", "auto|on|off", "requests through io_uring, not /dev/fuse      [auto: if enabled]"),
    option("threads", "N", "threads that serve requests                   [2 for each CPU, 4 to 16]"),
    option("uid", "ID", "owner of the root directory when it is made   [who mounts]"),
    option("gid", "ID", "group of the root directory when it is made   [who mounts]"),
    option("mode", "OCTAL", "permissions of the root directory, likewise   [755]"),
    option("ro", "", "read only"),
    option("rw", "", "read and write                                [default]"),
    option(
        "allow_other",
        "",
        "let other users in, as permissions say        [as root, or if fuse.conf lets you]",
    ),
    option("default_permissions", "", "let the kernel check permissions              [always]"),
    option("dev", "", "device files work                             [as root]"),
    option("nodev", "", "device files do not work"),
    option("suid", "", "set-user-id bits work                         [as root]"),
    option("nosuid", "", "set-user-id bits do not work"),
    option("exec", "", "programs can be run                           [default]"),
    option("noexec", "", "programs can not be run"),
    option("relatime", "", "note reading times now and then               [default]"),
    option("noatime", "", "never note the time of reading"),
    option("sync", "", "write as if every file were opened with O_SYNC"),
    option("dirsync", "", "the same for changes of directories"),
    option("log", "FILE", "append messages to this file (RUST_LOG says which)"),
    option("quiet", "", "do not say that a volatile pool is volatile"),
    option("rack", "N", "with HOST:PORT of a master: the rack of this host [0]"),
    option("cxl", "none", "likewise: this host cannot map that rack's memory; its daemon does the I/O"),
    option("transport", "auto|rdma|tcp", "likewise: how it talks to the master    [auto]"),
    silent("async"),
    silent("atime"),
    silent("diratime"),
    silent("nodiratime"),
    silent("lazytime"),
    silent("nolazytime"),
    silent("iversion"),
    silent("noiversion"),
    silent("mand"),
    silent("nomand"),
    silent("silent"),
    silent("loud"),
    silent("defaults"),
    silent("auto"),
    silent("noauto"),
    silent("nofail"),
    silent("user"),
    silent("nouser"),
    silent("users"),
    silent("nousers"),
    silent("owner"),
    silent("noowner"),
    silent("group"),
    silent("nogroup"),
    silent("_netdev"),
    silent("comment"),
    silent("remount"),
];

/// Splits the text of one `-o`. Empty options (as in `a,,b`) vanish.
///
/// # Errors
/// If a quote is not closed, or nothing follows a backslash.
pub fn split(text: &str) -> Result<Vec<RawOption>, CliError> {
    let mut found = Vec::new();
    let (mut name, mut value): (String, Option<String>) = (String::new(), None);
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ',' if !quoted => push(&mut found, &mut name, &mut value),
            '"' => quoted = !quoted,
            '=' if value.is_none() && !quoted => value = Some(String::new()),
            c => {
                let literal = if c == '\\' { chars.next() } else { Some(c) };
                let literal = literal.ok_or_else(|| CliError::Unfinished(text.to_owned()))?;
                value.as_mut().unwrap_or(&mut name).push(literal);
            }
        }
    }
    if quoted {
        return Err(CliError::Unfinished(text.to_owned()));
    }
    push(&mut found, &mut name, &mut value);
    Ok(found)
}

fn push(found: &mut Vec<RawOption>, name: &mut String, value: &mut Option<String>) {
    let option = RawOption { name: std::mem::take(name).trim().to_owned(), value: value.take() };
    if !option.name.is_empty() || option.value.is_some() {
        found.push(option);
    }
}

/// The known name that `name` is most like, if it is like any.
pub fn nearest(name: &str) -> Option<&'static str> {
    let alike = |known: &Known| strsim::jaro_winkler(known.name, name);
    let best = OPTIONS.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(best) > 0.8).then_some(best.name)
}

/// The option part of `--help`.
pub fn help() -> String {
    let mut text = String::from("Options after -o:\n");
    for o in OPTIONS.iter().filter(|o| !o.help.is_empty()) {
        let form = if o.value.is_empty() { o.name.to_owned() } else { format!("{}={}", o.name, o.value) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {form:24} {}", o.help);
    }
    text.push_str(
        "\nSizes take K, M, G, T (powers of 1024). What mount(8) and fstab know besides (defaults, noauto,\n\
         nofail, user, _netdev, x-...) is accepted and means nothing here.\n\n\
         Exit status: 0 mounted, 1 wrong usage, 32 the mount failed and why is on standard error.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, Option<String>)> {
        split(text).unwrap().into_iter().map(|o| (o.name, o.value)).collect()
    }

    #[test]
    fn commas_separate_and_the_first_equals_sign_divides() {
        let want = [("rw", None), ("size", Some("4G")), ("comment", Some("a=b"))];
        let want: Vec<_> = want.iter().map(|(n, v)| (n.to_string(), v.map(str::to_owned))).collect();
        assert_eq!(pairs("rw,,size=4G,comment=a=b,"), want);
        assert_eq!(pairs(""), vec![]);
    }

    #[test]
    fn quotes_and_backslashes_protect_commas() {
        let path = Some("/a,b".to_owned());
        assert_eq!(pairs(r#"cxl="/a,b""#), vec![("cxl".to_owned(), path.clone())]);
        assert_eq!(pairs(r"cxl=/a\,b"), vec![("cxl".to_owned(), path)]);
        for bad in ["cxl=\"/a", "cxl=/a\\"] {
            assert!(split(bad).unwrap_err().to_string().contains("does not end"), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_name_finds_the_one_that_was_meant() {
        for (wrong, right) in [
            ("szie", Some("size")),
            ("pagesize", Some("page_size")),
            ("page-size", Some("page_size")),
            ("allow_others", Some("allow_other")),
            ("thread", Some("threads")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(wrong), right, "{wrong}");
        }
    }
}
