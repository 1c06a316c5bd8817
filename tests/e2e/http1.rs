//! Reads HTTP/1.1 messages as raw bytes. It frames them, and interprets only what framing needs.

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much one read asks for at least, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// A message as it came over the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// First line and header lines, with their line ends, without the empty line.
    pub(crate) head: Vec<u8>,
    /// The body without the frames of chunks, whose places depend on timing.
    pub(crate) body: Vec<u8>,
    /// The trailer lines with their line ends.
    pub(crate) trailers: Vec<u8>,
    /// True if the message ended before the connection did.
    pub(crate) is_complete: bool,
}

impl Message {
    /// The value of the first header with this name; `name` is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.head);
        head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            (found.eq_ignore_ascii_case(name)).then(|| value.trim().to_owned())
        })
    }

    /// A word of the first line, by its place.
    pub(crate) fn word(&self, place: usize) -> String {
        let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).split(' ').nth(place).unwrap_or_default().to_owned()
    }

    /// A response's status.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// A request's method.
    pub(crate) fn method(&self) -> String {
        self.word(0)
    }
}

/// The kind of message to read: a request without a length has no body, a response without one ends
/// with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
}

/// Reads messages one after another.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the next message, as far as it came; `None` if the connection ends before the message
    /// starts. Calls `seen` with the length of the body whenever it has grown.
    pub(crate) async fn message(
        &mut self,
        kind: Kind,
        mut seen: impl FnMut(usize),
    ) -> anyhow::Result<Option<Message>> {
        let mut message = Message::default();
        let Some(head) = self.until(b"\r\n\r\n").await else {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            message.head = std::mem::take(&mut self.buffer);
            return Ok(Some(message));
        };
        message.head = head;
        message.head.truncate(message.head.len() - 2);
        seen(0);
        message.is_complete = if message
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            self.chunks(&mut message, &mut seen).await?
        } else if let Some(length) = message.header("content-length") {
            let length = length.parse().context("content-length")?;
            self.take(&mut message.body, length, &mut seen).await
        } else if kind == Kind::Request || matches!(message.status(), 204 | 304) {
            true
        } else {
            self.take(&mut message.body, usize::MAX, &mut seen).await;
            true
        };
        Ok(Some(message))
    }

    /// Reads a chunked body; true if it came to its end.
    async fn chunks(
        &mut self,
        message: &mut Message,
        seen: &mut impl FnMut(usize),
    ) -> anyhow::Result<bool> {
        loop {
            let Some(line) = self.until(b"\r\n").await else { return Ok(false) };
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let length = usize::from_str_radix(&line, 16).with_context(|| format!("{line:?}"))?;
            if length == 0 {
                break;
            }
            let end = message.body.len() + length;
            if !self.take(&mut message.body, end, seen).await || self.until(b"\r\n").await.is_none()
            {
                return Ok(false);
            }
        }
        loop {
            match self.until(b"\r\n").await {
                None => return Ok(false),
                Some(line) if line == b"\r\n" => return Ok(true),
                Some(line) => message.trailers.extend(line),
            }
        }
    }

    /// Takes everything up to and including `end`; `None`, taking nothing, if `end` does not come.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut from = 0;
        loop {
            let found = self.buffer[from..].windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = found {
                return Some(self.buffer.drain(..from + at + end.len()).collect());
            }
            from = self.buffer.len().saturating_sub(end.len() - 1);
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Fills `body` up to `length`; false if the connection ends before.
    async fn take(
        &mut self,
        body: &mut Vec<u8>,
        length: usize,
        seen: &mut impl FnMut(usize),
    ) -> bool {
        loop {
            let count = self.buffer.len().min(length - body.len());
            body.extend(self.buffer.drain(..count));
            seen(body.len());
            if body.len() == length {
                return true;
            }
            if !self.fill().await {
                return false;
            }
        }
    }

    /// Reads once; a reset counts as an end.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(READ_BYTES);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..))
    }
}
