//! The records of a file that arrives in pieces: lines, or in CSV what may go over several of them.

use zeroize::Zeroizing;

/// The longest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;
/// What some programs begin a file with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Why there are no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Line {0} begins a row of more than 64 KiB. Is a line end missing, or a quotation mark?")]
pub(super) struct TooLong(u64);

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
    is_quoted: bool,
    /// The line the next record begins in.
    line: u64,
    /// Line ends within it.
    within: u64,
}

impl Records {
    pub(super) fn new(quotes: bool) -> Records {
        let text = Zeroizing::new(Vec::new());
        Records { quotes, text, taken: 0, scanned: 0, is_quoted: false, line: 1, within: 0 }
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
        // Marks that are not closed are what the parser of the record says something about.
        self.is_quoted = false;
        self.quotes = false;
        self.push(b"\n");
    }

    /// The next record that is complete, and the line it begins in.
    pub(super) fn next_record(&mut self) -> Result<Option<(u64, &[u8])>, TooLong> {
        while let Some(byte) = self.text.get(self.scanned) {
            let at = self.scanned;
            self.scanned += 1;
            match byte {
                b'"' if self.quotes => self.is_quoted = !self.is_quoted,
                b'\n' if self.is_quoted => self.within += 1,
                b'\n' => {
                    let (begin, line) = (std::mem::replace(&mut self.taken, at + 1), self.line);
                    self.line += 1 + std::mem::take(&mut self.within);
                    if at - begin > MAX_RECORD {
                        return Err(TooLong(line));
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
        if self.text.len() - self.taken > MAX_RECORD { Err(TooLong(self.line)) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out when the file arrives in pieces of this size.
    fn cut(text: &str, quotes: bool, piece: usize) -> Result<Vec<(u64, String)>, TooLong> {
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
        assert_eq!(cut("a\n\"b\nc", true, 1).expect("short"), [(1, "a".to_owned()), (2, "\"b\nc".to_owned())]);
    }

    #[test]
    fn a_row_without_an_end_has_one() {
        let long = "x".repeat(MAX_RECORD);
        assert_eq!(cut(&format!("a\n{long}"), false, 7_000).expect("as long as may be").len(), 2);
        assert_eq!(cut(&format!("a\n{long}xx"), false, 7_000), Err(TooLong(2)));
        assert_eq!(cut(&format!("a\n\"{long}\n"), true, 7_000), Err(TooLong(2)));
    }
}
