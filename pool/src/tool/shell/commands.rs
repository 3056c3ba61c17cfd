//! What the shell understands. Knows nothing of terminals.

use crate::addr::{GAddr, PageId, PageSize};
use crate::client::Pool;
use crate::error::PoolError;
use crate::tool::dht::parse_address;
use crate::tool::units::{parse_size, size};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The most bytes that are shown at once.
const SHOWN_MAX: u64 = 64 << 10;

/// How long `swap` uses a page before it gives up.
const SWAP_PATIENCE: Duration = Duration::from_secs(5);

/// A command, as `help` shows it.
pub struct Command {
    pub name: &'static str,
    arguments: &'static str,
    does: &'static str,
}

const fn command(name: &'static str, arguments: &'static str, does: &'static str) -> Command {
    Command { name, arguments, does }
}

/// All commands.
pub const COMMANDS: [Command; 12] = [
    command("alloc", "SIZE", "allocate an object of at most a page, all zero; say where it is"),
    command("page", "", "allocate a page of zeroes; say where it is"),
    command("free", "ADDRESS", "free an object or a page"),
    command("read", "ADDRESS LENGTH", "show bytes"),
    command("write", "ADDRESS TEXT", "write the rest of the line; 0x and an even number of digits are bytes"),
    command("word", "ADDRESS", "show the 8-byte word there, a multiple of 8"),
    command("cas", "ADDRESS OLD NEW", "store NEW in the word if it is OLD; say what it was"),
    command("where", "ADDRESS", "say which page and rack an address is in"),
    command("heat", "ADDRESS", "say how hot its page is for this rack"),
    command("swap", "ADDRESS", "use its page until it has moved to this rack"),
    command("help", "[COMMAND]", "this"),
    command("quit", "", "end"),
];

const RULES: &str = "\
An address is a number (0x... or decimal), the name of one, or either with +OFFSET.
`NAME = COMMAND` names the address that alloc or page has answered. `#` begins a comment.";

/// Why a command failed.
#[derive(Debug, Error)]
pub enum Fault {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// What comes after a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Say(String),
    Silence,
    End,
}

/// A pool and the names that were given to addresses in it.
pub struct Session {
    pool: Pool,
    size: PageSize,
    names: BTreeMap<String, u64>,
}

impl Session {
    pub fn new(pool: Pool) -> Self {
        let size = pool.page_size();
        Self { pool, size, names: BTreeMap::new() }
    }

    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub fn greeting(&self) -> String {
        format!("rack {}, pages of {}", self.pool.rack(), self.size)
    }

