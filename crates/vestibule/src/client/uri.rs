//! Paths of the API, with what users typed encoded into them.

use std::fmt::Write as _;

/// The path and query of a request below the base address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    text: String,
    has_query: bool,
}

impl Route {
    /// Starts from a fixed path such as `/v1/devices`.
    pub fn new(path: &'static str) -> Route {
        Route { text: path.to_owned(), has_query: false }
    }

    /// Appends one path segment, whatever characters it holds.
    pub fn segment(mut self, segment: &str) -> Route {
        self.text.push('/');
        encode(segment, &mut self.text);
        self
    }

    /// Appends a query parameter.
    pub fn query(mut self, name: &'static str, value: &str) -> Route {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        encode(value, &mut self.text);
        self
    }

    /// Appends a query parameter that may be absent.
    pub fn query_if(self, name: &'static str, value: Option<&str>) -> Route {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Path and query.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Percent-encodes all but the characters that mean nothing anywhere in a URI (RFC 3986 2.3).
fn encode(text: &str, out: &mut String) {
    // A segment of dots alone would be taken for a step in the path by every resolver between here and the platform.
    let dots = !text.is_empty() && text.bytes().all(|b| b == b'.');
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') || (byte == b'.' && !dots) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_type_stays_one_segment() {
        let route = Route::new("/v1/devices").segment("A/../b c?#%").segment("enrolment");
        assert_eq!(route.as_str(), "/v1/devices/A%2F..%2Fb%20c%3F%23%25/enrolment");
        assert_eq!(Route::new("/v1/devices").segment("..").as_str(), "/v1/devices/%2E%2E");
        assert_eq!(Route::new("/v1/devices").segment("é").as_str(), "/v1/devices/%C3%A9");
    }

    #[test]
    fn absent_parameters_leave_no_trace() {
        let route =
            Route::new("/v1/events").query_if("device", None).query("limit", "5").query_if("type", Some("a&b=c"));
        assert_eq!(route.as_str(), "/v1/events?limit=5&type=a%26b%3Dc");
    }
}
