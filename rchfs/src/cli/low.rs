//! The command line as typed values that were given or not; no defaults, no meaning across options.
//!
//! Of an option given twice the last counts, as everywhere in mount(8).

use super::args::Args;
use super::error::CliError;
use super::options::{self, OPTIONS, RawOption};
use super::units::{Size, parse_size};
use std::path::PathBuf;

/// How much the kernel may cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// As much as is coherent.
    Auto,
    /// Also what is written to files that other mounts may use. Where there are none that is so anyway.
    Writeback,
    /// Nothing: every read asks, and sees every completed write.
    None,
}

/// Whether requests come through io_uring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUring {
    /// Where the kernel lets them.
    Auto,
    /// They must.
    On,
    /// They must not.
    Off,
}

/// What was given.
#[derive(Debug, Default)]
#[allow(missing_docs)] // Each field is the option of the same name; see `options::OPTIONS`.
pub struct Low {
    pub source: Option<String>,
    pub dir: PathBuf,
    pub foreground: bool,
    pub verbose: bool,
    pub size: Option<Size>,
    pub page_size: Option<Size>,
    pub inodes: Option<u64>,
    pub cxl: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub repair: bool,
    pub cache: Option<Cache>,
    pub io_uring: Option<IoUring>,
    pub threads: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u16>,
    pub read_only: Option<bool>,
    pub allow_other: bool,
    pub dev: Option<bool>,
    pub suid: Option<bool>,
    pub exec: Option<bool>,
    pub noatime: Option<bool>,
    pub sync: Option<bool>,
    pub dirsync: bool,
    pub log: Option<PathBuf>,
    pub quiet: bool,
    pub rack: Option<u64>,
    pub transport: Option<String>,
}

impl Low {
    /// Interprets each word and option by itself.
    ///
    /// # Errors
    /// Unknown options (unless `-s`), and values that cannot be read.
    pub fn from_args(args: &Args) -> Result<Self, CliError> {
        if args.namespace.is_some() {
            return Err(CliError::Namespace);
        }
        if let Some(t) = args.fs_type.as_deref().filter(|t| !matches!(*t, "rchfs" | "fuse.rchfs")) {
            return Err(CliError::WrongType(t.to_owned()));
        }
        let mut low = Self { foreground: args.foreground, verbose: args.verbose, ..Self::default() };
        if let Some((dir, source)) = args.paths.split_last() {
            low.dir = PathBuf::from(dir);
            let text = |s: &std::ffi::OsString| s.to_str().map(str::to_owned);
            low.source = match source.first() {
                Some(s) => Some(text(s).ok_or_else(|| CliError::NotUtf8(s.into()))?),
                None => None,
            };
        }
        for group in &args.options {
            for option in options::split(group)? {
                low.take(&option, args.sloppy)?;
            }
        }
        Ok(low)
    }

    /// Notes one option.
    fn take(&mut self, o: &RawOption, sloppy: bool) -> Result<(), CliError> {
        let flag = self.flag(&o.name);
        if let (true, Some(value)) = (flag, &o.value) {
            return Err(CliError::TakesNoValue { name: o.name.clone(), value: value.clone() });
        }
        match o.name.as_str() {
            _ if flag => {}
            "size" => self.size = Some(size("size", o)?),
            "page_size" => self.page_size = Some(size("page_size", o)?),
            "inodes" => self.inodes = Some(inodes(o)?),
            "cxl" => self.cxl = Some(path("cxl", "/dev/dax0.0", o)?),
            "state" => self.state = Some(path("state", "/var/lib/rchfs/pool", o)?),
            "log" => self.log = Some(path("log", "/var/log/rchfs.log", o)?),
            "cache" => self.cache = Some(cache(o)?),
            "io_uring" => self.io_uring = Some(io_uring(o)?),
            "threads" => self.threads = Some(number("threads", "4", o)?),
            "uid" => self.uid = Some(id("uid", o)?),
            "gid" => self.gid = Some(id("gid", o)?),
            "mode" => self.mode = Some(mode(o)?),
            "rack" => self.rack = Some(number("rack", "0", o)?),
            "transport" => self.transport = Some(transport(o)?),
            "remount" => return Err(CliError::Remount(self.dir.clone())),
            name if ignored(name) || sloppy => {}
            name => {
                return Err(CliError::UnknownOption { name: name.to_owned(), near: options::nearest(name) });
            }
        }
        Ok(())
    }

