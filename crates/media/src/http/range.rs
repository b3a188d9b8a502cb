//! Which bytes of an object a request is for (RFC 9110, 13 and 14).

use axum::http::{HeaderMap, header};

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// All of it.
    Whole,
    /// From the first of these bytes to before the second.
    Part(u64, u64),
    /// Nothing: the client has it.
    Nothing,
    /// The client asks for bytes that there are not.
    OutOfRange,
}

/// What the headers ask for of an object with this entity tag and length.
pub(super) fn asked(headers: &HeaderMap, etag: &str, length: u64) -> Sent {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let lists = headers.get_all(header::IF_NONE_MATCH).iter();
    let tags = lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).map(str::trim);
    for tag in tags {
        if tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag {
            return Sent::Nothing;
        }
    }
    // What is asked for under the condition of another version is all of this one.
    if text(header::IF_RANGE).is_some_and(|tag| tag != etag) {
        return Sent::Whole;
    }
    let Some(range) = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")) else { return Sent::Whole };
    // Several ranges, or what is none, are answered as if nothing was asked, which is allowed.
    let Some((from, to)) = range.split_once('-').filter(|_| !range.contains(',')) else { return Sent::Whole };
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map(Some).map_err(drop),
        _ => Err(()),
    };
    match (number(from), number(to)) {
        (Ok(Some(from)), Ok(to)) => {
            let to = to.unwrap_or(u64::MAX);
            if to < from {
                return Sent::Whole;
            }
            if from >= length { Sent::OutOfRange } else { Sent::Part(from, length.min(to.saturating_add(1))) }
        }
        (Ok(None), Ok(Some(last))) => {
            if last == 0 || length == 0 {
                Sent::OutOfRange
            } else {
                Sent::Part(length.saturating_sub(last), length)
            }
        }
        _ => Sent::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(pairs: &[(&'static str, &str)]) -> Sent {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        asked(&headers, "\"e\"", 100)
    }

    #[test]
    fn ranges_are_cut_to_what_there_is() {
        for (range, sent) in [
            ("bytes=0-9", Sent::Part(0, 10)),
            ("bytes=90-", Sent::Part(90, 100)),
            ("bytes=90-1000", Sent::Part(90, 100)),
            ("bytes=-10", Sent::Part(90, 100)),
            ("bytes=-1000", Sent::Part(0, 100)),
            ("bytes=100-", Sent::OutOfRange),
            ("bytes=-0", Sent::OutOfRange),
            ("bytes=0-18446744073709551615", Sent::Part(0, 100)),
            ("bytes=9-0", Sent::Whole),
            ("bytes=0-1,5-6", Sent::Whole),
            ("bytes=x-1", Sent::Whole),
            ("bytes=-", Sent::Whole),
            ("lines=0-1", Sent::Whole),
        ] {
            assert_eq!(asks(&[("range", range)]), sent, "{range}");
        }
    }

    #[test]
    fn conditions_come_first() {
        assert_eq!(asks(&[("if-none-match", "\"x\", \"e\""), ("range", "bytes=0-1")]), Sent::Nothing);
        assert_eq!(asks(&[("if-none-match", "W/\"e\"")]), Sent::Nothing);
        assert_eq!(asks(&[("if-none-match", "*")]), Sent::Nothing);
        assert_eq!(asks(&[("if-none-match", "\"x\"")]), Sent::Whole);
        assert_eq!(asks(&[("if-range", "\"e\""), ("range", "bytes=0-1")]), Sent::Part(0, 2));
        assert_eq!(asks(&[("if-range", "\"x\""), ("range", "bytes=0-1")]), Sent::Whole);
    }
}
