//! The little XML that the binding commands and the LBS redirect carry (osap-wire 10.4, 10.5).
//!
//! Elements, attributes, text, entities and character references. A declaration, processing
//! instructions and comments are passed over; a document type is refused. Everything is bounded.

use std::fmt::Write as _;

use super::BodyError;

/// The longest document, in bytes.
const MAX_LEN: usize = 4096;
/// The deepest nesting of elements.
const MAX_DEPTH: usize = 8;
/// The most elements of a document.
const MAX_ELEMENTS: usize = 64;
/// The most attributes of an element.
const MAX_ATTRIBUTES: usize = 16;

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// One element and what is in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Element<'a> {
    /// As written, with a prefix if there is one.
    pub name: &'a str,
    /// In their order, values unescaped.
    pub attributes: Vec<(&'a str, String)>,
    /// The text directly inside, without the white space around it.
    pub text: String,
    /// In their order.
    pub children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// Reads a document, at most [`MAX_LEN`] bytes; zero bytes behind it are passed over, because devices count the
    /// end of a C string in.
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        if body.len() > MAX_LEN {
            return Err(BodyError::TooLong);
        }
        let text = std::str::from_utf8(body).map_err(|_| BodyError::Malformed)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end_matches('\0');
        let mut parser = Parser { rest: text, elements: 0 };
        parser.misc()?;
        let root = parser.element(1)?;
        parser.misc()?;
        if parser.rest.is_empty() { Ok(root) } else { Err(BodyError::Malformed) }
    }

    /// [`parse`](Self::parse) of a document with this root.
    pub(super) fn parse_root(body: &'a [u8], root: &'static str) -> Result<Self, BodyError> {
        let element = Self::parse(body)?;
        if element.name == root { Ok(element) } else { Err(BodyError::Missing(root)) }
    }

    /// The first child of that name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child of that name, at most `max` bytes.
    pub(super) fn child_text(&self, name: &'static str, max: usize) -> Result<&str, BodyError> {
        let child = self.child(name).ok_or(BodyError::Missing(name))?;
        if child.text.len() <= max { Ok(&child.text) } else { Err(BodyError::Unacceptable(name)) }
    }

    /// The value of the attribute of that name.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }
}

struct Parser<'a> {
    rest: &'a str,
    elements: usize,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), BodyError> {
        if self.eat(token) { Ok(()) } else { Err(BodyError::Malformed) }
    }

    /// Passes over white space and says whether there was some.
    fn white(&mut self) -> bool {
        let before = self.rest.len();
        self.rest = self.rest.trim_start_matches(WHITE);
        self.rest.len() < before
    }

    /// Everything up to `end`, which is passed over.
    fn until(&mut self, end: &str) -> Result<&'a str, BodyError> {
        let (inside, rest) = self.rest.split_once(end).ok_or(BodyError::Malformed)?;
        self.rest = rest;
        Ok(inside)
    }

    /// Passes over what stands around elements and says nothing.
    fn misc(&mut self) -> Result<(), BodyError> {
        loop {
            self.white();
            if self.eat("<?") {
                self.until("?>")?;
            } else if self.eat("<!--") {
                self.until("-->")?;
            } else {
                return Ok(());
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, BodyError> {
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
        let len = self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(len);
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return Err(BodyError::Malformed);
        }
        self.rest = rest;
        Ok(name)
    }

    fn element(&mut self, depth: usize) -> Result<Element<'a>, BodyError> {
        self.elements += 1;
        if depth > MAX_DEPTH {
            return Err(BodyError::TooDeep);
        }
        if self.elements > MAX_ELEMENTS {
            return Err(BodyError::TooMany("element"));
        }
        self.expect("<")?;
        let name = self.name()?;
        let mut element = Element { name, attributes: Vec::new(), text: String::new(), children: Vec::new() };
        loop {
            let apart = self.white();
            if self.eat("/>") {
                return Ok(element);
            }
            if self.eat(">") {
                break;
            }
            if !apart {
                return Err(BodyError::Malformed);
            }
            let attribute = self.attribute()?;
            if element.attribute(attribute.0).is_some() {
                return Err(BodyError::Malformed);
            }
            if element.attributes.len() == MAX_ATTRIBUTES {
                return Err(BodyError::TooMany("attribute"));
            }
            element.attributes.push(attribute);
        }
        loop {
            let text = self.rest.split_once('<').ok_or(BodyError::Malformed)?.0;
            self.rest = &self.rest[text.len()..];
            unescape(text.trim_matches(WHITE), &mut element.text)?;
            if self.eat("</") {
                self.expect(name)?;
                self.white();
                self.expect(">")?;
                return Ok(element);
            } else if self.eat("<![CDATA[") {
                let text = self.until("]]>")?;
                if !text.chars().all(allowed) {
                    return Err(BodyError::Malformed);
                }
                element.text.push_str(text);
            } else if self.rest.starts_with("<!--") || self.rest.starts_with("<?") {
                self.misc()?;
            } else {
                element.children.push(self.element(depth + 1)?);
            }
        }
    }

    fn attribute(&mut self) -> Result<(&'a str, String), BodyError> {
        let name = self.name()?;
        self.white();
        self.expect("=")?;
        self.white();
        let quote = if self.eat("\"") {
            "\""
        } else {
            self.expect("'")?;
            "'"
        };
        let text = self.until(quote)?;
        if text.contains('<') {
            return Err(BodyError::Malformed);
        }
        let mut value = String::new();
        unescape(text, &mut value)?;
        Ok((name, value))
    }
}