    /// Notes an option that takes no value; whether `name` is one.
    fn flag(&mut self, name: &str) -> bool {
        match name {
            "ro" => self.read_only = Some(true),
            "rw" => self.read_only = Some(false),
            "allow_other" => self.allow_other = true,
            "default_permissions" => {}
            "dev" => self.dev = Some(true),
            "nodev" => self.dev = Some(false),
            "suid" => self.suid = Some(true),
            "nosuid" => self.suid = Some(false),
            "exec" => self.exec = Some(true),
            "noexec" => self.exec = Some(false),
            "noatime" => self.noatime = Some(true),
            "relatime" | "atime" => self.noatime = Some(false),
            "sync" => self.sync = Some(true),
            "async" => self.sync = Some(false),
            "repair" => self.repair = true,
            "dirsync" => self.dirsync = true,
            "quiet" => self.quiet = true,
            _ => return false,
        }
        true
    }
}

/// Whether an option is accepted for the sake of mount(8) and fstab, and means nothing here.
fn ignored(name: &str) -> bool {
    name.starts_with("x-")
        || name.starts_with("X-")
        || OPTIONS.iter().any(|o| o.name == name && o.help.is_empty())
}

fn value<'a>(name: &'static str, example: &'static str, o: &'a RawOption) -> Result<&'a str, CliError> {
    o.value.as_deref().filter(|v| !v.is_empty()).ok_or(CliError::NeedsValue { name, example })
}

fn bad(name: &'static str, value: &str, want: &'static str) -> CliError {
    CliError::BadValue { name, value: value.to_owned(), want }
}

fn size(name: &'static str, o: &RawOption) -> Result<Size, CliError> {
    let v = value(name, if name == "size" { "4G" } else { "4K" }, o)?;
    parse_size(v).ok_or_else(|| bad(name, v, "a size, such as 512M, 4G or 50%"))
}

fn number(name: &'static str, example: &'static str, o: &RawOption) -> Result<u64, CliError> {
    let v = value(name, example, o)?;
    v.parse().map_err(|_| bad(name, v, "a number"))
}

/// A count, in which K, M, G are welcome.
fn inodes(o: &RawOption) -> Result<u64, CliError> {
    let v = value("inodes", "1M", o)?;
    match parse_size(v) {
        Some(Size::Bytes(n)) if n > 0 => Ok(n),
        _ => Err(bad("inodes", v, "a number of at least 1, such as 100000 or 1M")),
    }
}

fn path(name: &'static str, example: &'static str, o: &RawOption) -> Result<PathBuf, CliError> {
    value(name, example, o).map(PathBuf::from)
}

fn cache(o: &RawOption) -> Result<Cache, CliError> {
    match value("cache", "auto", o)? {
        "auto" => Ok(Cache::Auto),
        "none" => Ok(Cache::None),
        "writeback" => Ok(Cache::Writeback),
        v => Err(bad("cache", v, "one of auto, none, writeback")),
    }
}

fn io_uring(o: &RawOption) -> Result<IoUring, CliError> {
    match value("io_uring", "auto", o)? {
        "auto" => Ok(IoUring::Auto),
        "on" => Ok(IoUring::On),
        "off" => Ok(IoUring::Off),
        v => Err(bad("io_uring", v, "one of auto, on, off")),
    }
}

fn transport(o: &RawOption) -> Result<String, CliError> {
    match value("transport", "auto", o)? {
        v @ ("auto" | "rdma" | "tcp") => Ok(v.to_owned()),
        v => Err(bad("transport", v, "one of auto, rdma, tcp")),
    }
}

fn id(name: &'static str, o: &RawOption) -> Result<u32, CliError> {
    let v = value(name, "1000", o)?;
    // The largest number is the kernel's "no one".
    v.parse().ok().filter(|n| *n != u32::MAX).ok_or_else(|| bad(name, v, "a numeric id"))
}

fn mode(o: &RawOption) -> Result<u16, CliError> {
    let v = value("mode", "755", o)?;
    let mode = u16::from_str_radix(v, 8).ok().filter(|m| *m <= 0o7777);
    mode.ok_or_else(|| bad("mode", v, "an octal mode, such as 755 or 1777"))
}