    /// Does what a line says.
    pub fn run(&mut self, line: &str) -> Result<Next, Fault> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Next::Silence);
        }
        if let Some((name, rest)) = line.split_once('=')
            && is_name(name.trim())
        {
            return self.assign(name.trim(), rest.trim());
        }
        let (name, rest) = split(line);
        match name {
            "alloc" => {
                let at = self.alloc(rest)?;
                Ok(Next::Say(format!("{:#x}", at.raw())))
            }
            "page" => {
                let at = self.page(rest)?;
                Ok(Next::Say(format!("{:#x}", at.raw())))
            }
            "free" => {
                let [at] = words(name, rest)?;
                self.pool.free(self.address(at)?)?;
                Ok(Next::Silence)
            }
            "read" => self.read(rest),
            "write" => self.write(rest),
            "word" => {
                let [at] = words(name, rest)?;
                let mut word = [0; 8];
                self.pool.read(self.word_address(at)?, &mut word)?;
                Ok(Next::Say(shown(u64::from_ne_bytes(word))))
            }
            "cas" => {
                let [at, old, new] = words(name, rest)?;
                let was = self.pool.cas(self.address(at)?, number(old)?, number(new)?)?;
                Ok(Next::Say(shown(was)))
            }
            "where" => self.place(rest),
            "heat" => {
                let [at] = words(name, rest)?;
                let heat = self.pool.where_is(self.page_of(at)?)?.heat;
                Ok(Next::Say(format!("{heat:.3}")))
            }
            "swap" => self.swap(rest),
            "help" => help(rest),
            "quit" | "exit" => Ok(Next::End),
            _ => Err(Fault::Usage(format!("there is no command {name:?}; `help` lists those there are"))),
        }
    }

    fn assign(&mut self, name: &str, line: &str) -> Result<Next, Fault> {
        let (command, rest) = split(line);
        let at = match command {
            "alloc" => self.alloc(rest)?.raw(),
            "page" => self.page(rest)?.raw(),
            _ => self.address(line)?.raw(),
        };
        self.names.insert(name.to_owned(), at);
        Ok(Next::Say(format!("{name} = {at:#x}")))
    }

    fn alloc(&self, rest: &str) -> Result<GAddr, Fault> {
        let [bytes] = words("alloc", rest)?;
        Ok(self.pool.alloc(parse_size(bytes).map_err(Fault::Usage)?)?)
    }

    fn page(&self, rest: &str) -> Result<GAddr, Fault> {
        let [] = words("page", rest)?;
        let page = self.pool.alloc_page()?;
        GAddr::new(page, 0, self.size).ok_or(Fault::Usage(format!("page {page} has no address")))
    }

    fn read(&self, rest: &str) -> Result<Next, Fault> {
        let [at, len] = words("read", rest)?;
        let (at, len) = (self.address(at)?, parse_size(len).map_err(Fault::Usage)?);
        if len > SHOWN_MAX {
            return Err(Fault::Usage(format!("at most {} are shown at once", size(SHOWN_MAX))));
        }
        let mut bytes = vec![0; len as usize];
        self.pool.read(at, &mut bytes)?;
        Ok(Next::Say(dump(at.raw(), &bytes)))
    }

    fn write(&self, rest: &str) -> Result<Next, Fault> {
        let (at, text) = split(rest);
        if at.is_empty() || text.is_empty() {
            return Err(usage("write"));
        }
        let bytes = match text.strip_prefix("0x") {
            Some(digits) => bytes_of(digits)?,
            None => text.as_bytes().to_vec(),
        };
        self.pool.write(self.address(at)?, &bytes)?;
        Ok(Next::Silence)
    }

    fn place(&self, rest: &str) -> Result<Next, Fault> {
        let [at] = words("where", rest)?;
        let at = self.address(at)?;
        let page = at.page(self.size).ok_or_else(|| Fault::Usage("there is no such page".into()))?;
        let place = self.pool.where_is(page)?;
        let offset = at.offset(self.size);
        Ok(Next::Say(format!("page {page} offset {offset} in rack {}", place.rack)))
    }

    fn swap(&self, rest: &str) -> Result<Next, Fault> {
        let [at] = words("swap", rest)?;
        let page = self.page_of(at)?;
        let first = GAddr::new(page, 0, self.size).ok_or(Fault::Usage("there is no such page".into()))?;
        let before = self.pool.where_is(page)?.rack;
        if before == self.pool.rack() {
            return Ok(Next::Say(format!("page {page} is in rack {before} already")));
        }
        let (mut byte, mut used) = ([0], 0u64);
        let until = Instant::now() + SWAP_PATIENCE;
        while Instant::now() < until {
            for _ in 0..16 {
                self.pool.read(first, &mut byte)?;
                used += 1;
            }
            let now = self.pool.where_is(page)?.rack;
            if now == self.pool.rack() {
                return Ok(Next::Say(format!(
                    "page {page} moved from rack {before} to rack {now} after {used} reads"
                )));
            }
        }
        let why =
            "its home refuses while it is used there as much, and never moves pages if its watermark is high";
        Err(Fault::Usage(format!("page {page} stays in rack {before} after {used} reads: {why}")))
    }

    /// An address, as the user has written it.
    fn address(&self, text: &str) -> Result<GAddr, Fault> {
        let (base, offset) = match text.split_once('+') {
            Some((base, offset)) => (base.trim(), number(offset.trim())?),
            None => (text, 0),
        };
        let base = match self.names.get(base) {
            Some(at) => *at,
            None if is_name(base) => {
                return Err(Fault::Usage(format!(
                    "nothing is called {base:?}; give it a name with {base} = alloc SIZE"
                )));
            }
            None => parse_address(base).map_err(Fault::Usage)?,
        };
        let at = GAddr::from_raw(base, self.size).and_then(|at| at.checked_add(offset, self.size));
        at.ok_or_else(|| Fault::Usage(format!("{text} is no address of this pool")))
    }

    fn word_address(&self, text: &str) -> Result<GAddr, Fault> {
        let at = self.address(text)?;
        if at.raw().is_multiple_of(8) { Ok(at) } else { Err(PoolError::Unaligned(at.raw()).into()) }
    }

    fn page_of(&self, text: &str) -> Result<PageId, Fault> {
        let page = self.address(text)?.page(self.size);
        page.ok_or_else(|| Fault::Usage(format!("{text} is in no page of this pool")))
    }
}

