//! The words of the command line, with clap. Syntax only.
//!
//! `mount.rchfs [SOURCE] DIR` is what people type; `mount.rchfs SPEC DIR [-sfnv] [-o OPTS] [-t TYPE]` is
//! what mount(8) runs, with `-f` for "fake". Both are one grammar.

use super::error::CliError;
use super::options;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};
use std::ffi::OsString;

/// The command line, not yet interpreted.
#[derive(Debug, Parser)]
#[command(
    name = "mount.rchfs",
    version,
    about = "Mount a POSIX file system in memory, on a pool of pages",
    override_usage = "mount.rchfs [SOURCE] DIR [-o OPTIONS] [--foreground]"
)]
pub struct Args {
    /// The pool (`embedded`, the default, runs in this process), then the directory to mount on
    #[arg(value_name = "[SOURCE] DIR", num_args = 1..=2, required = true)]
    pub paths: Vec<OsString>,
    /// Options, separated by commas; may be given more than once
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Stay in the foreground until the file system is unmounted
    #[arg(long)]
    pub foreground: bool,
    /// Check the command line, mount nothing (as mount(8) means it)
    #[arg(short = 'f')]
    pub fake: bool,
    /// Ignore unknown options instead of refusing them
    #[arg(short = 's')]
    pub sloppy: bool,
    /// Accepted and ignored: there is no mtab to write
    #[arg(short = 'n')]
    pub no_mtab: bool,
    /// Say what is mounted, and how
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// The file system type, as mount(8) passes it on
    #[arg(short = 't', value_name = "TYPE")]
    pub fs_type: Option<String>,
    /// A mount namespace, as mount(8) passes it on; not supported
    #[arg(short = 'N', value_name = "NAMESPACE", hide = true)]
    pub namespace: Option<String>,
}

/// What the words are.
#[derive(Debug)]
pub enum Parsed {
    /// A question (`--help`, `--version`) and its answer.
    Print(String),
    /// Something to do.
    Args(Args),
}

/// Parses the words, the first of which is the program's name.
///
/// # Errors
/// [`CliError::Usage`] with one line that says what is wrong.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Parsed, CliError> {
    let command = Args::command().after_help(options::help());
    match command.try_get_matches_from(words).and_then(|m| Args::from_arg_matches(&m)) {
        Ok(args) => Ok(Parsed::Args(args)),
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Parsed::Print(e.to_string())),
            kind => Err(CliError::Usage(one_line(kind, &e))),
        },
    }
}

/// clap explains itself over several lines; the first says it all.
fn one_line(kind: ErrorKind, error: &clap::Error) -> String {
    if kind == ErrorKind::MissingRequiredArgument {
        return "no directory to mount on".into();
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    if kind == ErrorKind::TooManyValues {
        return "too many arguments: one directory, and at most one source before it".into();
    }
    first.trim_end_matches([';', ':']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn args(line: &str) -> Args {
        match parse(words(line)).unwrap() {
            Parsed::Args(args) => args,
            Parsed::Print(text) => panic!("{text}"),
        }
    }

    fn error(line: &str) -> String {
        parse(words(line)).unwrap_err().to_string()
    }

    #[test]
    fn mount8_and_people_use_the_same_grammar() {
        let a = args("mount.rchfs embedded /mnt/pool -sfnv -o rw,size=1G -t rchfs");
        assert_eq!(a.paths, ["embedded", "/mnt/pool"]);
        assert!(a.sloppy && a.fake && a.no_mtab && a.verbose);
        assert_eq!((a.options, a.fs_type.as_deref()), (vec!["rw,size=1G".to_owned()], Some("rchfs")));
        let a = args("mount.rchfs -o ro --foreground /mnt/pool -o noatime");
        assert_eq!(a.paths, ["/mnt/pool"]);
        assert_eq!(a.options, ["ro", "noatime"]);
        assert!(a.foreground && !a.fake);
    }

    #[test]
    fn usage_errors_are_one_line() {
        for (line, part) in [
            ("mount.rchfs", "no directory"),
            ("mount.rchfs a b c", "too many arguments"),
            ("mount.rchfs /mnt --forground", "--forground"),
            ("mount.rchfs /mnt -o", "-o"),
        ] {
            let text = error(line);
            assert!(text.contains(part), "{line}: {text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn help_names_every_option() {
        let Parsed::Print(text) = parse(words("mount.rchfs --help")).unwrap() else { panic!("no help") };
        for option in options::OPTIONS.iter().filter(|o| !o.help.is_empty()) {
            assert!(text.contains(option.name), "{}", option.name);
        }
        assert!(text.contains("--foreground"));
    }
}
