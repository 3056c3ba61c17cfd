//! The command line of `mount.rchfs`: from words to one typed [`Settings`].
//!
//! Two stages. *Parse* knows syntax only: [`args`] the words (with clap), [`options`] the text behind
//! `-o`, [`units`] sizes; the result is [`low::Low`], where nothing has a default yet. *Resolve*
//! ([`settings`]) knows meaning: defaults, what the machine and the user allow ([`host`]), what
//! contradicts what.
//!
//! Must not know: FUSE, the pool, how a process goes into the background. Touches nothing on the
//! machine except for what [`host::Host::probe`] reads.

pub mod args;
pub mod error;
pub mod host;
pub mod low;
pub mod options;
pub mod settings;
pub mod units;

pub use error::CliError;
pub use host::Host;
pub use settings::Settings;

use std::ffi::OsString;

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print this text on standard output and succeed.
    Print(String),
    /// The options are in order and `-f` says to stop there.
    Fake,
    /// Mount.
    Mount(Box<Settings>),
}

/// Parses and resolves the words of a command line, the first of which is the program's name.
///
/// # Errors
/// Whatever is wrong with it, as a sentence that says what to do.
pub fn command(words: impl IntoIterator<Item = OsString>, host: &Host) -> Result<Command, CliError> {
    let args = match args::parse(words)? {
        args::Parsed::Print(text) => return Ok(Command::Print(text)),
        args::Parsed::Args(args) => args,
    };
    let low = low::Low::from_args(&args)?;
    let settings = Settings::resolve(low, host)?;
    Ok(if args.fake { Command::Fake } else { Command::Mount(Box::new(settings)) })
}
