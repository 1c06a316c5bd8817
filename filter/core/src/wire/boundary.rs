//! Finds where the filter may cut a stream of server-sent events (WHATWG HTML), of lines or of
//! Amazon's messages: after a whole one.

/// The unit of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Server-sent events, each followed by an empty line.
    Event,
    /// Lines.
    Line,
    /// Messages of an Amazon event stream, which begin with their length: see
    /// [`crate::wire::amazon_event_stream`].
    Message,
}

/// Follows one stream, chunk by chunk, and keeps none of it.
#[derive(Clone, Debug)]
pub(crate) struct Boundaries {
    unit: Unit,
    line_has_bytes: bool,
    after_carriage_return: bool,
    /// How many bytes of a message's length have arrived, and their value so far.
    length: (u8, u32),
    /// How many bytes are missing of a message whose length is known.
    left: usize,
    is_at_boundary: bool,
}

impl Boundaries {
    /// Starts at the beginning of a stream.
    pub(crate) fn new(unit: Unit) -> Self {
        Self {
            unit,
            line_has_bytes: false,
            after_carriage_return: false,
            length: (0, 0),
            left: 0,
            is_at_boundary: true,
        }
    }

    /// True if the bytes so far end with a whole unit, or if there are none.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.is_at_boundary
    }

    /// Reads the next bytes. Returns the offset behind the last whole unit that ends in them, if
    /// any.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Option<usize> {
        match self.unit {
            Unit::Event | Unit::Line => self.feed_lines(chunk),
            Unit::Message => self.feed_messages(chunk),
        }
    }

    fn feed_messages(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut last = None;
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first() {
            if self.left > 0 {
                let (message, behind) = rest.split_at(self.left.min(rest.len()));
                self.left = self.left.saturating_sub(message.len());
                rest = behind;
                if self.left == 0 {
                    self.is_at_boundary = true;
                    last = Some(chunk.len().saturating_sub(rest.len()));
                }
                continue;
            }
            self.is_at_boundary = false;
            let (count, value) = self.length;
            let value = value.wrapping_shl(8) | u32::from(*byte);
            self.length = (count.saturating_add(1), value);
            rest = tail;
            if count == 3 {
                self.length = (0, 0);
                // A length below the minimum is invalid: from here on, the stream has no known
                // boundary.
                let left = value.checked_sub(4).filter(|_| value >= MESSAGE_BYTES_MIN);
                self.left = left.and_then(|left| usize::try_from(left).ok()).unwrap_or(usize::MAX);
            }
        }
        last
    }

    fn feed_lines(&mut self, chunk: &[u8]) -> Option<usize> {
        let mut last = None;
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first() {
            if core::mem::take(&mut self.after_carriage_return) && *byte == b'\n' {
                rest = tail;
            } else if let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
                let is_empty = end == 0 && !self.line_has_bytes;
                self.is_at_boundary = self.unit == Unit::Line || is_empty;
                self.line_has_bytes = false;
                let (line, behind) = rest.split_at(end.saturating_add(1));
                self.after_carriage_return = line.ends_with(b"\r");
                rest = behind;
            } else {
                self.line_has_bytes = true;
                self.is_at_boundary = false;
                break;
            }
            if self.is_at_boundary {
                last = Some(chunk.len().saturating_sub(rest.len()));
            }
        }
        last
    }
}

/// The length of an Amazon message without headers and payload: prelude and trailer.
const MESSAGE_BYTES_MIN: u32 = 16;

#[cfg(test)]
mod tests {
    use super::{Boundaries, Unit};

    /// The last boundary in each chunk that contains one, for chunks of this size.
    fn cuts(unit: Unit, text: &[u8], size: usize) -> Vec<usize> {
        let mut boundaries = Boundaries::new(unit);
        let mut found = Vec::new();
        for (number, chunk) in text.chunks(size).enumerate() {
            if let Some(at) = boundaries.feed(chunk) {
                found.push(number * size + at);
            }
        }
        found
    }

    #[test]
    fn an_event_ends_with_its_empty_line_and_a_line_with_its_break() {
        for (unit, text, last) in [
            (Unit::Event, "data: 1\n\ndata: 2\n\ndata: 3\n", Some(18)),
            (Unit::Event, "data: 1\r\n\r\ndata", Some(11)),
            (Unit::Event, "data: 1\r\rdata: 2\r", Some(9)),
            (Unit::Event, "data: 1\n\r\n", Some(10)),
            (Unit::Event, ": ping\n\n\n", Some(9)),
            (Unit::Event, "data: 1\ndata: 2", None),
            (Unit::Line, "{}\n{}\r\n{", Some(7)),
            (Unit::Line, "{}", None),
            (Unit::Message, "\0\0\0\x10prelude, crc\0\0\0\x12prelude, 0, crc\0", Some(34)),
            (Unit::Message, "\0\0\0\x0fno message, as it is too short", None),
        ] {
            let text = text.as_bytes();
            assert_eq!(cuts(unit, text, text.len()).last().copied(), last, "{text:?}");
            for size in 1..text.len() {
                let found = cuts(unit, text, size);
                assert_eq!(found.last().copied(), last, "{text:?} by {size}");
            }
        }
        assert!(Boundaries::new(Unit::Event).is_at_boundary());
    }
}
