//! An event stream on its way to the caller: events pass as they came, unless their data is rewritten.
//!
//! Lines pass at once until the first one with data; from there on an event is held until it ends.
//!
//! Source: HTML Living Standard, section 9.2.6, "Interpreting an event stream", read 2026-11-29.

use std::mem;

/// The longest event that is held, bytes.
pub const EVENT_MAX_BYTES: usize = 8 << 20;

/// Why a stream goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("an event is longer than {EVENT_MAX_BYTES} bytes")]
    TooLong,
    #[error("an event cannot be read")]
    Unreadable,
}

/// Makes other data of an event's; none if it is to stay.
pub type Rewrite = Box<dyn Fn(&[u8]) -> Result<Option<String>, StreamError>>;

pub struct EventFilter {
    rewrite: Rewrite,
    /// The current line, as far as it has come.
    line: Vec<u8>,
    /// The current event from its first line with data on, and those of its lines without.
    held: Vec<u8>,
    others: Vec<u8>,
    /// The lines of data, joined.
    data: Option<Vec<u8>>,
    /// A line feed would belong to the end of the line before.
    is_behind_return: bool,
    /// The last line that ended is one of `others`.
    is_behind_other: bool,
    is_begun: bool,
}

impl EventFilter {
    pub fn new(rewrite: Rewrite) -> Self {
        Self {
            rewrite,
            line: Vec::new(),
            held: Vec::new(),
            others: Vec::new(),
            data: None,
            is_behind_return: false,
            is_behind_other: false,
            is_begun: false,
        }
    }

    /// What of the stream can go on, now that `bytes` have come.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut out = Vec::with_capacity(bytes.len());
        if !bytes.is_empty()
            && mem::take(&mut self.is_behind_return)
            && let Some(rest) = bytes.strip_prefix(b"\n")
        {
            let to = if self.data.is_some() { &mut self.held } else { &mut out };
            to.push(b'\n');
            if self.is_behind_other {
                self.others.push(b'\n');
            }
            bytes = rest;
        }
        while let Some(at) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let is_return = bytes[at] == b'\r';
            let len = if is_return && bytes.get(at + 1) == Some(&b'\n') { 2 } else { 1 };
            self.is_behind_return = is_return && at + 1 == bytes.len();
            self.line.extend_from_slice(&bytes[..at]);
            self.end_line(&bytes[at..at + len], &mut out)?;
            bytes = &bytes[at + len..];
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.held.len() > EVENT_MAX_BYTES {
            return Err(StreamError::TooLong);
        }
        Ok(out)
    }

    /// The rest of a stream that ends in the middle of an event: some readers take it for a whole one.
    pub fn finish(&mut self) -> Result<Vec<u8>, StreamError> {
        let mut out = Vec::new();
        if !self.line.is_empty() {
            self.end_line(b"", &mut out)?;
        }
        self.end_event(&mut out)?;
        Ok(out)
    }

    fn end_line(&mut self, end: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
        let line = mem::take(&mut self.line);
        let is_first = !mem::replace(&mut self.is_begun, true);
        // A byte order mark may stand at the start.
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line);
        self.is_behind_other = false;
        if text.is_empty() {
            self.end_event(out)?;
            out.extend_from_slice(&line);
            out.extend_from_slice(end);
            return Ok(());
        }
        if let Some(value) = data_of(text) {
            match &mut self.data {
                None => self.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        }
        let to = if self.data.is_some() { &mut self.held } else { out };
        to.extend_from_slice(&line);
        to.extend_from_slice(end);
        if self.data.is_some() && data_of(text).is_none() {
            self.is_behind_other = true;
            self.others.extend_from_slice(&line);
            self.others.extend_from_slice(end);
        }
        Ok(())
    }

    fn end_event(&mut self, out: &mut Vec<u8>) -> Result<(), StreamError> {
        let (held, others) = (mem::take(&mut self.held), mem::take(&mut self.others));
        let Some(data) = self.data.take() else { return Ok(()) };
        match (self.rewrite)(&data)? {
            None => out.extend_from_slice(&held),
            Some(data) => {
                out.extend_from_slice(&others);
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(data.as_bytes());
                out.push(b'\n');
            }
        }
        Ok(())
    }
}

