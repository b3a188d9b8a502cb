//! The trees of a segment file: pages, cells and columns, read without the database and with every look of a doubt.

use std::io;

use super::pages::{PAGE, Page, Pages, View, be32};

/// What a page is that holds rows, or leads to such.
const LEAF: u8 = 0x0d;
const INTERIOR: u8 = 0x05;
/// A tree of a million rows has four levels.
const DEPTH: u32 = 12;
/// The part of a large row that lies in its leaf: bounds of the file format for pages of this size.
const MAX_LOCAL: usize = PAGE - 35;
const MIN_LOCAL: usize = (PAGE - 12) * 32 / 255 - 23;
/// What one page of the rest of such a row holds.
const OVERFLOW: usize = PAGE - 4;
/// The most bytes a row is taken to have: what a device can send is far below.
const MAX_ROW: usize = 64 << 20;

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) page: u32,
    pub(super) what: &'static str,
}

/// Why a tree was not read to its end.
pub(super) enum TreeError {
    /// It is damaged.
    Flaw(Flaw),
    /// The file cannot be read.
    Io(io::Error),
}

impl From<io::Error> for TreeError {
    fn from(error: io::Error) -> TreeError {
        TreeError::Io(error)
    }
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

/// A row as it lies in its leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) rowid: i64,
    /// Bytes of the row, here and elsewhere.
    size: usize,
    /// Where the part of it that is here begins, and its length.
    start: usize,
    local: usize,
    /// The page on which the rest begins.
    overflow: Option<u32>,
    /// Where the cell begins and ends.
    span: (usize, usize),
}

impl Cell {
    /// Whether a part of the row lies on other pages.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.overflow.is_some()
    }

    /// The bytes of the row, from here and, through `view`, from where the rest is; false: they are not all there. `seen`
    /// is told the pages.
    pub(super) fn payload(
        &self,
        page: &Page,
        pages: &Pages,
        view: View,
        into: &mut Vec<u8>,
        mut seen: impl FnMut(u32),
    ) -> io::Result<bool> {
        into.clear();
        into.extend_from_slice(&page[self.start..self.start + self.local]);
        let mut next = self.overflow;
        while let Some(number) = next.filter(|number| *number != 0) {
            let missing = self.size - into.len();
            if missing == 0 {
                return Ok(false);
            }
            let Some(page) = read(pages, view, number)? else { return Ok(false) };
            seen(number);
            into.extend_from_slice(&page[4..4 + missing.min(OVERFLOW)]);
            next = Some(be32(&page[..], 0));
        }
        Ok(into.len() == self.size)
    }
}

/// The cells of a leaf; an error names what is wrong with it.
pub(super) fn leaf(
    page: &Page,
    number: u32,
) -> Result<impl Iterator<Item = Result<Cell, &'static str>> + '_, &'static str> {
    let head = Head::of(page, number)?;
    if head.kind != LEAF {
        return Err("a page of rows is of another kind");
    }
    Ok((0..head.cells).map(move |index| leaf_cell(page, head.pointer(page, index))))
}

fn leaf_cell(page: &Page, at: usize) -> Result<Cell, &'static str> {
    const OUTSIDE: &str = "a row lies outside of its page";
    let (size, after) = varint(&page[..], at).ok_or(OUTSIDE)?;
    let (rowid, start) = varint(&page[..], after).ok_or(OUTSIDE)?;
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_ROW).ok_or("the length of a row is impossible")?;
    let local = if size <= MAX_LOCAL {
        size
    } else {
        let local = MIN_LOCAL + (size - MIN_LOCAL) % OVERFLOW;
        if local <= MAX_LOCAL { local } else { MIN_LOCAL }
    };
    let end = start + local + if local < size { 4 } else { 0 };
    if end > PAGE {
        return Err(OUTSIDE);
    }
    let overflow = (local < size).then(|| be32(&page[..], start + local));
    // A cell has room for what it becomes when it is free.
    Ok(Cell { rowid, size, start, local, overflow, span: (at, end.max(at + 4)) })
}

/// The head of a page of a tree.
struct Head {
    kind: u8,
    /// Where it begins: behind the file's own header on the first page.
    at: usize,
    cells: usize,
    /// Where the first free piece is, 0: nowhere.
    free: usize,
    /// Where the cells begin.
    content: usize,
    /// Bytes between cells that are too few to be a free piece.
    fragments: usize,
}

