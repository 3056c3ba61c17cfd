//! Just enough of the protocols of Redis (RESP) and memcached (text): a value read, a value written.

use super::{Store, Workload};
use crate::tool::ToolError;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

struct Link {
    name: String,
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
    line: Vec<u8>,
}

impl Link {
    fn connect(addr: &str) -> Result<Self, ToolError> {
        let failed = |error| ToolError::Io(addr.to_owned(), error);
        let stream = TcpStream::connect(addr).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let stream = BufReader::with_capacity(16 << 10, stream);
        Ok(Self { name: addr.into(), stream, request: Vec::new(), line: Vec::new() })
    }

    fn send(&mut self) -> Result<(), ToolError> {
        let sent = self.stream.get_mut().write_all(&self.request);
        sent.map_err(|error| ToolError::Io(self.name.clone(), error))
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<&str, ToolError> {
        self.line.clear();
        let read = self.stream.read_until(b'\n', &mut self.line);
        read.map_err(|error| ToolError::Io(self.name.clone(), error))?;
        let text = self.line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
        text.ok_or_else(|| ToolError::Mismatch(self.name.clone()))
    }

    /// `len` bytes and the end of the line.
    fn data(&mut self, len: usize, value: &mut Vec<u8>) -> Result<(), ToolError> {
        value.resize(len + 2, 0);
        self.stream.read_exact(value).map_err(|error| ToolError::Io(self.name.clone(), error))?;
        value.truncate(len);
        Ok(())
    }

    fn unexpected<T>(&self) -> Result<T, ToolError> {
        let said = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        Err(ToolError::No(format!("{} answers {said:?}, which does not fit the question", self.name)))
    }
}

/// A connection to a Redis server.
pub(super) struct Redis(Link);

impl Redis {
    pub fn connect(addr: &str) -> Result<Self, ToolError> {
        Link::connect(addr).map(Self)
    }

    fn ask(&mut self, words: &[&[u8]]) -> Result<(), ToolError> {
        let request = &mut self.0.request;
        request.clear();
        request.extend(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            request.extend(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend(b"\r\n");
        }
        self.0.send()
    }
}

impl Store for Redis {
    fn runs(&self, workload: Workload) -> bool {
        workload != Workload::E
    }

    fn is_fast(&self) -> bool {
        false
    }

    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ToolError> {
        self.ask(&[b"GET", key])?;
        let line = self.0.line()?;
        if line == "$-1" {
            return Ok(false);
        }
        match line.strip_prefix('$').and_then(|len| len.parse().ok()) {
            Some(len) => self.0.data(len, value).map(|()| true),
            None => self.0.unexpected(),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ToolError> {
        self.ask(&[b"SET", key, value])?;
        if self.0.line()? == "+OK" { Ok(()) } else { self.0.unexpected() }
    }

    fn scan(&mut self, _: &[u8], _: usize) -> Result<(), ToolError> {
        Err(ToolError::Usage("Redis has no scans of this kind".into()))
    }
}

/// A connection to a memcached.
pub(super) struct Memcached(Link);

impl Memcached {
    pub fn connect(addr: &str) -> Result<Self, ToolError> {
        Link::connect(addr).map(Self)
    }
}

impl Store for Memcached {
    fn runs(&self, workload: Workload) -> bool {
        workload != Workload::E
    }

    fn is_fast(&self) -> bool {
        false
    }

    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ToolError> {
        let link = &mut self.0;
        link.request.clear();
        link.request.extend(b"get ");
        link.request.extend_from_slice(key);
        link.request.extend(b"\r\n");
        link.send()?;
        let line = link.line()?;
        if line == "END" {
            return Ok(false);
        }
        let len = line.strip_prefix("VALUE ").and_then(|rest| rest.rsplit(' ').next()?.parse().ok());
        let Some(len) = len else { return link.unexpected() };
        link.data(len, value)?;
        if link.line()? == "END" { Ok(true) } else { link.unexpected() }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ToolError> {
        let link = &mut self.0;
        link.request.clear();
        link.request.extend(b"set ");
        link.request.extend_from_slice(key);
        link.request.extend(format!(" 0 0 {}\r\n", value.len()).as_bytes());
        link.request.extend_from_slice(value);
        link.request.extend(b"\r\n");
        link.send()?;
        if link.line()? == "STORED" { Ok(()) } else { link.unexpected() }
    }

    fn scan(&mut self, _: &[u8], _: usize) -> Result<(), ToolError> {
        Err(ToolError::Usage("memcached has no scans".into()))
    }
}