/// The characters that XML 1.0 knows.
fn allowed(c: char) -> bool {
    !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Appends what escaped text stands for.
fn unescape(mut text: &str, out: &mut String) -> Result<(), BodyError> {
    if !text.chars().all(allowed) {
        return Err(BodyError::Malformed);
    }
    while let Some((before, rest)) = text.split_once('&') {
        out.push_str(before);
        let (reference, rest) = rest.split_once(';').ok_or(BodyError::Malformed)?;
        out.push(match reference {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => character(reference).ok_or(BodyError::Malformed)?,
        });
        text = rest;
    }
    out.push_str(text);
    Ok(())
}

fn character(reference: &str) -> Option<char> {
    let number = reference.strip_prefix('#')?;
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = plain.then(|| u32::from_str_radix(digits, radix).ok())??;
    char::from_u32(number).filter(|c| allowed(*c))
}

/// Appends `text` so that it is read as itself, in an element or an attribute.
///
/// # Errors
/// [`BodyError::Malformed`] when it has characters that XML cannot carry.
pub(super) fn escape(text: &str, out: &mut String) -> Result<(), BodyError> {
    if !text.chars().all(allowed) {
        return Err(BodyError::Malformed);
    }
    let first = text.len() - text.trim_start_matches(' ').len();
    let last = text.trim_end_matches(' ').len();
    for (at, c) in text.char_indices() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            ' ' if (first..last).contains(&at) => out.push(c),
            ' ' | '\t' | '\n' | '\r' => write!(out, "&#{};", u32::from(c)).expect("a string takes every character"),
            c => out.push(c),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_is_read_leniently() {
        let text = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\r\n<!-- who -->\n<Response >\n <Result> 0 </Result>\
                    <User Id = 'a&amp;b' Name=\"\" /><X><![CDATA[<&>]]><!-- no --> &#x41;&#66;</X></Response>\n\0";
        let root = Element::parse(text.as_bytes()).expect("XML");
        assert_eq!((root.name, root.text.as_str(), root.children.len()), ("Response", "", 3));
        assert_eq!(root.child_text("Result", 9), Ok("0"));
        let user = root.child("User").expect("there");
        assert_eq!((user.attribute("Id"), user.attribute("Name"), user.attribute("x")), (Some("a&b"), Some(""), None));
        assert_eq!(root.child_text("X", 9), Ok("<&>AB"));
        assert_eq!(root.child_text("Y", 9), Err(BodyError::Missing("Y")));
        assert_eq!(root.child_text("X", 4), Err(BodyError::Unacceptable("X")));
    }

    #[test]
    fn what_is_not_this_little_xml_is_refused() {
        for bad in [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<!DOCTYPE a [<!ENTITY e \"x\">]><a>&e;</a>",
            "<a>&e;</a>",
            "<a>&#0;</a>",
            "<a>&#x110000;</a>",
            "<a>&#xD800;</a>",
            "<a>&#+65;</a>",
            "<a>&amp</a>",
            "<a b=c/>",
            "<a b=\"c/>",
            "<a b=\"<\"/>",
            "<a b=\"\"c=\"\"/>",
            "<a b=\"\" b=\"\"/>",
            "<1/>",
            "< a/>",
            "<a><![CDATA[</a>",
            "<a>\u{1}</a>",
            "<?xml",
            "<!-- <a/>",
        ] {
            assert_eq!(Element::parse(bad.as_bytes()), Err(BodyError::Malformed), "{bad}");
        }
        assert_eq!(Element::parse(b"<a>\xff</a>"), Err(BodyError::Malformed));
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(Element::parse(nested(8).as_bytes()).is_ok());
        assert_eq!(Element::parse(nested(9).as_bytes()), Err(BodyError::TooDeep));
        let flat = |many: usize| format!("<a>{}</a>", "<b/>".repeat(many));
        assert!(Element::parse(flat(63).as_bytes()).is_ok());
        assert_eq!(Element::parse(flat(64).as_bytes()), Err(BodyError::TooMany("element")));
        let attributes: String = (0..17).map(|n| format!(" a{n}=''")).collect();
        assert_eq!(Element::parse(format!("<a{attributes}/>").as_bytes()), Err(BodyError::TooMany("attribute")));
        assert_eq!(Element::parse(&[b' '; 4097]), Err(BodyError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_escaped_reads_back(text in any::<String>()) {
            let mut written = String::new();
            if escape(&text, &mut written).is_ok() && written.len() < 1500 {
                let document = format!("<a b=\"{written}\" c='{written}'> {written} </a>");
                let root = Element::parse(document.as_bytes()).expect("XML");
                prop_assert_eq!((root.text.as_str(), root.attribute("b")), (text.as_str(), Some(text.as_str())));
                prop_assert_eq!(root.attribute("c"), Some(text.as_str()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a&;#!\\[\\]'\"= \\-?x0-9]{0,60}") {
            let _ = Element::parse(text.as_bytes());
        }
    }
}