impl Head {
    fn of(page: &Page, number: u32) -> Result<Head, &'static str> {
        let at = if number == 1 { 100 } else { 0 };
        let kind = page[at];
        let be16 = |offset: usize| usize::from(u16::from_be_bytes([page[at + offset], page[at + offset + 1]]));
        let content = be16(5);
        let head = Head {
            kind,
            at,
            cells: be16(3),
            free: be16(1),
            content: if content == 0 { 65_536 } else { content },
            fragments: usize::from(page[at + 7]),
        };
        if kind != LEAF && kind != INTERIOR {
            return Err("a page of a table is of another kind");
        }
        if head.pointers() + 2 * head.cells > PAGE {
            return Err("a page has more rows than it can hold");
        }
        Ok(head)
    }

    /// Where the pointers to the cells begin.
    fn pointers(&self) -> usize {
        self.at + if self.kind == INTERIOR { 12 } else { 8 }
    }

    fn pointer(&self, page: &Page, index: usize) -> usize {
        let at = self.pointers() + 2 * index;
        usize::from(u16::from_be_bytes([page[at], page[at + 1]]))
    }

    /// Whether cells and free pieces fill the page without a gap that is not accounted for: a row cannot vanish from it.
    fn is_tidy(&self, page: &Page, mut spans: Vec<(usize, usize)>) -> bool {
        let mut free = self.free;
        while free != 0 {
            if free + 4 > PAGE {
                return false;
            }
            let next = usize::from(u16::from_be_bytes([page[free], page[free + 1]]));
            let len = usize::from(u16::from_be_bytes([page[free + 2], page[free + 3]]));
            spans.push((free, free + len));
            if len < 4 || (next != 0 && next <= free) {
                return false;
            }
            free = next;
        }
        spans.sort_unstable();
        let (mut end, mut gaps) = (self.content, 0);
        if self.content < self.pointers() + 2 * self.cells || self.content > PAGE {
            return false;
        }
        for (start, stop) in spans {
            if start < end || stop > PAGE {
                return false;
            }
            gaps += start - end;
            end = stop;
        }
        gaps + (PAGE - end) == self.fragments
    }
}

/// Looks at a row, by its number and its bytes, and answers what is wrong with it.
pub(super) type RowVisitor<'v> = &'v mut dyn FnMut(i64, &[u8]) -> Result<(), &'static str>;

/// Goes through the table whose tree begins at this page in the order of its rows, and holds every page to what the file
/// format says of it.
pub(super) struct Walk<'a> {
    pub(super) pages: &'a Pages,
    /// How many pages belong to what was walked through.
    pub(super) visited: u32,
    scratch: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(pages: &'a Pages) -> Walk<'a> {
        Walk { pages, visited: 0, scratch: Vec::new() }
    }

    /// Shows each row.
    pub(super) fn table(&mut self, root: u32, row: RowVisitor<'_>) -> Result<(), TreeError> {
        self.node(root, (i64::MIN, i64::MAX), DEPTH, row)
    }

    /// One page and what lies below it, whose rows are beyond the first and up to the second number.
    fn node(
        &mut self,
        number: u32,
        (mut low, high): (i64, i64),
        depth: u32,
        row: RowVisitor<'_>,
    ) -> Result<(), TreeError> {
        let flaw = |what| TreeError::Flaw(Flaw { page: number, what });
        self.visited = self.visited.saturating_add(1);
        if depth == 0 || self.visited > self.pages.count() {
            return Err(flaw("pages lead in a circle"));
        }
        if number > self.pages.count() {
            return Err(flaw("a page lies beyond the end of the file"));
        }
        let page = read(self.pages, View::Committed, number)?.ok_or_else(|| flaw("a page is missing"))?;
        let head = Head::of(&page, number).map_err(flaw)?;
        let mut spans = Vec::with_capacity(head.cells);
        if head.kind == LEAF {
            for cell in leaf(&page, number).map_err(flaw)? {
                let cell = cell.map_err(flaw)?;
                // The lowest number there is would be below every row of ours.
                if cell.rowid <= low || cell.rowid > high {
                    return Err(flaw("rows are out of order"));
                }
                low = cell.rowid;
                spans.push(cell.span);
                let mut scratch = std::mem::take(&mut self.scratch);
                let mut chain = 0;
                let whole = cell.payload(&page, self.pages, View::Committed, &mut scratch, |_| chain += 1)?;
                self.visited = self.visited.saturating_add(chain);
                let read = if whole { row(cell.rowid, &scratch) } else { Err("a row is not whole") };
                self.scratch = scratch;
                read.map_err(flaw)?;
            }
        } else {
            for index in 0..head.cells {
                let at = head.pointer(&page, index);
                let key = if at + 4 <= PAGE { varint(&page[..], at + 4) } else { None };
                let (key, end) = key.ok_or_else(|| flaw("a branch lies outside of its page"))?;
                if key <= low || key > high {
                    return Err(flaw("branches are out of order"));
                }
                spans.push((at, end));
                self.node(be32(&page[..], at), (low, key), depth - 1, row)?;
                low = key;
            }
            self.node(be32(&page[..], head.at + 8), (low, high), depth - 1, row)?;
        }
        if head.is_tidy(&page, spans) { Ok(()) } else { Err(flaw("the space of a page is not accounted for")) }
    }
}