fn help(rest: &str) -> Result<Next, Fault> {
    let line = |command: &Command| {
        let Command { name, arguments, does } = command;
        format!("{:<24} {does}", format!("{name} {arguments}"))
    };
    if !rest.is_empty() {
        let found = COMMANDS.iter().find(|command| command.name == rest);
        let found = found.ok_or_else(|| Fault::Usage(format!("there is no command {rest:?}")))?;
        return Ok(Next::Say(line(found)));
    }
    let mut lines: Vec<String> = COMMANDS.iter().map(line).collect();
    lines.push(RULES.into());
    Ok(Next::Say(lines.join("\n")))
}

/// The first word of a line, and the rest.
fn split(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}

fn words<'l, const N: usize>(name: &str, rest: &'l str) -> Result<[&'l str; N], Fault> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    words.try_into().map_err(|_| usage(name))
}

fn usage(name: &str) -> Fault {
    let arguments =
        COMMANDS.iter().find(|command| command.name == name).map_or("", |command| command.arguments);
    Fault::Usage(format!("usage: {name} {arguments}").trim_end().to_owned())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn number(text: &str) -> Result<u64, Fault> {
    parse_address(text).map_err(|_| Fault::Usage(format!("{text} is no number")))
}

fn shown(word: u64) -> String {
    format!("{word:#x} ({word})")
}

fn bytes_of(digits: &str) -> Result<Vec<u8>, Fault> {
    let bad = || Fault::Usage("0x begins bytes: an even number of hexadecimal digits".into());
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).map_err(|_| bad()))
        .collect()
}

/// Lines of 16 bytes, with what of them is text.
fn dump(at: u64, bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in (at..).step_by(16).zip(bytes.chunks(16)) {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let readable =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let readable: String = bytes.iter().map(readable).collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line:#014x}  {:<47}  {readable}", hex.join(" "));
    }
    text.truncate(text.trim_end_matches('\n').len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_numbers() {
        assert!(is_name("counter") && is_name("_a1"));
        assert!(!is_name("0x10") && !is_name("1a") && !is_name("") && !is_name("a b"));
    }

    #[test]
    fn bytes_are_read_in_pairs() {
        assert_eq!(bytes_of("00ff7f").unwrap(), [0, 255, 127]);
        for bad in ["0", "0g", "é0"] {
            assert!(bytes_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dump_has_addresses_bytes_and_text() {
        let text = dump(0x1000, b"0123456789abcdef\x00z");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("0x000000001000  30 31 32") && lines[0].ends_with("0123456789abcdef"));
        assert!(lines[1].starts_with("0x000000001010  00 7a") && lines[1].ends_with(".z"), "{text}");
    }

    #[test]
    fn every_command_explains_itself() {
        for command in &COMMANDS {
            assert!(matches!(help(command.name), Ok(Next::Say(text)) if text.contains(command.does)));
        }
        assert_eq!(usage("cas").to_string(), "usage: cas ADDRESS OLD NEW");
        assert_eq!(usage("page").to_string(), "usage: page");
    }
}
