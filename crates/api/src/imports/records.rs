//! The records of a file that arrives in pieces: lines, or in CSV what may go over several of them.

use zeroize::Zeroizing;

/// The longest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;
/// What some programs begin a file with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why there are no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("Line {0} begins a row of more than 64 KiB. Is a line end missing, or a quotation mark?")]
    TooLong(u64),
    #[error("Line {0} begins a row with a quotation mark that is never closed.")]
    Unclosed(u64),
}

/// Where in a row of CSV the next byte stands (RFC 4180).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// At the beginning of a cell, where alone a mark opens one.
    Begin,
    Bare,
    Quoted,
    /// Behind a mark in a quoted cell: its end, or the first of two.
    Mark,
}

impl Stand {
    fn after(self, byte: u8) -> Stand {
        match (self, byte) {
            (Stand::Begin, b'"') | (Stand::Mark, b'"') => Stand::Quoted,
            (Stand::Quoted, b'"') => Stand::Mark,
            (Stand::Quoted, _) => Stand::Quoted,
            (_, b',' | b'\n') => Stand::Begin,
            _ => Stand::Bare,
        }
    }
}

/// Cuts a file into records and counts its lines. Blank ones are passed over.
pub(super) struct Records {
    /// Whether a line end between quotation marks belongs to its record (RFC 4180).
    quotes: bool,
    /// It holds codes.
    text: Zeroizing<Vec<u8>>,
    /// What of it was given away.
    taken: usize,
    /// What of it was looked at.
    scanned: usize,
    stand: Stand,
    /// The line the next record begins in.
    line: u64,
    /// Line ends within it.
    within: u64,
    is_finished: bool,
}

impl Records {
    pub(super) fn new(quotes: bool) -> Records {
        let text = Zeroizing::new(Vec::new());
        Records { quotes, text, taken: 0, scanned: 0, stand: Stand::Begin, line: 1, within: 0, is_finished: false }
    }

    /// More of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.text.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        self.text.extend_from_slice(bytes);
    }

    /// That was all; the last line may have no end.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
        self.push(b"\n");
    }

    /// The next record that is complete, and the line it begins in.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, &[u8])>, BadRecord> {
        while let Some(byte) = self.text.get(self.scanned) {
            let at = self.scanned;
            self.scanned += 1;
            if self.quotes {
                self.stand = self.stand.after(*byte);
            }
            match byte {
                b'\n' if self.stand == Stand::Quoted => self.within += 1,
                b'\n' => {
                    let (begin, line) = (std::mem::replace(&mut self.taken, at + 1), self.line);
                    self.line += 1 + std::mem::take(&mut self.within);
                    if at - begin > MAX_RECORD {
                        return Err(BadRecord::TooLong(line));
                    }
                    let record = &self.text[begin..at];
                    let record = if line == 1 { record.strip_prefix(MARK).unwrap_or(record) } else { record };
                    if !record.trim_ascii().is_empty() {
                        let (begin, end) = (at - record.len(), at);
                        return Ok(Some((line, &self.text[begin..end])));
                    }
                }
                _ => {}
            }
        }
        match self.text.len() - self.taken {
            rest if rest > MAX_RECORD => Err(BadRecord::TooLong(self.line)),
            rest if rest > 0 && self.is_finished => Err(BadRecord::Unclosed(self.line)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the file arrives in pieces of this size.
    fn cut(text: &str, quotes: bool, piece: usize) -> Result<Vec<(u64, String)>, BadRecord> {
        let mut records = Records::new(quotes);
        let mut all = Vec::new();
        let mut take = |records: &mut Records| {
            while let Some((line, record)) = records.next_record()? {
                all.push((line, String::from_utf8_lossy(record).into_owned()));
            }
            Ok(())
        };
        for piece in text.as_bytes().chunks(piece) {
            records.push(piece);
            take(&mut records)?;
        }
        records.finish();
        take(&mut records)?;
        Ok(all)
    }

    #[test]
    fn records_are_the_same_in_whatever_pieces_they_arrive() {
        let text = "\u{feff}a,b\r\n\n \n1,\"x\ny \"\"z\"\"\n\"\r\n2,ü";
        for piece in 1..text.len() {
            let lines = cut(text, false, piece).expect("short");
            let lines: Vec<_> = lines.iter().map(|(line, text)| (*line, text.trim_end())).collect();
            assert_eq!(lines, [(1, "a,b"), (4, "1,\"x"), (5, "y \"\"z\"\""), (6, "\""), (7, "2,ü")]);
            let rows = cut(text, true, piece).expect("short");
            let rows: Vec<_> = rows.iter().map(|(line, text)| (*line, text.trim_end())).collect();
            assert_eq!(rows, [(1, "a,b"), (4, "1,\"x\ny \"\"z\"\"\n\""), (7, "2,ü")]);
        }
        assert_eq!(cut("", true, 1), Ok(Vec::new()));
        assert_eq!(cut("a\n\"b\nc", true, 1), Err(BadRecord::Unclosed(2)));
        assert_eq!(cut("a\n\"b\"", true, 1).map(|rows| rows.len()), Ok(2));
    }

    #[test]
    fn a_mark_within_a_cell_is_a_character() {
        let text = "S1,C,5\" rack\nS2,C,x\nS3,C,7\" rack\nS4,\"a\"\"\nb\"c,d\n";
        for piece in 1..text.len() {
            let rows = cut(text, true, piece).expect("closed");
            let rows: Vec<_> = rows.iter().map(|(line, text)| (*line, &**text)).collect();
            let last = (4, "S4,\"a\"\"\nb\"c,d");
            assert_eq!(rows, [(1, "S1,C,5\" rack"), (2, "S2,C,x"), (3, "S3,C,7\" rack"), last]);
        }
    }

    #[test]
    fn a_row_without_an_end_has_one() {
        let long = "x".repeat(MAX_RECORD);
        assert_eq!(cut(&format!("a\n{long}"), false, 7_000).expect("as long as may be").len(), 2);
        assert_eq!(cut(&format!("a\n{long}xx"), false, 7_000), Err(BadRecord::TooLong(2)));
        assert_eq!(cut(&format!("a\n\"{long}\n"), true, 7_000), Err(BadRecord::TooLong(2)));
    }
}