/// The columns of a row, at most `N`; None: the bytes are not those of a row.
pub(super) fn columns<const N: usize>(row: &[u8]) -> Option<([Value<'_>; N], usize)> {
    let mut values = [Value::Null; N];
    let (head, mut at) = varint(row, 0)?;
    let head = usize::try_from(head).ok().filter(|head| *head <= row.len())?;
    let (mut body, mut count) = (head, 0);
    while at < head {
        let (kind, after) = varint(row, at)?;
        at = after;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind as usize,
            5 => 6,
            6 => 8,
            12.. => usize::try_from((kind - 12) / 2).ok()?,
            // No column of ours is a fraction.
            _ => return None,
        };
        let bytes = row.get(body..body.checked_add(len)?)?;
        body += len;
        *values.get_mut(count)? = match kind {
            0 => Value::Null,
            8 | 9 => Value::Integer(kind - 8),
            1..=6 => {
                let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
                let start = if negative { -1 } else { 0 };
                Value::Integer(bytes.iter().fold(start, |number: i64, byte| (number << 8) | i64::from(*byte)))
            }
            _ if kind % 2 == 0 => Value::Blob(bytes),
            _ => Value::Text(std::str::from_utf8(bytes).ok()?),
        };
        count += 1;
    }
    (at == head && body == row.len()).then_some((values, count))
}

fn read(pages: &Pages, view: View, number: u32) -> io::Result<Option<Page>> {
    match pages.image(view, number) {
        Some(image) => pages.read(image),
        None => Ok(None),
    }
}

/// A number of one to nine bytes, and where the next one begins.
fn varint(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let mut number: u64 = 0;
    for (index, byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if index == 8 {
            return Some((((number << 8) | u64::from(*byte)) as i64, at + 9));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number as i64, at + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        assert_eq!(varint(&[0x7f], 0), Some((127, 1)));
        assert_eq!(varint(&[9, 0x81, 0x00], 1), Some((128, 3)));
        assert_eq!(varint(&[0xff; 9], 0), Some((-1, 9)));
        assert_eq!(varint(&[0x80; 8], 0), None);
        assert_eq!(varint(&[], 1), None);
    }

    #[test]
    fn a_row_is_read_and_what_is_none_refused() {
        // Null, 1, -2, "ab", a blob of one byte.
        let row = [6, 0, 9, 1, 17, 14, 0xfe, b'a', b'b', 7];
        let (values, count) = columns::<5>(&row).unwrap();
        let expected = [Value::Null, Value::Integer(1), Value::Integer(-2), Value::Text("ab"), Value::Blob(&[7])];
        assert_eq!((values, count), (expected, 5));
        for cut in 0..row.len() {
            assert_eq!(columns::<5>(&row[..cut]), None, "{cut}");
        }
        assert_eq!(columns::<4>(&row), None, "more columns than there may be");
        assert_eq!(columns::<5>(&[2, 7, 0, 0, 0, 0, 0, 0, 0, 0]), None, "a fraction");
        assert_eq!(columns::<5>(&[2, 15, 0xff]), None, "no text");
    }
}
