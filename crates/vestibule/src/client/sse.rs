//! Server-sent events: bytes in, messages out (WHATWG HTML 9.2.6).

use std::fmt;
use std::mem;

/// One message of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The last id the stream has given, at or before this message.
    pub id: String,
    /// The event type; `message` when the stream named none.
    pub event: String,
    /// The data, its lines joined by line feeds.
    pub data: String,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SseError {
    /// A line or a message is larger than the platform ever sends.
    TooLarge,
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SseError::TooLarge => f.write_str("the event stream holds a message larger than 4 MiB"),
        }
    }
}

impl std::error::Error for SseError {}

/// Bytes a line or the data of a message may have.
const MAX_BYTES: usize = 4 << 20;

/// Cuts a byte stream into messages, however it was cut into reads.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    /// The last byte was a carriage return, so that a line feed now belongs to it.
    after_cr: bool,
    /// The first line has been taken: a byte order mark can no longer come.
    begun: bool,
    id: String,
    last_id: String,
    event: String,
    data: String,
}

impl SseParser {
    /// A parser at the start of a stream.
    pub fn new() -> SseParser {
        SseParser::default()
    }

    /// The last id the stream has given with or before a complete message, be it one without data; empty when there is none.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Takes the next bytes and appends the messages they complete to `out`.
    ///
    /// # Errors
    /// [`SseError::TooLarge`]; the parser is of no use afterwards.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<Message>) -> Result<(), SseError> {
        for &byte in bytes {
            match byte {
                b'\n' if mem::take(&mut self.after_cr) => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    self.end_line(out)?;
                }
                _ => {
                    self.after_cr = false;
                    if self.line.len() == MAX_BYTES {
                        return Err(SseError::TooLarge);
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn end_line(&mut self, out: &mut Vec<Message>) -> Result<(), SseError> {
        let bytes = mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let text =
            if mem::replace(&mut self.begun, true) { &text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        if text.is_empty() {
            self.dispatch(out);
            return Ok(());
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.data.len() + value.len() >= MAX_BYTES {
                    return Err(SseError::TooLarge);
                }
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment has an empty field name; `retry` is ours to decide; anything else is of a later version.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self, out: &mut Vec<Message>) {
        let event = mem::take(&mut self.event);
        let mut data = mem::take(&mut self.data);
        self.id.clone_into(&mut self.last_id);
        if data.pop().is_none() {
            return;
        }
        let event = if event.is_empty() { "message".to_owned() } else { event };
        out.push(Message { id: self.id.clone(), event, data });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Message> {
        let mut out = Vec::new();
        SseParser::new().feed(text.as_bytes(), &mut out).expect("small");
        out
    }

    fn message(id: &str, event: &str, data: &str) -> Message {
        Message { id: id.to_owned(), event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn fields_make_messages() {
        let text = ": hello\n\nid: 7\nevent: event\ndata: {\"a\":1}\n\nevent: presence\ndata:x\ndata: y\n\nretry: 5\ncolour: red\n\n";
        assert_eq!(parse(text), [message("7", "event", "{\"a\":1}"), message("7", "presence", "x\ny")]);
    }

    #[test]
    fn all_line_ends_and_all_cuts_give_the_same() {
        let text = "\u{feff}id: 1\nevent: event\ndata: größe\n\ndata\n\nid: a\0b\ndata: 2\n\ndata: unfinished";
        let expected = [message("1", "event", "größe"), message("1", "message", ""), message("1", "message", "2")];
        for ends in ["\n", "\r\n", "\r"] {
            let text = text.replace('\n', ends);
            assert_eq!(parse(&text), expected, "{ends:?}");
            let mut parser = SseParser::new();
            let mut out = Vec::new();
            for byte in text.bytes() {
                parser.feed(&[byte], &mut out).expect("small");
            }
            assert_eq!(out, expected, "{ends:?} byte by byte");
        }
    }

    #[test]
    fn a_type_without_data_is_no_message_and_does_not_leak_into_the_next() {
        assert_eq!(parse("event: event\n\ndata: 1\n\n"), [message("", "message", "1")]);
    }

    #[test]
    fn an_id_without_data_counts() {
        let mut parser = SseParser::new();
        let mut out = Vec::new();
        parser.feed(b"retry: 1\nid: 41\n\n", &mut out).expect("small");
        assert_eq!((parser.last_id(), out.len()), ("41", 0));
        parser.feed(b"event: presence\ndata: x\n\nid: 42\nevent: event\ndata: {\"posi", &mut out).expect("small");
        assert_eq!(out, [message("41", "presence", "x")]);
        assert_eq!(parser.last_id(), "41", "the message with 42 is not complete");
    }

    #[test]
    fn endless_lines_and_messages_are_refused() {
        let mut parser = SseParser::new();
        assert_eq!(parser.feed(&vec![b'a'; MAX_BYTES + 1], &mut Vec::new()), Err(SseError::TooLarge));
        let mut parser = SseParser::new();
        let line = format!("data: {}\n", "a".repeat(1 << 20));
        let fed = (0..5).try_for_each(|_| parser.feed(line.as_bytes(), &mut Vec::new()));
        assert_eq!(fed, Err(SseError::TooLarge));
    }
}