/// The value of a line, without its end, that has data.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let value = match line.strip_prefix(b"data")? {
        [] => &[],
        [b':', value @ ..] => value,
        _ => return None,
    };
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaces data that begins with `x`.
    fn filter() -> EventFilter {
        EventFilter::new(Box::new(|data| match data {
            [b'!', ..] => Err(StreamError::Unreadable),
            [b'x', ..] => Ok(Some(format!("new{}", data.len()))),
            _ => Ok(None),
        }))
    }

    fn whole(stream: &[u8], piece: usize) -> Vec<u8> {
        let mut filter = filter();
        let mut out = Vec::new();
        for piece in stream.chunks(piece) {
            out.extend(filter.push(piece).expect("readable"));
            out.extend(filter.push(b"").expect("nothing"));
        }
        out.extend(filter.finish().expect("readable"));
        out
    }

    #[test]
    fn a_stream_in_any_pieces_passes_byte_for_byte_but_for_what_is_rewritten() {
        let mut end = String::new();
        for (stream, expected) in [
            ("data: a\n\ndata: b\n\n", "data: a\n\ndata: b\n\n"),
            (
                ": ping\r\n\r\nid: 1\r\ndata:a\r\ndata\r\n\r\n",
                ": ping\r\n\r\nid: 1\r\ndata:a\r\ndata\r\n\r\n",
            ),
            ("data: a\r\rdata: b\r\r", "data: a\r\rdata: b\r\r"),
            ("event: m\nid: 1\ndata: x1\n\n", "event: m\nid: 1\ndata: new2\n\n"),
            ("data: x1\nid: 1\ndata: 2\nretry: 5\n\n", "id: 1\nretry: 5\ndata: new4\n\n"),
            ("data: x\r\nid: 1\r\n\r\n", "id: 1\r\ndata: new1\n\r\n"),
            ("data:x\r\n\r\ndata: y\r\n\r\n", "data: new1\n\r\ndata: y\r\n\r\n"),
            ("data:x\r\rdata: y\r\r", "data: new1\n\rdata: y\r\r"),
            ("\u{feff}data: x\n\ndata: a\n\n", "data: new1\n\ndata: a\n\n"),
            ("data: a\n\n\u{feff}data: x\n\n", "data: a\n\n\u{feff}data: x\n\n"),
            ("database: x\nDATA: x\n\n", "database: x\nDATA: x\n\n"),
            ("data: x", "data: new1\n"),
            ("data: x\n", "data: new1\n"),
            ("data: a\nid: 1", "data: a\nid: 1"),
            ("", ""),
        ] {
            for piece in 1..=stream.len().max(1) {
                end.clear();
                end += &String::from_utf8(whole(stream.as_bytes(), piece)).expect("text");
                assert_eq!(end, expected, "{stream:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn only_what_may_be_rewritten_is_held() {
        let mut filter = filter();
        assert_eq!(filter.push(b": ping\nevent: m\nda").expect("lines"), b": ping\nevent: m\n");
        assert_eq!(filter.push(b"ta: a\n").expect("held"), b"");
        assert_eq!(filter.push(b"id: 1\n").expect("held"), b"");
        assert_eq!(filter.push(b"\n").expect("an event"), b"data: a\nid: 1\n\n");
    }

    #[test]
    fn an_event_that_is_too_long_or_unreadable_ends_the_stream() {
        let mut long = filter();
        let piece = vec![b'a'; 1 << 20];
        assert_eq!(long.push(b"data: ").expect("held"), b"");
        for _ in 0..7 {
            assert_eq!(long.push(&piece).expect("held"), b"");
        }
        assert_eq!(long.push(&piece), Err(StreamError::TooLong));
        assert_eq!(filter().push(b"data: !\n\n"), Err(StreamError::Unreadable));
    }
}
